"""20,000 task reports a second into a replica, and its memory with 100,000 tasks.

The tasks' records are in etcd before the replica starts; then every agent reports all of its tasks once a period, over
a gRPC stream of its own. CPU is what the whole process used meanwhile, ticks and plans included.
"""

import asyncio
import time
from dataclasses import asdict, dataclass

from bench.load.fleet import Fleet
from bench.planet.control import Operator, register_fleet
from bench.rows import Row, median_row
from bench.stage import BenchError, Replica, Stage, Worker, cpu_s, memory_mb, progress
from bns.etcd.client import Client

PERIOD_S = 5.0
CORES_GOAL = 1.0
MEMORY_GOAL_MB = 300.0


@dataclass(frozen=True, slots=True)
class Size:
    """`windows` of `window_s` each are measured."""

    fleet: Fleet
    windows: int
    window_s: float


FULL = Size(Fleet(datacenters=8, agents=200, tasks_per_agent=500), windows=4, window_s=5.0)
QUICK = Size(Fleet(datacenters=2, agents=20, tasks_per_agent=250), windows=2, window_s=1.0)


async def rows(size: Size) -> list[Row]:
    """Without services over the tasks, and with."""
    return [*await _measure(size, services=False), *await _measure(size, services=True)]


async def _measure(size: Size, *, services: bool) -> list[Row]:
    fleet = size.fleet
    what = f"{fleet.tasks} tasks" + (", services over all" if services else "")
    async with Stage("ingest") as stage:
        etcd = await stage.etcd()
        async with Client([etcd.address]) as client:
            progress(f"ingest: writing {what} into etcd")
            await register_fleet(client, fleet)
        replica = await stage.replica("control", etcd, warm=False)
        reporters = await stage.worker("reporters", "bench.load.reporters")
        await reporters.ask("connect", address=replica.address, fleet=asdict(fleet), period_s=PERIOD_S)
        await stage.reached(replica)
        if services:
            async with Operator(replica.address) as operator:
                await operator.apply(fleet.resources())
        await asyncio.sleep(PERIOD_S if size is FULL else 0.5)
        rate = fleet.tasks / PERIOD_S
        progress(f"ingest: {what}, {rate:g} task reports/s")
        cores = [await _window(replica, reporters, size.window_s) for _ in range(size.windows)]
        resident_mb, peak_mb = memory_mb(replica.pid), memory_mb(replica.pid, "VmHWM")
        progress(f"ingest: {resident_mb:.0f} MB of memory, at most {peak_mb:.0f} MB")
        await _check(replica, fleet)  # last: so large an answer leaves its mark on the memory
    return [
        median_row(f"ingest, {rate:g} task reports/s, {what}: CPU of the control plane", cores, "cores", CORES_GOAL),
        Row(f"memory of the control plane, {what}", resident_mb, "MB", f"peak {peak_mb:.0f}", MEMORY_GOAL_MB),
    ]


async def _check(replica: Replica, fleet: Fleet) -> None:
    """Every task is known, and healthy by its agent's word: else something else would be measured."""
    async with Operator(replica.address) as operator:
        status = await operator.status()
    healthy = sum(task.health == 1 for task in status.tasks)
    if len(status.tasks) != fleet.tasks or healthy != fleet.tasks:
        raise BenchError(f"of {fleet.tasks} tasks the replica knows {len(status.tasks)} and {healthy} as healthy")


async def _window(replica: Replica, reporters: Worker, seconds: float) -> float:
    """CPU-seconds of the replica per second."""
    before_s, started_s = cpu_s(replica.pid), time.monotonic()
    counts = await reporters.ask("run", seconds=seconds)
    used_s, elapsed_s = cpu_s(replica.pid) - before_s, time.monotonic() - started_s
    if counts["refused"]:
        raise BenchError(f"the replica refused {counts['refused']} of {counts['sent']} reports")
    progress(
        f"ingest: {counts['sent']} reports, at most {counts['latest_s']:.2f} s late: {used_s / elapsed_s:.3f} cores"
    )
    return used_s / elapsed_s
