"""For `grpc.aio.server`: counts requests, and makes trace id, criticality and deadline known to the handler's calls.

With a gate, a request is served when there is a slot for it, and refused when the server is overloaded. Plain functions
run on threads of the server's executor, and wait there.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

import grpc
import grpc.aio
from typing_extensions import override

from gslb.rpc import context as request_context
from gslb.rpc.policy.guard import Fate
from gslb.rpc.policy.line import Ticket
from gslb.rpc.server.gate import CODES, Gate
from gslb.rpc.server.load import Load
from gslb.rpc.server.metering import limited
from gslb.rpc.server.outcome import counted, is_failure, remaining_s
from gslb.rpc.server.sync_interceptor import Handler, code_of, handler_kind

if TYPE_CHECKING:  # generic in the stubs only
    from gslb.rpc.server.quotas import Quotas

    InterceptorBase = grpc.aio.ServerInterceptor[object, object]
else:
    InterceptorBase = grpc.aio.ServerInterceptor


class Context(Protocol):
    """What is used of a servicer context, asyncio's and that of synchronous handlers in an asyncio server."""

    def invocation_metadata(self) -> request_context.Metadata | None: ...
    def time_remaining(self) -> float | None: ...
    # Asyncio's is a coroutine; that of plain functions is not, and raises.
    def abort(self, code: grpc.StatusCode, details: str) -> Awaitable[NoReturn]: ...


Coroutine = Callable[[object, Context], Awaitable[object]]
Generator = Callable[[object, Context], AsyncIterator[object]]
Plain = Callable[[object, Context], object]
PlainStream = Callable[[object, Context], Iterator[object]]


class AioServerInterceptor(InterceptorBase):
    """Put it first: `grpc.aio.server(interceptors=[AioServerInterceptor(load)])`.

    `gate`: its slots are the requests that are served at a time; without one there is no limit and no admission.
    `quotas`: of clients; who is over his is refused before the gate, and is no load.
    """

    def __init__(self, load: Load, gate: Gate | None = None, quotas: "Quotas | None" = None) -> None:
        self._load = load
        self._gate = gate
        self._quotas = quotas

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler: Handler | None = await continuation(handler_call_details)
        if handler is None or not counted(handler_call_details.method):
            return cast(Handler, handler)
        make, inner = handler_kind(handler)
        streams = handler.response_streaming
        wrapped = self._wrap(cast(Callable[..., object], inner), time.monotonic(), streaming=streams)
        if self._quotas is not None:
            wrapped = limited(self._quotas, wrapped, streaming=streams)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _wrap(self, inner: Callable[..., object], arrived_s: float, *, streaming: bool) -> Callable[..., object]:
        """The same kind of function: gRPC looks at it to know how to run it."""
        if inspect.isasyncgenfunction(inner):
            return self._generator(inner, arrived_s)
        if inspect.iscoroutinefunction(inner):
            return self._coroutine(inner, arrived_s)
        if streaming:
            return self._plain_stream(cast(PlainStream, inner), arrived_s)
        return self._plain(inner, arrived_s)

    def _coroutine(self, inner: Coroutine, arrived_s: float) -> Coroutine:
        async def behaviour(request: object, context: Context) -> object:
            async with self._aio_serving(context, arrived_s):
                return await inner(request, context)

        return behaviour

    def _generator(self, inner: Generator, arrived_s: float) -> Generator:
        async def behaviour(request: object, context: Context) -> AsyncIterator[object]:
            async with self._aio_serving(context, arrived_s):
                async for response in inner(request, context):
                    yield response

        return behaviour

    def _plain(self, inner: Plain, arrived_s: float) -> Plain:
        def behaviour(request: object, context: Context) -> object:
            with self._serving(context, arrived_s):
                return inner(request, context)

        return behaviour

    def _plain_stream(self, inner: PlainStream, arrived_s: float) -> PlainStream:
        def behaviour(request: object, context: Context) -> Iterator[object]:
            with self._serving(context, arrived_s):
                yield from inner(request, context)

        return behaviour

    @asynccontextmanager
    async def _aio_serving(self, context: Context, arrived_s: float) -> AsyncIterator[None]:
        with self._counted(context) as request:
            gate = self._gate
            if gate is None:
                request_context.enter(request)
                yield
                return
            ticket = gate.ticket(request, arrived_s)
            fate = await gate.aio_enter(ticket)
            if fate is not Fate.BEGIN:
                await context.abort(CODES[fate], fate.value)
            _enter(request, ticket)
            try:
                yield
            finally:
                gate.finish(ticket)

    @contextmanager
    def _serving(self, context: Context, arrived_s: float) -> Iterator[None]:
        with self._counted(context) as request:
            gate = self._gate
            if gate is None:
                request_context.enter(request)
                yield
                return
            ticket = gate.ticket(request, arrived_s)
            fate = gate.enter(ticket)
            if fate is not Fate.BEGIN:
                context.abort(CODES[fate], fate.value)
            _enter(request, ticket)
            try:
                yield
            finally:
                gate.finish(ticket)

    @contextmanager
    def _counted(self, context: Context) -> Iterator[request_context.Request]:
        request = request_context.incoming(context.invocation_metadata() or (), remaining_s(context.time_remaining()))
        self._load.begin()
        raised = True
        try:
            yield request
            raised = False
        except (GeneratorExit, asyncio.CancelledError):
            # The client went away.
            raised = False
            raise
        finally:
            self._load.end(request.criticality, ok=not is_failure(code_of(context), raised=raised))


def _enter(request: request_context.Request, ticket: Ticket) -> None:
    # Not undone: gRPC gives each request a context of its own, and a generator may be closed from another one.
    request_context.enter(replace(request, degraded=True) if ticket.degraded else request)
