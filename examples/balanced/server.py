"""`python -m examples.balanced.server TASK PORT`: says who it is. BNS_AGENT names the socket of the machine's agent."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from gslb.rpc import server as rpc


def main() -> None:
    """Serves until SIGTERM, then as a lame duck until nobody asks any more."""
    task, port = sys.argv[1], int(sys.argv[2])

    def greet(request: bytes, context: grpc.ServicerContext) -> bytes:
        del context
        return f"{task} says hello to {request.decode()}".encode()

    load = rpc.Load()
    reporter = rpc.LoadReporter(load)
    interceptors = [rpc.ServerInterceptor(load), rpc.ReportInterceptor(reporter)]
    server = grpc.server(ThreadPoolExecutor(8), interceptors=interceptors, options=rpc.server_options())
    handler = grpc.unary_unary_rpc_method_handler(greet)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("balanced.Hello", {"Greet": handler}),))
    rpc.add_load_report(server, reporter)
    health = rpc.add_health(server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    registration = rpc.Registration(task, "127.0.0.1", port, load=load)
    rpc.serve_until_signal(server, health, rpc.Goodbye(load, registration))


if __name__ == "__main__":
    main()
