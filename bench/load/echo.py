"""Load process: a small real gRPC server that knows when it was last called. Commands: start, stats."""

import asyncio
import os
import time

import grpc
import grpc.aio

from bench.load.worker import Json, run
from bns.transport import add_port, server_options

SERVICE = "bench.Echo"
METHOD = f"/{SERVICE}/Say"
# What a cheap request costs.
SERVE_S = 0.002

Context = grpc.aio.ServicerContext[bytes, bytes]


class Echo:
    """Answers what it is asked."""

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None
        self._calls = 0
        self._last_s = 0.0

    async def start(self, _: Json) -> Json:
        """Listens on a free port of loopback."""
        self._server = grpc.aio.server(options=server_options())
        handler = grpc.unary_unary_rpc_method_handler(self._say)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Say": handler}),))
        address = add_port(self._server, "127.0.0.1:0")
        await self._server.start()
        return {"port": int(address.rpartition(":")[2]), "pid": os.getpid()}

    async def stats(self, _: Json) -> Json:
        """Calls so far, and when the last one came in (monotonic; 0: none came)."""
        return {"calls": self._calls, "last_s": self._last_s}

    async def _say(self, request: bytes, _: Context) -> bytes:
        self._last_s = time.monotonic()
        self._calls += 1
        await asyncio.sleep(SERVE_S)
        return request


if __name__ == "__main__":
    echo = Echo()
    run({"start": echo.start, "stats": echo.stats})
