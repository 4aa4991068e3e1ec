"""Clients that call at a steady pace and remember what became of each call."""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from typing_extensions import override

from bench.rpc.target import METHOD
from gslb.rpc.client.aio_channel import AioServiceChannel
from gslb.rpc.client.sync_channel import ServiceChannel

DEADLINE_S: Final = 2.0
THREADS: Final = 12
RPS: Final = 150.0  # of one client with all its threads, as long as none of them waits longer than its turn
_REQUEST: Final = b"x" * 100


@dataclass(frozen=True, slots=True)
class Call:
    """When a call began (monotonic), how long it took, and its status if it failed."""

    began_s: float
    took_s: float
    failed: str = ""


class Client(ABC):
    """One channel under load."""

    def __init__(self, channel: ServiceChannel | AioServiceChannel) -> None:
        self.core = channel.core
        self.calls: list[Call] = []

    def picks(self, tasks: Collection[str]) -> tuple[int, int]:
        """How often one of these was picked so far, and anybody at all."""
        found = [(link.endpoint.task in tasks, link.picks) for link in self.core.links()]
        return sum(picks for wanted, picks in found if wanted), sum(picks for _, picks in found)

    @abstractmethod
    def start(self) -> None:
        """Calls from now on."""

    @abstractmethod
    async def stop(self) -> None:
        """Lets the calls under way end, and closes the channel."""


class SyncClient(Client):
    """Threads that call, each on its turn; one that is late drops the turns that it missed."""

    def __init__(self, channel: ServiceChannel) -> None:
        super().__init__(channel)
        self._channel = channel
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    @override
    def start(self) -> None:
        call = self._channel.unary_unary(METHOD)
        first_s, turn_s = time.monotonic(), THREADS / RPS
        for number in range(THREADS):
            at_s = first_s + number / RPS
            self._threads.append(threading.Thread(target=self._run, args=(call, at_s, turn_s), daemon=True))
            self._threads[-1].start()

    def _run(self, call: "grpc.UnaryUnaryMultiCallable[object, object]", at_s: float, turn_s: float) -> None:
        while not self._end.wait(max(0.0, at_s - time.monotonic())):
            began_s, failed = time.monotonic(), ""
            try:
                call(_REQUEST, timeout=DEADLINE_S)
            except grpc.RpcError as error:
                failed = error.code().name
            now_s = time.monotonic()
            self.calls.append(Call(began_s, now_s - began_s, failed))
            at_s += turn_s * max(1, -int(-(now_s - at_s) // turn_s))

    @override
    async def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._channel.close()


class AioClient(Client):
    """Calls at a fixed rate, whatever becomes of those before."""

    def __init__(self, channel: AioServiceChannel) -> None:
        super().__init__(channel)
        self._channel = channel
        self._under_way: set[asyncio.Task[None]] = set()
        self._load: asyncio.Task[None] | None = None

    @override
    def start(self) -> None:
        self._load = asyncio.create_task(self._for_ever())

    async def _for_ever(self) -> None:
        call = self._channel.unary_unary(METHOD)
        at_s = time.monotonic()
        while True:
            await asyncio.sleep(max(0.0, at_s - time.monotonic()))
            at_s += 1.0 / RPS
            task = asyncio.create_task(self._call(call))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _call(self, call: "grpc.aio.UnaryUnaryMultiCallable[object, object]") -> None:
        began_s, failed = time.monotonic(), ""
        try:
            await call(_REQUEST, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            failed = error.code().name
        self.calls.append(Call(began_s, time.monotonic() - began_s, failed))

    @override
    async def stop(self) -> None:
        if self._load is not None:
            self._load.cancel()
        await asyncio.gather(*self._under_way)
        await self._channel.close()
