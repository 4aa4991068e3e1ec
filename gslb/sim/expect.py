"""Expectations of a story: a metric, a bound, and a line that says both. `--rewrite` does not make a missed one good."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from gslb.sim.meters import fraction
from gslb.sim.views import percent, rps
from gslb.sim.words import Words, number
from gslb.sim.world import World

_BOUNDS: Final = {"at-most": None, "at-least": None}


class _Scope:
    """What the metric is about, and since when."""

    def __init__(self, world: World, words: Words, since_s: float) -> None:
        catalog = world.catalog
        self.world = world
        self.since_s = since_s
        self.service = words.option("service", "")
        self.datacenter = words.option("dc", "")
        self.locality = words.option("locality", "")
        for value, among in (
            (self.service, catalog.services),
            (self.datacenter, catalog.datacenters),
            (self.locality, {**catalog.datacenters, **catalog.areas}),
        ):
            if value:
                Words("expect", [value]).known(0, "name", dict(among))


def judge(world: World, words: Words, since_s: float) -> tuple[bool, str]:
    """Whether it holds, and the line to print. Raises StoryError."""
    metric = words.known(0, "metric", METRICS)
    bound = words.known(1, "bound", _BOUNDS)
    limit = number(words.name(2, "VALUE"), "expect")
    scope = _Scope(world, words, since_s)
    words.finish(3)
    value, show = METRICS[metric](scope)
    held = not math.isnan(value) and (value <= limit if bound == "at-most" else value >= limit)
    about = " ".join(part for part in (scope.service, scope.locality, scope.datacenter) if part)
    subject = f"{metric} {about}" if about else metric
    return held, f"{'ok' if held else 'MISSED'}: {subject} is {show(value)}, {bound} {show(limit)}"


Value = tuple[float, Callable[[float], str]]


def _part(scope: _Scope, attribute: str) -> Value:
    ticks = list(scope.world.meters.ticks(scope.since_s, scope.service))
    part = fraction(sum(getattr(tick, attribute) for tick in ticks), sum(tick.demand for tick in ticks))
    return part, percent


def _critical(scope: _Scope) -> Value:
    ticks = list(scope.world.meters.ticks(scope.since_s, scope.service))
    wanted = sum(tick.critical_demand for tick in ticks)
    return (fraction(sum(tick.critical_ok for tick in ticks), wanted) if wanted else math.nan), percent


def _utilization(scope: _Scope) -> Value:
    return scope.world.meters.worst_utilization(scope.since_s, scope.service, scope.datacenter), percent


def _shared(scope: _Scope, what: str) -> Value:
    return scope.world.meters.worst_use(scope.since_s, what, scope.locality, scope.datacenter), percent


def _now(scope: _Scope, attribute: str) -> float:
    """Sum over the sites of the scope, in the last tick."""
    return math.fsum(
        getattr(series[-1], attribute)
        for (service, datacenter), series in scope.world.meters.sites.items()
        if (not scope.service or service == scope.service) and (not scope.datacenter or datacenter == scope.datacenter)
    )


def _load(scope: _Scope) -> Value:
    return _now(scope, "offered"), rps


def _capacity(scope: _Scope) -> Value:
    return _now(scope, "capacity"), rps


def _share(scope: _Scope) -> Value:
    """Of the plan: what part of a locality's demand goes to a datacenter."""
    view = scope.world.control.views.get(scope.service)
    if view is None or view.plan is None:
        return math.nan, percent
    return view.plan.shares.get(scope.locality, {}).get(scope.datacenter, 0.0), percent


def _spread(scope: _Scope) -> Value:
    """Between the busiest and the idlest datacenter, now."""
    values = [
        series[-1].utilization
        for (service, _), series in scope.world.meters.sites.items()
        if series[-1].up and (not scope.service or service == scope.service)
    ]
    return max(values) - min(values), percent


def _moved(scope: _Scope) -> Value:
    """Mean part of the demand that a plan period moved."""
    world = scope.world
    periods = max(1.0, (world.now_s - scope.since_s) / world.knobs.plan_period_s)
    moved = [each.moved for each in world.control.published if each.at_s > scope.since_s]
    return sum(moved) / periods / max(1, len(world.catalog.services)), lambda value: f"{100 * value:.2f} %"


def _plans(scope: _Scope) -> Value:
    return float(sum(each.at_s > scope.since_s for each in scope.world.control.published)), rps


def _held(scope: _Scope) -> Value:
    return float(sum(bool(each.held) for each in scope.world.control.decision.services.values())), rps


METRICS: Final[Mapping[str, Callable[[_Scope], Value]]] = MappingProxyType(
    {
        "served": lambda scope: _part(scope, "ok"),
        "shed": lambda scope: _part(scope, "shed"),
        "failed": lambda scope: _part(scope, "failed"),
        "critical": _critical,
        "utilization": _utilization,
        "cpu": lambda scope: _shared(scope, "cpu"),
        "uplink": lambda scope: _shared(scope, "uplink"),
        "path": lambda scope: _shared(scope, "path"),
        "load": _load,
        "capacity": _capacity,
        "share": _share,
        "spread": _spread,
        "moved": _moved,
        "plans": _plans,
        "held": _held,
    }
)
