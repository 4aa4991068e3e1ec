"""A control plane that is only BNS: a real gRPC server on a real etcd, as many replicas as a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio

from bns.etcd.client import Client
from bns.model import HealthStatus, Task
from bns.reaping import ReapPolicy
from bns.registration import Identity
from bns.registry import BnsRegistry
from bns.server import BnsServicer
from bns.store import BnsStore
from bns.transport import add_port, server_options


@dataclass(slots=True)
class Replica:
    """One running replica. `health`: what it believes about tasks."""

    address: str
    store: BnsStore
    registry: BnsRegistry
    servicer: BnsServicer
    server: grpc.aio.Server
    health: dict[str, HealthStatus] = field(default_factory=dict)

    def set_health(self, name: str, health: HealthStatus) -> None:
        self.health[name] = health
        self.servicer.health_changed([name])


@asynccontextmanager
async def replica(
    etcd: Client,
    name: str = "r1",
    *,
    ttl_s: int = 5,
    policy: ReapPolicy | None = None,
    address: str = "127.0.0.1:0",
) -> AsyncIterator[Replica]:
    """A replica that serves until the end of the block."""
    health: dict[str, HealthStatus] = {}
    store = BnsStore(etcd)
    registry = BnsRegistry(etcd, store, name, liveness_ttl_s=ttl_s, policy=policy)
    servicer = BnsServicer(store, registry, lambda task: health.get(task, HealthStatus.UNKNOWN))
    server = grpc.aio.server(options=server_options())
    servicer.add_to(server)
    bound = add_port(server, address)
    mirror = asyncio.create_task(store.run())
    await server.start()
    try:
        await asyncio.wait_for(store.synced.wait(), 20)
        yield Replica(bound, store, registry, servicer, server, health)
    finally:
        await server.stop(None)
        await servicer.close()
        mirror.cancel()
        await asyncio.gather(mirror, return_exceptions=True)


def task(name: str, port: int = 1, **more: object) -> Task:
    """A small task."""
    return Task(name=name, address="127.0.0.1", port=port, **more)  # type: ignore[arg-type]


def identity(agent: str = "node-1", *, machine: str = "m1", boot: str = "b1", datacenter: str = "us-east1") -> Identity:
    """An agent of us-east1 on machine m1."""
    return Identity(agent, datacenter, machine, boot)
