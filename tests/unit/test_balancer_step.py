"""Stories of one service on four datacenters: who serves whom, and why it changes."""

import math
from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.balancer import replan
from gslb.balancer.damping import Move, Ramped
from gslb.balancer.inputs import Deleted, Inputs
from gslb.balancer.quiet import stickiness_ms
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model import limits
from gslb.model.plan import Plan
from gslb.model.resources import Catalog, DrainScope
from tests.support.balancer import (
    AREAS,
    NOW_S,
    PLACES,
    ROUNDING,
    assert_well_formed,
    drain,
    drained,
    planet,
    service,
    tasks_of,
    utilizations,
    with_health,
)

EVERYWHERE = {"north-america": 60.0, "europe": 60.0, "asia": 60.0, "south-america": 40.0}
NEAREST = {
    "north-america": "us-east1",
    "europe": "europe-west1",
    "asia": "asia-east1",
    "south-america": "southamerica-east1",
}


class Run:
    """The step under a virtual clock, publishing what changed, as the leader does."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.state = BalancerState()
        self.now_s = NOW_S
        self.decision = Decision()

    def after(self, seconds: float, inputs: Inputs | None = None) -> Plan:
        """The plan of the first service, `seconds` later."""
        self.now_s += seconds
        wanted = inputs or self.inputs
        self.inputs = replace(wanted, previous=self.inputs.previous)
        self.state, self.decision = step(self.state, self.inputs, now_s=self.now_s)
        published = {name: each.plan for name, each in self.decision.services.items() if each.changed and each.plan}
        self.inputs = replace(self.inputs, previous={**self.inputs.previous, **published})
        plan = next(iter(self.decision.services.values())).plan
        assert plan is not None
        return plan


def test_everybody_goes_to_the_nearest_with_room() -> None:
    plan = Run(planet(EVERYWHERE)).after(0)
    assert_well_formed(plan, [*PLACES, *AREAS])
    for area, datacenter in NEAREST.items():
        assert plan.shares[area] == {datacenter: 1.0}
    for datacenter in PLACES:
        assert plan.shares[datacenter] == {datacenter: 1.0}
    assert plan.load_rps == pytest.approx({NEAREST[area]: rps for area, rps in EVERYWHERE.items()})
    assert plan.computed_at_s == NOW_S
    assert plan.notes == ()


def test_before_the_first_request_every_locality_has_shares() -> None:
    plan = Run(planet({})).after(0)
    assert_well_formed(plan, [*PLACES, *AREAS])
    assert plan.shares["europe"] == {"europe-west1": 1.0}
    assert sum(plan.demand_rps.values()) == 0


def test_a_full_datacenter_spills_to_the_next_nearest_and_not_farther() -> None:
    plan = Run(planet({**EVERYWHERE, "north-america": 110.0, "europe": 20.0})).after(0)
    used = utilizations(plan)
    assert set(plan.shares["north-america"]) == {"us-east1", "europe-west1"}
    assert limits.MAX_UTILIZATION_DEFAULT <= used["us-east1"] < 1
    assert plan.shares["asia"] == {"asia-east1": 1.0}


def test_spill_goes_past_a_full_neighbour() -> None:
    plan = Run(planet({"north-america": 150.0, "europe": 95.0})).after(0)
    used = utilizations(plan)
    assert used["us-east1"] < 1
    assert used["europe-west1"] < 1
    assert plan.load_rps["southamerica-east1"] > 20
    assert not plan.load_rps["asia-east1"]


def test_a_drained_datacenter_gets_nothing_and_its_load_goes_to_the_next_nearest() -> None:
    run = Run(planet(EVERYWHERE | {"europe": 30.0}))
    run.after(0)
    plan = run.after(5, drained(run.inputs, drain(DrainScope.DATACENTER, "us-east1")))
    assert run.decision.services["backend"].changed
    assert all("us-east1" not in shares for shares in plan.shares.values())
    assert plan.load_rps["us-east1"] == 0
    assert plan.shares["north-america"]["europe-west1"] > 0.75
    assert_well_formed(plan, [*PLACES, *AREAS])


@pytest.mark.parametrize(
    ("scope", "target"),
    [
        (DrainScope.DATACENTER, "us-east1"),
        (DrainScope.REGION, "na"),
        (DrainScope.SERVICE, "backend@us-east1"),
        (DrainScope.JOB, "/bns/us-east1/shakespeare/backend"),
    ],
)
def test_every_scope_that_covers_all_tasks_empties_the_datacenter(scope: DrainScope, target: str) -> None:
    plan = Run(drained(planet(EVERYWHERE), drain(scope, target))).after(0)
    assert plan.capacity_rps["us-east1"] == 0
    assert plan.load_rps["us-east1"] == 0
    assert plan.capacity_rps["europe-west1"] == 100


@pytest.mark.parametrize(
    ("scope", "target"),
    [(DrainScope.TASK, "/bns/us-east1/shakespeare/backend/0"), (DrainScope.MACHINE, "m-us-east1-0")],
)
def test_narrow_scopes_take_one_task_away(scope: DrainScope, target: str) -> None:
    plan = Run(drained(planet(EVERYWHERE), drain(scope, target))).after(0)
    assert plan.capacity_rps["us-east1"] == 50
    assert 0 < plan.load_rps["us-east1"] <= 50


def test_load_returns_after_a_drain_ends_and_after_ten_minutes_all_of_it_is_back() -> None:
    run = Run(planet(EVERYWHERE))
    before = run.after(0)
    ten_minutes = drained(run.inputs, drain(DrainScope.DATACENTER, "us-east1", for_s=600))
    assert run.after(5, ten_minutes).load_rps["us-east1"] == 0
    for _ in range(120):
        run.after(5)
    for _ in range(120):
        plan = run.after(5)
    assert plan.load_rps == pytest.approx(before.load_rps, rel=0.01)
    assert not run.decision.services["backend"].recomputed


def test_a_move_that_wins_less_than_the_stickiness_waits_until_it_has_decayed() -> None:
    run = Run(planet({"north-america": 60.0}))
    run.after(0)
    near = {("north-america", name): 100.0 for name in PLACES} | {("north-america", "us-east1"): 108.0}
    near |= {("north-america", name): 200.0 for name in ("asia-east1", "southamerica-east1")}
    measured = replace(run.inputs, rtt_ms=near)
    assert run.after(5, measured).shares["north-america"] == {"us-east1": 1.0}
    moved_after_s = 0.0
    while "us-east1" in run.after(5).shares["north-america"]:
        moved_after_s += 5
        assert moved_after_s < 300
    # 22 ms halve to less than the 8 ms that it wins in 88 s.
    assert moved_after_s >= 60
    assert run.decision.services["backend"].changed


def test_stickiness_halves_each_minute_and_ends() -> None:
    assert stickiness_ms(NOW_S, NOW_S) == limits.STICKINESS_MS
    assert stickiness_ms(NOW_S, NOW_S + 60) == pytest.approx(limits.STICKINESS_MS / 2)
    assert stickiness_ms(NOW_S, NOW_S + 3600) == 0
    assert stickiness_ms(NOW_S, NOW_S - 1e6) == limits.STICKINESS_MS


def test_with_too_little_capacity_the_overload_is_the_same_everywhere_and_said() -> None:
    plan = Run(planet({"north-america": 500.0, "europe": 300.0})).after(0)
    used = utilizations(plan)
    assert max(used.values()) - min(used.values()) < 0.01
    assert min(used.values()) == pytest.approx(2.0, rel=0.01)
    assert "demand 800 rps is 200 % of the capacity of 400 rps" in plan.notes[0]


def test_unhealthy_tasks_carry_nothing() -> None:
    plan = Run(with_health(planet(EVERYWHERE), "backend", HealthStatus.TIMEOUT, ["us-east1"])).after(0)
    assert plan.load_rps["us-east1"] == 0
    assert not plan.notes


def test_when_nobody_is_healthy_all_serve_and_the_plan_says_so() -> None:
    run = Run(planet(EVERYWHERE))
    run.after(0)
    plan = run.after(5, with_health(run.inputs, "backend", HealthStatus.UNHEALTHY))
    assert plan.shares["north-america"] == {"us-east1": 1.0}
    assert plan.notes[0].startswith("panic: no task is healthy")
    assert run.decision.services["backend"].changed
    assert set(plan.capacity_rps.values()) == {0.0}


def test_panic_leaves_drained_tasks_alone_while_others_are_there() -> None:
    ill = with_health(planet(EVERYWHERE), "backend", HealthStatus.UNHEALTHY)
    plan = Run(drained(ill, drain(DrainScope.DATACENTER, "us-east1"))).after(0)
    assert plan.load_rps["us-east1"] == 0


def test_a_drain_of_everything_still_leaves_an_answer() -> None:
    plan = Run(drained(planet(EVERYWHERE), drain(DrainScope.SERVICE, "backend"))).after(0)
    assert_well_formed(plan, [*PLACES, *AREAS])
    assert "every task is drained" in plan.notes[0]


def test_a_service_without_tasks_keeps_its_last_plan() -> None:
    run = Run(planet(EVERYWHERE))
    before = run.after(0)
    after = run.after(5, replace(run.inputs, tasks={"backend": ()}))
    decision = run.decision.services["backend"]
    assert after == before
    assert not decision.changed
    assert "removal budget: 8 of 8" in decision.held
    assert run.decision.alarms == (f"backend: {decision.held}",)


def test_a_service_that_never_had_tasks_has_no_plan_and_stops_nobody() -> None:
    inputs = planet(EVERYWHERE)
    empty = service("empty")
    inputs = replace(inputs, catalog=replace(inputs.catalog, services={**inputs.catalog.services, "empty": empty}))
    _, decision = step(BalancerState(), inputs, now_s=NOW_S)
    assert decision.services["empty"].plan is None
    assert "no task of service empty is registered" in decision.services["empty"].held
    assert decision.services["backend"].changed


@pytest.mark.parametrize("rps", [math.nan, math.inf, -1.0, 1e300])
def test_absurd_demand_holds_the_plan_of_that_service_alone(rps: float) -> None:
    run = Run(planet(EVERYWHERE))
    before = run.after(0)
    after = run.after(5, replace(run.inputs, demand={"backend": {**EVERYWHERE, "asia": rps}}))
    assert after == before
    assert "demand of locality asia" in run.decision.services["backend"].held
    healed = run.after(5, replace(run.inputs, demand={"backend": {**EVERYWHERE, "asia": 30.0}}))
    assert not run.decision.services["backend"].held
    assert healed.load_rps["asia-east1"] == pytest.approx(30)


@pytest.mark.parametrize("rps", [math.nan, math.inf, -1.0, 0.0])
def test_an_absurd_declared_capacity_is_named(rps: float) -> None:
    broken = service("backend", rps)
    inputs = Inputs(replace(planet().catalog, services={"backend": broken}), {"backend": tasks_of(broken)})
    _, decision = step(BalancerState(), inputs, now_s=NOW_S)
    assert "task_capacity_rps of /bns/us-east1/shakespeare/backend" in decision.services["backend"].held


def test_demand_of_unknown_places_and_backends_in_undeclared_datacenters_are_noted() -> None:
    inputs = planet({**EVERYWHERE, "atlantis": 5.0})
    declared = service("backend", datacenters=[*PLACES, "mars-1"])
    inputs = replace(
        inputs,
        catalog=replace(inputs.catalog, services={"backend": declared}),
        tasks={"backend": tasks_of(declared)},
    )
    plan = Run(inputs).after(0)
    assert any("mars-1" in note for note in plan.notes)
    assert any(note.startswith("unknown localities") for note in plan.notes)
    assert "mars-1" not in plan.load_rps


def test_nothing_is_solved_again_while_nothing_changes() -> None:
    run = Run(planet(EVERYWHERE))
    first = run.after(0)
    assert run.decision.recomputed == 1
    for _ in range(10):
        assert run.after(5) == first
        assert run.decision.recomputed == 0
        assert not run.decision.services["backend"].changed


def test_equal_values_in_new_objects_are_no_change_and_small_wobbles_of_demand_neither() -> None:
    run = Run(planet(EVERYWHERE))
    run.after(0)
    wobble = {area: rps * 1.004 for area, rps in EVERYWHERE.items()}
    fresh = replace(
        run.inputs, tasks={"backend": tuple(replace(t, report_age_s=1.0) for t in run.inputs.tasks["backend"])}
    )
    run.after(5, replace(fresh, demand={"backend": wobble}))
    assert run.decision.recomputed == 0
    run.after(5, replace(fresh, demand={"backend": {**wobble, "asia": 90.0}}))
    assert run.decision.recomputed == 1


def test_a_service_that_rests_decides_as_one_that_is_looked_at_in_every_step() -> None:
    resting, looked_at = Run(planet(EVERYWHERE)), Run(planet(EVERYWHERE))
    slower = {("north-america", "us-east1"): 70.0}
    rested = 0
    for turn in range(150):
        inputs = resting.inputs if turn < 20 else replace(resting.inputs, rtt_ms=slower)
        if turn == 60:
            inputs = drained(inputs, drain(DrainScope.DATACENTER, "us-east1", from_s=resting.now_s + 5, for_s=180.0))
        before = resting.state
        looked_at.state = replace(
            looked_at.state,
            services={
                name: replace(memory, quiet_until_s=-math.inf) for name, memory in looked_at.state.services.items()
            },
        )
        plan = resting.after(5, inputs)
        assert looked_at.after(5, inputs) == plan
        assert [each.changed for each in looked_at.decision.services.values()] == [
            each.changed for each in resting.decision.services.values()
        ]
        assert looked_at.decision.recomputed == resting.decision.recomputed
        rested += resting.state.services.get("backend") is before.services.get("backend")
    # Else this would show nothing: it rested in most steps, and was solved again in some.
    assert 60 < rested < 148


def test_only_listed_services_are_looked_at_for_changed_tasks() -> None:
    run = Run(planet(EVERYWHERE))
    before = run.after(0)
    ill = with_health(run.inputs, "backend", HealthStatus.UNHEALTHY, ["us-east1"])
    assert run.after(1, replace(ill, changed=frozenset())) == before
    assert run.after(1, replace(ill, changed=frozenset({"backend"}))).load_rps["us-east1"] == 0


def test_a_new_leader_with_the_published_plan_plans_the_same() -> None:
    run = Run(planet({**EVERYWHERE, "north-america": 130.0}))
    plan = run.after(0)
    _, decision = step(BalancerState(), run.inputs, now_s=NOW_S + 5)
    heir = decision.services["backend"]
    assert heir.plan is not None
    assert not heir.changed
    assert heir.plan.shares["north-america"] == pytest.approx(plan.shares["north-america"], abs=1e-4)


def test_what_is_not_yet_published_stays_marked_as_changed() -> None:
    inputs = planet(EVERYWHERE)
    state, first = step(BalancerState(), inputs, now_s=NOW_S)
    state, second = step(state, inputs, now_s=NOW_S + 5)
    assert first.services["backend"].changed
    assert second.services["backend"].changed
    assert second.recomputed == 0
    published = first.services["backend"].plan
    assert published is not None
    _, third = step(state, replace(inputs, previous={"backend": published}), now_s=NOW_S + 10)
    assert not third.services["backend"].changed


def test_a_plan_that_breaks_a_rule_is_held_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(planet(EVERYWHERE))
    good = run.after(0)
    whole = replan.ramp

    def leaking(move: Move) -> Ramped:
        ramped = whole(move)
        return replace(ramped, shares=ramped.shares * 0.9)

    monkeypatch.setattr(replan, "ramp", leaking)
    ill = with_health(run.inputs, "backend", HealthStatus.UNHEALTHY, ["us-east1"])
    assert run.after(5, ill) == good, "what is published stays"
    each = run.decision.services["backend"]
    assert "shares sum to 1" in each.held
    assert not each.changed
    monkeypatch.setattr(replan, "ramp", whole)
    assert run.after(5, ill).load_rps["us-east1"] == 0
    assert not run.decision.services["backend"].held


def test_services_vanish_only_within_the_budget() -> None:
    inputs = planet(EVERYWHERE)
    names = [f"s{i}" for i in range(4)]
    services = {name: service(name) for name in names}
    inputs = replace(
        inputs,
        catalog=replace(inputs.catalog, services=services),
        tasks={name: tasks_of(each) for name, each in services.items()},
        demand=dict.fromkeys(names, EVERYWHERE),
    )
    run = Run(inputs)
    run.after(0)
    partial = replace(inputs, catalog=replace(inputs.catalog, services={"s0": services["s0"]}))
    run.after(1, partial)
    assert run.decision.removed == ()
    assert "3 of 4 services vanished" in run.decision.services["s3"].held
    assert run.decision.services["s3"].plan is not None
    assert any("removal budget" in alarm for alarm in run.decision.alarms)
    two = replace(inputs, catalog=replace(inputs.catalog, services={name: services[name] for name in names[:2]}))
    run.after(1, two)
    assert run.decision.removed == ("s2", "s3")


def five_services() -> Inputs:
    services = {name: service(name) for name in (f"s{i}" for i in range(5))}
    inputs = planet(EVERYWHERE)
    return replace(
        inputs,
        catalog=replace(inputs.catalog, services=services),
        tasks={name: tasks_of(each) for name, each in services.items()},
        demand=dict.fromkeys(services, EVERYWHERE),
    )


def only(inputs: Inputs, *names: str) -> Inputs:
    services = inputs.catalog.services
    return replace(inputs, catalog=replace(inputs.catalog, services={name: services[name] for name in names}))


def test_services_that_an_operator_deleted_go_at_once_however_many() -> None:
    run = Run(five_services())
    run.after(0)
    deleted = Deleted(services=frozenset({"s1", "s2", "s3", "s4"}))
    run.after(1, replace(only(run.inputs, "s0"), deleted=deleted))
    assert run.decision.removed == ("s1", "s2", "s3", "s4")
    assert run.decision.alarms == ()
    assert run.decision.services.keys() == {"s0"}
    assert not run.decision.services["s0"].held


def test_what_vanished_beside_deletions_is_still_held() -> None:
    run = Run(five_services())
    run.after(0)
    # Two are deleted; of the three that are left two are missing: more than half.
    run.after(1, replace(only(run.inputs, "s0"), deleted=Deleted(services=frozenset({"s1", "s2"}))))
    assert run.decision.removed == ("s1", "s2")
    assert set(run.decision.services) == {"s0", "s3", "s4"}
    assert "2 of 3 services vanished" in run.decision.services["s3"].held


def test_a_name_that_was_deleted_and_given_again_counts_again() -> None:
    run = Run(five_services())
    run.after(0)
    run.after(1, replace(only(run.inputs, "s0"), deleted=Deleted(services=frozenset({"s1", "s2", "s3", "s4"}))))
    run.after(1, five_services())
    run.after(1, only(five_services(), "s0"))
    assert run.decision.removed == ()
    assert "4 of 5 services vanished" in run.decision.services["s1"].held


def test_localities_that_an_operator_deleted_leave_the_plan_at_once() -> None:
    run = Run(planet(EVERYWHERE))
    run.after(0)
    catalog = replace(
        run.inputs.catalog, areas={}, datacenters={"us-east1": run.inputs.catalog.datacenters["us-east1"]}
    )
    gone = frozenset({*PLACES, *AREAS} - {"us-east1"})
    plan = run.after(5, replace(run.inputs, catalog=catalog, deleted=Deleted(localities=gone)))
    assert not any("localities" in alarm for alarm in run.decision.alarms)
    assert set(plan.shares) == {"us-east1"}


def test_a_new_leader_with_half_a_catalog_drops_nothing() -> None:
    run = Run(planet(EVERYWHERE))
    run.after(0)
    blind = replace(run.inputs, catalog=Catalog())
    _, decision = step(BalancerState(), blind, now_s=NOW_S + 5)
    assert decision.removed == ()
    assert decision.services["backend"].plan == run.inputs.previous["backend"]
    assert "removal budget: 1 of 1 services" in decision.services["backend"].held


def test_localities_that_vanish_together_stay_in_the_plan() -> None:
    run = Run(planet(EVERYWHERE))
    run.after(0)
    blind = replace(run.inputs, catalog=replace(run.inputs.catalog, areas={}, datacenters={}))
    plan = run.after(5, drained(blind, drain(DrainScope.DATACENTER, "us-east1")))
    assert_well_formed(plan, [*PLACES, *AREAS])
    assert plan.load_rps["us-east1"] == 0
    assert any("8 of 8 localities" in alarm for alarm in run.decision.alarms)


def test_measured_times_count_where_they_exceed_geography() -> None:
    inputs = planet(EVERYWHERE)
    slow = replace(inputs, rtt_ms={("europe", "europe-west1"): 400.0, ("asia", "asia-east1"): 0.01})
    plan = Run(slow).after(0)
    assert "europe-west1" not in plan.shares["europe"]
    assert plan.shares["asia"] == {"asia-east1": 1.0}


def test_a_time_below_what_geography_allows_is_not_believed() -> None:
    lie = replace(planet({"asia": 60.0}), rtt_ms={("asia", "us-east1"): 0.01})
    assert Run(lie).after(0).shares["asia"] == {"asia-east1": 1.0}


def test_crumbs_of_shares_are_dropped() -> None:
    pinned = Run(planet({"north-america": 110.0})).after(0).load_rps["us-east1"]
    spilling = Run(planet({"north-america": pinned * (1 + 1e-4)})).after(0)
    assert set(spilling.shares["north-america"]) == {"us-east1", "europe-west1"}
    crumb = Run(planet({"north-america": pinned * (1 + 5e-7)})).after(0)
    assert crumb.shares["north-america"] == {"us-east1": 1.0}


def test_small_wobbles_of_measured_times_move_nothing() -> None:
    run = Run(replace(planet(EVERYWHERE), rtt_ms={("europe", "europe-west1"): 10.0}))
    run.after(0)
    run.after(5, replace(run.inputs, rtt_ms={("europe", "europe-west1"): 10.9, ("asia", "nowhere"): math.nan}))
    assert run.decision.recomputed == 0
    run.after(5, replace(run.inputs, rtt_ms={("europe", "europe-west1"): 40.0}))
    assert run.decision.recomputed == 1


def test_ten_thousand_localities_get_shares() -> None:
    inputs = planet(EVERYWHERE)
    areas = {
        f"area{i}": replace(
            inputs.catalog.areas["europe"], meta=replace(inputs.catalog.areas["europe"].meta, name=f"area{i}")
        )
        for i in range(10_000)
    }
    inputs = replace(inputs, catalog=replace(inputs.catalog, areas={**inputs.catalog.areas, **areas}))
    plan = Run(inputs).after(0)
    assert len(plan.shares) == 10_008
    assert max(utilizations(plan).values()) <= 1 + ROUNDING
