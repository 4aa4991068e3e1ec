"""A service on real servers, each looked after by a real agent of its datacenter, and readers who follow it."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from bench.load.fleet import PLACES, USER
from bench.stage import Replica, Stage, Worker, until
from bns.etcd.embedded import free_port
from bns.model import HealthStatus
from bns.transport import aio_channel
from gslb.v1 import config_pb2, discovery_pb2, discovery_pb2_grpc
from gslb.wire.reader import ReaderView, fold

SERVICE = "echo"


def task_name(datacenter: str, number: int) -> str:
    return f"/bns/{datacenter}/{USER}/{SERVICE}/{number}"


def resources(datacenters: Sequence[str], task_capacity_rps: float) -> list[config_pb2.Resource]:
    """These datacenters, and the service in each of them."""
    made = []
    service = config_pb2.Resource(service=config_pb2.Service())
    service.meta.name = SERVICE
    for name, region, latitude, longitude in PLACES:
        if name in datacenters:
            place = config_pb2.Datacenter(region=region, latitude=latitude, longitude=longitude)
            resource = config_pb2.Resource(datacenter=place)
            resource.meta.name = name
            made.append(resource)
            service.service.backends.add(job=f"/bns/{name}/{USER}/{SERVICE}", task_capacity_rps=task_capacity_rps)
    return [*made, service]


async def start_servers(stage: Stage, datacenter: str, count: int, control: str) -> list[Worker]:
    """`count` servers and the agent that registers and probes them; does not wait for their health."""
    servers = [await stage.worker(f"{datacenter}-{number}", "bench.load.echo") for number in range(count)]
    started = await asyncio.gather(*(server.ask("start") for server in servers))
    tasks = [
        {
            "name": task_name(datacenter, number),
            "address": "127.0.0.1",
            "port": answer["port"],
            "pid": answer["pid"],
            "probe": {"kind": "tcp", "interval_s": 1, "timeout_s": 1},
        }
        for number, answer in enumerate(started)
    ]
    config = stage.directory / f"agent-{datacenter}.yaml"
    config.write_text(json.dumps({"tasks": tasks}), encoding="utf-8")  # JSON is YAML
    stage.python(
        f"agent-{datacenter}",
        *(
            "gslb",
            "agent",
            "--no-machine-cpu",
            "--name",
            f"node-{datacenter}",
            "--datacenter",
            datacenter,
            "--control",
            control,
        ),
        *("--socket", str(stage.directory / f"{datacenter}.sock"), "--config", str(config)),
        *("--machine-id", f"machine-{datacenter}", "--http", f"127.0.0.1:{free_port()}"),
    )
    return servers


@dataclass(slots=True)
class Reader:
    """One Discovery subscriber: a stream, a view, and what it waits for."""

    replica: Replica
    view: ReaderView = field(default_factory=ReaderView)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        channel = aio_channel(self.replica.address)
        try:
            stub = discovery_pb2_grpc.DiscoveryStub(channel)
            call: grpc.aio.StreamStreamCall[discovery_pb2.SubscribeRequest, discovery_pb2.Update] = stub.Subscribe()  # type: ignore[call-arg]
            await call.write(discovery_pb2.SubscribeRequest(subscriber="bench", services=[SERVICE], catalog=True))
            while isinstance(update := await call.read(), discovery_pb2.Update):
                self.view, problems = fold(self.view, update)
                assert not problems, problems
                self._news.set()
        finally:
            await channel.close(None)

    async def when(self, condition: Callable[[ReaderView], bool], timeout_s: float) -> float:
        """The moment (monotonic) when the view first fulfils `condition`. Raises TimeoutError, or why the stream broke."""
        async with asyncio.timeout(timeout_s):
            while not condition(self.view):
                self._news.clear()
                if self._task is not None and self._task.done():
                    self._task.result()
                    raise ConnectionError("a reader's stream ended")
                await self._news.wait()
        return time.monotonic()


def health_of(view: ReaderView, task: str) -> HealthStatus | None:
    service = view.services.get(SERVICE)
    endpoint = service.endpoints.get(task) if service else None
    return endpoint.health if endpoint else None


def healthy(view: ReaderView) -> int:
    """How many endpoints are HEALTHY."""
    service = view.services.get(SERVICE)
    return sum(one.health is HealthStatus.HEALTHY for one in service.endpoints.values()) if service else 0


def largest_share(view: ReaderView, datacenter: str) -> float:
    """The most that any locality sends to `datacenter`; 1 while there is no plan."""
    service = view.services.get(SERVICE)
    if service is None or service.plan is None:
        return 1.0
    return max((shares.get(datacenter, 0.0) for shares in service.plan.shares.values()), default=0.0)


async def readers_of(replicas: Sequence[Replica], count: int, tasks: int) -> list[Reader]:
    """`count` readers, spread over the replicas, once each sees `tasks` healthy tasks."""
    readers = [Reader(replicas[number % len(replicas)]) for number in range(count)]
    for reader in readers:
        reader.start()
    await until(f"every reader sees {tasks} healthy tasks", lambda: all(healthy(one.view) == tasks for one in readers))
    return readers
