"""`grpc.Channel` over all tasks of a service: generated stubs and `grpc.intercept_channel` take it unchanged."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
from typing_extensions import override

from gslb.rpc.client.attempts import Attempts
from gslb.rpc.client.core import Feed, ServiceCore, Settings
from gslb.rpc.client.explain import explain
from gslb.rpc.client.methods import Deserializer, Method, Methods, Serializer
from gslb.rpc.client.replay import Replay
from gslb.rpc.client.sync_calls import RoutedCall, wait_for_task
from gslb.rpc.client.sync_link import InnerCall, SyncLink
from gslb.rpc.context import Metadata

if TYPE_CHECKING:  # generic in the stubs only
    UnaryUnary = grpc.UnaryUnaryMultiCallable[object, object]
    UnaryStream = grpc.UnaryStreamMultiCallable[object, object]
    StreamUnary = grpc.StreamUnaryMultiCallable[object, object]
    StreamStream = grpc.StreamStreamMultiCallable[object, object]
else:
    UnaryUnary, UnaryStream = grpc.UnaryUnaryMultiCallable, grpc.UnaryStreamMultiCallable
    StreamUnary, StreamStream = grpc.StreamUnaryMultiCallable, grpc.StreamStreamMultiCallable


class _Routed:
    """What the four multi-callables share."""

    def __init__(self, core: ServiceCore[SyncLink], method: Method) -> None:
        self._core = core
        self._method = method

    def _attempts(self, timeout: float | None, metadata: Metadata | None) -> Attempts[SyncLink]:
        if self._core.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")
        return Attempts(self._core, self._method.name, timeout, metadata)

    def _block(
        self,
        attempts: Attempts[SyncLink],
        request: object,
        replay: Replay | None,
        options: dict[str, object],
    ) -> tuple[object, grpc.Call]:
        """Attempts one after the other in the caller's thread."""
        link = wait_for_task(self._core, attempts)
        while True:
            try:
                answer = link.method(self._method).with_call(
                    request if replay is None else replay.attempt(),
                    timeout=attempts.remaining_s(),
                    metadata=attempts.metadata,
                    **options,
                )
            except grpc.RpcError as error:
                kept = replay.hold() if replay is not None else True
                following = attempts.failed(error.code(), error.details() or "", repeatable=kept)
                if following is None:
                    raise
                link = following
            except BaseException:
                attempts.abandoned()
                raise
            else:
                attempts.succeeded()
                return answer

    def _call(
        self, attempts: Attempts[SyncLink], request: object, options: dict[str, object], *, replay: Replay | None = None
    ) -> RoutedCall:
        """A call that goes on by itself."""
        method = self._method

        def start(link: SyncLink, timeout_s: float | None) -> InnerCall:
            make = link.method(method)
            begin = make.future if method.kind.endswith("_unary") else make
            return begin(
                request if replay is None else replay.attempt(),
                timeout=timeout_s,
                metadata=attempts.metadata,
                **options,
            )

        return RoutedCall(self._core, attempts, start, replay).begin()


def _options(
    credentials: grpc.CallCredentials | None, wait_for_ready: bool | None, compression: grpc.Compression | None
) -> dict[str, object]:
    # Waiting until one task is ready would keep the call from going to another: it is for us to wait.
    del wait_for_ready
    return {"credentials": credentials, "compression": compression}


class _UnaryUnary(_Routed, UnaryUnary):
    @override
    def __call__(
        self,
        request: object,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> object:
        return self.with_call(request, timeout, metadata, credentials, wait_for_ready, compression)[0]

    @override
    def with_call(
        self,
        request: object,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[object, grpc.Call]:
        options = _options(credentials, wait_for_ready, compression)
        return self._block(self._attempts(timeout, metadata), request, None, options)

    @override
    def future(
        self,
        request: object,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedCall:
        return self._call(
            self._attempts(timeout, metadata), request, _options(credentials, wait_for_ready, compression)
        )


class _UnaryStream(_Routed, UnaryStream):
    @override
    def __call__(
        self,
        request: object,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedCall:
        return self._call(
            self._attempts(timeout, metadata), request, _options(credentials, wait_for_ready, compression)
        )


class _StreamUnary(_Routed, StreamUnary):
    @override
    def __call__(
        self,
        request_iterator: Iterator[object],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> object:
        return self.with_call(request_iterator, timeout, metadata, credentials, wait_for_ready, compression)[0]

    @override
    def with_call(
        self,
        request_iterator: Iterator[object],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[object, grpc.Call]:
        options = _options(credentials, wait_for_ready, compression)
        return self._block(self._attempts(timeout, metadata), None, Replay(request_iterator), options)

    @override
    def future(
        self,
        request_iterator: Iterator[object],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedCall:
        options = _options(credentials, wait_for_ready, compression)
        return self._call(self._attempts(timeout, metadata), None, options, replay=Replay(request_iterator))


class _StreamStream(_Routed, StreamStream):
    @override
    def __call__(
        self,
        request_iterator: Iterator[object],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedCall:
        options = _options(credentials, wait_for_ready, compression)
        return self._call(self._attempts(timeout, metadata), None, options, replay=Replay(request_iterator))


class ServiceChannel(grpc.Channel):
    """Make it with `gslb.rpc.channel`. Calls go where the plan and the tasks' health say; close it when done."""

    def __init__(self, settings: Settings, feed: Feed, dial: Callable[[str], grpc.Channel]) -> None:
        self._core: ServiceCore[SyncLink] = ServiceCore(settings, feed, lambda endpoint: SyncLink(endpoint, dial=dial))
        self._methods = Methods()
        self._watching = threading.Lock()
        self._watchers: list[Callable[[grpc.ChannelConnectivity], None]] = []
        self._pid = os.getpid()

    @property
    def core(self) -> ServiceCore[SyncLink]:
        """Picks and counts, for tests, benchmarks and status pages."""
        return self._core

    def pick(self) -> SyncLink | None:
        """The task that a call would go to now; None: there is nobody. Sends and counts nothing."""
        return self._core.pick()

    def explain(self) -> dict[str, object]:
        """Where calls go and why: shares, tasks with their state, counts."""
        return explain(self._core)

    @override
    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool = False,
    ) -> UnaryUnary:
        found = self._methods.get("unary_unary", method, request_serializer, response_deserializer, _registered_method)
        return _UnaryUnary(self._core, found)

    @override
    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool = False,
    ) -> UnaryStream:
        found = self._methods.get("unary_stream", method, request_serializer, response_deserializer, _registered_method)
        return _UnaryStream(self._core, found)

    @override
    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool = False,
    ) -> StreamUnary:
        found = self._methods.get("stream_unary", method, request_serializer, response_deserializer, _registered_method)
        return _StreamUnary(self._core, found)

    @override
    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool = False,
    ) -> StreamStream:
        found = self._methods.get(
            "stream_stream", method, request_serializer, response_deserializer, _registered_method
        )
        return _StreamStream(self._core, found)

    @override
    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        """Calls back with IDLE now, and with READY when there is a plan and somebody to call.

        Single connections come and go behind this channel without anybody being told.
        """
        with self._watching:
            self._watchers.append(callback)
        if self._core.table is None:
            callback(grpc.ChannelConnectivity.IDLE)
        self._core.on_ready(lambda: self._announce(callback))

    def _announce(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        with self._watching:
            wanted = callback in self._watchers
        if wanted:
            closed = self._core.closed
            callback(grpc.ChannelConnectivity.SHUTDOWN if closed else grpc.ChannelConnectivity.READY)

    @override
    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        with self._watching, contextlib.suppress(ValueError):
            self._watchers.remove(callback)

    @override
    def close(self) -> None:
        """Cancels all calls and closes all connections."""
        if self._pid == os.getpid():
            self._core.close()

    @override
    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()
