"""For ASGI applications (FastAPI, Starlette and others): the same counting, context and admission as for gRPC.

    app = AsgiMiddleware(app, Load(), Gate(8))

Trace id, criticality and attempt come in headers of the same names as gRPC's metadata; how long the client waits, in
milliseconds, in `gslb-timeout-ms`. A refusal is a 503 with a line that says why, a passed deadline a 504, a quota that is
used up a 429. The caller, for quotas, is what the header `gslb-caller` says.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from gslb.rpc import context as request_context
from gslb.rpc.policy.guard import Fate
from gslb.rpc.server.caller import declared
from gslb.rpc.server.gate import Gate
from gslb.rpc.server.load import Load
from gslb.rpc.server.metering import metered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gslb.rpc.server.quotas import Quotas

TIMEOUT_KEY: Final = "gslb-timeout-ms"

Scope = MutableMapping[str, object]
Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_TIMEOUT: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_TOO_MANY_REQUESTS: Final = 429
_UNAVAILABLE: Final = 503
_GATEWAY_TIMEOUT: Final = 504
_SERVER_ERROR: Final = 500


class AsgiMiddleware:
    """Wraps an application; what is not HTTP passes through. `gate` None: no limit and no admission.

    `quotas`: of clients; who is over his is refused before the gate, and is no load.
    `uncounted`: paths that are no load of the service, such as health checks and metrics; they are always served.
    """

    def __init__(
        self,
        app: App,
        load: Load,
        gate: Gate | None = None,
        quotas: "Quotas | None" = None,
        *,
        uncounted: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._load = load
        self._gate = gate
        self._quotas = quotas
        self._uncounted = frozenset(uncounted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("path") in self._uncounted:
            await self._app(scope, receive, send)
            return
        quotas = self._quotas
        if quotas is None:
            await self._count(scope, receive, send)
            return
        passage = quotas.enter(declared(_headers(scope)))
        if passage.refusal:
            await _refuse(send, _TOO_MANY_REQUESTS, passage.refusal)
            return
        with passage:
            await metered(self._count(scope, receive, send), passage.charge)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived_s = time.monotonic()
        request = _request_of(scope)
        status = _SERVER_ERROR

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = cast(int, message["status"])
            await send(message)

        self._load.begin()
        gone = False
        try:
            await self._serve(request, arrived_s, (scope, receive, watched))
        except asyncio.CancelledError:
            gone = True
            raise
        finally:
            self._load.end(request.criticality, ok=gone or status < _SERVER_ERROR)

    async def _serve(
        self, request: request_context.Request, arrived_s: float, call: tuple[Scope, Receive, Send]
    ) -> None:
        gate = self._gate
        if gate is None:
            with _entered(request):
                await self._app(*call)
            return
        ticket = gate.ticket(request, arrived_s)
        fate = await gate.aio_enter(ticket)
        if fate is not Fate.BEGIN:
            await _refuse(call[2], _GATEWAY_TIMEOUT if fate is Fate.EXPIRED else _UNAVAILABLE, fate.value)
            return
        try:
            with _entered(replace(request, degraded=True) if ticket.degraded else request):
                await self._app(*call)
        finally:
            gate.finish(ticket)


@contextmanager
def _entered(request: request_context.Request) -> "Iterator[None]":
    token = request_context.enter(request)
    try:
        yield
    finally:
        request_context.leave(token)


def _headers(scope: Scope) -> list[request_context.Metadatum]:
    return [
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, value in cast(Iterable[tuple[bytes, bytes]], scope.get("headers") or ())
    ]


def _request_of(scope: Scope) -> request_context.Request:
    """What the headers say. What is missing or malformed gets its default."""
    headers = _headers(scope)
    given = next((str(value) for name, value in headers if name == TIMEOUT_KEY), "")
    left_s = int(given) / 1000.0 if _TIMEOUT.fullmatch(given) else None
    return request_context.incoming(headers, left_s)


async def _refuse(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
