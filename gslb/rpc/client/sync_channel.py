"""`grpc.Channel` over all tasks of a service: generated stubs and `grpc.intercept_channel` take it unchanged."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import grpc
from typing_extensions import override

from gslb.rpc.client.attempts import Attempts, Trailers
from gslb.rpc.client.core import Feed, ServiceCore
from gslb.rpc.client.facade import PLAIN, CallOptions, Facade, Routed, call_options
from gslb.rpc.client.replay import Replay
from gslb.rpc.client.settings import Settings
from gslb.rpc.client.sync_calls import RoutedCall, wait_for_task
from gslb.rpc.client.sync_hedge import HedgedCall
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


class _Routed(Routed[SyncLink]):
    """What the four multi-callables share."""

    def _attempts(self, timeout: float | None, metadata: Metadata | None) -> Attempts[SyncLink]:
        if self._core.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")
        return Attempts(self._core, self._method.name, timeout, metadata)

    def _block(
        self,
        attempts: Attempts[SyncLink],
        request: object,
        replay: Replay | None,
        options: CallOptions,
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
                following = attempts.failed(
                    error.code(),
                    error.details() or "",
                    repeatable=kept,
                    trailers=cast(Trailers, error.trailing_metadata),
                )
                if following is None:
                    raise
                link = following
            except BaseException:
                attempts.abandoned()
                raise
            else:
                attempts.succeeded(answer[1].trailing_metadata)
                return answer

    def _call(
        self, attempts: Attempts[SyncLink], request: object, options: CallOptions, *, replay: Replay | None = None
    ) -> RoutedCall:
        """A call that goes on by itself."""
        start = partial(self._attempt, attempts, request, options, replay)
        return RoutedCall(self._core, attempts, start, replay).begin()

    def _attempt(
        self,
        attempts: Attempts[SyncLink],
        request: object,
        options: CallOptions,
        replay: Replay | None,
        link: SyncLink,
        timeout_s: float | None,
    ) -> InnerCall:
        make = link.method(self._method)
        begin = make.future if self._method.kind.endswith("_unary") else make
        given = request if replay is None else replay.attempt()
        return begin(given, timeout=timeout_s, metadata=attempts.metadata, **options)


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
        plain = credentials is None and compression is None
        options = PLAIN if plain else call_options(credentials, wait_for_ready, compression)
        attempts = self._attempts(timeout, metadata)
        if not self._core.settings.hedging:
            return self._block(attempts, request, None, options)
        call = self._hedged(attempts, request, options)
        try:
            return call.result(), call
        except BaseException:
            call.cancel()  # nothing, if it has ended
            raise

    @override
    def future(
        self,
        request: object,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedCall | HedgedCall:
        options = call_options(credentials, wait_for_ready, compression)
        attempts = self._attempts(timeout, metadata)
        hedging = self._core.settings.hedging
        return self._hedged(attempts, request, options) if hedging else self._call(attempts, request, options)

    def _hedged(self, attempts: Attempts[SyncLink], request: object, options: CallOptions) -> HedgedCall:
        return HedgedCall(self._core, attempts, lambda copy: self._call(copy, request, options)).start()


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
            self._attempts(timeout, metadata), request, call_options(credentials, wait_for_ready, compression)
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
        options = call_options(credentials, wait_for_ready, compression)
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
        options = call_options(credentials, wait_for_ready, compression)
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
        options = call_options(credentials, wait_for_ready, compression)
        return self._call(self._attempts(timeout, metadata), None, options, replay=Replay(request_iterator))


class ServiceChannel(Facade[SyncLink, UnaryUnary, UnaryStream, StreamUnary, StreamStream], grpc.Channel):
    """Make it with `gslb.rpc.channel`. Calls go where the plan and the tasks' health say; close it when done."""

    def __init__(self, settings: Settings, feed: Feed, dial: Callable[[str], grpc.Channel]) -> None:
        core: ServiceCore[SyncLink] = ServiceCore(settings, feed, lambda endpoint: SyncLink(endpoint, dial=dial))
        super().__init__(core, (_UnaryUnary, _UnaryStream), (_StreamUnary, _StreamStream))
        self._watching = threading.Lock()
        self._watchers: list[Callable[[grpc.ChannelConnectivity], None]] = []
        self._pid = os.getpid()

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
