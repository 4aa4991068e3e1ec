"""For `grpc.aio.server`: counts requests, and makes trace id, criticality and deadline known to the handler's calls."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

import grpc
import grpc.aio
from typing_extensions import override

from gslb.rpc import context as request_context
from gslb.rpc.server.load import Load
from gslb.rpc.server.outcome import counted, is_failure, remaining_s
from gslb.rpc.server.sync_interceptor import Handler, code_of, handler_kind

if TYPE_CHECKING:  # generic in the stubs only
    InterceptorBase = grpc.aio.ServerInterceptor[object, object]
else:
    InterceptorBase = grpc.aio.ServerInterceptor


class Context(Protocol):
    """What is used of a servicer context, asyncio's and that of synchronous handlers in an asyncio server."""

    def invocation_metadata(self) -> request_context.Metadata | None: ...
    def time_remaining(self) -> float | None: ...


Coroutine = Callable[[object, Context], Awaitable[object]]
Generator = Callable[[object, Context], AsyncIterator[object]]
Plain = Callable[[object, Context], object]
PlainStream = Callable[[object, Context], Iterator[object]]


class AioServerInterceptor(InterceptorBase):
    """Put it first: `grpc.aio.server(interceptors=[AioServerInterceptor(load)])`."""

    def __init__(self, load: Load) -> None:
        self._load = load

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
        wrapped = self._wrap(cast(Callable[..., object], inner), streaming=handler.response_streaming)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _wrap(self, inner: Callable[..., object], *, streaming: bool) -> Callable[..., object]:
        """The same kind of function: gRPC looks at it to know how to run it."""
        if inspect.isasyncgenfunction(inner):
            return self._generator(inner)
        if inspect.iscoroutinefunction(inner):
            return self._coroutine(inner)
        if streaming:
            return self._plain_stream(cast(PlainStream, inner))
        return self._plain(inner)

    def _coroutine(self, inner: Coroutine) -> Coroutine:
        async def behaviour(request: object, context: Context) -> object:
            with self._serving(context):
                return await inner(request, context)

        return behaviour

    def _generator(self, inner: Generator) -> Generator:
        async def behaviour(request: object, context: Context) -> AsyncIterator[object]:
            with self._serving(context):
                async for response in inner(request, context):
                    yield response

        return behaviour

    def _plain(self, inner: Plain) -> Plain:
        def behaviour(request: object, context: Context) -> object:
            with self._serving(context):
                return inner(request, context)

        return behaviour

    def _plain_stream(self, inner: PlainStream) -> PlainStream:
        def behaviour(request: object, context: Context) -> Iterator[object]:
            with self._serving(context):
                yield from inner(request, context)

        return behaviour

    @contextmanager
    def _serving(self, context: Context) -> Iterator[None]:
        request = request_context.incoming(context.invocation_metadata() or (), remaining_s(context.time_remaining()))
        # Not undone: gRPC gives each request a context of its own, and a generator may be closed from another one.
        request_context.enter(request)
        self._load.begin()
        raised = True
        try:
            yield
            raised = False
        except (GeneratorExit, asyncio.CancelledError):
            # The client went away.
            raised = False
            raise
        finally:
            self._load.end(request.criticality, ok=not is_failure(code_of(context), raised=raised))
