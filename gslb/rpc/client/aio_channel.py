"""`grpc.aio.Channel` over all tasks of a service: generated stubs take it unchanged."""

import asyncio
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
import grpc.aio
from typing_extensions import override

from gslb.rpc.client.aio_calls import (
    RoutedStreamStreamCall,
    RoutedStreamUnaryCall,
    RoutedUnaryStreamCall,
    RoutedUnaryUnaryCall,
    Start,
    wake,
)
from gslb.rpc.client.aio_hedge import HedgedUnaryUnaryCall
from gslb.rpc.client.aio_link import AioLink, Dial, InnerCall, link_factory
from gslb.rpc.client.aio_replay import AioReplay, Requests
from gslb.rpc.client.attempts import Attempts
from gslb.rpc.client.core import Feed, ServiceCore
from gslb.rpc.client.facade import PLAIN, CallOptions, Facade, Routed, call_options
from gslb.rpc.client.settings import Settings
from gslb.rpc.context import Metadatum

if TYPE_CHECKING:  # generic in the stubs, not in every version at run time
    UnaryUnary = grpc.aio.UnaryUnaryMultiCallable[object, object]
    UnaryStream = grpc.aio.UnaryStreamMultiCallable[object, object]
    StreamUnary = grpc.aio.StreamUnaryMultiCallable[object, object]
    StreamStream = grpc.aio.StreamStreamMultiCallable[object, object]
else:
    UnaryUnary, UnaryStream = grpc.aio.UnaryUnaryMultiCallable, grpc.aio.UnaryStreamMultiCallable
    StreamUnary, StreamStream = grpc.aio.StreamUnaryMultiCallable, grpc.aio.StreamStreamMultiCallable

# How often a change of state that nobody announces is looked for.
_STATE_PERIOD_S = 0.2


class _Routed(Routed[AioLink]):
    """What the four multi-callables share."""

    def _attempts(self, timeout: float | None, metadata: Iterable[Metadatum] | None) -> Attempts[AioLink]:
        if self._core.closed:
            raise grpc.aio.UsageError("Channel is closed.")
        return Attempts(self._core, self._method.name, timeout, metadata)

    def _attempt(
        self,
        attempts: Attempts[AioLink],
        request: object,
        options: CallOptions,
        replay: AioReplay | None,
        link: AioLink,
        timeout_s: float | None,
    ) -> InnerCall:
        given = request if replay is None else replay.attempt()
        return link.method(self._method)(given, timeout=timeout_s, metadata=attempts.metadata, **options)

    def _begin(
        self,
        request: object,
        timeout: float | None,
        metadata: Iterable[Metadatum] | None,
        options: CallOptions,
        replay: AioReplay | None = None,
    ) -> tuple[Attempts[AioLink], Start]:
        attempts = self._attempts(timeout, metadata)
        return attempts, partial(self._attempt, attempts, request, options, replay)


class _UnaryUnary(_Routed, UnaryUnary):
    @override
    def __call__(
        self,
        request: object,
        timeout: float | None = None,
        metadata: Iterable[Metadatum] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedUnaryUnaryCall | HedgedUnaryUnaryCall:
        plain = credentials is None and compression is None
        options = PLAIN if plain else call_options(credentials, wait_for_ready, compression)
        attempts = self._attempts(timeout, metadata)
        if self._core.settings.hedging:
            return HedgedUnaryUnaryCall(attempts, partial(self._copy, request, options))
        return RoutedUnaryUnaryCall(self._core, attempts, partial(self._attempt, attempts, request, options, None))

    def _copy(self, request: object, options: CallOptions, attempts: Attempts[AioLink]) -> RoutedUnaryUnaryCall:
        return RoutedUnaryUnaryCall(self._core, attempts, partial(self._attempt, attempts, request, options, None))


class _UnaryStream(_Routed, UnaryStream):
    @override
    def __call__(
        self,
        request: object,
        timeout: float | None = None,
        metadata: Iterable[Metadatum] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedUnaryStreamCall:
        options = call_options(credentials, wait_for_ready, compression)
        return RoutedUnaryStreamCall(self._core, *self._begin(request, timeout, metadata, options))


class _StreamUnary(_Routed, StreamUnary):
    @override
    def __call__(
        self,
        request_iterator: Requests | None = None,
        timeout: float | None = None,
        metadata: Iterable[Metadatum] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedStreamUnaryCall:
        replay = AioReplay(request_iterator)
        options = call_options(credentials, wait_for_ready, compression)
        return RoutedStreamUnaryCall(self._core, *self._begin(None, timeout, metadata, options, replay), replay)


class _StreamStream(_Routed, StreamStream):
    @override
    def __call__(
        self,
        request_iterator: Requests | None = None,
        timeout: float | None = None,
        metadata: Iterable[Metadatum] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> RoutedStreamStreamCall:
        replay = AioReplay(request_iterator)
        options = call_options(credentials, wait_for_ready, compression)
        return RoutedStreamStreamCall(self._core, *self._begin(None, timeout, metadata, options, replay), replay)


class AioServiceChannel(Facade[AioLink, UnaryUnary, UnaryStream, StreamUnary, StreamStream], grpc.aio.Channel):
    """Make it with `gslb.rpc.aio_channel`, in the loop that uses it. Close it when done."""

    def __init__(self, settings: Settings, feed: Feed, dial: Dial) -> None:
        self._loop = asyncio.get_running_loop()
        core: ServiceCore[AioLink] = ServiceCore(settings, feed, link_factory(dial, self._loop))
        super().__init__(core, (_UnaryUnary, _UnaryStream), (_StreamUnary, _StreamStream))

    @override
    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """IDLE before the first plan, then READY: single connections come and go behind this channel."""
        if self._core.closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        return grpc.ChannelConnectivity.IDLE if self._core.table is None else grpc.ChannelConnectivity.READY

    @override
    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        while self.get_state() is last_observed_state:  # noqa: ASYNC110  # set from other threads
            await asyncio.sleep(_STATE_PERIOD_S)

    @override
    async def channel_ready(self) -> None:
        ready = asyncio.Event()
        self._core.on_ready(lambda: wake(self._loop, ready))
        await ready.wait()
        if self._core.closed:
            raise grpc.aio.UsageError("Channel is closed.")

    @override
    async def close(self, grace: float | None = None) -> None:
        """Closes all connections; calls in flight get `grace` seconds to end, without it they are cancelled."""
        links = self._core.close(shut=False)
        if grace:
            deadline_s = self._loop.time() + grace
            while any(link.in_flight for link in links) and self._loop.time() < deadline_s:  # noqa: ASYNC110
                await asyncio.sleep(min(0.05, grace))
        for link in links:
            link.shut()
        await asyncio.gather(*(link.closing for link in links if link.closing is not None))

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()
