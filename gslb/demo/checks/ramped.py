"""A datacenter is drained over 20 s: its load leaves step by step, as the ramp takes its capacity, down to nothing."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gslb.demo.checks.bench import READING_S, Bench
from gslb.demo.checks.refusal import drain
from gslb.demo.checks.verdict import Level, Rule, at_least, at_most, backsteps, conclude, over_ramp, steps_between
from gslb.demo.layout import BACKEND_SERVICE
from gslb.demo.planet import PLAN_PERIOD_S

DATACENTER = "us-east1"
RAMP_S = 20.0
SETTLED_TIMEOUT_S = 60.0
# What a plan knows is as old as a plan can be, and a moment.
LAG_S = PLAN_PERIOD_S + 1.0
ENDED_S = 5.0  # as after a drain at once
WATCH_S = RAMP_S + ENDED_S + 3.0
STEPS_MIN = 3
STEP_APART_RPS = 1.0
TOLERANCE_RPS = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the check saw of the backends; times in seconds after the drain began."""

    levels: Sequence[Level]  # what the plan placed of the demand of the moment: browsers leave the drained GFE as well
    kept: Sequence[Level]  # the same of the demand before the drain: it moves with the plan only
    load_before_rps: float
    capacity_before_rps: float
    code: int
    last_rpc_s: float | None  # None: still some at the end
    failures: int


def verdict(seen: Seen) -> dict[str, object]:
    """Down in several steps, never up, never above what the ramp has left, and nothing in the end."""
    up = backsteps(seen.kept, falling=True, tolerance_rps=TOLERANCE_RPS)
    above = over_ramp(seen.levels, seen.capacity_before_rps, RAMP_S, LAG_S)
    steps = steps_between(seen.kept, TOLERANCE_RPS, seen.load_before_rps - TOLERANCE_RPS, apart_rps=STEP_APART_RPS)
    at_half = [level.load_rps for level in seen.levels if level.at_s <= RAMP_S / 2]
    return conclude(
        Rule(seen.code == 0, f"exit code {seen.code} (0 wanted)"),
        at_least("steps between all of its load and nothing", steps, STEPS_MIN),
        at_least("load at half of the ramp", at_half[-1] if at_half else None, TOLERANCE_RPS, "rps"),
        Rule(not up, f"steps up: {', '.join(up) or 'none'}"),
        Rule(not above, f"above what the ramp left: {', '.join(above) or 'never'}"),
        at_most("planned at the end", seen.kept[-1].load_rps if seen.kept else None, 0, "rps"),
        at_most("last RPC after", seen.last_rpc_s, RAMP_S + ENDED_S, "s"),
        at_most("failed requests", seen.failures, 0),
    )


async def check_ramped(bench: Bench) -> dict[str, Any]:
    """Drain over a while, watch, undrain."""
    await bench.settled(SETTLED_TIMEOUT_S)
    start_s = time.monotonic()
    before = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
    demand = await bench.demand(BACKEND_SERVICE)
    load_before_rps = await bench.placed(BACKEND_SERVICE, DATACENTER, demand)
    tasks = bench.planet.tasks_of(DATACENTER, "backend")
    levels: list[Level] = []
    kept: list[Level] = []
    done = await drain(bench, DATACENTER, "--over", f"{RAMP_S:g}s", "--for", "5m")
    try:
        began_s = await bench.drain_began_s(DATACENTER)
        last_s: float | None = 0.0
        served = (await bench.rpcs_by_caller(tasks)).total()
        while (at_s := time.time() - began_s) < WATCH_S:
            for seen_of, asked in ((levels, await bench.demand(BACKEND_SERVICE)), (kept, demand)):
                seen_of.append(Level(round(at_s, 2), await bench.placed(BACKEND_SERVICE, DATACENTER, asked)))
            now = (await bench.rpcs_by_caller(tasks)).total()
            last_s = round(at_s, 1) if now > served else last_s
            served = max(served, now)
            # To be read costs a task CPU, of which its capacity is learned.
            await asyncio.sleep(READING_S)
    finally:
        if done.code == 0:
            await bench.gslb("undrain", "datacenter", DATACENTER)
    seen = Seen(levels, kept, load_before_rps, before.capacity_rps, done.code, last_s, bench.failures(start_s))
    return {
        **verdict(seen),
        "planned_rps": [(level.at_s, round(level.load_rps, 1)) for level in levels[:: max(1, len(levels) // 30)]],
        "capacity_rps_before": round(before.capacity_rps, 1),
        "last_rpc_after_s": last_s,
        "failures": seen.failures,
        "failed": bench.failures_shown(start_s),
    }
