"""An asyncio call over one or more attempts: what the caller holds, whatever becomes of the attempts behind it.

It passes on what gRPC's own call says; when an attempt fails and may be repeated, another one takes its place. Everything
runs in the caller's loop; only the news that there is a plan comes from another thread.
"""

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import grpc
import grpc.aio

from gslb.rpc.client.aio_link import AioLink, InnerCall
from gslb.rpc.client.aio_replay import AioReplay
from gslb.rpc.client.attempts import Attempts
from gslb.rpc.client.core import ServiceCore
from gslb.rpc.client.errors import aio_error

if TYPE_CHECKING:  # generic in the stubs, not in every version at run time
    UnaryUnaryBase = grpc.aio.UnaryUnaryCall[object, object]
    UnaryStreamBase = grpc.aio.UnaryStreamCall[object, object]
    StreamUnaryBase = grpc.aio.StreamUnaryCall[object, object]
    StreamStreamBase = grpc.aio.StreamStreamCall[object, object]
else:
    UnaryUnaryBase, UnaryStreamBase = grpc.aio.UnaryUnaryCall, grpc.aio.UnaryStreamCall
    StreamUnaryBase, StreamStreamBase = grpc.aio.StreamUnaryCall, grpc.aio.StreamStreamCall

log = logging.getLogger(__name__)

T = TypeVar("T")
EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not have it
DoneCallback = Callable[[object], None]


class Start(Protocol):
    """Begins one attempt on a task."""

    def __call__(self, link: AioLink, timeout_s: float | None) -> InnerCall: ...


def _finished(coroutine: Coroutine[object, object, T]) -> T | None:
    """Runs a coroutine that has nothing to wait for: gRPC's answers about a call that is over.

    None: it would wait after all.
    """
    try:
        coroutine.send(None)
    except StopIteration as ended:
        value: T = ended.value
        return value
    coroutine.close()
    return None


class RoutedCall:
    """What all four kinds share: `grpc.aio.Call`."""

    # Of the class while they are as at first, as they are for nearly all calls until the end.
    _inner: InnerCall | None = None
    _first: asyncio.Task[None] | None = None  # waits for a plan
    _ended = False  # no other attempt follows
    _error: grpc.aio.AioRpcError | None = None  # ended by ourselves
    _delivered = False  # the caller has seen something of a response
    _cancelled = False
    _callbacks: tuple[DoneCallback, ...] = ()

    def __init__(
        self, core: ServiceCore[AioLink], attempts: Attempts[AioLink], start: Start, replay: AioReplay | None = None
    ) -> None:
        self._core = core
        self._attempts = attempts
        self._start = start
        self._replay = replay
        if attempts.held_back:
            self._fail(grpc.StatusCode.RESOURCE_EXHAUSTED, attempts.held_back)
            return
        link = attempts.first()
        if link is not None:
            self._launch(link)
        else:
            self._first = asyncio.get_running_loop().create_task(self._wait_for_plan())

    # Attempts, one after the other

    async def _wait_for_plan(self) -> None:
        try:
            async with asyncio.timeout(self._attempts.wait_s()):
                link = await first_link(self._core, self._attempts)
        except TimeoutError:
            self._core.counts.no_endpoint += 1
            self._fail(grpc.StatusCode.UNAVAILABLE, self._core.reason())
            return
        if link is None:
            self._fail(grpc.StatusCode.CANCELLED, "Channel is closed.")
        else:
            self._launch(link)

    def _launch(self, link: AioLink) -> None:
        try:
            inner = self._start(link, self._attempts.remaining_s())
        except grpc.aio.UsageError:
            self._attempts.abandoned()
            self._fail(grpc.StatusCode.CANCELLED, "Channel is closed.")
            return
        except BaseException:
            self._attempts.abandoned()
            raise
        self._inner = inner
        # gRPC keeps the callback, and must not keep this object: a stream that is dropped must be collected.
        inner.add_done_callback(partial(_on_end, weakref.ref(self), self._attempts))
        if self._cancelled:
            inner.cancel()

    def moved_on(self, inner: InnerCall) -> bool:
        """After something of `inner` was seen: whether another attempt has taken its place, or does so now."""
        if not self._ended and self._inner is inner and inner.done():
            self._decide(inner)
        return self._inner is not inner

    def attempt_ended(self, inner: InnerCall) -> None:
        """gRPC says so."""
        if not self._ended and self._inner is inner:
            self._decide(inner)

    def _decide(self, inner: InnerCall) -> None:
        code = _finished(inner.code())
        trailers = partial(_trailers, inner)
        if code is grpc.StatusCode.OK:
            self._attempts.succeeded(trailers)
            self._end()
            return
        details = _finished(inner.details()) or ""
        kept = self._replay.hold() if self._replay is not None else True
        repeatable = kept and not self._delivered and not self._cancelled
        link = self._attempts.failed(code or grpc.StatusCode.UNKNOWN, details, repeatable=repeatable, trailers=trailers)
        if link is None:
            self._end()
        else:
            self._launch(link)

    def _give_up(self, inner: InnerCall) -> None:
        """An attempt ended without a status (a request that cannot be serialised): releases its task."""
        if self._inner is inner and not self._ended:
            self._attempts.abandoned()
            self._end()

    def _fail(self, code: grpc.StatusCode, details: str) -> None:
        if not self._ended:
            self._error = aio_error(code, details)
            self._attempts.over(code, details)
            self._end()

    def _end(self) -> None:
        self._ended = True
        if self._replay is not None:
            self._replay.close()
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # a callback's mistake is its own
                log.exception("a done callback failed")

    def status(self) -> grpc.StatusCode | None:
        """How it ended, once it is over."""
        if self._error is not None:
            return self._error.code()
        return None if self._inner is None else _finished(self._inner.code())

    async def _present(self) -> InnerCall:
        """The attempt under way, once there is one. Raises what the call ended with before any."""
        if self._first is not None and not self._first.done():
            try:
                await asyncio.shield(self._first)
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._error is not None:
            if self._cancelled:
                raise asyncio.CancelledError
            raise self._error
        if self._inner is None:
            raise asyncio.CancelledError
        return self._inner

    async def _ask(self, question: Callable[[InnerCall], Coroutine[object, object, T]], *, early: bool = False) -> T:
        """What the attempt that counts says; `early`: it may be still under way."""
        while True:
            inner = await self._present()
            answer = await question(inner)
            if (early and not inner.done()) or not self.moved_on(inner):
                return answer

    # grpc.aio.Call

    def cancelled(self) -> bool:
        if self._inner is not None:
            return self._ended and self._inner.cancelled()
        return self._ended and self._cancelled

    def done(self) -> bool:
        return self._ended

    def time_remaining(self) -> float | None:
        return self._attempts.remaining_s()

    def cancel(self) -> bool:
        if self._ended:
            return False
        self._cancelled = True
        if self._inner is not None:
            return self._inner.cancel()
        if self._first is not None:
            self._first.cancel()
        self._fail(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        return True

    def add_done_callback(self, callback: DoneCallback) -> None:
        if self._ended:
            callback(self)
        else:
            self._callbacks = (*self._callbacks, callback)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        if self._error is not None:
            return grpc.aio.Metadata()
        return await self._ask(lambda inner: inner.initial_metadata(), early=True)

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        if self._error is not None:
            return grpc.aio.Metadata()
        return await self._ask(lambda inner: inner.trailing_metadata())

    async def code(self) -> grpc.StatusCode:
        try:
            return await self._ask(lambda inner: inner.code())
        except grpc.aio.AioRpcError as error:
            return error.code()

    async def details(self) -> str:
        try:
            return await self._ask(lambda inner: inner.details())
        except grpc.aio.AioRpcError as error:
            return error.details() or ""

    async def debug_error_string(self) -> str:
        try:
            return await self._ask(lambda inner: inner.debug_error_string())
        except grpc.aio.AioRpcError as error:
            return error.debug_error_string()

    async def wait_for_connection(self) -> None:
        while True:
            inner = await self._present()
            try:
                await inner.wait_for_connection()
            except grpc.aio.AioRpcError:
                if self.moved_on(inner):
                    continue
                raise
            return

    async def _raise_for_status(self) -> None:
        code = await self.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code,
                await self.initial_metadata(),
                await self.trailing_metadata(),
                await self.details(),
                await self.debug_error_string(),
            )


def _trailers(inner: InnerCall) -> grpc.aio.Metadata | None:
    return _finished(inner.trailing_metadata())


async def first_link(core: ServiceCore[AioLink], attempts: Attempts[AioLink]) -> AioLink | None:
    """The task for a first attempt, when there is one; None: the channel was closed."""
    loop = asyncio.get_running_loop()
    while not core.closed:
        ready = asyncio.Event()
        ticket = core.on_ready(partial(wake, loop, ready))
        try:
            await ready.wait()
        finally:
            core.forget(ticket)
        link = attempts.first()
        if link is not None:
            return link
    return None


def wake(loop: asyncio.AbstractEventLoop, ready: asyncio.Event) -> None:
    # The loop may be gone when the news comes.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(ready.set)


def _on_end(itself: "weakref.ref[RoutedCall]", attempts: Attempts[AioLink], ended: object) -> None:
    """Called by gRPC when an attempt is over."""
    call = itself()
    inner: InnerCall = ended  # type: ignore[assignment]  # gRPC gives back the call
    if call is not None:
        call.attempt_ended(inner)
        return
    # Nobody looks any more: only the bookkeeping remains.
    code = _finished(inner.code())
    if code is grpc.StatusCode.OK:
        attempts.succeeded()
    else:
        attempts.abandoned()


class _UnaryResponse(RoutedCall):
    """A call with one response: awaited."""

    def __await__(self) -> Generator[None, None, object]:
        return self._response().__await__()

    async def _response(self) -> object:
        while True:
            inner = self._inner
            if inner is None or self._first is not None:
                inner = await self._present()
            try:
                response = await inner  # type: ignore[misc]  # of one response: awaitable
            except grpc.aio.AioRpcError:
                if self.moved_on(inner):
                    continue
                raise
            except asyncio.CancelledError:
                raise
            except BaseException:
                self._give_up(inner)
                raise
            if not self._ended:
                self.moved_on(inner)
            return response


class _StreamResponse(RoutedCall):
    """A call with many responses: iterated, or read."""

    _iterator: AsyncIterator[object] | None = None
    _iterated: InnerCall | None = None  # whose iterator that is

    def __del__(self) -> None:
        inner = getattr(self, "_inner", None)
        if inner is not None and not inner.done():
            # As gRPC's own streams when they are dropped; its loop may be gone.
            with contextlib.suppress(RuntimeError):
                inner.cancel()

    def __aiter__(self) -> AsyncIterator[object]:
        return self._responses()

    async def _responses(self) -> AsyncIterator[object]:
        while True:
            item = await self._next(self._iterate)
            if item is EOF:
                return
            yield item

    async def _iterate(self, inner: InnerCall) -> object:
        if self._iterator is None or self._iterated is not inner:
            self._iterator = aiter(cast("grpc.aio.UnaryStreamCall[object, object]", inner))
            self._iterated = inner
        return await anext(self._iterator, EOF)

    async def read(self) -> object:
        """The next response, or grpc.aio.EOF."""
        return await self._next(lambda inner: cast("grpc.aio.UnaryStreamCall[object, object]", inner).read())

    async def _next(self, take: Callable[[InnerCall], Coroutine[object, object, object]]) -> object:
        while True:
            inner = await self._present()
            try:
                item = await take(inner)
            except grpc.aio.AioRpcError:
                if self.moved_on(inner):
                    continue
                raise
            except asyncio.CancelledError:
                raise
            except BaseException:
                self._give_up(inner)
                raise
            if self.moved_on(inner):
                continue
            if item is not EOF:
                self._delivered = True
                if self._replay is not None:
                    self._replay.commit()
            return item


class _StreamRequest(RoutedCall):
    """A call with many requests: from an iterator, or written."""

    async def write(self, request: object) -> None:
        """Sends one request."""
        replay = self._written()
        if not await replay.write(request):
            await self._raise_for_status()
            raise asyncio.InvalidStateError("RPC already finished.")

    async def done_writing(self) -> None:
        """No further request comes."""
        self._written().end()

    def _written(self) -> AioReplay:
        if self._replay is None or not self._replay.written:
            raise grpc.aio.UsageError("The iterator and read/write APIs may not be mixed on a single RPC.")
        return self._replay


class RoutedUnaryUnaryCall(_UnaryResponse, UnaryUnaryBase):
    """`grpc.aio.UnaryUnaryCall` over attempts."""


class RoutedUnaryStreamCall(_StreamResponse, UnaryStreamBase):
    """`grpc.aio.UnaryStreamCall` over attempts."""


class RoutedStreamUnaryCall(_StreamRequest, _UnaryResponse, StreamUnaryBase):
    """`grpc.aio.StreamUnaryCall` over attempts."""


class RoutedStreamStreamCall(_StreamRequest, _StreamResponse, StreamStreamBase):
    """`grpc.aio.StreamStreamCall` over attempts."""
