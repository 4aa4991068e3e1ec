"""The reasons that `gslb explain service` prints."""

from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.balancer.binding import Constraint
from gslb.balancer.congestion import BRINK_STEP_MS, GENTLE_SEGMENTS, GENTLE_STEP_MS
from gslb.balancer.explain import Candidate, Explanation, explain, load_of
from gslb.balancer.inputs import Inputs
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model.errors import NotFoundError
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import DrainScope
from tests.support.balancer import NOW_S, drain, drained, planet, with_health
from tests.support.steps import Run


def explained(inputs: Inputs, locality: str = "north-america") -> Explanation:
    state, decision = step(BalancerState(), inputs, now_s=NOW_S)
    plan = decision.services["backend"].plan
    assert plan is not None
    published = replace(plan, stamp=Stamp(1, 2, 3))
    return explain(state, replace(inputs, previous={"backend": published}), "backend", locality, now_s=NOW_S)


def candidates(inputs: Inputs, locality: str = "north-america") -> dict[str, Candidate]:
    return {each.datacenter: each for each in explained(inputs, locality).candidates}


def test_candidates_stand_in_order_of_distance_with_their_numbers() -> None:
    answer = explained(planet({"north-america": 60.0}))
    assert [each.datacenter for each in answer.candidates] == [
        "us-east1",
        "europe-west1",
        "southamerica-east1",
        "asia-east1",
    ]
    assert answer.stamp == Stamp(1, 2, 3)
    assert answer.demand_rps == 60
    nearest = answer.candidates[0]
    assert (nearest.share, nearest.capacity_rps, nearest.healthy_tasks, nearest.tasks) == (1.0, 100, 2, 2)
    assert nearest.load_rps == pytest.approx(60)
    assert 5 < nearest.rtt_ms < 20
    assert nearest.reason == "nearest (60 % used)"
    assert answer.candidates[1].reason.startswith("not needed: us-east1 is ")


def test_a_full_nearest_one_spills() -> None:
    seen = candidates(planet({"north-america": 110.0}))
    assert seen["us-east1"].reason == "nearest, full (87 % used): the rest spills over"
    assert seen["europe-west1"].reason.startswith("next nearest with room")
    assert "us-east1: full (87 % used)" in seen["europe-west1"].reason


def test_the_contingency_is_told() -> None:
    answer = explained(planet({"north-america": 40.0, "europe": 30.0}))
    nearest, second, *others = answer.candidates
    assert nearest.if_lost == {"europe-west1": pytest.approx(1.0)}
    assert (nearest.fullest_if_lost, nearest.fullest_utilization) == ("europe-west1", pytest.approx(0.7, rel=0.02))
    assert not second.if_lost, "the locality does not use it, so it has nothing to lose there"
    assert all(not each.if_lost and not each.fullest_if_lost for each in others)


def test_a_drain_is_named() -> None:
    inputs = drained(planet({"north-america": 60.0}), drain(DrainScope.DATACENTER, "us-east1", name="maintenance"))
    seen = candidates(inputs)
    assert seen["us-east1"].drain == "maintenance"
    assert seen["us-east1"].reason == "drained by maintenance"
    assert "before it us-east1: drained by maintenance" in seen["europe-west1"].reason


def test_ill_and_missing_tasks_are_told_apart() -> None:
    inputs = planet({"north-america": 60.0}, count={"us-east1": 2, "asia-east1": 2})
    seen = candidates(with_health(inputs, "backend", HealthStatus.UNHEALTHY, ["us-east1"]))
    assert seen["us-east1"].reason == "no healthy task (0 of 2)"
    assert seen["europe-west1"].reason == "no task is registered here"


def test_panic_is_told() -> None:
    seen = candidates(with_health(planet({"north-america": 60.0}), "backend", HealthStatus.UNHEALTHY))
    assert "serves because of panic" in seen["us-east1"].reason


def test_what_stickiness_keeps_is_told() -> None:
    inputs = planet({"north-america": 60.0})
    state, first = step(BalancerState(), inputs, now_s=NOW_S)
    far = {("north-america", "us-east1"): 90.0, ("north-america", "europe-west1"): 80.0}
    plan = first.services["backend"].plan
    assert plan is not None
    inputs = replace(inputs, rtt_ms=far, previous={"backend": plan})
    state, _ = step(state, inputs, now_s=NOW_S + 5)
    seen = {
        each.datacenter: each for each in explain(state, inputs, "backend", "north-america", now_s=NOW_S).candidates
    }
    assert seen["us-east1"].share == 1
    assert seen["us-east1"].reason.startswith("stays for now")
    assert "europe-west1 is nearer and has room" in seen["us-east1"].reason


def test_unknown_names_are_refused_with_the_name() -> None:
    inputs = planet()
    state, _ = step(BalancerState(), inputs, now_s=NOW_S)
    with pytest.raises(NotFoundError, match="service 'ghost'"):
        explain(state, inputs, "ghost", "europe", now_s=NOW_S)
    with pytest.raises(NotFoundError, match="client area 'atlantis'"):
        explain(state, inputs, "backend", "atlantis", now_s=NOW_S)


def test_load_of_a_plan_follows_demand() -> None:
    plan = Plan("s", shares={"x": {"a": 0.25, "b": 0.75}, "y": {"a": 1.0}})
    assert load_of(plan, {"x": 8.0, "y": 1.0, "z": 5.0}) == {"a": 3.0, "b": 6.0}


def test_nothing_binds_where_all_go_to_the_first_choice() -> None:
    assert all(each.binds is None for each in candidates(planet({"north-america": 60.0})).values())


def test_capacity_binds_at_the_price_of_a_place_in_it() -> None:
    seen = candidates(planet({"north-america": 110.0}))
    binds = seen["us-east1"].binds
    assert binds is not None
    assert binds.constraint is Constraint.CAPACITY
    # Whoever spills pays the way to the next place instead: the dual is just that, within a step of Phi'.
    way_ms = seen["europe-west1"].rtt_ms - seen["us-east1"].rtt_ms
    assert binds.price_ms == pytest.approx(way_ms, abs=2 * BRINK_STEP_MS)
    assert seen["europe-west1"].binds is None, "nobody of this locality goes farther than there"


def test_a_drain_binds_at_what_the_detour_costs() -> None:
    inputs = drained(planet({"north-america": 60.0}), drain(DrainScope.DATACENTER, "us-east1", name="maintenance"))
    seen = candidates(inputs)
    binds = seen["us-east1"].binds
    assert binds is not None
    assert binds.constraint is Constraint.OUT
    way_ms = seen["europe-west1"].rtt_ms - seen["us-east1"].rtt_ms
    assert way_ms <= binds.price_ms <= way_ms + GENTLE_SEGMENTS * GENTLE_STEP_MS


def test_stickiness_binds_at_what_a_move_would_win() -> None:
    run = Run(planet({"north-america": 60.0}))
    run.step()
    far = {("north-america", "us-east1"): 90.0, ("north-america", "europe-west1"): 80.0}
    run.step(replace(run.inputs, rtt_ms=far))
    told = explain(run.state, run.inputs, "backend", "north-america", now_s=run.now_s)
    binds = {each.datacenter: each.binds for each in told.candidates}["europe-west1"]
    assert binds is not None
    assert binds.constraint is Constraint.STICKINESS
    assert binds.price_ms == pytest.approx(10.0, abs=GENTLE_SEGMENTS * GENTLE_STEP_MS)


def test_a_return_under_way_binds_by_its_ramp() -> None:
    run = Run(drained(planet({"north-america": 60.0}), drain(DrainScope.DATACENTER, "us-east1", for_s=60.0)))
    for _ in range(13):
        run.step()
    told = explain(run.state, run.inputs, "backend", "north-america", now_s=run.now_s)
    binds = told.candidates[0].binds
    assert told.candidates[0].share < 1
    assert binds is not None
    assert binds.constraint is Constraint.RAMP


def test_a_budget_binds_under_its_own_name() -> None:
    inputs = planet({"north-america": 60.0})
    small = replace(inputs.catalog.datacenters["us-east1"], cpu_cores=3.0)
    declared = inputs.catalog.services["backend"]
    costly = replace(declared, backends=tuple(replace(each, request_cpu_s=0.1) for each in declared.backends))
    catalog = replace(
        inputs.catalog,
        datacenters={**inputs.catalog.datacenters, "us-east1": small},
        services={"backend": costly},
    )
    binds = candidates(replace(inputs, catalog=catalog))["us-east1"].binds
    assert binds is not None
    assert binds.constraint is Constraint.SHARED
    assert binds.price_ms > 40
