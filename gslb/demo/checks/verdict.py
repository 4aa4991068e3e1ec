"""What a check concludes from what it saw: rules with their numbers, and windows of requests served. PURE."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# (moment in seconds, requests served so far by each datacenter)
History = Sequence[tuple[float, Counter[str]]]


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


def worst_window(history: History, capacity_rps: Mapping[str, float], window_s: float) -> tuple[float, str]:
    """The highest utilization of any datacenter in any window, and where; 0 when no window is long enough."""
    worst, at = 0.0, ""
    for i, (from_s, first) in enumerate(history):
        window = next(((to_s, last) for to_s, last in history[i:] if to_s - from_s >= window_s), None)
        if window is None:
            break
        to_s, last = window
        for name, limit in capacity_rps.items():
            used = utilization((last[name] - first[name]) / (to_s - from_s), limit)
            if used > worst:
                worst, at = used, f"{name} at +{from_s - history[0][0]:.1f} s"
    return worst, at


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
