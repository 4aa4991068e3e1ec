"""For `grpc.server`: counts requests, and makes trace id, criticality and deadline known to the handler's calls.

With a gate, a request is served when there is a slot for it, and refused when the server is overloaded.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import grpc
from typing_extensions import override

from gslb.rpc import context as request_context
from gslb.rpc.policy.guard import Fate
from gslb.rpc.server.gate import CODES, Gate
from gslb.rpc.server.load import Load
from gslb.rpc.server.metering import limited
from gslb.rpc.server.outcome import counted, is_failure, remaining_s

if TYPE_CHECKING:  # generic in the stubs only
    from gslb.rpc.server.quotas import Quotas

    Handler = grpc.RpcMethodHandler[object, object]
    InterceptorBase = grpc.ServerInterceptor[object, object]
else:
    Handler, InterceptorBase = grpc.RpcMethodHandler, grpc.ServerInterceptor

Behaviour = Callable[[object, grpc.ServicerContext], object]
StreamBehaviour = Callable[[object, grpc.ServicerContext], Iterator[object]]


class ServerInterceptor(InterceptorBase):
    """Put it first: `grpc.server(pool, interceptors=[ServerInterceptor(load)])`.

    `gate`: give it as many slots as the pool has threads; what waits for a thread counts as waiting. `quotas`: of
    clients; who is over his is refused before the gate, and is no load.
    """

    def __init__(self, load: Load, gate: Gate | None = None, quotas: "Quotas | None" = None) -> None:
        self._load = load
        self._gate = gate
        self._quotas = quotas

    @override
    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None or not counted(handler_call_details.method):
            return handler
        return self._wrapped(handler, time.monotonic())

    def _wrapped(self, handler: Handler, arrived_s: float) -> Handler:
        make, inner = handler_kind(handler)
        streams = handler.response_streaming
        wrap = self._stream(cast(StreamBehaviour, inner), arrived_s) if streams else self._unary(inner, arrived_s)
        if self._quotas is not None:
            wrap = limited(self._quotas, wrap, streaming=streams)
        return make(wrap, handler.request_deserializer, handler.response_serializer)

    def _unary(self, inner: Behaviour, arrived_s: float) -> Behaviour:
        def behaviour(request: object, context: grpc.ServicerContext) -> object:
            with self._serving(context, arrived_s):
                return inner(request, context)

        return behaviour

    def _stream(self, inner: StreamBehaviour, arrived_s: float) -> StreamBehaviour:
        def behaviour(request: object, context: grpc.ServicerContext) -> Iterator[object]:
            # gRPC runs a generator on one thread from first to last, so contextvars hold in between.
            with self._serving(context, arrived_s):
                yield from inner(request, context)

        return behaviour

    @contextmanager
    def _serving(self, context: grpc.ServicerContext, arrived_s: float) -> Iterator[None]:
        request = request_context.incoming(context.invocation_metadata(), remaining_s(context.time_remaining()))
        self._load.begin()
        raised = True
        try:
            with self._admitted(request, context, arrived_s) as admitted:
                token = request_context.enter(admitted)
                try:
                    yield
                finally:
                    request_context.leave(token)
            raised = False
        except GeneratorExit:
            # The client went away in the midst of a stream.
            raised = False
            raise
        finally:
            failed = is_failure(code_of(context), raised=raised)
            self._load.end(request.criticality, ok=not failed)

    @contextmanager
    def _admitted(
        self, request: request_context.Request, context: grpc.ServicerContext, arrived_s: float
    ) -> Iterator[request_context.Request]:
        """Holds a slot of the gate; refuses the request by `abort` when there is to be none."""
        gate = self._gate
        if gate is None:
            yield request
            return
        ticket = gate.ticket(request, arrived_s)
        fate = gate.enter(ticket)
        if fate is not Fate.BEGIN:
            context.abort(CODES[fate], fate.value)
        try:
            yield replace(request, degraded=True) if ticket.degraded else request
        finally:
            gate.finish(ticket)


def code_of(context: object) -> object:
    """The status that a handler set so far; None also when its context does not tell."""
    # Not in the abstract class; that of a plain function in an asyncio server lacks it.
    code: Callable[[], object] | None = getattr(context, "code", None)
    return code() if code is not None else None


def handler_kind(handler: Handler) -> tuple[Callable[..., Handler], Behaviour]:
    """How a handler of this kind is made, and what it does."""
    if handler.request_streaming:
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler, cast(Behaviour, handler.stream_stream)
        return grpc.stream_unary_rpc_method_handler, cast(Behaviour, handler.stream_unary)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, cast(Behaviour, handler.unary_stream)
    return grpc.unary_unary_rpc_method_handler, cast(Behaviour, handler.unary_unary)
