"""A call with one request and one response of which a second copy is sent when the first is late: the first answer counts.

An error counts only when no other copy is under way. The copy that lost is cancelled.
"""

import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import TracebackType

import grpc
from typing_extensions import override

from gslb.model import limits
from gslb.rpc.client.attempts import Attempts
from gslb.rpc.client.core import ServiceCore
from gslb.rpc.client.errors import CallBase, FutureBase
from gslb.rpc.client.sync_calls import DoneCallback, RoutedCall
from gslb.rpc.client.sync_link import SyncLink
from gslb.rpc.context import Metadata

log = logging.getLogger(__name__)

Begin = Callable[[Attempts[SyncLink]], RoutedCall]


class HedgedCall(CallBase):
    """Call and future in one, as `RoutedCall` is; `begin` starts one copy over the attempts that it is given."""

    def __init__(self, core: ServiceCore[SyncLink], attempts: Attempts[SyncLink], begin: Begin) -> None:
        self._core = core
        self._attempts = attempts
        self._begin = begin
        self._changed = threading.Condition(threading.RLock())
        self._copies: list[RoutedCall] = []
        self._counting: RoutedCall | None = None  # the copy whose end is the call's
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    def start(self) -> "HedgedCall":
        """Sends the first copy."""
        self._send(self._attempts)
        late_s = self._attempts.late_in_s()
        if late_s is not None:
            # Without timers there is no second copy, and the first goes on.
            self._core.after(late_s, partial(_on_late, weakref.ref(self), False))
        return self

    def late(self, *, overdue: bool) -> None:
        """No answer yet: sends the second copy, if it may."""
        with self._changed:
            if self._counting is not None or self._cancelled:
                return
            second = self._attempts.rival(overdue=overdue)
        if second is not None:
            self._send(second)
        elif not overdue:
            self._core.after(limits.OVERDUE_S, partial(_on_late, weakref.ref(self), True))

    def _send(self, attempts: Attempts[SyncLink]) -> None:
        copy = self._begin(attempts)
        with self._changed:
            self._copies.append(copy)
            unwanted = self._counting is not None or self._cancelled
        if unwanted:
            copy.cancel()
        # The copies are known to this object and must not keep it.
        copy.add_done_callback(partial(_on_over, weakref.ref(self)))

    def over(self, copy: RoutedCall) -> None:
        """A copy has ended: with it the call, unless another one may still answer."""
        with self._changed:
            if self._counting is not None:
                return
            others = [other for other in self._copies if other is not copy and not other.done()]
            if others and copy.code() is not grpc.StatusCode.OK:
                return
            self._counting = copy
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for other in others:
            other.cancel()
        for callback in callbacks:
            try:
                callback()
            except Exception:  # as gRPC does: a callback's mistake is its own
                log.exception("a done callback failed")

    def _settled(self, timeout_s: float | None = None) -> RoutedCall:
        """The copy that counts, once there is one. Raises grpc.FutureTimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._counting is not None, timeout_s) or self._counting is None:
                raise grpc.FutureTimeoutError
            return self._counting

    # grpc.Call

    @override
    def initial_metadata(self) -> Metadata:
        return self._settled().initial_metadata()

    @override
    def trailing_metadata(self) -> Metadata:
        return self._settled().trailing_metadata()

    @override
    def code(self) -> grpc.StatusCode:
        return self._settled().code()

    @override
    def details(self) -> str:
        return self._settled().details()

    def debug_error_string(self) -> str:
        return self._settled().debug_error_string()

    @override
    def is_active(self) -> bool:
        return self._counting is None

    @override
    def time_remaining(self) -> float:
        return self._attempts.remaining_s()  # type: ignore[return-value]  # None without a deadline, as gRPC's own

    @override
    def cancel(self) -> bool:
        with self._changed:
            if self._counting is not None:
                return False
            self._cancelled = True
            copies = list(self._copies)
        for copy in copies:
            copy.cancel()
        return True

    @override
    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._changed:
            if self._counting is not None:
                return False
            self._callbacks.append(callback)
            return True

    # grpc.Future

    @override
    def cancelled(self) -> bool:
        return self._cancelled or (self._counting is not None and self._counting.cancelled())

    @override
    def running(self) -> bool:
        return self._counting is None

    @override
    def done(self) -> bool:
        return self._counting is not None

    @override
    def result(self, timeout: float | None = None) -> object:
        return self._settled(timeout).result()

    @override
    def exception(self, timeout: float | None = None) -> Exception | None:
        return self._settled(timeout).exception()

    @override
    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        return self._settled(timeout).traceback()

    @override
    def add_done_callback(self, fn: DoneCallback) -> None:
        if not self.add_callback(partial(fn, self)):
            fn(self)


def _on_late(itself: "weakref.ref[HedgedCall]", overdue: bool) -> None:
    call = itself()
    if call is not None:
        call.late(overdue=overdue)


def _on_over(itself: "weakref.ref[HedgedCall]", copy: FutureBase) -> None:
    call = itself()
    if call is not None and isinstance(copy, RoutedCall):
        call.over(copy)
