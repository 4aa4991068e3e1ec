"""Load process: a small gRPC server that misbehaves when told to. Commands: start, behave.

It answers every method, gRPC's health checks among them, in the same way: a probe must not see it well while requests do
not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
import grpc.aio
from typing_extensions import override

from bench.load.worker import Json, run
from bns.errors import ListenError
from bns.transport import add_port, server_options

if TYPE_CHECKING:  # generic in the stubs only
    GenericRpcHandler = grpc.GenericRpcHandler[bytes, bytes]
else:
    GenericRpcHandler = grpc.GenericRpcHandler

METHOD: Final = "/bench.Target/Call"
# How it may behave.
WELL: Final = "well"
ERRORS: Final = "errors"  # INTERNAL, at once
MUTE: Final = "mute"  # takes requests and answers pings; no request is ever answered
BLACKHOLE: Final = "blackhole"  # breaks its connections; takes new ones and says nothing on them, not even SETTINGS
FLAPPING: Final = "flapping"  # listens for a second, breaks its connections and does not for the next, and so on
FLAP_S: Final = 1.0
_BIND_TRIES: Final = 50
_BIND_WAIT_S: Final = 0.02

_T = TypeVar("_T")
Context = grpc.aio.ServicerContext[bytes, bytes]


class _EveryMethod(GenericRpcHandler):
    """Bytes in, bytes out, whatever the method."""

    def __init__(self, answer: Callable[[bytes, Context], object]) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(answer)

    @override
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return self._handler


class Target:
    """One server on one port of loopback, for as long as the process lives."""

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None
        self._hole: asyncio.Server | None = None
        self._held: set[asyncio.StreamWriter] = set()
        self._flapping: asyncio.Task[None] | None = None
        self._port = 0
        self._how = WELL
        self._answer_s = 0.0

    async def start(self, _: Json) -> Json:
        """Listens; the port."""
        await self._listen()
        return {"port": self._port}

    async def behave(self, request: Json) -> Json:
        """Behaves as `how` says from now on; an answer takes `answer_s`."""
        self._answer_s = float(str(request["answer_s"]))
        how = str(request["how"])
        if self._flapping is not None:
            self._flapping.cancel()
            await asyncio.gather(self._flapping, return_exceptions=True)
            self._flapping = None
        if how == BLACKHOLE:
            await self._close()
            await self._dig()
        else:
            await self._fill()
            await self._listen()
        if how == FLAPPING:
            await self._close()
            self._flapping = asyncio.create_task(self._flap())
        self._how = how
        return {}

    async def _flap(self) -> None:
        while True:
            await asyncio.sleep(FLAP_S)
            await self._listen()
            await asyncio.sleep(FLAP_S)
            await self._close()

    async def _answer(self, request: bytes, context: Context) -> bytes:
        if self._how == MUTE:
            await asyncio.Event().wait()  # until the caller gives up
        if self._how == ERRORS:
            await context.abort(grpc.StatusCode.INTERNAL, "an error on purpose")
        if self._answer_s:
            await asyncio.sleep(self._answer_s)
        return request

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await _patiently(self._bound)
            await self._server.start()

    async def _bound(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=server_options())
        server.add_generic_rpc_handlers((_EveryMethod(self._answer),))
        self._port = int(add_port(server, f"127.0.0.1:{self._port}").rpartition(":")[2])
        return server

    async def _close(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def _dig(self) -> None:
        if self._hole is None:
            self._hole = await _patiently(lambda: asyncio.start_server(self._swallow, "127.0.0.1", self._port))

    async def _swallow(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._held.add(writer)

    async def _fill(self) -> None:
        if self._hole is not None:
            self._hole.close()
            for writer in self._held:
                writer.close()
            self._held.clear()
            self._hole = None


async def _patiently(bind: Callable[[], Awaitable[_T]]) -> _T:
    """What `bind` makes: a port that was just given up may be taken for a moment."""
    for _ in range(_BIND_TRIES):
        try:
            return await bind()
        except (ListenError, OSError):
            await asyncio.sleep(_BIND_WAIT_S)
    return await bind()


if __name__ == "__main__":
    target = Target()
    run({"start": target.start, "behave": target.behave})
