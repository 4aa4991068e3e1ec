"""Whoever is drained takes the demand of those whom it calls along: gfe -> frontend -> backend -> tablet."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from gslb.balancer.callees import after_loss, callers_of, changed, load_after_loss, moved_demand, overfull_after_losses
from gslb.balancer.drains import DrainPreview, preview_drain
from gslb.balancer.inputs import Inputs
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model.plan import Plan
from gslb.model.resources import Backend, Catalog, DrainScope
from tests.support.balancer import CLIENT_AREAS, DATACENTERS, NOW_S, PLACES, drain, service, tasks_of

US, EU, ASIA, SA = PLACES
CHAIN = ("gfe", "frontend", "backend", "tablet")
# Each asks the next for so much for each of its own requests.
FACTOR = {"gfe": 1.0, "frontend": 1.0, "backend": 2.0, "tablet": 4.0}
CLIENTS = {"north-america": 60.0, "europe": 40.0, "asia": 20.0}
NEAREST = {"north-america": US, "europe": EU, "asia": ASIA}


def shakespeare(**rps: float) -> Inputs:
    """Four services in four datacenters, two tasks each; browsers ask the gfe, everybody else is asked from where he is."""
    services = {name: service(name, rps.get(name, 100.0 * FACTOR[name])) for name in CHAIN}
    demand: dict[str, Mapping[str, float]] = {"gfe": CLIENTS}
    callers = {}
    for caller, callee in pairwise(CHAIN):
        demand[callee] = {NEAREST[area]: FACTOR[callee] * rate for area, rate in CLIENTS.items()}
        callers[callee] = dict.fromkeys(((place, caller) for place in NEAREST.values()), 1.0)
    return Inputs(
        Catalog(DATACENTERS, CLIENT_AREAS, services),
        {name: tasks_of(declared) for name, declared in services.items()},
        demand,
        callers=callers,
    )


def preview(inputs: Inputs, scope: DrainScope, target: str) -> DrainPreview:
    state, _ = step(BalancerState(), inputs, now_s=NOW_S)
    return preview_drain(inputs, drain(scope, target), now_s=NOW_S + 1, state=state)


def loads(shown: DrainPreview, name: str) -> dict[str, tuple[float, float]]:
    return {
        each.datacenter: (round(each.load_before_rps, 3), round(each.load_after_rps, 3))
        for each in shown.effects
        if each.service == name
    }


def test_draining_the_frontend_moves_all_that_it_calls_and_what_those_call() -> None:
    shown = preview(shakespeare(), DrainScope.SERVICE, f"frontend@{US}")
    assert shown.violations == ()
    assert "gfe" not in {each.service for each in shown.effects}, "nothing changes for who calls it"
    for name in ("frontend", "backend", "tablet"):
        k = FACTOR[name]
        assert loads(shown, name)[US] == (60 * k, 0), name
        assert math.fsum(after for _, after in loads(shown, name).values()) == pytest.approx(120 * k)
    # Everybody follows the frontend to where it went.
    where = {place: after for place, (_, after) in loads(shown, "frontend").items()}
    for name in ("backend", "tablet"):
        assert loads(shown, name) == {
            place: (loads(shown, name)[place][0], pytest.approx(FACTOR[name] * rps, abs=0.1))
            for place, rps in where.items()
        }
    assert {each.service: each.why for each in shown.effects} == {
        "frontend": "drained",
        "backend": "called by frontend",
        "tablet": "called by backend",
    }


def test_what_clients_ask_for_themselves_stays_where_it_is() -> None:
    inputs = shakespeare()
    inputs = replace(inputs, callers={**inputs.callers, "backend": {(US, "frontend"): 0.25}})
    shown = preview(inputs, DrainScope.SERVICE, f"frontend@{US}")
    assert loads(shown, "backend")[US] == (120, 90)


def test_a_whole_datacenter_is_drained_with_all_that_stands_in_it() -> None:
    shown = preview(shakespeare(), DrainScope.DATACENTER, US)
    assert shown.violations == ()
    assert {each.why for each in shown.effects} == {
        "drained",
        "drained, called by gfe",
        "drained, called by frontend",
        "drained, called by backend",
    }
    for name in CHAIN:
        assert loads(shown, name)[US] == (60 * FACTOR[name], 0)
        assert math.fsum(after for _, after in loads(shown, name).values()) == pytest.approx(120 * FACTOR[name])


def shared(cpu_cores: float) -> Inputs:
    """Frontend and backend share each datacenter's CPU; the backend has tasks in Europe only, the frontend overseas too."""
    inputs = shakespeare(frontend=200.0, backend=400.0)
    places = {name: replace(place, cpu_cores=cpu_cores) for name, place in DATACENTERS.items()}
    services = dict(inputs.catalog.services)
    for name, cpu_s, where in (("frontend", 0.1, {US, EU}), ("backend", 0.05, {EU})):
        backends = [replace(each, request_cpu_s=cpu_s) for each in services[name].backends if each.datacenter in where]
        services[name] = replace(services[name], backends=tuple(backends))
    catalog = replace(inputs.catalog, datacenters=places, services=services)
    return replace(inputs, catalog=catalog, tasks={name: tasks_of(one) for name, one in services.items()})


def test_a_drain_is_refused_when_a_callee_does_not_fit_beside_those_who_arrive() -> None:
    # Each wants 12 cores. Of 20 in Europe the backend has enough, until the frontend comes with all of its own.
    shown = preview(shared(20.0), DrainScope.SERVICE, f"frontend@{US}")
    (refusal,) = [each for each in shown.violations if each.startswith("service backend")]
    assert "demand 240 rps > " in refusal, refusal
    assert f"CPU of {EU}" in refusal
    assert "5 % headroom" in refusal
    assert refusal.endswith("it is called by frontend, whose load moves")


def test_the_same_drain_is_admitted_where_both_fit() -> None:
    assert preview(shared(40.0), DrainScope.SERVICE, f"frontend@{US}").violations == ()


def test_a_circle_of_callers_ends() -> None:
    inputs = shakespeare()
    callers = {**inputs.callers, "frontend": {(place, "tablet"): 1.0 for place in PLACES}}
    shown = preview(replace(inputs, callers=callers), DrainScope.SERVICE, f"frontend@{US}")
    for name in ("frontend", "backend", "tablet"):
        assert math.fsum(after for _, after in loads(shown, name).values()) == pytest.approx(120 * FACTOR[name])


@pytest.mark.parametrize("part", [math.nan, math.inf, -1.0, 0.0, 7.0])
def test_parts_that_make_no_sense_lose_no_demand(part: float) -> None:
    inputs = shakespeare()
    callers = {**inputs.callers, "backend": {(US, "frontend"): part, (US, "nobody"): 0.5, ("mars", "frontend"): 1.0}}
    shown = preview(replace(inputs, callers=callers), DrainScope.SERVICE, f"frontend@{US}")
    assert math.fsum(after for _, after in loads(shown, "backend").values()) in (
        pytest.approx(240),
        0.0,  # nothing moves, so nothing is shown
    )


def test_several_callers_of_one_place_move_each_their_own_part() -> None:
    demand = {"db": {US: 100.0}}
    callers = {"db": {(US, "a"): 0.6, (US, "b"): 0.3}}
    before = {"a": {US: 10.0, EU: 0.0}, "b": {US: 5.0}}
    after = {"a": {US: 5.0, EU: 5.0}, "b": {US: 0.0, ASIA: 5.0}}
    moved = moved_demand(demand, callers, before, after)
    assert moved["db"] == pytest.approx({US: 100 - 30 - 30, EU: 30, ASIA: 30})
    assert changed(demand, moved) == ("db",)
    assert callers_of(callers, "db") == ("a", "b")


def test_nothing_moves_while_no_caller_moves() -> None:
    demand = {"db": {US: 100.0}}
    moved = moved_demand(demand, {"db": {(US, "a"): 1.0}}, {"a": {US: 5.0}}, {"a": {US: 5.0}})
    assert moved["db"] is demand["db"], "the step compares by identity"


def plan(name: str, **fields: Mapping[str, object]) -> Plan:
    return Plan(name, **fields)  # type: ignore[arg-type]


def test_a_loss_is_borne_by_contingency_and_callees_are_asked_from_where_their_callers_go() -> None:
    front = plan(
        "front",
        shares={"europe": {EU: 1.0}, "asia": {ASIA: 1.0}},
        demand_rps={"europe": 40.0, "asia": 10.0},
        contingencies={EU: {"europe": {US: 1.0}}},
    )
    back = plan(
        "back",
        shares={US: {US: 1.0}, EU: {EU: 1.0}, ASIA: {ASIA: 1.0}},
        demand_rps={EU: 80.0, ASIA: 20.0},
        contingencies={EU: {EU: {ASIA: 1.0}}},
    )
    callers = {"back": {(EU, "front"): 1.0, (ASIA, "front"): 1.0}}
    carried = after_loss({"front": front, "back": back}, callers, EU)
    assert carried["front"] == pytest.approx({US: 40.0, ASIA: 10.0})
    # Alone, the backend's contingency would have sent 80 rps to Asia.
    assert carried["back"] == pytest.approx({US: 80.0, ASIA: 20.0})


def test_a_loss_that_callers_make_worse_is_told_with_who_calls() -> None:
    capacity = {US: 90.0, EU: 100.0, ASIA: 30.0}
    front = plan(
        "front",
        shares={"europe": {EU: 1.0}, "asia": {ASIA: 1.0}},
        demand_rps={"europe": 40.0, "asia": 10.0},
        load_rps={EU: 40.0, ASIA: 10.0},
        contingencies={EU: {"europe": {ASIA: 1.0}}},
    )
    back = plan(
        "back",
        shares={US: {US: 1.0}, EU: {EU: 1.0}, ASIA: {ASIA: 1.0}},
        demand_rps={EU: 80.0, ASIA: 20.0},
        capacity_rps=capacity,
        load_rps={EU: 80.0, ASIA: 20.0},
        contingencies={EU: {EU: {US: 1.0}}},
    )
    callers = {"back": {(EU, "front"): 1.0}}
    plans = {"front": front, "back": back}
    (found,) = overfull_after_losses(plans, callers)
    assert (found.lost, found.service, found.datacenter, found.callers) == (EU, "back", ASIA, ("front",))
    assert (found.load_rps, found.capacity_rps) == (pytest.approx(100.0), 30.0)
    roomy = {**plans, "back": replace(back, capacity_rps={**capacity, ASIA: 100.0})}
    assert overfull_after_losses(roomy, callers) == ()
    assert overfull_after_losses(plans, {}) == ()


def test_a_locality_without_contingency_keeps_the_proportions_of_what_is_left() -> None:
    one = plan("s", shares={"europe": {EU: 0.5, US: 0.3, ASIA: 0.2}}, demand_rps={"europe": 100.0})
    assert load_after_loss(one, {"europe": 100.0, "nowhere": 5.0}, EU) == pytest.approx({US: 60.0, ASIA: 40.0})
    assert load_after_loss(plan("s", shares={"europe": {EU: 1.0}}), {"europe": 1.0}, EU) == {}


def test_backends_of_a_drained_job_count_as_well() -> None:
    inputs = shakespeare()
    job = next(each for each in inputs.catalog.services["frontend"].backends if each.datacenter == US)
    assert isinstance(job, Backend)
    shown = preview(inputs, DrainScope.JOB, job.job)
    assert loads(shown, "tablet")[US] == (240, 0)
