"""Overload, in the simulator: what the client's throttle and budget and the server's guard are worth together.

Every figure is the mean over seeds with the half width of its 95 % confidence interval. Goodput is what was answered in time,
by the second in which it was asked.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bench.rows import Row, figure
from bench.rpc.overload_world import Second, Shape, Stage, World
from bench.stage import progress
from gslb.model.criticality import Criticality

SEEDS: Final = 10
CRITICAL: Final = Criticality.CRITICAL
SHAPE: Final = Shape(servers=5, clients=10)
Load = tuple[float, float, float, float]
# Student's t at 97.5 %, by the number of seeds less one; beyond 30 it is the normal distribution's.
_T: Final = {1: 12.71, 2: 4.303, 9: 2.262}
_ONSET_S: Final = 5
_SETTLE_S: Final = 10


def mean_row(
    name: str, values: Sequence[float], unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> Row:
    """The mean over seeds; its confidence interval and the range beside it."""
    count = len(values)
    t = _T.get(count - 1, 1.96 if count > 30 else 2.3)
    half = t * statistics.stdev(values) / math.sqrt(count) if count > 1 else 0.0
    text = f"+-{figure(half)} (95 %), {figure(min(values))}-{figure(max(values))}, {count} seeds"
    return Row(name, statistics.fmean(values), unit, text, at_most, at_least)


def rows(*, quick: bool) -> list[Row]:
    """All of them."""
    seeds = range(1, 3 if quick else SEEDS + 1)
    found = []
    for part in (_ten_times, _critical, _outage, _ladder):
        progress(f"rpc overload: {part.__name__.strip('_')}")
        found += part(seeds)
    return found


def _run(shape: Shape, stages: Sequence[tuple[float, Load]], seed: int) -> list[Second]:
    return World(shape, [Stage(until_s, load) for until_s, load in stages], seed).run()


def _share_ok(seconds: Sequence[Second], level: Criticality = CRITICAL) -> float:
    asked = sum(second.asked[level] for second in seconds)
    return sum(second.ok[level] for second in seconds) / asked if asked else 1.0


def _goodput(seconds: Sequence[Second], shape: Shape) -> float:
    """In percent of the capacity."""
    return 100.0 * sum(sum(second.ok) for second in seconds) / len(seconds) / shape.capacity_rps


def _ten_times(seeds: range) -> list[Row]:
    calm: Load = (0.0, 0.9, 0.0, 0.0)
    storm: Load = (0.0, 10.0, 0.0, 0.0)
    until_s = _ONSET_S + _SETTLE_S + 10
    stages = [(_ONSET_S, calm), (until_s, storm), (until_s + 16, calm)]
    good, settled, back = [], [], []
    for seed in seeds:
        seconds = _run(SHAPE, stages, seed)
        good.append(_goodput(seconds[_ONSET_S + _SETTLE_S : until_s], SHAPE))
        settled.append(_first(seconds[_ONSET_S:until_s], 0.95 * SHAPE.capacity_rps))
        back.append(_first(seconds[until_s : until_s + 15], 0.95 * 0.9 * SHAPE.capacity_rps))
    twice = [
        _goodput(_run(replace(SHAPE, excess=2.0), stages[:2], seed)[_ONSET_S + _SETTLE_S : until_s], SHAPE)
        for seed in seeds
    ]
    bare = [_goodput(_run(replace(SHAPE, excess=None), [(10, storm)], seed)[5:], SHAPE) for seed in seeds]
    name = "overload: goodput at 10 x capacity, rejection cost 0.1"
    return [
        mean_row(name, good, "% of capacity", at_least=95.0),
        mean_row("overload: the same with K = 2", twice, "% of capacity"),
        mean_row("overload: the same without a throttle in the clients", bare, "% of capacity"),
        mean_row("overload: after its onset, until goodput is 95 % of capacity over 2 s", settled, "s"),
        mean_row("overload: after it, until goodput is 95 % of demand over 2 s", back, "s", at_most=10.0),
    ]


def _first(seconds: Sequence[Second], wanted_rps: float) -> float:
    """The end of the first two seconds in which so much was answered; all of the time when there are none."""
    for i in range(len(seconds) - 1):
        if sum(seconds[i].ok) + sum(seconds[i + 1].ok) >= 2 * wanted_rps:
            return float(i + 2)
    return float(len(seconds))


def _critical(seeds: range) -> list[Row]:
    """From the first moment of the overload; the last second's answers are not waited for, so it does not count."""
    stages: list[tuple[float, Load]] = [(_ONSET_S, (0.0, 0.5, 0.2, 0.2)), (35, (0.0, 0.9, 0.55, 0.55))]
    runs = [_run(SHAPE, stages, seed)[_ONSET_S:34] for seed in seeds]
    return [
        mean_row(
            "overload: CRITICAL success at 2 x capacity, its own demand 0.9",
            [100.0 * _share_ok(run) for run in runs],
            "%",
            at_least=99.9,
        ),
        mean_row(
            "overload: SHEDDABLE success beside it",
            [100.0 * _share_ok(run, Criticality.SHEDDABLE) for run in runs],
            "%",
        ),
        mean_row("overload: goodput of all classes", [_goodput(run, SHAPE) for run in runs], "% of capacity"),
    ]


def _outage(seeds: range) -> list[Row]:
    """A minute in which every attempt fails, after a minute that filled the budgets."""
    ratios = []
    for seed in seeds:
        load: Load = (0.0, 0.5, 0.0, 0.0)
        seconds = World(replace(SHAPE, clients=5), [Stage(60, load), Stage(120, load, down=True)], seed).run()[60:]
        ratios.append(sum(s.attempts for s in seconds) / sum(sum(s.asked) for s in seconds))
    return [mean_row("overload: attempts per request in a total outage of 60 s", ratios, "x", at_most=1.1)]


def _ladder(seeds: range) -> list[Row]:
    """Tasks that need n calls each, twice as many as a service of one call could do; the best is C / (n * load)."""
    found = []
    for calls in range(1, 5):
        shape = replace(SHAPE, calls=calls)
        best = min(1.0, 1.0 / (2.0 * calls))
        values = []
        for seed in seeds:
            seconds = _run(shape, [(40, (0.0, 2.0, 0.0, 0.0))], seed)[_SETTLE_S:38]
            values.append(100.0 * _share_ok(seconds) / best)
        name = f"overload: tasks of {calls} call{'s' if calls > 1 else ''} at 2 x capacity, of the best possible"
        found.append(mean_row(name, values, "%", at_least=95.0))
    return found
