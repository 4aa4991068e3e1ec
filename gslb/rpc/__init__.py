"""The library that services embed: `gslb.rpc.channel("shakespeare-backend")` is a gRPC channel to wherever it runs.

    channel      a `grpc.Channel` to a service          aio_channel   the same for asyncio
    control      the process's control connection       scope         trace id, criticality, deadline for calls inside
    trace_id     of the request being served            criticality   of the request being served
    degraded     whether less of an answer will do now  status, status_html   all of it, for /statusz

The server's side is in `gslb.rpc.server`. Names are imported when they are first used, so that the pure `gslb.rpc.policy`
costs nobody the import of gRPC.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gslb.rpc.client.aio_api import aio_channel
    from gslb.rpc.client.api import channel
    from gslb.rpc.client.errors import ConfigurationError
    from gslb.rpc.client.shared import close_all, control
    from gslb.rpc.context import criticality, degraded, scope, time_remaining_s, trace_id
    from gslb.rpc.statusz import status, status_html

_WHERE = {
    "ConfigurationError": "gslb.rpc.client.errors",
    "aio_channel": "gslb.rpc.client.aio_api",
    "channel": "gslb.rpc.client.api",
    "close_all": "gslb.rpc.client.shared",
    "control": "gslb.rpc.client.shared",
    "criticality": "gslb.rpc.context",
    "degraded": "gslb.rpc.context",
    "scope": "gslb.rpc.context",
    "status": "gslb.rpc.statusz",
    "status_html": "gslb.rpc.statusz",
    "time_remaining_s": "gslb.rpc.context",
    "trace_id": "gslb.rpc.context",
}

__all__ = [
    "ConfigurationError",
    "aio_channel",
    "channel",
    "close_all",
    "control",
    "criticality",
    "degraded",
    "scope",
    "status",
    "status_html",
    "time_remaining_s",
    "trace_id",
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
