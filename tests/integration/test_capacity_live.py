"""Capacity from the CPU of real processes: tasks that burn it, an agent that measures it, a replica that learns.

The machine is shared and its clock of CPU is coarse, so only proportions are looked at, with generous bounds.
"""

import asyncio
import contextlib
import subprocess
import sys

import grpc.aio
import pytest

from bns.spawn import dies_with_us
from gslb.v1 import config_pb2
from tests.integration.test_rpc_planet import AgentProcess
from tests.support.control import Operator, ReplicaProcess, datacenter, eventually, service

pytestmark = pytest.mark.timeout(240)

PLACE = "us-east1"
TASKS = 2
RATE_RPS = 20.0
CPU_MS = 8.0


class Burner:
    def __init__(self, number: int, knobs, socket: str) -> None:
        name = f"/bns/{PLACE}/test/burn/{number}"
        command = [sys.executable, "-m", "tests.support.burner", str(knobs), name, socket]
        self.process = subprocess.Popen(dies_with_us(command), stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    async def load(self) -> None:
        """Requests at a steady rate, whatever comes of them."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            unary = channel.unary_unary("/test.Echo/Unary")
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await unary(b"x", timeout=10)
                await asyncio.sleep(1 / RATE_RPS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def learned(rps: float):
    resource = service("burn", rps=rps, places=(PLACE,))
    for backend in resource.service.backends:
        backend.mode = config_pb2.CAPACITY_MODE_UTILIZATION
        backend.target_utilization = 0.8
    return resource


async def test_tasks_that_burn_twice_the_cpu_have_half_the_capacity_and_cheap_errors_none_more(etcd, tmp_path):
    knobs = tmp_path / "knobs.json"
    knobs.write_text(f'{{"cpu_ms": {CPU_MS}}}')
    replica = ReplicaProcess("r0", etcd.address, tmp_path)
    parts, work = [], []
    try:
        replica.start()
        await eventually(lambda: replica.page("/readyz")[0] == 200, "the replica is ready")
        agent = AgentProcess(PLACE, replica.address, tmp_path)
        burners = [Burner(number, knobs, agent.socket) for number in range(TASKS)]
        parts += [*burners]
        async with Operator(replica.address) as operator:
            await operator.apply(datacenter(PLACE), learned(rps=300.0))
            work += [asyncio.create_task(burner.load()) for burner in burners]

            async def capacity() -> float:
                return (await operator.status()).services[0].backends[0].capacity_rps / TASKS

            async def settled(least: float, most: float) -> float:
                rps = await capacity()
                return rps if least <= rps <= most else 0.0

            # At most 0.8 / 8 ms; less by what a request costs beside the burning.
            cheap = await eventually(lambda: settled(45.0, 115.0), "what a task serves is learned", 90)
            await asyncio.sleep(15)
            cheap = await capacity()
            knobs.write_text(f'{{"cpu_ms": {2 * CPU_MS}}}')
            dear = await eventually(lambda: settled(0.4 * cheap, 0.75 * cheap), "capacity falls", 60)
            await asyncio.sleep(10)
            dear = await capacity()
            assert dear < 0.75 * cheap
            # Errors that cost nothing.
            knobs.write_text(f'{{"cpu_ms": {2 * CPU_MS}, "error_rate": 1.0}}')
            for _ in range(15):
                await asyncio.sleep(1)
                assert await capacity() < 1.2 * dear
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        for part in parts:
            part.close()
        with contextlib.suppress(UnboundLocalError, ProcessLookupError):
            agent.process.kill()
            agent.process.wait()
        replica.stop()
