"""A call that is under way while the caller does something else: futures and streams, over one or more attempts.

The caller holds one `RoutedCall`, whatever becomes of the attempts behind it. It passes on what gRPC's own call object
says; when an attempt fails and may be repeated, another one takes its place, at the latest when the caller looks.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Protocol

import grpc
from typing_extensions import override

from gslb.rpc.client.attempts import Attempts
from gslb.rpc.client.core import ServiceCore
from gslb.rpc.client.errors import CallBase, FutureBase, LocalRpcError
from gslb.rpc.client.replay import Replay
from gslb.rpc.client.sync_link import InnerCall, SyncLink
from gslb.rpc.context import Metadata

log = logging.getLogger(__name__)

DoneCallback = Callable[[FutureBase], None]


class Start(Protocol):
    """Begins one attempt on a task."""

    def __call__(self, link: SyncLink, timeout_s: float | None) -> InnerCall: ...


class RoutedCall(CallBase):
    """Call, future and iterator of responses in one, as gRPC's own are."""

    def __init__(
        self, core: ServiceCore[SyncLink], attempts: Attempts[SyncLink], start: Start, replay: Replay | None
    ) -> None:
        self._core = core
        self._attempts = attempts
        self._start = start
        self._replay = replay
        self._changed = threading.Condition(threading.RLock())
        self._inner: InnerCall | None = None
        self._ended = False  # no other attempt follows
        self._error: LocalRpcError | None = None  # ended by ourselves
        self._delivered = False  # the caller has seen something of a response
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []
        self._ticket = 0  # of the wait for somebody to ask

    def begin(self) -> "RoutedCall":
        """The first attempt, or the wait for somebody to ask."""
        if self._attempts.held_back:
            self._fail(grpc.StatusCode.RESOURCE_EXHAUSTED, self._attempts.held_back)
            return self
        link = self._attempts.first()
        if link is not None:
            self._launch(link)
            return self
        itself = weakref.ref(self)
        self._ticket = self._core.on_ready(partial(_on_ready, itself))
        if not self._core.after(self._attempts.wait_s(), partial(_on_late, itself)):
            self.late()
        return self

    def __del__(self) -> None:
        if getattr(self, "_ticket", 0):
            self._core.forget(self._ticket)

    # Attempts, one after the other

    def ready(self) -> None:
        """There is somebody to ask now, or the channel was closed."""
        with self._changed:
            if self._inner is not None or self._ended:
                return
            link = self._attempts.first()
            if link is not None:
                self._launch(link)
                return
        self._fail(grpc.StatusCode.CANCELLED, "Channel closed!")

    def late(self) -> None:
        """Time is up; fails if there is still nobody."""
        if self._inner is None and not self._ended:
            self._core.counts.no_endpoint += 1
            self._fail(grpc.StatusCode.UNAVAILABLE, self._core.reason())

    def _launch(self, link: SyncLink) -> None:
        try:
            inner = self._start(link, self._attempts.remaining_s())
        except BaseException as error:
            self._attempts.abandoned()
            if self._core.closed and isinstance(error, ValueError):
                self._fail(grpc.StatusCode.CANCELLED, "Channel closed!")
                return
            raise
        with self._changed:
            self._inner = inner
            self._changed.notify_all()
            if self._cancelled:
                inner.cancel()
        # No reference to this object from gRPC: a stream that the caller drops must be collected and cancelled.
        ended = partial(_on_end, weakref.ref(self), weakref.ref(inner), self._attempts)
        if not inner.add_callback(ended):
            ended()

    def attempt_ended(self, inner: InnerCall) -> None:
        """gRPC says that an attempt is over: goes on with another one, or ends."""
        code = inner.code()
        if code is grpc.StatusCode.OK:
            self._attempts.succeeded(inner.trailing_metadata)
            self._end()
            return
        with self._changed:
            kept = self._replay.hold() if self._replay is not None else True
            repeatable = kept and not self._delivered and not self._cancelled
            details = inner.details() or ""
            link = self._attempts.failed(code, details, repeatable=repeatable, trailers=inner.trailing_metadata)
            if link is not None:
                try:
                    self._launch(link)
                except Exception:  # the attempt that failed has a status to show; this is only logged
                    log.exception("a retry could not be started")
                else:
                    return
        self._end()

    def _fail(self, code: grpc.StatusCode, details: str) -> None:
        with self._changed:
            if self._ended or self._inner is not None:
                return
            self._error = LocalRpcError(code, details)
        self._attempts.over(code, details)
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        if self._replay is not None:
            self._replay.commit()
        if self._ticket:
            self._core.forget(self._ticket)
        for callback in callbacks:
            try:
                callback()
            except Exception:  # as gRPC does: a callback's mistake is its own
                log.exception("a done callback failed")

    # Looking at the present attempt

    def _settled(self, timeout_s: float | None = None) -> "InnerCall | LocalRpcError":
        """The attempt that counts, once it is over. Raises grpc.FutureTimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended, timeout_s):
                raise grpc.FutureTimeoutError
            return self._error or self._must()

    def _must(self) -> InnerCall:
        if self._inner is None:
            raise RuntimeError("a call ended without an attempt")
        return self._inner

    def _present(self) -> "InnerCall | LocalRpcError":
        """The attempt under way, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._inner is not None or self._ended)
            return self._error or self._must()

    def _replaced(self, inner: "InnerCall | LocalRpcError") -> bool:
        """After `inner` failed: waits for what becomes of the call; whether another attempt took its place."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._inner is not inner)
            return self._error is None and self._inner is not inner

    # Responses

    @override
    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        while True:
            inner = self._present()
            try:
                item = next(inner)
            except StopIteration:
                raise
            except grpc.RpcError:
                if self._replaced(inner):
                    continue
                raise
            with self._changed:
                if self._inner is not inner:
                    continue
                self._delivered = True
            if self._replay is not None:
                self._replay.commit()
            return item

    def next(self) -> object:
        return next(self)

    # grpc.Call

    @override
    def initial_metadata(self) -> Metadata:
        while True:
            inner = self._present()
            metadata = inner.initial_metadata()
            if not inner.done() or not self._replaced(inner):
                return metadata

    @override
    def trailing_metadata(self) -> Metadata:
        return self._settled().trailing_metadata()

    @override
    def code(self) -> grpc.StatusCode:
        return self._settled().code()

    @override
    def details(self) -> str:
        return self._settled().details() or ""

    def debug_error_string(self) -> str:
        return self._settled().debug_error_string()

    @override
    def is_active(self) -> bool:
        return not self._ended

    @override
    def time_remaining(self) -> float:
        return self._attempts.remaining_s()  # type: ignore[return-value]  # None without a deadline, as gRPC's own

    @override
    def cancel(self) -> bool:
        with self._changed:
            if self._ended:
                return False
            self._cancelled = True
            inner = self._inner
        if inner is not None:
            inner.cancel()
        else:
            self._fail(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        return True

    @override
    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._changed:
            if self._ended:
                return False
            self._callbacks.append(callback)
            return True

    # grpc.Future

    @override
    def cancelled(self) -> bool:
        return self._cancelled or (self._ended and (self._error or self._must()).cancelled())

    @override
    def running(self) -> bool:
        return not self._ended

    @override
    def done(self) -> bool:
        return self._ended

    @override
    def result(self, timeout: float | None = None) -> object:
        return self._settled(timeout).result()

    @override
    def exception(self, timeout: float | None = None) -> Exception | None:
        return self._settled(timeout).exception()

    @override
    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        found = self._settled(timeout).traceback()
        return found if isinstance(found, TracebackType) else None

    @override
    def add_done_callback(self, fn: DoneCallback) -> None:
        if not self.add_callback(partial(fn, self)):
            fn(self)


def _on_ready(itself: "weakref.ref[RoutedCall]") -> None:
    call = itself()
    if call is not None:
        call.ready()


def _on_late(itself: "weakref.ref[RoutedCall]") -> None:
    call = itself()
    if call is not None:
        call.late()


def _on_end(itself: "weakref.ref[RoutedCall]", attempt: "weakref.ref[InnerCall]", attempts: Attempts[SyncLink]) -> None:
    """Called by gRPC when an attempt is over."""
    call, inner = itself(), attempt()
    if call is None or inner is None:
        # Nobody looks any more: only the bookkeeping remains.
        attempts.abandoned()
        return
    call.attempt_ended(inner)


def wait_for_task(core: ServiceCore[SyncLink], attempts: Attempts[SyncLink]) -> SyncLink:
    """The task for a blocking call's first attempt; waits for a plan. Raises LocalRpcError, or ValueError if closed."""
    if attempts.held_back:
        attempts.over(grpc.StatusCode.RESOURCE_EXHAUSTED, attempts.held_back)
        raise LocalRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, attempts.held_back)
    link = attempts.first()
    if link is not None:
        return link
    wait_until_s = time.monotonic() + attempts.wait_s()
    while True:
        if core.closed:
            attempts.abandoned()
            raise ValueError("Cannot invoke RPC on closed channel!")
        left_s = wait_until_s - time.monotonic()
        if left_s <= 0:
            core.counts.no_endpoint += 1
            reason = core.reason()
            attempts.over(grpc.StatusCode.UNAVAILABLE, reason)
            raise LocalRpcError(grpc.StatusCode.UNAVAILABLE, reason)
        core.wait_ready(left_s)
        link = attempts.first()
        if link is not None:
            return link
