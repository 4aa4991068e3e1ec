"""What people and agents do to a control plane: apply resources, put the records of a whole fleet into BNS."""

import asyncio
from collections.abc import Iterable
from typing import Self

from bench.load.fleet import Fleet
from bns.codec import encode_task
from bns.etcd.client import Client
from bns.etcd.ops import op_put
from bns.keys import task_key
from bns.transport import aio_channel
from gslb.v1 import admin_pb2, admin_pb2_grpc, config_pb2

WRITES_PER_TXN = 100
TXNS_AT_ONCE = 4
RESOURCES_PER_APPLY = 50
ADMIN_TIMEOUT_S = 30.0


class Operator:
    """The admin API of one replica."""

    def __init__(self, address: str) -> None:
        self._channel = aio_channel(address)
        self.admin: admin_pb2_grpc.AdminAsyncStub = admin_pb2_grpc.AdminStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def apply(self, resources: Iterable[config_pb2.Resource]) -> None:
        """Applies all, part by part, or raises what was refused."""
        left = list(resources)
        while left:
            part, left = left[:RESOURCES_PER_APPLY], left[RESOURCES_PER_APPLY:]
            await self.admin.Apply(admin_pb2.ApplyRequest(resources=part), timeout=ADMIN_TIMEOUT_S)

    async def status(self) -> admin_pb2.StatusResponse:
        return await self.admin.Status(admin_pb2.StatusRequest(), timeout=ADMIN_TIMEOUT_S)


async def register_fleet(etcd: Client, fleet: Fleet) -> None:
    """Writes a fleet's records as its agents would, many in one transaction."""
    operations = [op_put(task_key(task.name), encode_task(task).SerializeToString()) for task in fleet.records()]
    parts = [operations[start : start + WRITES_PER_TXN] for start in range(0, len(operations), WRITES_PER_TXN)]
    limit = asyncio.Semaphore(TXNS_AT_ONCE)

    async def write(part: list[object]) -> None:
        async with limit:
            await etcd.txn([], part, idempotent=True)  # type: ignore[arg-type]

    await asyncio.gather(*(write(list(part)) for part in parts))
