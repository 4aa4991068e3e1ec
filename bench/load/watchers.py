"""Load process: many watching clients. Commands: open, begin, collect.

Each is a gRPC stream of its own. What a stream brings is stamped with the time when it is read here, and parsed after
that; only names, addresses and health are kept.
"""

import asyncio
import time
from dataclasses import dataclass, field

import grpc
import grpc.aio

from bench.load.worker import Json, run
from bns.transport import aio_channel
from bns.v1 import bns_pb2, bns_pb2_grpc
from gslb.v1 import discovery_pb2, discovery_pb2_grpc

WATCHERS_PER_CHANNEL = 50
QUIET_S = 1.0
ARRIVE_S = 20.0
# [watcher, task, port, health, when (monotonic)]; a removed task has port 0
Seen = tuple[int, str, int, int, float]


@dataclass(slots=True)
class Tally:
    """What came since `begin`."""

    seen: list[Seen] = field(default_factory=list)
    messages: int = 0
    size: int = 0  # bytes
    plans: int = 0
    last_s: float = 0.0


class Watchers:
    """All streams of this process; times of all processes of a machine can be compared (CLOCK_MONOTONIC)."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._channels: list[grpc.aio.Channel] = []
        self._synced: set[int] = set()
        self._tally = Tally()

    async def open(self, request: Json) -> Json:
        """`count` watchers, the i-th of `targets[i % len]`: services for Discovery, prefixes for bns.v1 Watch."""
        targets = request["targets"]
        assert isinstance(targets, list)
        count, first = int(str(request["count"])), int(str(request["first"]))
        follow = self._discovery if request["api"] == "discovery" else self._bns
        for number in range(count):
            if number % WATCHERS_PER_CHANNEL == 0:
                self._channels.append(aio_channel(str(request["address"])))
            watcher = first + number
            self._tasks.append(
                asyncio.create_task(follow(self._channels[-1], watcher, str(targets[watcher % len(targets)])))
            )
        async with asyncio.timeout(120.0):
            while len(self._synced) < count:
                self._raise_failed()
                await asyncio.sleep(0.02)
        await self._quiet()
        return {"watchers": count}

    async def begin(self, _: Json) -> Json:
        """Counts anew."""
        self._tally = Tally(last_s=time.monotonic())
        return {}

    async def collect(self, request: Json) -> Json:
        """What came since `begin`, once that is `expected` changes (or ARRIVE_S passed) and nothing came for QUIET_S."""
        deadline_s = time.monotonic() + ARRIVE_S
        while len(self._tally.seen) < int(str(request["expected"])) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        await self._quiet()
        self._raise_failed()
        tally = self._tally
        return {"seen": tally.seen, "messages": tally.messages, "size": tally.size, "plans": tally.plans}

    async def close(self, _: Json) -> Json:
        """Ends all streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close(None)
        self._tasks, self._channels, self._synced = [], [], set()
        return {}

    async def _quiet(self) -> None:
        async with asyncio.timeout(60.0):
            while time.monotonic() - self._tally.last_s < QUIET_S:
                await asyncio.sleep(0.05)

    def _raise_failed(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()
                raise ConnectionError("a watcher's stream ended")

    async def _discovery(self, channel: grpc.aio.Channel, watcher: int, service: str) -> None:
        stub = discovery_pb2_grpc.DiscoveryStub(channel)
        call: grpc.aio.StreamStreamCall[discovery_pb2.SubscribeRequest, discovery_pb2.Update] = stub.Subscribe()  # type: ignore[call-arg]
        await call.write(discovery_pb2.SubscribeRequest(subscriber=f"bench/{watcher}", services=[service]))
        while isinstance(update := await call.read(), discovery_pb2.Update):
            now_s = time.monotonic()
            self._count(update.ByteSize(), now_s)
            if update.synced:
                self._synced.add(watcher)
            for change in update.services:
                self._tally.plans += change.HasField("plan")
                self._tally.seen += [(watcher, one.task, one.port, one.health, now_s) for one in change.upserted]
                self._tally.seen += [(watcher, name, 0, 0, now_s) for name in change.removed]

    async def _bns(self, channel: grpc.aio.Channel, watcher: int, prefix: str) -> None:
        call = bns_pb2_grpc.BnsStub(channel).Watch(bns_pb2.WatchRequest(prefix=prefix))
        async for response in call:
            now_s = time.monotonic()
            self._count(response.ByteSize(), now_s)
            self._synced.add(watcher)
            self._tally.seen += [
                (watcher, one.task.name, one.task.port, one.health, now_s) for one in response.upserted
            ]
            self._tally.seen += [(watcher, name, 0, 0, now_s) for name in response.removed]

    def _count(self, size: int, now_s: float) -> None:
        self._tally.messages += 1
        self._tally.size += size
        self._tally.last_s = now_s


if __name__ == "__main__":
    watchers = Watchers()
    run(
        {
            "open": watchers.open,
            "begin": watchers.begin,
            "collect": watchers.collect,
            "close": watchers.close,
        }
    )
