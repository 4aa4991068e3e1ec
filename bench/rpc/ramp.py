"""The nine-step ramp of the Prequal paper, every rule on the same seeds: errors, and the tail beside other rules.

Scene: `gslb.sim.replicas.fleet.Scene`. "Prequal as published" has the paper's constants, "tuned here" those that did best
in a sweep on this scene (pool 4-16, Q_RIF 0-0.9, 0.5-2 removed per request). Both, and ours, probe 3 times a request.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from bench.rows import Row, figure
from bench.rpc.confidence import interval
from bench.stage import progress
from gslb.rpc.policy.adaptive import Adaptive
from gslb.rpc.policy.prequal import Knobs, Prequal
from gslb.rpc.policy.weighted import Timing, WeightedRoundRobin
from gslb.sim.replicas.fleet import Fleet, MakeRule, Outcome, Scene
from gslb.sim.replicas.oracles import Omniscient

STEPS: Final = tuple(round(0.75 * (10 / 9) ** k, 2) for k in range(9))
AT: Final = 1.27
RIVAL_AT: Final = (0.93, 1.27, 1.74)
TUNED: Final = Knobs(pool=6, hot_quantile=0.5)
OURS: Final = "ours (adaptive)"


@dataclass(frozen=True, slots=True)
class Size:
    """Of one run. The scene is the paper's in the full size only."""

    seeds: int
    clients: int = 100
    servers: int = 100
    warm_s: float = 3.0
    measured_s: float = 5.0
    steps: tuple[float, ...] = STEPS


FULL: Final = Size(10)
QUICK: Final = Size(2, 10, 10, 1.0, 2.0, (STEPS[0], 0.93, 1.27, 1.74))


@dataclass(frozen=True, slots=True)
class Rival:
    """A rule, and what of a report it reads."""

    make: MakeRule
    latency: bool = False
    trailers: bool = False


RULES: Mapping[str, Rival] = MappingProxyType(
    {
        OURS: Rival(lambda _: Adaptive(), trailers=True),
        # Its blackout of 10 s is longer than our warm-up: cut, in its favour.
        "WRR": Rival(lambda _: WeightedRoundRobin(Timing(blackout_s=1.0)), trailers=True),
        "omniscient": Rival(Omniscient),
        "Prequal as published": Rival(lambda _: Prequal(), latency=True),
        "Prequal tuned here": Rival(lambda _: Prequal(TUNED), latency=True),
    }
)


def rows(quick: bool) -> list[Row]:
    """All of them."""
    size = QUICK if quick else FULL
    ours = {load: runs(OURS, load, size) for load in size.steps}
    others = {(name, AT): runs(name, AT, size) for name in ("WRR", "omniscient")}
    others |= {
        (name, load): runs(name, load, size)
        for name in ("Prequal as published", "Prequal tuned here")
        for load in RIVAL_AT
    }
    return [_errors(ours), *_tails(ours[AT], others), *_rivals(ours, others)]


def runs(name: str, load: float, size: Size) -> list[Outcome]:
    """A run for each seed."""
    progress(f"{name} at {load:g} of the allocation")
    rule = RULES[name]
    return [
        Fleet(
            Scene(
                load,
                seed,
                size.clients,
                size.servers,
                size.warm_s,
                size.measured_s,
                latency=rule.latency,
                trailers=rule.trailers,
            ),
            rule.make,
        ).run()
        for seed in range(1, size.seeds + 1)
    ]


def _errors(ours: Mapping[float, list[Outcome]]) -> Row:
    errors = [sum(one.errors for one in found) for found in ours.values()]
    requests = sum(len(one.latencies_s) for found in ours.values() for one in found)
    seeds = len(next(iter(ours.values())))
    what = f"of {requests} requests; loads {min(ours):g}-{max(ours):g}, n={seeds} each"
    return Row(f"ramp: errors of {OURS}, {len(ours)} steps together", float(sum(errors)), "", what, at_most=0.0)


def _p999_ms(found: list[Outcome]) -> list[float]:
    return [one.quantile_ms(0.999) for one in found]


def _tails(ours: list[Outcome], others: Mapping[tuple[str, float], list[Outcome]]) -> list[Row]:
    mine = _p999_ms(ours)
    wrr, best = _p999_ms(others["WRR", AT]), _p999_ms(others["omniscient", AT])
    errors = statistics.fmean(one.error_fraction for one in others["WRR", AT])
    return [
        Row(f"ramp: p99.9 at {AT}, {OURS}", statistics.fmean(mine), "ms", interval(mine)),
        Row(f"ramp: p99.9 at {AT}, WRR (errors {100 * errors:.2g} %)", statistics.fmean(wrr), "ms", interval(wrr)),
        Row(f"ramp: p99.9 at {AT}, omniscient", statistics.fmean(best), "ms", interval(best)),
        _ratio(f"ramp: p99.9 at {AT}, WRR over ours", wrr, mine, at_least=8.0),
        _ratio(f"ramp: p99.9 at {AT}, ours over omniscient", mine, best, at_most=1.5),
    ]


def _ratio(
    name: str, above: list[float], below: list[float], *, at_least: float | None = None, at_most: float | None = None
) -> Row:
    """Of the same seed's figures."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return Row(name, statistics.fmean(found), "times", interval(found), at_most, at_least)


def _rivals(ours: Mapping[float, list[Outcome]], others: Mapping[tuple[str, float], list[Outcome]]) -> list[Row]:
    found = []
    for name in ("Prequal as published", "Prequal tuned here"):
        for load in RIVAL_AT:
            mine, theirs = _p999_ms(ours[load]), _p999_ms(others[name, load])
            lower = [100 * (1 - a / b) for a, b in zip(mine, theirs, strict=True)]
            means = f"{figure(statistics.fmean(mine))} to {figure(statistics.fmean(theirs))} ms; {interval(lower)}"
            what = f"ramp: p99.9 at {load}, ours lower than {name}"
            found.append(Row(what, statistics.fmean(lower), "%", means, at_least=20.0))
    return found
