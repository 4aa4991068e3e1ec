"""What a check concludes from what it saw: rules with their numbers, and windows of requests served. PURE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# Of each datacenter: (moment in seconds, requests served so far). Each has moments of its own: on a busy machine a reading
# takes long enough to look like a tenth of a window's load if it counted for the moment at which all of them began.
Readings = Sequence[tuple[float, int]]
History = Mapping[str, Readings]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that has to hold. `says` names what was seen and what was asked, and reads well either way."""

    holds: bool
    says: str


@dataclass(frozen=True, slots=True)
class Level:
    """What the plan places somewhere at a moment, seconds after the change that is watched."""

    at_s: float
    load_rps: float


def at_most(what: str, value: float | None, most: float, unit: str = "") -> Rule:
    """`value` was seen and is <= `most`."""
    tail = f" {unit}" if unit else ""
    seen = "never" if value is None else f"{value:.4g}{tail}"
    return Rule(value is not None and value <= most, f"{what} {seen} (at most {most:.4g}{tail})")


def at_least(what: str, value: float | None, least: float, unit: str = "") -> Rule:
    """`value` was seen and is >= `least`."""
    tail = f" {unit}" if unit else ""
    seen = "never" if value is None else f"{value:.4g}{tail}"
    return Rule(value is not None and value >= least, f"{what} {seen} (at least {least:.4g}{tail})")


def conclude(*rules: Rule) -> dict[str, object]:
    """`ok`, and `why`: of a check that failed the rules that do not hold, else all of them."""
    broken = [rule.says for rule in rules if not rule.holds]
    return {"ok": not broken, "why": "; ".join(broken or [rule.says for rule in rules])}


def utilization(load_rps: float, capacity_rps: float) -> float:
    """Load over capacity; infinite when there is load and none for it."""
    if capacity_rps > 0:
        return load_rps / capacity_rps
    return float("inf") if load_rps > 0 else 0.0


def rate_rps(readings: Readings) -> float:
    """Requests per second from the first reading to the last; 0 when there are not two."""
    if len(readings) < 2:
        return 0.0
    (from_s, first), (to_s, last) = readings[0], readings[-1]
    return (last - first) / (to_s - from_s)


def since(history: History, at_s: float) -> History:
    """The readings from a moment on."""
    return {name: [one for one in readings if one[0] >= at_s] for name, readings in history.items()}


def windows(readings: Readings, window_s: float) -> list[Readings]:
    """From each reading on the shortest run of readings that is `window_s` long, as far as there is one."""
    found: list[Readings] = []
    for first, (from_s, _) in enumerate(readings):
        last = next((i for i in range(first, len(readings)) if readings[i][0] - from_s >= window_s), None)
        if last is None:
            break
        found.append(readings[first : last + 1])
    return found


def worst_window(
    history: History, capacity_rps: Mapping[str, float], window_s: float, origin_s: float
) -> tuple[float, str]:
    """The highest utilization of any datacenter in any window, and where, counted from `origin_s`; 0: there is none."""
    worst, at = 0.0, ""
    for name, limit in capacity_rps.items():
        for window in windows(history.get(name, ()), window_s):
            used = utilization(rate_rps(window), limit)
            if used > worst:
                worst, at = used, f"{name} at +{window[0][0] - origin_s:.1f} s"
    return worst, at


def series_rps(history: History, window_s: float) -> dict[str, list[float]]:
    """Each datacenter's load in one window after the other, for people."""
    series: dict[str, list[float]] = {}
    for name, readings in history.items():
        series[name], end_s = [], -float("inf")
        for window in windows(readings, window_s):
            if window[0][0] >= end_s:
                series[name].append(round(rate_rps(window), 1))
                end_s = window[-1][0]
    return series


def backsteps(levels: Sequence[Level], *, falling: bool, tolerance_rps: float) -> list[str]:
    """Where load went the wrong way by more than the tolerance, measured from the farthest it had got."""
    found: list[str] = []
    sign = -1.0 if falling else 1.0
    farthest = sign * levels[0].load_rps if levels else 0.0
    for before, level in pairwise(levels):
        if sign * level.load_rps < farthest - tolerance_rps:
            found.append(f"+{level.at_s:.1f} s: {before.load_rps:.1f} -> {level.load_rps:.1f} rps")
        farthest = max(farthest, sign * level.load_rps)
    return found


def steps_between(levels: Sequence[Level], low_rps: float, high_rps: float, *, apart_rps: float) -> int:
    """How many different levels were seen strictly between two loads; levels nearer than `apart_rps` are one."""
    steps, last = 0, None
    for level in levels:
        if low_rps < level.load_rps < high_rps and (last is None or abs(level.load_rps - last) >= apart_rps):
            steps += 1
            last = level.load_rps
    return steps


def over_ramp(levels: Sequence[Level], capacity_rps: float, ramp_s: float, lag_s: float) -> list[str]:
    """Where a place that is drained over `ramp_s` carried more than what was left of it `lag_s` before (all, at first)."""
    found: list[str] = []
    for level in levels:
        left = min(max(1.0 - (level.at_s - lag_s) / ramp_s, 0.0), 1.0)
        if level.load_rps > left * capacity_rps * 1.001 + 1e-3:
            found.append(f"+{level.at_s:.1f} s: {level.load_rps:.1f} rps of {left * capacity_rps:.1f}")
    return found


def over_growth(levels: Sequence[Level], growth_rps_per_s: float, first_rps: float) -> list[str]:
    """Where a place grew faster than it may: `first_rps` at once, then so much a second."""
    found: list[str] = []
    for level in levels:
        allowed = first_rps + growth_rps_per_s * max(level.at_s, 0.0)
        if level.load_rps > allowed:
            found.append(f"+{level.at_s:.1f} s: {level.load_rps:.1f} rps of {allowed:.1f}")
    return found
