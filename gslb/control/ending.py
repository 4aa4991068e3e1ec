"""Ends open streams in order when the process stops.

gRPC's own stop cancels the handlers that are still running and prints a traceback for each of them. Here each stream
is told UNAVAILABLE, with the reason, and its client goes to another replica.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from typing_extensions import override

Context = grpc.aio.ServicerContext[object, object]
Generator = Callable[[object, Context], AsyncIterator[object]]
Coroutine = Callable[[object, Context], Awaitable[None]]

if TYPE_CHECKING:
    # At run time gRPC's classes take no parameters.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    Handler = grpc.RpcMethodHandler
    Interceptor = grpc.aio.ServerInterceptor

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]

MESSAGE = "this replica stops: use another one"
WAIT_S = 0.5


class StreamEnder(Interceptor):
    """Give it to the server as an interceptor, and call `close` before the server's `stop`."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def close(self) -> None:
        """Ends every stream; returns when they have ended, or soon anyway."""
        self._closing = True
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=WAIT_S)

    @override
    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        # gRPC gives None for a method that nobody serves; its types do not say so.
        if not getattr(handler, "response_streaming", False):
            return handler
        behavior: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        wrapped = self._generator(behavior) if inspect.isasyncgenfunction(behavior) else self._coroutine(behavior)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _generator(self, behavior: Callable[[object, Context], AsyncGenerator[object, None]]) -> Generator:
        async def wrapped(request: object, context: Context) -> AsyncIterator[object]:
            task = self._enter()
            try:
                async with aclosing(behavior(request, context)) as responses:
                    async for response in responses:
                        yield response
            except asyncio.CancelledError:
                # The client's own cancellation goes on, ours becomes a status.
                if not self._closing:
                    raise
                await context.abort(grpc.StatusCode.UNAVAILABLE, MESSAGE)
            finally:
                self._running.discard(task)

        return wrapped

    def _coroutine(self, behavior: Coroutine) -> Coroutine:
        async def wrapped(request: object, context: Context) -> None:
            task = self._enter()
            try:
                await behavior(request, context)
            except asyncio.CancelledError:
                # The client's own cancellation goes on, ours becomes a status.
                if not self._closing:
                    raise
                await context.abort(grpc.StatusCode.UNAVAILABLE, MESSAGE)
            finally:
                self._running.discard(task)

        return wrapped

    def _enter(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None, "gRPC runs each call in a task"
        self._running.add(task)
        return task
