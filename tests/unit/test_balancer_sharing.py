"""Services that share a datacenter's CPU or uplink: nobody takes what is another's, and what there is suffices if it can."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from bns.model import HealthStatus
from gslb.balancer.inputs import Inputs
from gslb.balancer.sharing import NOTHING_SHARED, Claim, Shared, Sharing, split
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model.plan import Plan
from gslb.model.resources import Backend, Catalog, DrainScope, Service
from tests.support.balancer import (
    CLIENT_AREAS,
    DATACENTERS,
    NOW_S,
    PLACES,
    drain,
    drained,
    service,
    tasks_of,
    with_health,
)

CPU = Shared("here", "CPU", 10.0, "cores")


def claim(name: str, own: float, *, near: float = 0.0, guaranteed: float = 0.0, cost: float = 0.1) -> Claim:
    return Claim(name, "here", own, near, guaranteed, ((CPU, cost),))


def cpu_of(sharing: Sharing) -> float:
    return math.fsum(
        min(rps, sharing.claims[pair].own_rps) * cost
        for pair, rps in sharing.budgets.items()
        for _, cost in sharing.claims[pair].costs
    )


def test_two_alike_get_a_half_each_and_together_all() -> None:
    sharing = split(NOTHING_SHARED, [claim("a", 100.0), claim("b", 100.0)], {"a": 50.0, "b": 50.0}, NOW_S)
    assert sharing.budgets == pytest.approx({("a", "here"): 50.0, ("b", "here"): 50.0}, rel=1e-6)


def test_what_one_does_not_need_the_other_gets() -> None:
    sharing = split(NOTHING_SHARED, [claim("a", 100.0), claim("b", 100.0)], {"a": 70.0, "b": 10.0}, NOW_S)
    assert sharing.budgets["a", "here"] >= 70 * 1.25 * 0.99
    assert sharing.budgets["b", "here"] >= 10
    assert cpu_of(sharing) <= CPU.limit


def test_what_is_guaranteed_comes_first_however_much_the_other_asks() -> None:
    claims = [claim("a", 100.0, guaranteed=40.0), claim("b", 1000.0)]
    sharing = split(NOTHING_SHARED, claims, {"a": 1.0, "b": 900.0}, NOW_S)
    assert sharing.budgets["a", "here"] >= 40
    assert sharing.budgets["b", "here"] <= 60


def test_more_guaranteed_than_there_is_is_cut_alike() -> None:
    claims = [claim("a", 200.0, guaranteed=150.0), claim("b", 200.0, guaranteed=50.0)]
    sharing = split(NOTHING_SHARED, claims, {"a": 10.0, "b": 10.0}, NOW_S)
    assert sharing.budgets == pytest.approx({("a", "here"): 75.0, ("b", "here"): 25.0}, rel=1e-6)


def test_a_budget_falls_at_once_and_rises_a_tenth_a_period() -> None:
    start = split(NOTHING_SHARED, [claim("a", 100.0), claim("b", 100.0)], {"a": 40.0, "b": 40.0}, NOW_S)
    claims = [claim("a", 100.0), claim("b", 100.0)]
    # b asks for more than its half, and a for less: what it asks for is within what it gets by then.
    now = split(start, claims, {"a": 20.0, "b": 44.0}, NOW_S + 5)
    assert now.budgets["a", "here"] < 0.8 * start.budgets["a", "here"]
    assert now.budgets["b", "here"] == pytest.approx(1.1 * start.budgets["b", "here"], rel=1e-6)
    later = split(now, claims, {"a": 20.0, "b": 44.0}, NOW_S + 10)
    assert later.budgets["b", "here"] > now.budgets["b", "here"]


def test_need_that_nothing_else_covers_does_not_wait() -> None:
    start = split(NOTHING_SHARED, [claim("a", 100.0), claim("b", 100.0)], {"a": 50.0, "b": 5.0}, NOW_S)
    now = split(start, [claim("a", 100.0), claim("b", 100.0)], {"a": 10.0, "b": 70.0}, NOW_S + 1)
    assert now.budgets["b", "here"] >= 70
    assert cpu_of(now) <= CPU.limit * (1 + 1e-9)


def test_small_changes_leave_the_split_as_it_was() -> None:
    claims = [claim("a", 100.0, near=50.0), claim("b", 100.0, near=50.0)]
    start = split(NOTHING_SHARED, claims, {"a": 50.0, "b": 50.0}, NOW_S)
    wobbling = [claim("a", 104.0, near=52.0), claim("b", 97.0, near=48.0)]
    assert split(start, wobbling, {"a": 52.0, "b": 48.0}, NOW_S + 5) is start


def random_claims(rng: np.random.Generator) -> tuple[list[Claim], dict[str, float]]:
    """A split that suffices exists, for some limits by a hair: it is made first, and the limits from it."""
    services, places = rng.integers(1, 7), rng.integers(1, 6)
    load = rng.dirichlet(np.full(places, 0.5), services) * rng.pareto(1.2, services)[:, None] * 100
    kinds = [kind for kind in ("CPU", "uplink") if rng.random() < 0.7] or ["CPU"]
    cost = {kind: rng.uniform(0.01, 2.0, (services, places)) * (rng.random((services, places)) < 0.8) for kind in kinds}
    limit = {kind: (cost[kind] * load).sum(axis=0) * rng.uniform(1.0, 1.5, places) + 1e-6 for kind in kinds}
    claims = [
        Claim(
            f"s{s}",
            f"d{d}",
            float(load[s, d] * rng.uniform(1.0, 4.0)),
            float(rng.uniform(0, 1) * load[s].sum()),
            float(rng.choice([0.0, 0.5]) * load[s, d]),
            tuple(
                (Shared(f"d{d}", kind, float(limit[kind][d]), "units"), float(cost[kind][s, d]))
                for kind in kinds
                if cost[kind][s, d] > 0
            ),
        )
        for s in range(services)
        for d in range(places)
    ]
    return claims, {f"s{s}": float(load[s].sum()) for s in range(services)}


def assert_within(sharing: Sharing) -> None:
    used: dict[Shared, float] = {}
    for pair, rps in sharing.budgets.items():
        for resource, cost in sharing.claims[pair].costs:
            used[resource] = used.get(resource, 0.0) + cost * rps
    for resource, amount in used.items():
        assert amount <= resource.limit * (1 + 2e-3)


def test_budgets_stay_within_every_limit_and_cover_demand_whenever_some_split_does() -> None:
    rng = np.random.default_rng(3)
    shared = 0
    for _ in range(300):
        claims, demand = random_claims(rng)
        sharing = split(NOTHING_SHARED, claims, demand, NOW_S)
        if sharing is NOTHING_SHARED:
            continue
        shared += 1
        assert_within(sharing)
        for name, rps in demand.items():
            room = sum(
                min(each.own_rps, sharing.budgets.get(each.pair, math.inf)) for each in claims if each.service == name
            )
            assert room >= rps * (1 - 1e-6)
    assert shared > 250


def test_on_the_way_from_any_split_to_any_other_every_limit_holds_and_demand_is_covered() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        claims, demand = random_claims(rng)
        sharing = split(NOTHING_SHARED, claims, demand, NOW_S)
        if sharing is NOTHING_SHARED:
            continue
        names = sorted(demand)
        other = {name: demand[name] * rng.uniform(0.2, 1.0) for name in names}
        for turn, asked in enumerate((other, demand, other, demand)):
            sharing = split(sharing, claims, asked, NOW_S + 1 + turn)
            assert_within(sharing)
            for name, rps in asked.items():
                room = sum(
                    min(each.own_rps, sharing.budgets.get(each.pair, math.inf))
                    for each in claims
                    if each.service == name
                )
                assert room >= rps * (1 - 1e-6)


CORES = 12.0


def two_services(demand: Mapping[str, Mapping[str, float]]) -> Inputs:
    """`web` and `api` on the four datacenters; each could use all of a datacenter's cores alone."""
    places = {name: replace(place, cpu_cores=CORES) for name, place in DATACENTERS.items()}
    services = {}
    for name, cpu_s in (("web", 0.1), ("api", 0.2)):
        declared = service(name, rps=60.0)
        backends = tuple(replace(backend, request_cpu_s=cpu_s) for backend in declared.backends)
        services[name] = replace(declared, backends=backends)
    catalog = Catalog(places, CLIENT_AREAS, services)
    return Inputs(catalog, {name: tasks_of(each) for name, each in services.items()}, demand)


class Pair:
    """Both services, step by step."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs, self.state, self.now_s, self.decision = inputs, BalancerState(), NOW_S, Decision()
        self.worst = 0.0

    def step(self, inputs: Inputs, after_s: float = 5.0) -> dict[str, Plan]:
        self.now_s += after_s
        self.inputs = replace(inputs, previous=self.inputs.previous)
        self.state, self.decision = step(self.state, self.inputs, now_s=self.now_s)
        plans = {name: each.plan for name, each in self.decision.services.items() if each.plan is not None}
        self.inputs = replace(self.inputs, previous=plans)
        cpu = dict.fromkeys(PLACES, 0.0)
        for name, plan in plans.items():
            costs = {
                backend.datacenter: backend.request_cpu_s for backend in self.inputs.catalog.services[name].backends
            }
            load = dict.fromkeys(PLACES, 0.0)
            for locality, rps in self.inputs.demand[name].items():
                for datacenter, share in plan.shares[locality].items():
                    load[datacenter] += rps * share
            for datacenter, rps in load.items():
                cpu[datacenter] += rps * costs[datacenter]
        self.worst = max(self.worst, max(cpu.values()) / CORES)
        uses = {use.shared.datacenter: use.used for use in self.decision.uses}
        assert uses == pytest.approx(cpu, rel=0.15, abs=0.1)
        return plans


DEMAND = {
    "web": {"north-america": 70.0, "europe": 60.0, "asia": 30.0},
    "api": {"north-america": 20.0, "europe": 25.0, "south-america": 15.0},
}


@pytest.mark.parametrize("lost", sorted(PLACES))
def test_two_services_on_one_cpu_are_never_above_it_after_a_loss_while_it_suffices(lost: str) -> None:
    # 16 + 12 cores of 48, and of 36 after any loss.
    pair = Pair(two_services(DEMAND))
    for _ in range(4):
        pair.step(pair.inputs)
    ill = pair.inputs
    for name in ("web", "api"):
        ill = with_health(ill, name, HealthStatus.TIMEOUT, [lost])
    for _ in range(30):
        plans = pair.step(ill, after_s=1.0)
        assert all(plan.load_rps[lost] == 0 for plan in plans.values())
        assert all(decision.overload == 1.0 for decision in pair.decision.services.values())
    for name in ("web", "api"):
        ill = with_health(ill, name, HealthStatus.HEALTHY, [lost])
    for _ in range(60):
        pair.step(ill)
    assert pair.worst <= 1.001


def test_a_drain_of_one_service_gives_the_other_room() -> None:
    pair = Pair(two_services({"web": {"north-america": 110.0}, "api": {"north-america": 50.0}}))
    plans = pair.step(pair.inputs)
    squeezed = plans["web"].load_rps["us-east1"]
    out = drained(pair.inputs, drain(DrainScope.SERVICE, "api@us-east1"))
    for _ in range(30):
        plans = pair.step(out)
    assert plans["web"].load_rps["us-east1"] > squeezed + 5
    assert pair.worst <= 1.001


def test_an_upload_goes_where_the_link_has_room() -> None:
    places = {name: replace(place, uplink_mbps=100.0) for name, place in DATACENTERS.items()}
    declared = service("upload", rps=1000.0)
    declared = replace(declared, backends=tuple(replace(each, request_mbit=2.0) for each in declared.backends))
    inputs = Inputs(
        Catalog(places, CLIENT_AREAS, {"upload": declared}),
        {"upload": tasks_of(declared)},
        {"upload": {"north-america": 90.0}},
    )
    _, decision = step(BalancerState(), inputs, now_s=NOW_S)
    plan = decision.services["upload"].plan
    assert plan is not None
    assert max(plan.load_rps.values()) <= 50.0 * 1.001
    assert {use.shared.what for use in decision.uses} == {"uplink"}
    assert max(use.fraction for use in decision.uses) <= 1.001


def test_a_service_with_nonsense_has_no_claim_and_the_others_have_theirs() -> None:
    inputs = two_services(DEMAND)
    broken = Service(
        inputs.catalog.services["api"].meta, (Backend("/bns/us-east1/u/api", math.nan, request_cpu_s=0.1),)
    )
    wild = replace(inputs, catalog=replace(inputs.catalog, services={**inputs.catalog.services, "api": broken}))
    wild = replace(wild, demand={**wild.demand, "web": {**wild.demand["web"], "asia": math.nan}})
    state, _ = step(BalancerState(), wild, now_s=NOW_S)
    assert {pair[0] for pair in state.sharing.budgets} == {"web"}
