"""What a drain is refused for, with which numbers, and what its preview shows."""

from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.balancer.coverage import active_drains, coverage_of
from gslb.balancer.drains import admission_violations, preview_drain
from gslb.balancer.inputs import Inputs, TaskState
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model.resources import DrainScope
from tests.support.balancer import NOW_S, PLACES, drain, drained, planet, service, tasks_of, with_health

BUSY = {"north-america": 80.0, "europe": 40.0}
US = drain(DrainScope.DATACENTER, "us-east1")


def test_the_refusal_names_the_rule_and_the_numbers() -> None:
    inputs = planet({"north-america": 70.0, "europe": 50.0}, rps=60.0, count={"us-east1": 1, "europe-west1": 2})
    assert admission_violations(inputs, US, now_s=NOW_S) == (
        "service backend: demand 120 rps > 114 rps that remain (180 - 60 drained, 5 % headroom)",
    )


def test_a_drain_that_leaves_room_is_admitted_and_its_preview_is_what_the_step_then_does() -> None:
    inputs = planet(BUSY)
    state, _ = step(BalancerState(), inputs, now_s=NOW_S)
    preview = preview_drain(inputs, US, now_s=NOW_S + 1, state=state)
    assert preview.violations == ()
    assert preview.covered_tasks == 2
    _, decision = step(state, drained(inputs, US), now_s=NOW_S + 1)
    plan = decision.services["backend"].plan
    assert plan is not None
    effects = {effect.datacenter: effect for effect in preview.effects}
    assert set(effects) == set(PLACES)
    assert {name: effect.load_after_rps for name, effect in effects.items()} == pytest.approx(dict(plan.load_rps))
    assert effects["us-east1"].load_before_rps == pytest.approx(80)
    assert effects["us-east1"].load_after_rps == 0
    assert (effects["us-east1"].capacity_before_rps, effects["us-east1"].capacity_after_rps) == (100, 0)
    assert sum(effect.load_after_rps for effect in preview.effects) == pytest.approx(120)


def test_a_preview_without_state_shows_the_same() -> None:
    inputs = planet(BUSY)
    state, _ = step(BalancerState(), inputs, now_s=NOW_S)
    assert preview_drain(inputs, US, now_s=NOW_S) == preview_drain(inputs, US, now_s=NOW_S, state=state)


def test_the_last_tasks_are_never_drained_even_without_demand() -> None:
    inputs = planet({}, count={"us-east1": 2})
    assert admission_violations(inputs, US, now_s=NOW_S) == (
        "service backend: no task would remain (2 registered, all drained)",
    )


def test_the_last_healthy_task_is_not_drained() -> None:
    inputs = with_health(planet({}), "backend", HealthStatus.UNHEALTHY, ["europe-west1", "asia-east1"])
    inputs = with_health(inputs, "backend", HealthStatus.TIMEOUT, ["southamerica-east1"])
    assert admission_violations(inputs, US, now_s=NOW_S) == (
        "service backend: no healthy task would remain (6 unhealthy ones would)",
    )


def test_drains_add_up() -> None:
    inputs = planet(BUSY)
    sa, asia = (drain(DrainScope.DATACENTER, name) for name in ("southamerica-east1", "asia-east1"))
    assert admission_violations(drained(inputs, sa), asia, now_s=NOW_S) == ()
    refused = admission_violations(drained(inputs, sa, asia), US, now_s=NOW_S)
    assert refused == ("service backend: demand 120 rps > 95 rps that remain (200 - 100 drained, 5 % headroom)",)


def test_what_is_drained_already_may_be_drained_again_in_a_wider_scope() -> None:
    inputs = drained(planet({"north-america": 280.0}), US)
    assert admission_violations(inputs, drain(DrainScope.REGION, "na"), now_s=NOW_S) == ()


def test_an_overloaded_service_elsewhere_does_not_stop_a_drain() -> None:
    inputs = planet(BUSY)
    other = service("other", datacenters=["asia-east1"])
    inputs = replace(
        inputs,
        catalog=replace(inputs.catalog, services={**inputs.catalog.services, "other": other}),
        tasks={**inputs.tasks, "other": tasks_of(other)},
        demand={**inputs.demand, "other": {"asia": 500.0}},
    )
    assert admission_violations(inputs, US, now_s=NOW_S) == ()
    (refusal,) = admission_violations(inputs, drain(DrainScope.DATACENTER, "asia-east1"), now_s=NOW_S)
    assert refusal.startswith("service other: no task would remain")


def test_a_drain_of_nothing_covers_nothing() -> None:
    preview = preview_drain(planet(BUSY), drain(DrainScope.DATACENTER, "mars-1"), now_s=NOW_S)
    assert (preview.effects, preview.violations, preview.covered_tasks) == ((), (), 0)


def test_a_drain_that_begins_later_is_previewed_as_if_it_began_now() -> None:
    later = drain(DrainScope.DATACENTER, "us-east1", from_s=NOW_S + 7200)
    preview = preview_drain(planet(BUSY), later, now_s=NOW_S)
    assert {effect.load_after_rps for effect in preview.effects if effect.datacenter == "us-east1"} == {0.0}


def test_drains_hold_from_their_start_until_they_expire() -> None:
    inputs = drained(planet(BUSY), drain(DrainScope.DATACENTER, "us-east1", from_s=NOW_S + 10, for_s=60))
    assert active_drains(inputs.catalog, NOW_S) == ()
    assert len(active_drains(inputs.catalog, NOW_S + 10)) == 1
    assert len(active_drains(inputs.catalog, NOW_S + 69.9)) == 1
    assert active_drains(inputs.catalog, NOW_S + 70) == ()


TASK = TaskState(
    "/bns/us-east1/shakespeare/backend/0",
    "us-east1",
    "/bns/us-east1/shakespeare/backend",
    HealthStatus.HEALTHY,
    machine="m1",
)


@pytest.mark.parametrize(
    ("scope", "target", "covered"),
    [
        (DrainScope.DATACENTER, "us-east1", True),
        (DrainScope.DATACENTER, "us-east", False),
        (DrainScope.REGION, "na", True),
        (DrainScope.REGION, "eu", False),
        (DrainScope.SERVICE, "backend", True),
        (DrainScope.SERVICE, "frontend", False),
        (DrainScope.SERVICE, "backend@us-east1", True),
        (DrainScope.SERVICE, "backend@asia-east1", False),
        (DrainScope.JOB, "/bns/us-east1/shakespeare/backend", True),
        (DrainScope.JOB, "/bns/us-east1/shakespeare/back", False),
        (DrainScope.TASK, "/bns/us-east1/shakespeare/backend/0", True),
        (DrainScope.TASK, "/bns/us-east1/shakespeare/backend/01", False),
        (DrainScope.MACHINE, "m1", True),
        (DrainScope.MACHINE, "m2", False),
    ],
)
def test_scopes_cover_what_they_name_and_nothing_else(scope: DrainScope, target: str, covered: bool) -> None:
    each = drain(scope, target)
    name = coverage_of([each], planet().catalog).drain_of("backend", TASK)
    assert name == (each.name if covered else "")


def test_a_task_without_machine_is_on_no_drained_machine() -> None:
    coverage = coverage_of([drain(DrainScope.MACHINE, "")], planet().catalog)
    assert coverage.drain_of("backend", replace(TASK, machine="")) == ""


def test_a_broken_service_does_not_stop_other_drains() -> None:
    inputs = planet(BUSY)
    broken = service("broken", rps=-1)
    inputs = Inputs(
        replace(inputs.catalog, services={**inputs.catalog.services, "broken": broken}),
        {**inputs.tasks, "broken": tasks_of(broken)},
        inputs.demand,
    )
    assert preview_drain(inputs, US, now_s=NOW_S).violations == ()
