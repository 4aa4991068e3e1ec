"""us-east1 is drained under load and comes back: nothing fails, traffic goes to the next nearest with room."""

import asyncio
import random
import time
from typing import Any

from gslb.demo.checks.bench import READING_S, Bench
from gslb.demo.layout import BACKEND_SERVICE, SITE_NAMED, WEB_NAME, site_of_address
from gslb.demo.resolver import Resolver

DRAINED = "us-east1"
ZERO_GOAL_S = 5.0
WATCH_S = 15.0
RETURN_TIMEOUT_S = 60.0


async def check_drain(bench: Bench) -> dict[str, Any]:
    """Drain, watch, undrain, watch."""
    start_s = time.monotonic()
    before = await bench.served_over(5.0)
    async with bench.drained(DRAINED, "demo check"):
        drained_s = time.monotonic()
        dns_task = asyncio.create_task(bench.until(lambda: _answers_elsewhere(bench), 10.0))
        last_other_s, last_any_s = await _last_rpcs(bench, drained_s)
        dns_s = await dns_task
        during = await bench.served_over(5.0)
    undrained_s = time.monotonic()

    async def back() -> bool:
        return not await _answers_elsewhere(bench) and (await bench.served_over(1.0))[DRAINED] > before[DRAINED] / 2

    return_s = await bench.until(back, RETURN_TIMEOUT_S)
    gained = {name: round(during[name] - before[name], 1) for name in during if name != DRAINED}
    room = {name: capacity - before[name] for name, capacity in (await bench.planet.backend_capacity()).items()}
    order = await _by_distance(bench)
    nearest = next(name for name in order if room[name] > before[DRAINED] * 0.2)
    failures = bench.failures(start_s)
    return {
        "ok": last_other_s <= ZERO_GOAL_S
        and failures == 0
        and dns_s is not None
        and return_s is not None
        and gained[nearest] > 0
        and during[DRAINED] == 0,
        "seconds_to_no_rpc_from_others": last_other_s,
        "seconds_to_no_rpc_at_all": last_any_s,
        "failures": failures,
        "failed": bench.failures_shown(start_s),
        "dns_changed_after_s": dns_s,
        "returned_after_s": return_s,
        "undrained_at_s": round(undrained_s - start_s, 1),
        "next_nearest_with_room": nearest,
        "rps_before": before,
        "rps_during": during,
        "rps_gained": gained,
    }


async def _answers_elsewhere(bench: Bench) -> bool:
    site = SITE_NAMED[DRAINED]
    answers = [
        await Resolver([server], site.client_subnet(0), random.Random(0)).query(WEB_NAME)
        for server in bench.planet.dns_servers
    ]
    return all(site_of_address(address) != DRAINED for answer in answers for address in answer.addresses)


async def _last_rpcs(bench: Bench, drained_s: float) -> tuple[float, float]:
    """When the drained backends last saw an RPC, in seconds after the drain: (from other datacenters, from anybody)."""
    tasks = bench.planet.tasks_of(DRAINED, "backend")
    last_other_s = last_any_s = 0.0
    seen = await bench.rpcs_by_caller(tasks)
    while (elapsed_s := time.monotonic() - drained_s) < WATCH_S:
        now = await bench.rpcs_by_caller(tasks)
        if now.total() > seen.total():
            last_any_s = round(elapsed_s, 2)
        if now.total() - now[DRAINED] > seen.total() - seen[DRAINED]:
            last_other_s = round(elapsed_s, 2)
        seen = now
        # To be read costs a task CPU, and what a drained one uses is learned as idle CPU.
        await asyncio.sleep(READING_S)
    return last_other_s, last_any_s


async def _by_distance(bench: Bench) -> list[str]:
    """The other datacenters, nearest to the drained one first, as `explain` ranks them."""
    from gslb.v1 import admin_pb2

    request = admin_pb2.ExplainRequest(service=BACKEND_SERVICE, locality=DRAINED)
    explained = await bench.planet.admin(bench.planet.replicas[0]).Explain(request, timeout=5.0)
    candidates = sorted(explained.candidates, key=lambda candidate: candidate.rtt_ms)
    return [candidate.datacenter for candidate in candidates if candidate.datacenter != DRAINED]
