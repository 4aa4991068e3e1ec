"""What a story prints: whole numbers and percent, so that it reads well and does not hang on the last digit."""

import math
from collections.abc import Iterable

from gslb.sim.meters import fraction
from gslb.sim.world import World


def percent(part: float) -> str:
    """0.1234 as 12 %; small parts, and what is nearly all, with a digit more."""
    value = 100 * part
    if math.isnan(value):
        return "no %"
    if 99.05 <= value < 99.95:
        return f"{value:.1f} %"
    return f"{value:.0f} %" if value >= 9.95 or value < 0.05 else f"{value:.1f} %"


def rps(value: float) -> str:
    """Three significant digits."""
    return f"{float(f'{value:.3g}'):.6g}"


def window(world: World, since_s: float) -> str:
    """One line on what happened since `since_s`."""
    ticks = list(world.meters.ticks(since_s))
    demand = sum(tick.demand for tick in ticks)
    moved = [each for each in world.control.published if each.at_s > since_s]
    count = max(1, len(world.meters.times) - world.meters.first(since_s))
    parts = [
        f"t={world.now_s:g}s demand {rps(demand / count)} rps",
        f"served {percent(fraction(sum(tick.ok for tick in ticks), demand))}",
        f"shed {percent(fraction(sum(tick.shed for tick in ticks), demand))}",
        f"failed {percent(fraction(sum(tick.failed for tick in ticks), demand))}",
        f"busiest {percent(world.meters.worst_utilization(since_s))}",
        f"plans {len(moved)}",
        f"moved {percent(sum(each.moved for each in moved))}",
    ]
    return ", ".join(parts)


def sites(world: World, service: str = "") -> Iterable[str]:
    """Every datacenter of a service (or of all) in the last tick."""
    for (name, datacenter), series in sorted(world.meters.sites.items()):
        if service and name != service:
            continue
        last = series[-1]
        yield (
            f"{name} {datacenter}: {last.up} up, capacity {rps(last.capacity)} rps, "
            f"load {rps(last.offered)} rps, utilization {percent(last.utilization)}"
        )


def plans(world: World, service: str = "") -> Iterable[str]:
    """Shares of every locality with demand, then the plan's notes."""
    for name, view in sorted(world.control.views.items()):
        if (service and name != service) or view.plan is None:
            continue
        for locality, shares in sorted(view.plan.shares.items()):
            if view.plan.demand_rps.get(locality, 0.0) < 0.5:
                continue
            parts = [f"{to} {percent(share)}" for to, share in sorted(shares.items()) if share >= 0.005]
            yield f"{name} {locality}: {', '.join(parts)}"
        for note in view.plan.notes:
            yield f"{name} note: {note}"
        decision = world.control.decision.services.get(name)
        if decision is not None and decision.held:
            yield f"{name} held: {decision.held}"
