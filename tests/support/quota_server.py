"""`python -m tests.support.quota_server KIND SERVICE CONTROL`: an echo server within the quotas of SERVICE.

KIND is sync or aio. `burn:SECONDS` uses so much CPU time; `state` and `metrics` answer what the quotas are, as JSON and for
Prometheus. Prints its port.
"""

import asyncio
import json
import sys
import time
from concurrent import futures

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry, generate_latest

from gslb.rpc import metrics
from gslb.rpc.server import AioServerInterceptor, Load, Quotas, ServerInterceptor, server_options
from gslb.rpc.statusz import status

KIND, SERVICE, CONTROL = sys.argv[1:4]


def answer(request: bytes, quotas: Quotas, load: Load) -> bytes:
    word, _, rest = request.decode().partition(":")
    if word == "burn":
        until_s = time.thread_time() + float(rest)
        while time.thread_time() < until_s:
            pass
    if word == "state":
        told = status(quotas=[quotas])["quotas"][0]
        clients = {client.pop("caller"): client for client in told["clients"]}
        return json.dumps({**told, "clients": clients, "errors": sum(load.counters().error)}).encode()
    if word == "metrics":
        registry = CollectorRegistry()
        metrics.register(registry, quotas=[quotas])
        return generate_latest(registry)
    return b"ok"


def serve_sync() -> None:
    load, quotas = Load(), Quotas(SERVICE, control=CONTROL)
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer(request, quotas, load))
    server = grpc.server(
        futures.ThreadPoolExecutor(8), interceptors=[ServerInterceptor(load, quotas=quotas)], options=server_options()
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Unary": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


async def serve_aio() -> None:
    load, quotas = Load(), Quotas(SERVICE, control=CONTROL)

    async def unary(request, context):
        await asyncio.sleep(0)
        return answer(request, quotas, load)

    handler = grpc.unary_unary_rpc_method_handler(unary)
    server = grpc.aio.server(interceptors=[AioServerInterceptor(load, quotas=quotas)], options=server_options())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Unary": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    if KIND == "sync":
        serve_sync()
    else:
        asyncio.run(serve_aio())
