"""A search costs twice the CPU in one datacenter: the balancer learns it and moves load away, and nothing fails."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gslb.demo.checks import rpc_client
from gslb.demo.checks.bench import Bench
from gslb.demo.checks.verdict import at_least, at_most, conclude
from gslb.demo.layout import BACKEND_SERVICE, TaskPlace
from gslb.demo.planet import BACKEND_CPU_MS

DATACENTER = "us-east1"
FACTOR = 2.0
MOVED_GOAL_S = 30.0
# The part of its load that a place with half the capacity has to lose to be heard of, and where it ends at most.
LOST_MIN = 0.1
USED_MAX = 1.0
# Noise alone does not take so much of what is learned.
CAPACITY_FELL = 0.8
# Demand beforehand, as a part of capacity: comfortable now, far too much for half of it.
DEMAND_OF_CAPACITY = 0.65
CLIENT_MIN_RPS = 5.0
SETTLED_TIMEOUT_S = 60.0
SETTLE_S = 10.0
MEASURE_S = 8.0
AFTER_S = 6.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the check saw; rps of the datacenter's backends."""

    cost_before_ms: float
    cost_after_ms: float
    load_before_rps: float
    load_after_rps: float
    capacity_before_rps: float
    capacity_after_rps: float
    moved_s: float | None
    failures: int


def verdict(seen: Seen) -> dict[str, object]:
    """Load left in time, to where there is room for it, and no request failed."""
    lost = 1 - seen.load_after_rps / seen.load_before_rps if seen.load_before_rps > 0 else 0.0
    used = seen.load_after_rps / seen.capacity_after_rps if seen.capacity_after_rps > 0 else float("inf")
    learned = seen.capacity_after_rps / seen.capacity_before_rps if seen.capacity_before_rps > 0 else float("inf")
    factor = seen.cost_after_ms / seen.cost_before_ms if seen.cost_before_ms > 0 else 0.0
    return conclude(
        at_least("CPU of a request rose by a factor of", factor, 0.75 * FACTOR),
        at_most("load moved away after", seen.moved_s, MOVED_GOAL_S, "s"),
        at_most("capacity learned, of that before,", 100 * learned, 100 * CAPACITY_FELL, "%"),
        at_least("of the load left", 100 * lost, 100 * LOST_MIN, "%"),
        at_most("served there afterwards, of the capacity learned,", 100 * used, 100 * USED_MAX, "%"),
        at_most("failed requests", seen.failures, 0),
    )


async def check_cost(bench: Bench) -> dict[str, Any]:
    """Double the cost, watch, and set it back.

    What browsers may ask of a datacenter is bounded by its GFE, and what its backends can do hangs on the machine: an RPC
    client at home there asks for what is wanting.
    """
    await bench.settled(SETTLED_TIMEOUT_S)
    await bench.learned(BACKEND_SERVICE, SETTLED_TIMEOUT_S)
    start_s = time.monotonic()
    tasks = bench.planet.tasks_of(DATACENTER, "backend")
    status = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
    wanting_rps = DEMAND_OF_CAPACITY * status.capacity_rps - status.load_rps
    out = await rpc_client.start(bench, DATACENTER, wanting_rps) if wanting_rps >= CLIENT_MIN_RPS else None
    try:
        await asyncio.sleep(SETTLE_S)
        cost_before_ms, load_before_rps = await _cost_ms(bench, tasks, MEASURE_S)
        before = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
        changed_s = time.monotonic()
        for task in tasks:
            bench.turn(task, {"cpu_ms": BACKEND_CPU_MS + (FACTOR - 1) * cost_before_ms})
        moved_s = await bench.until(
            lambda: _moved(bench, load_before_rps, before.capacity_rps), MOVED_GOAL_S, poll_s=0.2
        )
        took_s = None if moved_s is None else round(time.monotonic() - changed_s, 1)
        # What a search costs is still being learned when the first load leaves: where it all ends is seen by the goal's time.
        await asyncio.sleep(max(0.0, changed_s + MOVED_GOAL_S - time.monotonic()))
        cost_after_ms, load_after_rps = await _cost_ms(bench, tasks, AFTER_S)
        after = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
    finally:
        for task in tasks:
            bench.turn(task, None)
        if out is not None:
            await bench.planet.supervisor.terminate(rpc_client.LABEL)
    failures = bench.failures(start_s) + (_failed(out) if out is not None else 0)
    seen = Seen(
        cost_before_ms, cost_after_ms, load_before_rps, load_after_rps, before.capacity_rps, after.capacity_rps,
        took_s, failures,
    )  # fmt: skip
    return {
        **verdict(seen),
        "cpu_ms_a_request_before": round(cost_before_ms, 2),
        "cpu_ms_a_request_after": round(cost_after_ms, 2),
        "capacity_rps_before": round(before.capacity_rps, 1),
        "capacity_rps_after": round(after.capacity_rps, 1),
        "rps_before": round(load_before_rps, 1),
        "rps_after": round(load_after_rps, 1),
        "moved_after_s": took_s,
        "failures": seen.failures,
        "failed": bench.failures_shown(start_s),
    }


def _failed(out: Path) -> int:
    return sum(1 for answer in rpc_client.answers_of(out.read_text()) if answer.error)


async def _moved(bench: Bench, load_before_rps: float, capacity_before_rps: float) -> bool:
    """Whether the cost was noticed, and clients send so much less that the datacenter can serve it; over two seconds."""
    now_rps = (await bench.served_over(2.0))[DATACENTER]
    status = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
    noticed = status.capacity_rps <= CAPACITY_FELL * capacity_before_rps
    return noticed and now_rps <= (1 - LOST_MIN) * load_before_rps and now_rps <= USED_MAX * status.capacity_rps


async def _cost_ms(bench: Bench, tasks: list[TaskPlace], seconds: float) -> tuple[float, float]:
    """(CPU of a request in ms by the tasks' own counters, requests per second), over `seconds` from now."""
    start_s = time.monotonic()
    cpu_s, served = await _spent(bench, tasks)
    await asyncio.sleep(seconds)
    cpu_after_s, served_after = await _spent(bench, tasks)
    took_s = time.monotonic() - start_s
    done = served_after - served
    return (1e3 * (cpu_after_s - cpu_s) / done if done else 0.0), done / took_s


async def _spent(bench: Bench, tasks: list[TaskPlace]) -> tuple[float, int]:
    cpu_s = 0.0
    for task in tasks:
        cpu_s += sum(value for _, value in await bench.samples(task.http, "process_cpu_seconds_total"))
    return cpu_s, (await bench.rpcs_by_caller(tasks)).total()
