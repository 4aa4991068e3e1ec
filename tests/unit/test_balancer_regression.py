"""The line of CPU over load: what noise, outliers and a narrow range of loads do to it."""

import math
import random

import pytest

from gslb.balancer.regression import UNKNOWN_IDLE, Idle, Line, Sample, fit, learned_idle, seen_idle, shifted

IDLE, COST, TARGET = 0.06, 0.008, 0.8
CAPACITY = (TARGET - IDLE) / COST


def samples(
    loads: list[float], *, noise: float = 0.0, idle: float = IDLE, cost: float = COST, seed: int = 1
) -> list[Sample]:
    rng = random.Random(seed)
    return [
        Sample(5.0 * i, load, (idle + cost * load) * (1 + noise * rng.uniform(-1, 1)), 2)
        for i, load in enumerate(loads)
    ]


def wide(count: int = 36) -> list[float]:
    """Loads as of a day in a few minutes: 20 to 80 rps a task."""
    return [50 + 30 * math.sin(i / 5) for i in range(count)]


def fitted(points: list[Sample], idle: Idle = UNKNOWN_IDLE) -> Line:
    line = fit(points, idle, TARGET)
    assert line is not None
    return line


def test_a_wide_range_of_loads_tells_idle_from_cost() -> None:
    line = fitted(samples(wide()))
    assert line.load_at(TARGET) == pytest.approx(CAPACITY, rel=0.01)
    assert line.idle == pytest.approx(IDLE, abs=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_ten_percent_moves_capacity_by_less_than_five(seed: int) -> None:
    line = fitted(samples(wide(), noise=0.1, seed=seed), Idle(IDLE, 0.02**-2))
    assert line.load_at(TARGET) == pytest.approx(CAPACITY, rel=0.05)


def test_loads_that_differ_only_by_noise_leave_idle_as_it_was_known() -> None:
    """A regression would take the noise in the rates for a flat line and capacity for endless."""
    rng = random.Random(3)
    points = [Sample(5.0 * i, 50 * (1 + 0.1 * rng.uniform(-1, 1)), IDLE + COST * 50, 2) for i in range(36)]
    line = fitted(points, Idle(IDLE, 0.01**-2))
    assert line.idle == pytest.approx(IDLE, abs=0.005)
    assert line.load_at(TARGET) == pytest.approx(CAPACITY, rel=0.05)


def test_a_quarter_of_wild_samples_changes_little() -> None:
    points = samples(wide(), noise=0.05)
    wild = [Sample(p.at_s, p.load_rps, p.cpu * 3 if i % 4 == 2 else p.cpu, 2) for i, p in enumerate(points)]
    assert fitted(wild).load_at(TARGET) == pytest.approx(CAPACITY, rel=0.05)


def test_three_samples_are_the_least() -> None:
    assert fit(samples([10.0, 20.0]), UNKNOWN_IDLE, TARGET) is None
    assert fit(samples([10.0, 20.0, 30.0]), UNKNOWN_IDLE, TARGET) is not None


def test_cpu_that_load_does_not_explain_is_no_line() -> None:
    assert fit(samples(wide(), cost=0.0), Idle(IDLE, 0.01**-2), TARGET) is None


def test_a_shift_is_several_samples_off_on_the_same_side() -> None:
    steady = samples(wide())
    line = fitted(steady)
    dear = [Sample(200.0 + i, 50.0, 2 * (IDLE + COST * 50), 2) for i in range(3)]
    cheap = [Sample(200.0 + i, 50.0, 0.5 * (IDLE + COST * 50), 2) for i in range(3)]
    assert not shifted(steady, line)
    assert not shifted([*steady, *dear[:2]], line)
    assert not shifted([*steady, dear[0], cheap[0], dear[1]], line)
    assert shifted([*steady, *dear], line)
    assert shifted([*steady, *cheap], line)


def test_a_fit_far_below_the_target_is_less_sure_than_one_near_it() -> None:
    low, high = fitted(samples([8.0] * 36)), fitted(samples([85.0] * 36))
    assert low.relative_error(TARGET, UNKNOWN_IDLE) > 0.3
    assert high.relative_error(TARGET, UNKNOWN_IDLE) < 0.05


def test_idle_is_learned_from_the_spread_and_from_idleness() -> None:
    idle = UNKNOWN_IDLE
    for _ in range(40):
        idle = learned_idle(idle, fitted(samples(wide()), idle), TARGET, 0.1)
    assert idle.cpu == pytest.approx(IDLE, abs=0.005)
    assert idle.precision > UNKNOWN_IDLE.precision
    seen = UNKNOWN_IDLE
    for _ in range(5):
        seen = seen_idle(seen, IDLE)
    assert seen.cpu == pytest.approx(IDLE, abs=0.005)


def test_what_is_not_confirmed_is_trusted_less_and_less() -> None:
    idle = Idle(IDLE, 0.01**-2)
    line = fitted(samples([50.0] * 36), idle)
    for _ in range(1000):
        idle = learned_idle(idle, line, TARGET, 0.05)
    assert idle.cpu == IDLE
    assert idle.precision < 1.2 * UNKNOWN_IDLE.precision
