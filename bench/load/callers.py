"""Load process: clients of a service by gslb.rpc, at a fixed rate whatever becomes of the calls. Commands: start, stats."""

import asyncio
import time
from collections import Counter

import grpc.aio

from bench.load.echo import METHOD
from bench.load.worker import Json, run
from gslb.rpc import aio_channel
from gslb.rpc.client.shared import control

DEADLINE_S = 5.0


class Callers:
    """One channel, many calls."""

    def __init__(self) -> None:
        self._load: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._sent = 0
        self._answered = 0
        self._failed: Counter[str] = Counter()

    async def start(self, request: Json) -> Json:
        """Calls `service` from `locality`, `rps` times a second, from now on; answers after the first answer."""
        locality = str(request["locality"])
        connection = control(str(request["control"]), locality=locality)
        channel = aio_channel(str(request["service"]), control=connection, locality=locality)
        say = channel.unary_unary(METHOD)
        await say(b"first", timeout=30.0)
        self._load = asyncio.create_task(self._for_ever(say, float(str(request["rps"]))))
        return {}

    async def stats(self, _: Json) -> Json:
        """Counts since the start; `failed` by status."""
        if self._load is None or self._load.done():
            raise ConnectionError("the load has ended")
        return {"sent": self._sent, "answered": self._answered, "failed": dict(self._failed)}

    async def _for_ever(self, say: grpc.aio.UnaryUnaryMultiCallable[object, object], rps: float) -> None:
        started_s = time.monotonic()
        while True:
            due_s = started_s + self._sent / rps
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self._sent += 1
            call = asyncio.create_task(self._call(say))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, say: grpc.aio.UnaryUnaryMultiCallable[object, object]) -> None:
        try:
            await say(b"x" * 100, timeout=DEADLINE_S)
            self._answered += 1
        except grpc.aio.AioRpcError as error:
            self._failed[error.code().name] += 1


if __name__ == "__main__":
    callers = Callers()
    run({"start": callers.start, "stats": callers.stats})
