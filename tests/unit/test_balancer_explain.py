"""The reasons that `gslb explain service` prints."""

from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.balancer.explain import Candidate, Explanation, explain, load_of
from gslb.balancer.inputs import Inputs
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model.errors import NotFoundError
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import DrainScope
from tests.support.balancer import NOW_S, drain, drained, planet, with_health


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
