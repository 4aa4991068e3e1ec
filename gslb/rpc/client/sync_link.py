"""A blocking gRPC channel to one task."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import grpc
from typing_extensions import override

from gslb.rpc.client.link import LOAD_METHOD, PROBE_METHOD, Link, LoadSaid, ProbeDone, answered
from gslb.rpc.client.methods import Method
from gslb.rpc.context import Metadata


class MultiCallable(Protocol):
    """What is used of gRPC's four kinds of multi-callables; `request` is an iterator where requests are streamed."""

    def __call__(self, request: object, **options: object) -> "InnerCall": ...
    def with_call(self, request: object, **options: object) -> tuple[object, grpc.Call]: ...
    def future(self, request: object, **options: object) -> "InnerCall": ...


class InnerCall(Protocol):
    """What is used of gRPC's own call objects."""

    def __next__(self) -> object: ...
    def add_callback(self, callback: Callable[[], None]) -> bool: ...
    def cancel(self) -> object: ...
    def is_active(self) -> bool: ...
    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def time_remaining(self) -> float | None: ...
    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def debug_error_string(self) -> str: ...
    def initial_metadata(self) -> Metadata: ...
    def trailing_metadata(self) -> Metadata: ...
    def result(self, timeout: float | None = None) -> object: ...
    def exception(self, timeout: float | None = None) -> Exception | None: ...
    def traceback(self, timeout: float | None = None) -> object: ...


@dataclass(slots=True, eq=False)
class SyncLink(Link):
    """One task and the blocking channel to it."""

    dial: Callable[[str], grpc.Channel] = field(kw_only=True)
    _channel: grpc.Channel | None = field(init=False, default=None)
    _methods: dict[Method, MultiCallable] = field(init=False, default_factory=dict)
    _guard: threading.Lock = field(init=False, default_factory=threading.Lock)
    _shut: bool = field(init=False, default=False)

    def method(self, method: Method) -> MultiCallable:
        """gRPC's multi-callable for `method` on this task."""
        found = self._methods.get(method)
        if found is None:
            found = self._methods[method] = cast(MultiCallable, method.on(self._open()))
        return found

    def _open(self) -> grpc.Channel:
        with self._guard:
            if self._channel is None:
                self._channel = self.dial(self.target)
                if self._shut:
                    self._channel.close()
            return self._channel

    @override
    def probe(self, timeout_s: float, done: ProbeDone, *, patient: bool = True) -> None:
        try:
            check = self._open().unary_unary(PROBE_METHOD, request_serializer=None, response_deserializer=None)
            # Waiting for readiness makes gRPC dial until the time is up, whatever its own back-off says.
            call = check.future(b"", timeout=timeout_s, wait_for_ready=patient)
        except ValueError:  # the channel was closed meanwhile
            return
        call.add_done_callback(lambda ended: done(answered(cast(InnerCall, ended).code())))

    @override
    def ask_load(self, timeout_s: float, said: LoadSaid, question: bytes = b"") -> None:
        try:
            ask = self._open().unary_unary(LOAD_METHOD, request_serializer=None, response_deserializer=None)
            call = cast(InnerCall, ask.future(question, timeout=timeout_s))
        except ValueError:  # the channel was closed meanwhile
            return

        def over() -> None:
            code = call.code()
            said(code, cast(bytes, call.result()) if code is grpc.StatusCode.OK else b"")

        if not call.add_callback(over):
            over()

    @override
    def shut(self) -> None:
        with self._guard:
            self._shut = True
            channel = self._channel
        if channel is not None:
            channel.close()
