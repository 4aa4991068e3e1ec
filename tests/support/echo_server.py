"""`python -m tests.support.echo_server NAME PORT`: answers NAME and the request, in all four arities. Prints its port.

What a request asks for: `sleep:SECONDS` first, `abort:CODE` a status, `erring:NAME` an error if that is its own name,
`meta` the metadata it came with, `count:N` so many
messages in a streamed response.
"""

import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from bns.transport import server_options

cancelled = 0
served = 0


def _obey(request: bytes, context) -> bytes:
    global cancelled, served
    served += 1
    word, _, rest = request.decode().partition(":")
    if word == "sleep":
        gone = threading.Event()
        context.add_callback(gone.set)
        if gone.wait(float(rest)):
            cancelled += 1
    elif word == "abort":
        code, _, details = rest.partition(":")
        context.abort(grpc.StatusCode[code], details or "as asked")
    elif word == "erring":
        if rest == sys.argv[1]:
            context.abort(grpc.StatusCode.INTERNAL, "an error on purpose")
        time.sleep(0.005)
    elif word == "meta":
        return repr([(key, value) for key, value in context.invocation_metadata()]).encode()
    elif word == "remaining":
        return str(context.time_remaining()).encode()
    elif word == "cancelled":
        return str(cancelled).encode()
    elif word == "served":
        return str(served).encode()
    return request


def main() -> None:
    name, port = sys.argv[1].encode() + b" ", sys.argv[2]

    def unary(request, context):
        context.send_initial_metadata((("task", sys.argv[1]),))
        context.set_trailing_metadata((("trailer", "yes"),))
        return name + _obey(request, context)

    def server_stream(request, context):
        word, _, rest = request.decode().partition(":")
        if word == "count":
            for i in range(int(rest)):
                yield name + str(i).encode()
        else:
            yield name + _obey(request, context)
        if word == "endless":
            while context.is_active():
                time.sleep(0.02)
                yield name + b"more"

    def client_stream(requests, context):
        return name + b",".join(_obey(request, context) for request in requests)

    def bidi(requests, context):
        for request in requests:
            yield name + _obey(request, context)

    server = grpc.server(futures.ThreadPoolExecutor(32), options=server_options())
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(bound, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
