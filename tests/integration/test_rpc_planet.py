"""The whole chain, every part real: servers register with their agents, replicas plan, clients follow."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections import Counter

import grpc
import pytest
import pytest_asyncio

import gslb.rpc
from bns.spawn import dies_with_us
from gslb.v1 import admin_pb2, config_pb2
from tests.support.control import Operator, ReplicaProcess, datacenter, eventually, leader_of, service
from tests.support.echo import UNARY

PLACES = ("us-east1", "europe-west1")


class AgentProcess:
    """`gslb agent` as a child process."""

    def __init__(self, place: str, control: str, directory) -> None:
        self.socket = str(directory / f"{place}.sock")
        flags = ["--name", f"m-{place}", "--datacenter", place, "--control", control, "--socket", self.socket]
        flags.append("--no-machine-cpu")
        command = [sys.executable, "-m", "gslb", "agent", *flags, "--period", "1", "--state", f"{self.socket}.state"]
        with (directory / f"{place}.log").open("ab") as log:
            self.process = subprocess.Popen(dies_with_us(command), stdout=log, stderr=log)


class Backend:
    """An echo server that is registered with its agent."""

    def __init__(self, place: str, number: int, socket: str) -> None:
        self.place = place
        self.name = f"/bns/{place}/test/echo/{number}"
        self.process = subprocess.Popen(
            dies_with_us([sys.executable, "-m", "tests.support.echo_served", "sync", self.name, socket]),
            stdout=subprocess.PIPE,
            text=True,
        )


class World:
    def __init__(self, etcd, directory) -> None:
        self.replicas = [ReplicaProcess(f"r{n}", etcd.address, directory).start() for n in range(2)]
        self.control = ",".join(replica.address for replica in self.replicas)
        self.agents = {place: AgentProcess(place, self.control, directory) for place in PLACES}
        self.backends = [Backend(place, n, self.agents[place].socket) for place in PLACES for n in range(2)]

    def close(self) -> None:
        gslb.rpc.close_all()
        for child in (*self.backends, *self.agents.values(), *self.replicas):
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()
            child.process.wait()
        for backend in self.backends:
            backend.process.stdout.close()


@pytest_asyncio.fixture
async def world(etcd, tmp_path):
    made = World(etcd, tmp_path)
    try:
        await eventually(
            lambda: all(replica.page("/readyz")[0] == 200 for replica in made.replicas), "both replicas are ready"
        )
        await eventually(lambda: leader_of(made.replicas), "a replica leads")
        async with Operator(made.replicas[0].address) as operator:
            await operator.apply(
                *(datacenter(place) for place in PLACES), service("echo", rps=200.0, places=PLACES, max_utilization=0.8)
            )
        yield made
    finally:
        made.close()


async def places(channel, calls: int = 60) -> Counter[str]:
    """Where that many calls went, by what the channel counted."""
    stub = channel.unary_unary(UNARY)
    before = {link.endpoint.task: link.picks for link in channel.core.links()}
    for _ in range(calls):
        assert await stub(b"x", timeout=10) == b"ok"
    return Counter(
        {
            link.endpoint.task: link.picks - before.get(link.endpoint.task, 0)
            for link in channel.core.links()
            if link.picks > before.get(link.endpoint.task, 0)
        }
    )


def healthy(channel) -> int:
    return sum(link.endpoint.health.name == "HEALTHY" for link in channel.core.links())


@pytest.mark.timeout(240)
async def test_plan_kill_drain_and_leader(world: World) -> None:
    async with gslb.rpc.aio_channel(
        "echo", control=world.control, locality="us-east1", caller="tester", idempotent=True
    ) as channel:
        stub = channel.unary_unary(UNARY)
        assert await stub(b"first", timeout=60) == b"ok"
        await eventually(lambda: healthy(channel) == 4, "all four tasks are healthy")
        await eventually(lambda: channel.explain()["shares"] == {"us-east1": 1.0}, "the plan keeps the load near")
        assert set(await places(channel)) == {"/bns/us-east1/test/echo/0", "/bns/us-east1/test/echo/1"}

        failed: list[grpc.RpcError] = []
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                try:
                    await stub(b"x", timeout=10)
                except grpc.aio.AioRpcError as error:
                    failed.append(error)
                await asyncio.sleep(0.01)

        loading = [asyncio.create_task(load()) for _ in range(4)]

        # A task dies: nobody notices, and the agent's word arrives.
        world.backends[0].process.kill()
        await eventually(lambda: healthy(channel) == 3, "the dead task is known to be ill")
        assert set(await places(channel)) == {"/bns/us-east1/test/echo/1"}

        # The datacenter is drained: all goes to the other.
        async with Operator(world.replicas[0].address) as operator:
            await operator.admin.Drain(
                admin_pb2.DrainRequest(
                    scope=config_pb2.DRAIN_SCOPE_DATACENTER, target="us-east1", reason="test", author="test"
                ),
                timeout=10,
            )
        await eventually(lambda: channel.explain()["shares"] == {"europe-west1": 1.0}, "the drain is in force")
        assert {name.split("/")[2] for name in await places(channel)} == {"europe-west1"}

        # The leader hangs: the client follows the other one.
        leader = await leader_of(world.replicas)
        leader.signal(signal.SIGSTOP)
        other = next(replica for replica in world.replicas if replica is not leader)
        async with Operator(other.address) as operator:
            await eventually(lambda: leader_of([other]), "the other replica leads")
            await operator.admin.Undrain(
                admin_pb2.UndrainRequest(scope=config_pb2.DRAIN_SCOPE_DATACENTER, target="us-east1"), timeout=10
            )
        await eventually(lambda: "us-east1" in channel.explain()["shares"], "the drain is lifted")
        leader.signal(signal.SIGCONT)

        # The control plane dies altogether.
        for replica in world.replicas:
            replica.kill()
        await asyncio.sleep(1)
        await places(channel, 50)

        done.set()
        await asyncio.gather(*loading)
        assert failed == []
