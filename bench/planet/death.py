"""From `kill -9` of a task to the moment when the last reader's view has it out.

The agent's own processes are its first witness: it hears of the end by a pidfd, tells every replica at once, and they
tell their readers.
"""

import asyncio
import random
import time
from dataclasses import dataclass

from bench.planet import serving
from bench.planet.control import Operator
from bench.planet.serving import SERVICE, Reader
from bench.rows import Row, quantile_row, spread
from bench.stage import Stage, progress
from bns.model import HealthStatus

DATACENTER = "us-east1"
TIMEOUT_S = 30.0
# Tasks that live to the end: without any, readers would be in panic mode.
SURVIVORS = 2
NAME = "task killed (-9) to out of"


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int
    readers: int


FULL = Size(rounds=12, readers=8)
QUICK = Size(rounds=2, readers=2)


async def rows(size: Size) -> list[Row]:
    async with Stage("death") as stage:
        etcd = await stage.etcd()
        replicas = [await stage.replica(f"control-{number}", etcd) for number in range(2)]
        async with Operator(replicas[0].address) as operator:
            await operator.apply(serving.resources([DATACENTER], 100.0))
        control = ",".join(replica.address for replica in replicas)
        count = size.rounds + SURVIVORS
        progress(f"death: {count} servers, an agent, {size.readers} {SERVICE} readers of two replicas")
        servers = await serving.start_servers(stage, DATACENTER, count, control)
        readers = await serving.readers_of(replicas, size.readers, count)
        rng = random.Random(0)
        each_ms: list[float] = []
        last_ms: list[float] = []
        for number in range(size.rounds):
            # Away from the beat of periods.
            await asyncio.sleep(rng.uniform(0.3, 1.3))
            started_s = time.monotonic()
            killing = asyncio.create_task(servers[number].kill())
            out_s = await asyncio.gather(*(_out(reader, serving.task_name(DATACENTER, number)) for reader in readers))
            await killing
            took_ms = [1e3 * (at_s - started_s) for at_s in out_s]
            each_ms += took_ms
            last_ms.append(max(took_ms))
        progress(f"death: out of the last reader's view after {spread(last_ms)} ms")
        await asyncio.gather(*(reader.stop() for reader in readers))
    return [
        quantile_row(f"{NAME} a reader's view", each_ms, 0.5, "ms"),
        quantile_row(f"{NAME} a reader's view", each_ms, 0.99, "ms"),
        quantile_row(f"{NAME} every reader's view", last_ms, 0.5, "ms"),
        quantile_row(f"{NAME} every reader's view", last_ms, 1.0, "ms"),
    ]


async def _out(reader: Reader, task: str) -> float:
    return await reader.when(lambda view: serving.health_of(view, task) is not HealthStatus.HEALTHY, TIMEOUT_S)
