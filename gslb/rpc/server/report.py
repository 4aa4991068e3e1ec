"""What a server says of its own load: in trailers of its answers, and to clients that ask ahead of need (Prequal).

    reporter = LoadReporter(load)
    server = grpc.server(pool, interceptors=[ServerInterceptor(load), ReportInterceptor(reporter)])
    add_load_report(server, reporter)

and the same with `AioReportInterceptor` for `grpc.aio.server`. Requests in flight and their latency are as Prequal has
them (`gslb.rpc.policy.selfload`); utilization is this process's CPU time of what it may use.
"""

import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

import grpc
import grpc.aio
from typing_extensions import override

from gslb.rpc.context import Metadatum
from gslb.rpc.policy.choice import Report
from gslb.rpc.policy.clients import Clients
from gslb.rpc.policy.report import KEY, ORCA_KEY, encode, orca
from gslb.rpc.policy.selfload import SelfLoad
from gslb.rpc.server.load import Load
from gslb.rpc.server.outcome import counted
from gslb.rpc.server.sync_interceptor import Handler, handler_kind

if TYPE_CHECKING:  # generic in the stubs only
    InterceptorBase = grpc.ServerInterceptor[object, object]
    AioInterceptorBase = grpc.aio.ServerInterceptor[object, object]
else:
    InterceptorBase, AioInterceptorBase = grpc.ServerInterceptor, grpc.aio.ServerInterceptor

# Rates are of at least so long a time.
_WINDOW_S = 1.0


class Context(Protocol):
    """What is used of a servicer context, of both kinds of server."""

    def trailing_metadata(self) -> Iterable[Metadatum] | None: ...
    def set_trailing_metadata(self, trailing_metadata: tuple[Metadatum, ...]) -> None: ...


class LoadReporter:
    """One server's; safe from any thread. `cpu_cores`: what it may use."""

    def __init__(self, load: Load, *, cpu_cores: float = 1.0) -> None:
        self._load = load
        self._cpu_cores = cpu_cores
        self._lock = threading.Lock()
        self._self = SelfLoad()
        self._clients = Clients()
        self._since_s, self._cpu_s = time.monotonic(), time.process_time()
        self._ended = self._errors = 0
        self._utilization = self._rps = self._eps = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """The body is one request."""
        began_s = time.monotonic()
        with self._lock:
            seen = self._self.in_flight
            self._self.began(began_s)
        try:
            yield
        finally:
            now_s = time.monotonic()
            with self._lock:
                self._self.ended(seen, now_s - began_s, now_s)

    def report(self) -> Report:
        """How it is now."""
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._since_s >= _WINDOW_S:
                self._measure(now_s)
            return Report(
                in_flight=self._self.in_flight,
                latency_s=self._self.latency_s(),
                utilization=self._utilization,
                rps=self._rps,
                eps=self._eps,
            )

    def _measure(self, now_s: float) -> None:
        """Rates since the last time; under the lock."""
        passed_s, cpu_s = now_s - self._since_s, time.process_time()
        counters = self._load.counters()
        errors = sum(counters.error)
        ended = sum(counters.ok) + errors
        self._utilization = (cpu_s - self._cpu_s) / passed_s / self._cpu_cores
        self._rps, self._eps = (ended - self._ended) / passed_s, (errors - self._errors) / passed_s
        self._since_s, self._cpu_s, self._ended, self._errors = now_s, cpu_s, ended, errors

    def add_trailers(self, context: Context) -> None:
        """Adds the report to what a handler says at the end of its answer."""
        report = self.report()
        own: tuple[Metadatum, ...] = ((KEY, encode(report)), (ORCA_KEY, orca(report)))
        context.set_trailing_metadata((*(context.trailing_metadata() or ()), *own))

    def line(self, request: bytes, context: object) -> bytes:
        """The handler of the load method."""
        del context
        report = self.report()
        with self._lock:
            clients = self._clients.asked(request, time.monotonic())
        return encode(replace(report, clients=clients)).encode()

    async def line_on_loop(self, request: bytes, context: object) -> bytes:
        """The same for an asyncio server."""
        return self.line(request, context)


def add_load_report(server: grpc.Server | grpc.aio.Server, reporter: LoadReporter) -> None:
    """Adds the method that clients with policy="prequal" ask; before the server starts."""
    answer = reporter.line if isinstance(server, grpc.Server) else reporter.line_on_loop
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gslb.rpc.Load", {"Get": handler}),))


class ReportInterceptor(InterceptorBase):
    """Put it after `ServerInterceptor`. Answers with one response carry a report."""

    def __init__(self, reporter: LoadReporter) -> None:
        self._reporter = reporter

    @override
    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None or handler.response_streaming or not counted(handler_call_details.method):
            return handler
        make, inner = handler_kind(handler)

        def behaviour(request: object, context: grpc.ServicerContext) -> object:
            try:
                with self._reporter.timed():
                    return inner(request, context)
            finally:
                self._reporter.add_trailers(cast(Context, context))

        return make(behaviour, handler.request_deserializer, handler.response_serializer)


class AioReportInterceptor(AioInterceptorBase):
    """The same for `grpc.aio.server`; handlers that are plain functions are left alone."""

    def __init__(self, reporter: LoadReporter) -> None:
        self._reporter = reporter

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler: Handler | None = await continuation(handler_call_details)
        if handler is None or handler.response_streaming or not counted(handler_call_details.method):
            return cast(Handler, handler)
        make, inner = handler_kind(handler)
        if not inspect.iscoroutinefunction(inner):
            return handler
        coroutine = cast(Callable[[object, Context], Awaitable[object]], inner)

        async def behaviour(request: object, context: Context) -> object:
            try:
                with self._reporter.timed():
                    return await coroutine(request, context)
            finally:
                self._reporter.add_trailers(context)

        return make(behaviour, handler.request_deserializer, handler.response_serializer)
