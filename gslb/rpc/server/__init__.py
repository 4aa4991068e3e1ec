"""The server's side of the library.

    load = Load()
    server = grpc.server(pool, interceptors=[ServerInterceptor(load)], options=server_options())
    health = add_health(server)
    ...
    registration = Registration("/bns/us-east1/me/echo/0", "127.1.0.1", port, load=load)
    serve_until_signal(server, health, Goodbye(load, registration))

`ServerInterceptor(load, Gate(8))` protects the server from more than it can do (docs/how-to/protect-a-server.md), and
`ServerInterceptor(load, Gate(8), Quotas("echo"))` clients from one that asks too much (docs/how-to/set-quotas.md).
And the same with `grpc.aio.server`, `AioServerInterceptor`, `add_aio_health` and `aio_serve_until_signal`. Names are
imported when they are first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bns.transport import server_options
    from gslb.rpc.server.aio_interceptor import AioServerInterceptor
    from gslb.rpc.server.asgi import AsgiMiddleware
    from gslb.rpc.server.gate import Gate
    from gslb.rpc.server.load import Load
    from gslb.rpc.server.quotas import Quotas
    from gslb.rpc.server.registration import Registration
    from gslb.rpc.server.report import AioReportInterceptor, LoadReporter, ReportInterceptor, add_load_report
    from gslb.rpc.server.stopping import (
        Goodbye,
        add_aio_health,
        add_health,
        aio_serve_until_signal,
        aio_stop_gracefully,
        serve_until_signal,
        stop_gracefully,
    )
    from gslb.rpc.server.sync_interceptor import ServerInterceptor

_STOPPING = "gslb.rpc.server.stopping"
_REPORT = "gslb.rpc.server.report"
_WHERE = {
    "AioReportInterceptor": _REPORT,
    "AioServerInterceptor": "gslb.rpc.server.aio_interceptor",
    "AsgiMiddleware": "gslb.rpc.server.asgi",
    "Gate": "gslb.rpc.server.gate",
    "Goodbye": _STOPPING,
    "Load": "gslb.rpc.server.load",
    "LoadReporter": _REPORT,
    "Quotas": "gslb.rpc.server.quotas",
    "Registration": "gslb.rpc.server.registration",
    "ReportInterceptor": _REPORT,
    "ServerInterceptor": "gslb.rpc.server.sync_interceptor",
    "add_aio_health": _STOPPING,
    "add_health": _STOPPING,
    "add_load_report": _REPORT,
    "aio_serve_until_signal": _STOPPING,
    "aio_stop_gracefully": _STOPPING,
    "serve_until_signal": _STOPPING,
    "server_options": "bns.transport",
    "stop_gracefully": _STOPPING,
}

__all__ = [
    "AioReportInterceptor",
    "AioServerInterceptor",
    "AsgiMiddleware",
    "Gate",
    "Goodbye",
    "Load",
    "LoadReporter",
    "Quotas",
    "Registration",
    "ReportInterceptor",
    "ServerInterceptor",
    "add_aio_health",
    "add_health",
    "add_load_report",
    "aio_serve_until_signal",
    "aio_stop_gracefully",
    "serve_until_signal",
    "server_options",
    "stop_gracefully",
]


def __getattr__(name: str) -> object:
    """Imports what is asked for (PEP 562)."""
    import importlib

    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(where), name)
    globals()[name] = value
    return value
