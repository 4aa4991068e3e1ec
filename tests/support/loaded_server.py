"""`python -m tests.support.loaded_server NAME PORT [WORD...]`: a server that says how busy it is. Prints its port.

Unary answers NAME. Words: `sleep=SECONDS` and `burn=SECONDS` (of CPU) for each request; `lie=LINE`: says this of its load,
whatever it is; `mute`: says nothing of it and knows no method for it.
"""

import sys
import time
from collections.abc import Callable
from concurrent import futures

import grpc

from gslb.rpc.policy.report import KEY
from gslb.rpc.server import Load, ServerInterceptor, server_options
from gslb.rpc.server.report import LoadReporter, ReportInterceptor, add_load_report
from tests.support.echo import EchoTask

WORDS = dict(word.partition("=")[::2] for word in sys.argv[3:])
CORES = 1.0


class LoadedTask(EchoTask):
    """Such a server in a process of its own."""

    module = "tests.support.loaded_server"


def _work() -> None:
    time.sleep(float(WORDS.get("sleep", "0")))
    until_s = time.thread_time() + float(WORDS.get("burn", "0"))
    while time.thread_time() < until_s:
        sum(range(1000))


def _generic(service: str, method: str, behaviour: Callable[..., bytes]) -> grpc.GenericRpcHandler:
    handler = grpc.unary_unary_rpc_method_handler(behaviour)
    return grpc.method_handlers_generic_handler(service, {method: handler})


def main() -> None:
    name, lie = sys.argv[1].encode() + b" ", WORDS.get("lie")

    def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
        _work()
        if lie is not None:
            context.set_trailing_metadata(((KEY, lie),))
        return name + request

    load = Load()
    reporter = LoadReporter(load, cpu_cores=CORES)
    honest = lie is None and "mute" not in WORDS
    interceptors = [ServerInterceptor(load), *([ReportInterceptor(reporter)] if honest else [])]
    server = grpc.server(futures.ThreadPoolExecutor(16), interceptors=interceptors, options=server_options())
    server.add_generic_rpc_handlers((_generic("test.Echo", "Unary", unary),))
    if honest:
        add_load_report(server, reporter)
    elif lie is not None:
        server.add_generic_rpc_handlers((_generic("gslb.rpc.Load", "Get", lambda _request, _context: lie.encode()),))
    bound = server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    server.start()
    print(bound, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
