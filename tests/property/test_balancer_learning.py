"""Whatever agents report, in whatever order, what is learned stays within bounds and nothing is raised."""

import math
import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.balancer.inputs import TaskState
from gslb.balancer.learning import (
    DECLARED_FACTOR_MAX,
    GROWTH_MAX,
    PERIOD_S,
    SAMPLES_MAX,
    STEP_MAX_S,
    UNLEARNED,
    learn,
)
from gslb.model.resources import CapacityMode
from tests.support.cpu_tasks import job, service

PLACES = ("us-east1", "europe-west1", "asia-east1")
SERVICE = service(PLACES)
ODD = (0.0, 0.5, 30.0, 60.0, 1e-30, 1e30, math.nan, math.inf, -1.0)
HEALTHS = (HealthStatus.HEALTHY,) * 4 + tuple(HealthStatus)
Steps = list[tuple[float, list[TaskState]]]
# Drawn by a seed: values by the thousand, which hypothesis would choose one by one.
SEEDS = st.integers(0, 2**32)


def task(rng: random.Random, place: str, number: int, odd: float) -> TaskState:
    def some(most: float) -> float:
        return rng.choice(ODD) if rng.random() < odd else rng.uniform(0.0, most)

    ok, error, cpu, age_s = some(100.0), some(20.0), some(1.0), some(10.0)
    health, report = rng.choice(HEALTHS), rng.randrange(6)
    return TaskState(f"{job(place)}/{number}", place, job(place), health, ok, error, cpu, age_s, report=report)


def drawn(seed: int, most: int = 40) -> Steps:
    """Steps of a planet whose agents say this and that."""
    rng = random.Random(seed)
    odd, present = rng.choice((0.0, 0.02, 0.3)), rng.choice((0.3, 0.9))
    return [
        (
            rng.choice(ODD) if rng.random() < odd else rng.uniform(-2.0, 12.0),
            [task(rng, place, n, odd) for place in PLACES for n in range(3) if rng.random() < present],
        )
        for _ in range(rng.randrange(1, most))
    ]


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_bounds_hold_whatever_is_reported(seed: int) -> None:
    learning, now_s = UNLEARNED, 0.0
    for passed_s, states in drawn(seed):
        now_s += passed_s
        after = learn(learning, SERVICE, tuple(states), now_s, {})
        grown = GROWTH_MAX ** ((after.clock_s - learning.clock_s) / PERIOD_S)
        assert 0 <= after.clock_s - learning.clock_s <= STEP_MAX_S + 1e-9
        for backend in SERVICE.backends:
            model = after.jobs[backend.job]
            declared = backend.task_capacity_rps
            assert declared / DECLARED_FACTOR_MAX <= model.task_rps <= declared * DECLARED_FACTOR_MAX
            if learning.jobs:
                assert model.task_rps <= learning.jobs[backend.job].task_rps * grown * (1 + 1e-9)
            assert len(model.samples) <= SAMPLES_MAX
            assert all(math.isfinite(value) for value in (model.idle.cpu, model.warmth, model.error_share))
        assert after.tasks.keys() == {state.name for state in states}
        assert all(0 < part < 1 for part in after.ramps.values())
        learning = after


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_the_same_reports_teach_the_same(seed: int) -> None:
    """Replicas that hear the same plan the same: nothing depends on the order in which tasks are listed."""
    one = other = UNLEARNED
    now_s = 0.0
    for passed_s, states in drawn(seed):
        now_s += passed_s
        one = learn(one, SERVICE, tuple(states), now_s, {})
        other = learn(other, SERVICE, tuple(reversed(states)), now_s, {})
    assert {name: model.task_rps for name, model in one.jobs.items()} == {
        name: model.task_rps for name, model in other.jobs.items()
    }
    assert one.notes == other.notes


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.floats() | st.sampled_from(ODD), st.floats() | st.sampled_from(ODD))
def test_declarations_that_make_no_sense_are_not_learned_from(seed: int, declared: float, target: float) -> None:
    backends = tuple(
        replace(backend, task_capacity_rps=declared, target_utilization=target, mode=CapacityMode.UTILIZATION)
        for backend in SERVICE.backends
    )
    sensible = 0 < declared < math.inf and 0 < target < math.inf
    learning = UNLEARNED
    for i, (_, states) in enumerate(drawn(seed, 10)):
        learning = learn(learning, replace(SERVICE, backends=backends), tuple(states), 5.0 * i, {})
        assert bool(learning.jobs) is sensible
        assert all(model.task_rps > 0 for model in learning.jobs.values())
