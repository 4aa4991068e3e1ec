"""An asyncio gRPC channel to one task."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import grpc
import grpc.aio
from typing_extensions import override

from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.client.link import LOAD_METHOD, PROBE_METHOD, Link, LoadSaid, ProbeDone, answered
from gslb.rpc.client.methods import Method

log = logging.getLogger(__name__)

Dial = Callable[[str], grpc.aio.Channel]


class InnerCall(Protocol):
    """What is used of gRPC's own asyncio calls; the last five by some kinds only."""

    def cancel(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def done(self) -> bool: ...
    def add_done_callback(self, callback: Callable[[object], None]) -> None: ...
    async def code(self) -> grpc.StatusCode: ...
    async def details(self) -> str: ...
    async def debug_error_string(self) -> str: ...
    async def initial_metadata(self) -> grpc.aio.Metadata: ...
    async def trailing_metadata(self) -> grpc.aio.Metadata: ...
    async def wait_for_connection(self) -> None: ...


class MultiCallable(Protocol):
    """What is used of gRPC's four kinds; `request` is an iterator where requests are streamed."""

    def __call__(self, request: object, **options: object) -> InnerCall: ...


@dataclass(slots=True, eq=False)
class AioLink(Link):
    """One task and the asyncio channel to it; the channel belongs to the loop that it was first used in."""

    dial: Dial = field(kw_only=True)
    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    closing: "asyncio.Task[None] | None" = field(init=False, default=None)
    _channel: grpc.aio.Channel | None = field(init=False, default=None)
    _methods: dict[Method, MultiCallable] = field(init=False, default_factory=dict)
    _probing: "asyncio.Task[None] | None" = field(init=False, default=None)
    _asking: "set[asyncio.Task[None]]" = field(init=False, default_factory=set)

    def method(self, method: Method) -> MultiCallable:
        """gRPC's multi-callable for `method` on this task. In the loop only."""
        found = self._methods.get(method)
        if found is None:
            found = self._methods[method] = cast(MultiCallable, method.on(self._open()))
        return found

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = self.dial(self.target)
        return self._channel

    @override
    def probe(self, timeout_s: float, done: ProbeDone, *, patient: bool = True) -> None:
        def start() -> None:
            self._probing = self.loop.create_task(self._probe(timeout_s, done, patient))

        # A loop that was closed has no calls to serve any more.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(start)

    async def _probe(self, timeout_s: float, done: ProbeDone, patient: bool) -> None:
        check = self._open().unary_unary(PROBE_METHOD, request_serializer=None, response_deserializer=None)
        try:
            # Waiting for readiness makes gRPC dial until the time is up, whatever its own back-off says.
            call = check(b"", timeout=timeout_s, wait_for_ready=patient)
            ok = answered(await call.code())
        except grpc.aio.UsageError:  # the channel was closed meanwhile
            return
        except Exception:  # a probe that does not report would leave the task out for ever
            log.exception("probing %s failed", self.target)
            ok = False
        done(ok)

    @override
    def ask_load(self, timeout_s: float, said: LoadSaid, question: bytes = b"") -> None:
        def start() -> None:
            asking = self.loop.create_task(self._ask_load(timeout_s, said, question))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(start)

    async def _ask_load(self, timeout_s: float, said: LoadSaid, question: bytes) -> None:
        ask = self._open().unary_unary(LOAD_METHOD, request_serializer=None, response_deserializer=None)
        try:
            line = await ask(question, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            said(error.code(), b"")
        except grpc.aio.UsageError:  # the channel was closed meanwhile
            return
        else:
            said(grpc.StatusCode.OK, cast(bytes, line))

    @override
    def shut(self) -> None:
        with contextlib.suppress(RuntimeError):
            if _running_loop() is self.loop:
                self._close()
            else:
                self.loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if self._channel is not None and self.closing is None:
            self.closing = self.loop.create_task(self._channel.close(None))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def link_factory(dial: Dial, loop: asyncio.AbstractEventLoop) -> Callable[[ServiceEndpoint], AioLink]:
    """Makes links that belong to `loop`."""
    return lambda endpoint: AioLink(endpoint, dial=dial, loop=loop)
