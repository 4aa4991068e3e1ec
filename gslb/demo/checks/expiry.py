"""A drain ends by itself: nobody undrains, and load returns little by little."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gslb.balancer.damping import GROWTH_PER_PERIOD
from gslb.demo.checks.bench import Bench
from gslb.demo.checks.refusal import drain
from gslb.demo.checks.verdict import Level, Rule, at_least, at_most, backsteps, conclude, over_growth, steps_between
from gslb.demo.layout import BACKEND_SERVICE
from gslb.model.limits import PLAN_PERIOD_S

DATACENTER = "southamerica-east1"
FOR_S = 12.0
SETTLED_TIMEOUT_S = 60.0
# One reading of the load wanders by a twentieth around what is asked: the mean of so long does not.
BEFORE_S = 20.0
# The moment of expiry is the control plane's; load follows with the next plan.
NOTICED_S = 4.0
RETURNED = 0.95
# Shares are looked at by the demand before; the ramp goes by that of the moment, which may be so much less.
DEMAND_NOISE = 1.15
RETURN_TIMEOUT_S = 45.0
STEPS_MIN = 2
STEP_APART_RPS = 0.5
TOLERANCE_RPS = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the check saw of the backends; times in seconds after the drain's end."""

    load_before_rps: float
    capacity_before_rps: float
    load_drained_rps: float  # the least while it was drained
    levels: Sequence[Level]  # what the plan placed of the demand of the moment, from the end on
    kept: Sequence[Level]  # the same of the demand before the drain: it moves with the plan only
    gone_s: float | None  # when no drain was listed any more
    returned_s: float | None  # when RETURNED of the load was back
    failures: int


def verdict(seen: Seen) -> dict[str, object]:
    """It was empty, and filled up no faster than a datacenter may grow."""
    # The first step of a ramp is made at once; then so much of the capacity in a period.
    growth_rps = DEMAND_NOISE * GROWTH_PER_PERIOD * seen.capacity_before_rps
    per_s = growth_rps / PLAN_PERIOD_S
    fast = over_growth(seen.levels, per_s, growth_rps + TOLERANCE_RPS)
    back = backsteps(seen.kept, falling=False, tolerance_rps=TOLERANCE_RPS)
    steps = steps_between(seen.levels, TOLERANCE_RPS, seen.load_before_rps - TOLERANCE_RPS, apart_rps=STEP_APART_RPS)
    return conclude(
        at_most("load while drained", seen.load_drained_rps, 0, "rps"),
        at_most("no drain listed after", seen.gone_s, NOTICED_S, "s"),
        at_most(f"{RETURNED:.0%} of the load back after", seen.returned_s, RETURN_TIMEOUT_S, "s"),
        at_least("steps on the way", steps, STEPS_MIN),
        Rule(
            not fast,
            f"faster than {per_s:.3g} rps a second: {', '.join(fast[:3]) or 'never'}",
        ),
        Rule(not back, f"steps back: {', '.join(back[:3]) or 'none'}"),
        at_most("failed requests", seen.failures, 0),
    )


async def mean_over(read: Callable[[], Awaitable[float]], seconds: float) -> float:
    """Mean of what `read` gives, about twice a second, for so long."""
    until_s, readings = time.monotonic() + seconds, [await read()]
    while time.monotonic() < until_s:
        await asyncio.sleep(0.5)
        readings.append(await read())
    return statistics.fmean(readings)


async def check_expiry(bench: Bench) -> dict[str, Any]:
    """Drain for a short while, wait, watch the return."""
    await bench.settled(SETTLED_TIMEOUT_S)
    start_s = time.monotonic()
    before = await bench.backend_status(BACKEND_SERVICE, DATACENTER)

    async def placed_rps() -> float:
        # By the demand of the moment: browsers left the drained GFE, so that what is asked from here comes back with them.
        return await bench.placed(BACKEND_SERVICE, DATACENTER, await bench.demand(BACKEND_SERVICE))

    load_before_rps = least_rps = await mean_over(placed_rps, BEFORE_S)
    demand = await bench.demand(BACKEND_SERVICE)
    done = await drain(bench, DATACENTER, "--for", f"{FOR_S:g}s")
    if done.code != 0:
        return {"ok": False, "why": f"the drain was refused: {done.err.strip()}"}
    ends_s = await bench.drain_began_s(DATACENTER) + FOR_S
    while time.time() < ends_s - 0.2:
        least_rps = min(least_rps, await placed_rps())
        await asyncio.sleep(0.2)
    levels: list[Level] = []
    kept: list[Level] = []
    gone_s = returned_s = None
    while (at_s := time.time() - ends_s) < RETURN_TIMEOUT_S and (returned_s is None or gone_s is None):
        levels.append(Level(round(at_s, 2), await placed_rps()))
        kept.append(Level(levels[-1].at_s, await bench.placed(BACKEND_SERVICE, DATACENTER, demand)))
        if gone_s is None and at_s >= 0 and await bench.drain_of(DATACENTER) is None:
            gone_s = round(time.time() - ends_s, 2)
        if levels[-1].load_rps >= RETURNED * load_before_rps:
            returned_s = levels[-1].at_s
        await asyncio.sleep(0.3)
    seen = Seen(
        load_before_rps, before.capacity_rps, least_rps, levels, kept, gone_s, returned_s, bench.failures(start_s)
    )
    return {
        **verdict(seen),
        "planned_rps": [(level.at_s, round(level.load_rps, 1)) for level in levels[:: max(1, len(levels) // 30)]],
        "capacity_rps_before": round(before.capacity_rps, 1),
        "gone_after_s": gone_s,
        "returned_after_s": returned_s,
        "failures": seen.failures,
        "failed": bench.failures_shown(start_s),
    }
