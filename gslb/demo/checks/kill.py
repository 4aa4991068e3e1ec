"""One backend task is killed with -9: after a second nothing fails, and soon no RPC is tried on it."""

import asyncio
import time
from typing import Any

from gslb.demo.checks.bench import Bench

VICTIM_DATACENTER = "us-east1"
WATCH_S = 12.0
IN_FLIGHT_S = 1.0


async def check_kill(bench: Bench) -> dict[str, Any]:
    """Kill, watch the callers' attempts, start it again."""
    start_s = time.monotonic()
    victim = bench.planet.tasks_of(VICTIM_DATACENTER, "backend")[0]
    await asyncio.sleep(2.0)
    before = await _attempts(bench, victim.name)
    killed_s = time.monotonic()
    await bench.planet.supervisor.kill(victim.label)
    last_attempt_s = await _last_attempt(bench, victim.name, killed_s, before)
    late = sum(1 for outcome in bench.traffic.since(killed_s + IN_FLIGHT_S) if outcome.error)
    early = bench.failures(killed_s) - late
    bench.planet.supervisor.restart(victim.label)
    healthy_s = await bench.until(lambda: bench.healthy([victim.name]), 30.0)
    return {
        "ok": late == 0 and bench.failures(start_s) == early and last_attempt_s < WATCH_S / 2 and healthy_s is not None,
        "failures_in_first_second": early,
        "failures_after": late,
        "failed": bench.failures_shown(start_s),
        "seconds_to_no_rpc": last_attempt_s,
        "healthy_again_after_s": healthy_s,
    }


async def _attempts(bench: Bench, task: str) -> int:
    """How often the frontends have tried an RPC on `task`, by their own counts."""
    frontends = [place for place in bench.planet.tasks if place.job == "frontend"]
    return sum([await bench.picks(place, task) for place in frontends])


async def _last_attempt(bench: Bench, task: str, killed_s: float, before: int) -> float:
    """When a frontend last tried an RPC on `task`, in seconds after the kill."""
    last_s, seen = 0.0, before
    while (elapsed_s := time.monotonic() - killed_s) < WATCH_S:
        attempts = await _attempts(bench, task)
        if attempts > seen:
            last_s = round(elapsed_s, 2)
        seen = max(seen, attempts)
        await asyncio.sleep(0.1)
    return last_s
