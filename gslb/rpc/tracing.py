"""OpenTelemetry spans: of each call through our channels, of each attempt in it, and of the requests that are served.

    tracing.instrument()
    server = grpc.server(pool, interceptors=[tracing.server_interceptor(), ServerInterceptor(load, gate)])

Needs the extra `otel`, which is no dependency of the library: without it, everything here says so. Which spans are kept,
and where they go, is the application's: it sets OpenTelemetry's tracer provider, as for any other library.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import grpc
import grpc.aio

from gslb.rpc import context
from gslb.rpc.client import spans
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.server.outcome import counted

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    SyncInterceptor = grpc.ServerInterceptor[object, object]
    AioInterceptor = grpc.aio.ServerInterceptor[object, object]

_MISSING = "tracing needs OpenTelemetry: pip install 'gslb[otel]'"


class _Called(Protocol):
    @property
    def method(self) -> str: ...


def instrument(tracer_provider: "TracerProvider | None" = None) -> None:
    """Traces calls that begin from now on, with this provider; the application's own one if none is given.

    Requests that are served get their criticality, attempt and degradation as attributes of the span that is active, and
    trace ids (`gslb.rpc.trace_id()`) that are made while a span is active are that span's. Raises ConfigurationError.
    """
    try:
        from opentelemetry import trace

        from gslb.rpc.otel import ActiveSpan, begin_with
    except ModuleNotFoundError as error:
        raise ConfigurationError(_MISSING) from error
    spans.use(partial(begin_with, trace.get_tracer("gslb.rpc", tracer_provider=tracer_provider)))
    context.observe(ActiveSpan())


def uninstrument() -> None:
    """Undoes `instrument`; calls that are under way are traced to their end."""
    spans.use(None)
    context.observe(None)


def server_interceptor(tracer_provider: "TracerProvider | None" = None) -> "SyncInterceptor":
    """OpenTelemetry's interceptor for `grpc.server`, without health checks and the like. Put it before ours.

    Raises ConfigurationError.
    """
    try:
        from opentelemetry.instrumentation.grpc import server_interceptor as theirs
    except ModuleNotFoundError as error:
        raise ConfigurationError(_MISSING) from error
    make: Callable[..., SyncInterceptor] = theirs
    return make(tracer_provider=tracer_provider, filter_=_counted)


def aio_server_interceptor(tracer_provider: "TracerProvider | None" = None) -> "AioInterceptor":
    """The same for `grpc.aio.server`. Raises ConfigurationError."""
    try:
        from opentelemetry.instrumentation.grpc import aio_server_interceptor as theirs
    except ModuleNotFoundError as error:
        raise ConfigurationError(_MISSING) from error
    make: Callable[..., AioInterceptor] = theirs
    return make(tracer_provider=tracer_provider, filter_=_counted)


def _counted(details: _Called) -> bool:
    return counted(details.method)
