"""The asyncio twin of `sync_hedge`: a call of which a second copy is sent when the first is late; the first answer counts."""

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TypeVar

import grpc
import grpc.aio
from typing_extensions import override

from gslb.model import limits
from gslb.rpc.client.aio_calls import DoneCallback, RoutedUnaryUnaryCall, UnaryUnaryBase
from gslb.rpc.client.aio_link import AioLink
from gslb.rpc.client.attempts import Attempts

log = logging.getLogger(__name__)

T = TypeVar("T")
Begin = Callable[[Attempts[AioLink]], RoutedUnaryUnaryCall]


class HedgedUnaryUnaryCall(UnaryUnaryBase):
    """`grpc.aio.UnaryUnaryCall` over copies; `begin` starts one over the attempts that it is given."""

    def __init__(self, attempts: Attempts[AioLink], begin: Begin) -> None:
        loop = asyncio.get_running_loop()
        self._attempts = attempts
        self._begin = begin
        self._copies: list[RoutedUnaryUnaryCall] = []
        self._counting: asyncio.Future[RoutedUnaryUnaryCall] = loop.create_future()  # whose end is the call's
        self._cancelled = False
        self._callbacks: list[DoneCallback] = []
        self._timer: asyncio.TimerHandle | None = None
        self._send(attempts)
        late_s = attempts.late_in_s()
        if late_s is not None and not self.done():
            self._timer = loop.call_later(late_s, partial(_on_late, weakref.ref(self), False))

    def late(self, *, overdue: bool) -> None:
        """No answer yet: sends the second copy, if it may."""
        if self.done() or self._cancelled:
            return
        second = self._attempts.rival(overdue=overdue)
        if second is not None:
            self._send(second)
        elif not overdue:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(limits.OVERDUE_S, partial(_on_late, weakref.ref(self), True))

    def _send(self, attempts: Attempts[AioLink]) -> None:
        copy = self._begin(attempts)
        self._copies.append(copy)
        copy.add_done_callback(partial(_on_over, weakref.ref(self)))

    def over(self, copy: RoutedUnaryUnaryCall) -> None:
        """A copy has ended: with it the call, unless another one may still answer."""
        if self.done():
            return
        others = [other for other in self._copies if other is not copy and not other.done()]
        if others and copy.status() is not grpc.StatusCode.OK:
            return
        self._counting.set_result(copy)
        if self._timer is not None:
            self._timer.cancel()
        for other in others:
            other.cancel()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # a callback's mistake is its own
                log.exception("a done callback failed")

    @override
    def __await__(self) -> Generator[None, None, object]:
        return self._response().__await__()

    async def _response(self) -> object:
        return await (await self._settled())

    async def _settled(self) -> RoutedUnaryUnaryCall:
        try:
            # Whoever waits may be cancelled, and others wait, too.
            return await asyncio.shield(self._counting)
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _ask(self, question: Callable[[RoutedUnaryUnaryCall], Coroutine[object, object, T]]) -> T:
        return await question(await self._settled())

    # grpc.aio.Call

    @override
    def cancelled(self) -> bool:
        return self.done() and self._counting.result().cancelled()

    @override
    def done(self) -> bool:
        return self._counting.done()

    @override
    def time_remaining(self) -> float | None:
        return self._attempts.remaining_s()

    @override
    def cancel(self) -> bool:
        if self.done():
            return False
        self._cancelled = True
        for copy in list(self._copies):
            copy.cancel()
        return True

    @override
    def add_done_callback(self, callback: DoneCallback) -> None:
        if self.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    @override
    async def initial_metadata(self) -> grpc.aio.Metadata:
        return await self._ask(lambda copy: copy.initial_metadata())

    @override
    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return await self._ask(lambda copy: copy.trailing_metadata())

    @override
    async def code(self) -> grpc.StatusCode:
        return await self._ask(lambda copy: copy.code())

    @override
    async def details(self) -> str:
        return await self._ask(lambda copy: copy.details())

    async def debug_error_string(self) -> str:
        return await self._ask(lambda copy: copy.debug_error_string())

    @override
    async def wait_for_connection(self) -> None:
        await self._copies[0].wait_for_connection()


def _on_late(itself: "weakref.ref[HedgedUnaryUnaryCall]", overdue: bool) -> None:
    call = itself()
    if call is not None:
        call.late(overdue=overdue)


def _on_over(itself: "weakref.ref[HedgedUnaryUnaryCall]", copy: object) -> None:
    call = itself()
    if call is not None and isinstance(copy, RoutedUnaryUnaryCall):
        call.over(copy)
