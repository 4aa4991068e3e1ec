"""From a task's registration to a client that sees it, and what etcd alone takes for the same.

One agent registers tasks one by one, pausing at random in between; a client watches. The peer is a plain put and a
watch of it on the same etcd, which syncs its log to disk: what is left between the two is ours.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.rows import Row, quantile_row
from bench.stage import Stage, progress
from bns.client import BnsClient, ClientView, Update
from bns.etcd.client import Client
from bns.model import Task
from bns.registration import Identity, Registration

PREFIX = "/bns/us-east1/bench/"
TIMEOUT_S = 20.0
PAUSE_S = (0.01, 0.05)
QUANTILES = (0.5, 0.99)


@dataclass(frozen=True, slots=True)
class Size:
    registrations: int


FULL = Size(300)
QUICK = Size(10)


@dataclass(slots=True)
class _Arrivals:
    """When each name was first seen."""

    at_s: dict[str, float] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, names: Sequence[str]) -> None:
        now_s = time.monotonic()
        for name in names:
            self.at_s.setdefault(name, now_s)
        self._news.set()

    async def of(self, name: str) -> float:
        async with asyncio.timeout(TIMEOUT_S):
            while name not in self.at_s:
                self._news.clear()
                await self._news.wait()
        return self.at_s[name]


async def rows(size: Size) -> list[Row]:
    async with Stage("registration") as stage:
        etcd = await stage.etcd()
        replica = await stage.replica("control", etcd)
        progress(f"registration: {size.registrations} tasks, one by one")
        ours_ms = await _registrations(replica.address, size.registrations)
        progress(f"registration: {size.registrations} puts into etcd alone")
        peer_ms = await _puts(etcd.address, size.registrations)
    return [
        *(quantile_row("registration to visible in a watching client", ours_ms, q, "ms") for q in QUANTILES),
        *(quantile_row("peer: etcd alone, put to watched", peer_ms, q, "ms") for q in QUANTILES),
    ]


async def _registrations(address: str, count: int) -> list[float]:
    """Milliseconds each."""
    rng = random.Random(0)
    arrivals = _Arrivals()

    def seen(update: Update) -> None:
        arrivals.note([endpoint.task.name for endpoint in update.upserted])

    took_ms = []
    identity = Identity("bench", "us-east1", "bench-machine", "bench-boot")
    async with BnsClient(address) as client, ClientView(client, PREFIX) as view, Registration(address, identity) as us:
        view.subscribe(seen)
        async with asyncio.timeout(TIMEOUT_S):
            await view.synced.wait()
        await us.wait_attached(TIMEOUT_S)
        for number in range(count):
            await asyncio.sleep(rng.uniform(*PAUSE_S))
            task = Task(f"{PREFIX}job/{number}", "127.0.0.1", 10_000 + number)
            started_s = time.monotonic()
            registering = asyncio.create_task(us.register(task, TIMEOUT_S))
            took_ms.append(1e3 * (await arrivals.of(task.name) - started_s))
            await registering
    return took_ms


async def _puts(address: str, count: int) -> list[float]:
    """Milliseconds each."""
    rng = random.Random(0)
    arrivals = _Arrivals()
    took_ms = []
    async with Client([address]) as etcd:
        ready = asyncio.Event()

        async def watch() -> None:
            async for batch in etcd.watch(b"/peer/", b"/peer0"):
                ready.set()
                arrivals.note([event.kv.key.decode() for event in batch.events])

        watching = asyncio.create_task(watch())
        async with asyncio.timeout(TIMEOUT_S):
            await ready.wait()
        for number in range(count):
            await asyncio.sleep(rng.uniform(*PAUSE_S))
            key = f"/peer/{number}"
            started_s = time.monotonic()
            putting = asyncio.create_task(etcd.put(key.encode(), b"x" * 100))
            took_ms.append(1e3 * (await arrivals.of(key) - started_s))
            await putting
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return took_ms
