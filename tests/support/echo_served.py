"""`python -m tests.support.echo_served KIND [TASK AGENT]`: a server made with gslb.rpc.server; SIGTERM ends it gracefully.

KIND is sync or aio. Unary answers `ok`, after `sleep:SECONDS` if asked. Prints its port; at the end, the requests served.
"""

import asyncio
import sys
import time
from concurrent import futures

import grpc
import grpc.aio

from gslb.rpc.server import (
    AioServerInterceptor,
    Goodbye,
    Load,
    Registration,
    ServerInterceptor,
    add_aio_health,
    add_health,
    aio_serve_until_signal,
    serve_until_signal,
    server_options,
)

KIND, REST = sys.argv[1], sys.argv[2:]


def _seconds(request: bytes) -> float:
    word, _, rest = request.decode().partition(":")
    return float(rest) if word == "sleep" else 0.0


def _goodbye(load: Load, port: int) -> Goodbye:
    registration = Registration(REST[0], "127.0.0.1", port, load=load, agent=REST[1]) if REST else None
    return Goodbye(load, registration, limit_s=5.0)


def _handlers(unary) -> tuple[grpc.GenericRpcHandler]:
    handler = grpc.unary_unary_rpc_method_handler(unary)
    return (grpc.method_handlers_generic_handler("test.Echo", {"Unary": handler}),)


def serve_sync() -> None:
    def unary(request, context):
        time.sleep(_seconds(request))
        return b"ok"

    load = Load()
    server = grpc.server(
        futures.ThreadPoolExecutor(8), interceptors=[ServerInterceptor(load)], options=server_options()
    )
    server.add_generic_rpc_handlers(_handlers(unary))
    health = add_health(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    goodbye = _goodbye(load, port)
    print(port, flush=True)
    serve_until_signal(server, health, goodbye)
    print(sum(load.counters().ok), flush=True)


async def serve_aio() -> None:
    async def unary(request, context):
        await asyncio.sleep(_seconds(request))
        return b"ok"

    load = Load()
    server = grpc.aio.server(interceptors=[AioServerInterceptor(load)], options=server_options())
    server.add_generic_rpc_handlers(_handlers(unary))
    health = add_aio_health(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    goodbye = _goodbye(load, port)
    print(port, flush=True)
    await aio_serve_until_signal(server, health, goodbye)
    print(sum(load.counters().ok), flush=True)


if __name__ == "__main__":
    if KIND == "sync":
        serve_sync()
    else:
        asyncio.run(serve_aio())
