"""One area's demand rises above its datacenter's capacity: the surplus spills to the next nearest, nobody overflows."""

import asyncio
import time
from typing import Any

from gslb.demo.checks.bench import Bench
from gslb.demo.checks.verdict import rate_rps, series_rps, worst_window
from gslb.demo.layout import BACKEND_SERVICE, GFE_SERVICE, SITE_NAMED

DATACENTER = "us-east1"
OVER_CAPACITY = 1.15
# Of the other areas' demand so much stays meanwhile: two cores are to serve all of it, whatever the capacity learned.
OTHERS_PART = 0.65
OTHERS_SETTLE_S = 6.0
WINDOW_S = 5.0
WATCH_S = 30.0
PLANS_BEFORE_JUDGED = 2
SECOND_PLAN_TIMEOUT_S = 15.0


async def check_overload(bench: Bench) -> dict[str, Any]:
    """Raise demand, then judge every 5 s window from the second plan on."""
    start_s = time.monotonic()
    area = SITE_NAMED[DATACENTER].area
    rates = bench.traffic.rate_rps
    usual = dict(rates)
    rates.update({other: OTHERS_PART * rps for other, rps in usual.items() if other != area})
    try:
        await asyncio.sleep(OTHERS_SETTLE_S)
        before = await bench.served_over(5.0)
        capacity = await bench.planet.backend_capacity()
        base_rps = rates[area]
        doors = {one.datacenter: one.capacity_rps for one in (await bench.service(GFE_SERVICE)).backends}
        # A datacenter takes what its front door lets in and its backends can serve.
        rates[area] = min(capacity[DATACENTER], doors[DATACENTER]) * OVER_CAPACITY
        demand_rps = sum(rates.values())
        second_plan_s = await _second_plan(bench, area, (base_rps + rates[area]) / 2)
        judged_s = time.monotonic()
        history = await bench.history(WATCH_S)
    finally:
        rates.update(usual)
    after = await bench.planet.backend_capacity()
    # Capacity is learned meanwhile: what a plan was entitled to is between these two.
    limits = {name: max(rps, after.get(name, 0.0)) for name, rps in capacity.items()}
    worst, at = worst_window(history, limits, WINDOW_S, judged_s)
    during = {name: round(rate_rps(history[name]), 1) for name in capacity}
    gained = {name: round(during[name] - before[name], 1) for name in during if name != DATACENTER}
    spilled_to = max(gained, key=lambda name: gained[name])
    nearest = await _nearest(bench)
    return {
        "ok": worst <= 1.0 and spilled_to == nearest and gained[nearest] > 0 and demand_rps < sum(capacity.values()),
        "demand_rps": round(demand_rps, 1),
        "capacity_rps": capacity,
        "capacity_rps_after": after,
        "second_plan_after_s": second_plan_s,
        "worst_window_utilization": round(worst, 3),
        "worst_window_at": at,
        "spilled_to": spilled_to,
        "rps_before": before,
        "rps_during": during,
        "rps_in_windows": series_rps(history, WINDOW_S),
        "failures": bench.failures(start_s),
        "failed": bench.failures_shown(start_s),
    }


async def _second_plan(bench: Bench, area: str, risen_rps: float) -> float:
    """Waits for the second plan that knows of the rise; returns the seconds it took (at most SECOND_PLAN_TIMEOUT_S).

    Plans that were in the making when demand rose do not count: the first that does is the one in force when the control
    plane's demand has passed `risen_rps`, or the next.
    """
    seen: set[int] = set()

    async def enough() -> bool:
        service = await bench.service(GFE_SERVICE)
        demand = {locality.locality: locality.demand_rps for locality in service.localities}
        if demand.get(area, 0.0) >= risen_rps:
            seen.add(service.stamp.version)
        return len(seen) > PLANS_BEFORE_JUDGED

    return await bench.until(enough, SECOND_PLAN_TIMEOUT_S) or SECOND_PLAN_TIMEOUT_S


async def _nearest(bench: Bench) -> str:
    from gslb.v1 import admin_pb2

    request = admin_pb2.ExplainRequest(service=BACKEND_SERVICE, locality=DATACENTER)
    explained = await bench.planet.admin(bench.planet.replicas[0]).Explain(request, timeout=5.0)
    others = [candidate for candidate in explained.candidates if candidate.datacenter != DATACENTER]
    return min(others, key=lambda candidate: candidate.rtt_ms).datacenter
