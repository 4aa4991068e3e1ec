"""`python -m tests.support.burner KNOBS TASK AGENT`: a registered server whose requests use up CPU, as KNOBS says."""

import asyncio
import sys
from pathlib import Path

import grpc
import grpc.aio

from examples.shakespeare.knobs import Knobs, KnobsFile
from gslb.rpc.server import AioServerInterceptor, Goodbye, Load, Registration, add_aio_health, aio_serve_until_signal


async def serve(knobs: KnobsFile, task: str, agent: str) -> None:
    async def unary(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        if knobs.now.errs():
            await context.abort(knobs.now.error_code, "on purpose")
        knobs.now.burn()
        return b"ok"

    load = Load()
    server = grpc.aio.server(interceptors=[AioServerInterceptor(load)])
    handler = grpc.unary_unary_rpc_method_handler(unary)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Unary": handler}),))
    health = add_aio_health(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    following = asyncio.create_task(knobs.follow())
    await aio_serve_until_signal(
        server, health, Goodbye(load, Registration(task, "127.0.0.1", port, load=load, agent=agent))
    )
    following.cancel()


if __name__ == "__main__":
    asyncio.run(serve(KnobsFile(Path(sys.argv[1]), Knobs()), sys.argv[2], sys.argv[3]))
