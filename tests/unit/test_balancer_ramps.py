"""Drains that take their time, that overlap, that end: what is left of the capacity, and where the load goes back to."""

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bns.model import HealthStatus
from gslb.balancer.coverage import coverage_at, full_coverage
from gslb.balancer.drains import admission_violations, preview_drain
from gslb.balancer.explain import explain
from gslb.model.resources import Drain, DrainScope
from tests.support.balancer import AREAS, NOW_S, PLACES, assert_well_formed, drain, drained, planet, with_health
from tests.support.steps import PERIOD_S, Run

BUSY = {"north-america": 60.0, "europe": 30.0, "asia": 30.0, "south-america": 20.0}
RAMP_S = 300.0


def ramped(scope: DrainScope, target: str, *, from_s: float = NOW_S, over_s: float = RAMP_S, name: str = "") -> Drain:
    return replace(drain(scope, target, from_s=from_s, name=name), ramp_s=over_s)


US = ramped(DrainScope.DATACENTER, "us-east1")


def test_progress_is_linear_from_the_start_to_the_end_of_the_ramp() -> None:
    at = [datetime.fromtimestamp(NOW_S + seconds, UTC) for seconds in (-10, 0, 75, 300, 1000)]
    assert [US.progress(now) for now in at] == [0.0, 0.0, 0.25, 1.0, 1.0]
    assert replace(US, ramp_s=0.0).progress(at[1]) == 1.0


@pytest.mark.parametrize(
    ("scope", "target"),
    [
        (DrainScope.DATACENTER, "us-east1"),
        (DrainScope.REGION, "na"),
        (DrainScope.SERVICE, "backend@us-east1"),
        (DrainScope.JOB, "/bns/us-east1/shakespeare/backend"),
    ],
)
def test_capacity_falls_linearly_and_load_reaches_zero_in_every_scope(scope: DrainScope, target: str) -> None:
    run = Run(planet(BUSY))
    run.step()
    begun = drained(run.inputs, ramped(scope, target, from_s=run.now_s))
    capacities, loads = [], []
    for turn in range(1, 61):
        plan = run.step(begun)
        capacities.append(plan.capacity_rps["us-east1"])
        loads.append(plan.load_rps["us-east1"])
        assert capacities[-1] == pytest.approx(100 * (1 - turn * PERIOD_S / RAMP_S), abs=0.5)
        assert loads[-1] <= capacities[-1] * 1.001
        assert_well_formed(plan, [*PLACES, *AREAS])
    assert all(later <= before + 1e-6 for before, later in itertools.pairwise(loads))
    assert len({round(load) for load in loads}) > 20
    assert (capacities[-1], loads[-1]) == (0.0, 0.0)


def test_a_machine_and_a_task_lose_only_their_own_capacity() -> None:
    run = Run(planet(BUSY))
    run.step()
    slow = [
        ramped(DrainScope.MACHINE, "m-us-east1-0", from_s=run.now_s),
        ramped(DrainScope.TASK, "/bns/europe-west1/shakespeare/backend/1", from_s=run.now_s, over_s=100.0),
    ]
    plan = run.step(drained(run.inputs, *slow), after_s=50.0)
    assert plan.capacity_rps["us-east1"] == pytest.approx(100 - 50 / 6, abs=0.2)
    assert plan.capacity_rps["europe-west1"] == pytest.approx(75, abs=0.2)
    plan = run.step(after_s=RAMP_S)
    assert (plan.capacity_rps["us-east1"], plan.capacity_rps["europe-west1"]) == (50.0, 50.0)


def test_tasks_serve_on_until_the_ramp_is_over() -> None:
    inputs = drained(planet(BUSY), US)
    task = inputs.tasks["backend"][0]
    assert full_coverage(inputs.catalog, NOW_S + 299).drain_of("backend", task) == ""
    assert full_coverage(inputs.catalog, NOW_S + 300).drain_of("backend", task) == US.name
    easing = coverage_at(inputs.catalog, NOW_S + 150).easing_of("backend", task)
    assert easing is not None
    assert easing.remaining == pytest.approx(0.5, abs=0.003)


def test_of_overlapping_drains_the_one_that_is_ahead_counts() -> None:
    slow = ramped(DrainScope.REGION, "na", over_s=600.0)
    fast = ramped(DrainScope.DATACENTER, "us-east1", over_s=200.0)
    run = Run(drained(planet(BUSY), slow, fast))
    assert run.step(after_s=100.0).capacity_rps["us-east1"] == pytest.approx(50, abs=0.5)
    # Without the fast one the slow one has taken a sixth.
    assert run.step(drained(run.inputs, slow)).capacity_rps["us-east1"] == pytest.approx(82.5, abs=0.5)
    at_once = drain(DrainScope.JOB, "/bns/us-east1/shakespeare/backend")
    plan = run.step(drained(run.inputs, slow, at_once))
    assert plan.capacity_rps["us-east1"] == plan.load_rps["us-east1"] == 0.0
    names = next(each.drains for each in run.decision.services["backend"].capacity.datacenters if each.drained)
    assert names == (at_once.name,)


def test_ending_one_of_two_drains_gives_nothing_back() -> None:
    wide, narrow = drain(DrainScope.REGION, "na"), drain(DrainScope.DATACENTER, "us-east1")
    run = Run(drained(planet(BUSY), wide, narrow))
    run.step()
    for _ in range(30):
        assert run.step(drained(run.inputs, wide)).load_rps["us-east1"] == 0.0
    for _ in range(60):
        plan = run.step(drained(run.inputs))
    assert plan.load_rps["us-east1"] == pytest.approx(60, rel=0.01)


def test_what_expires_returns_step_by_step_and_onto_healthy_tasks_only() -> None:
    start = planet({**BUSY, "europe": 40.0})
    before = Run(start).step().load_rps
    out = drain(DrainScope.DATACENTER, "us-east1", for_s=60)
    run = Run(drained(start, out))
    run.step()
    first, *others = run.inputs.tasks["backend"]
    assert first.datacenter == "us-east1"
    half = replace(run.inputs, tasks={"backend": (replace(first, health=HealthStatus.UNHEALTHY), *others)})
    loads = [run.step(half).load_rps["us-east1"] for _ in range(60)]
    assert loads[0] == 0.0
    assert max(loads) <= 50.0 * 1.001
    assert loads[-1] > 35.0
    whole = with_health(run.inputs, "backend", HealthStatus.HEALTHY)
    for _ in range(120):
        plan = run.step(whole)
    assert plan.load_rps == pytest.approx(dict(before), rel=0.01, abs=0.5)


def test_a_drain_that_expires_onto_ill_tasks_returns_nothing() -> None:
    run = Run(drained(planet(BUSY), drain(DrainScope.DATACENTER, "us-east1", for_s=60)))
    run.step()
    ill = with_health(run.inputs, "backend", HealthStatus.TIMEOUT, ["us-east1"])
    assert all(run.step(ill).load_rps["us-east1"] == 0.0 for _ in range(40))


def test_a_ramped_drain_is_admitted_and_previewed_by_its_end() -> None:
    busy = planet({"north-america": 250.0, "europe": 60.0})
    (refusal,) = admission_violations(busy, US, now_s=NOW_S)
    assert "demand 310 rps > 285 rps" in refusal
    effects = {effect.datacenter: effect for effect in preview_drain(planet(BUSY), US, now_s=NOW_S).effects}
    assert (effects["us-east1"].capacity_after_rps, effects["us-east1"].load_after_rps) == (0.0, 0.0)
    assert math.fsum(effect.load_after_rps for effect in effects.values()) == pytest.approx(140)


def test_explain_says_how_much_a_drain_has_left() -> None:
    run = Run(drained(planet(BUSY), US))
    run.step(after_s=75.0)
    told = explain(run.state, run.inputs, "backend", "north-america", now_s=run.now_s)
    (here,) = [each for each in told.candidates if each.datacenter == "us-east1"]
    assert here.drain == US.name
    assert "a drain under way has left 75% of it" in here.reason
