"""What a request carries from server to server: trace id, criticality, and how long it may still take.

A server interceptor reads them from the request's metadata; every call made through our channels while that request is
served sends them on. They live in contextvars, so that threads and asyncio tasks each have their own.
"""

import random
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.rpc.policy.deadline import earliest, left_s

TRACE_ID_KEY = "gslb-trace-id"
CRITICALITY_KEY = "gslb-criticality"
CALLER_KEY = "gslb-caller"  # the service that asks, as it says itself: quotas are by it
AGENT_KEY = "user-agent"  # has CALLER_KEY/NAME in front where a channel says it for all of its calls
ATTEMPT_KEY = "gslb-attempt"  # how many tasks were asked before, on retries; missing: none

Metadatum = tuple[str, str | bytes]
Metadata = tuple[Metadatum, ...]

_TRACE_ID = re.compile(r"[A-Za-z0-9_.:/+=-]{1,%d}" % limits.TRACE_ID_MAX_CHARS)  # noqa: UP031  # braces of the pattern

_ATTEMPT = re.compile(r"[0-9]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """The request being served; `deadline_s` on the monotonic clock, None: no deadline.

    `attempt`: how many tasks were asked before this one. `degraded`: the server is overloaded: less will do.
    """

    trace_id: str
    criticality: Criticality = Criticality.CRITICAL
    deadline_s: float | None = None
    attempt: int = 0
    degraded: bool = False


_current: ContextVar[Request | None] = ContextVar("gslb_request", default=None)


class Spans(Protocol):
    """Whoever knows the span that is active (`gslb.rpc.tracing`)."""

    def trace_id(self) -> str:
        """Its trace's id, 32 hexadecimal digits; empty when no span is active."""

    def serves(self, request: Request) -> None:
        """It is that of this request, which came in, or is to be answered with less."""


_spans: Spans | None = None


def observe(spans: Spans | None) -> None:
    """Trace ids are those of spans from now on, and spans are told what is served; None: no more."""
    global _spans
    _spans = spans


def new_trace_id() -> str:
    """That of the span that is active, else 128 random bits: 32 hexadecimal digits, the form of W3C trace context."""
    return (_spans.trace_id() if _spans is not None else "") or f"{random.getrandbits(128):032x}"


def trace_id() -> str:
    """The trace id of the request being served; empty outside of one."""
    request = _current.get()
    return request.trace_id if request else ""


def criticality() -> Criticality:
    """The criticality of the request being served; CRITICAL outside of one."""
    request = _current.get()
    return request.criticality if request else Criticality.CRITICAL


def degraded() -> bool:
    """Whether to answer with less (fewer hits, from a cache), because this server is overloaded; False outside."""
    request = _current.get()
    return request.degraded if request else False


def time_remaining_s() -> float | None:
    """Seconds that the request being served may still take, >= 0; None: no deadline, or no request."""
    request = _current.get()
    return left_s(request.deadline_s, time.monotonic()) if request else None


def current() -> Request | None:
    """The request being served, None outside of one."""
    return _current.get()


def enter(request: Request) -> Token[Request | None]:
    """Makes `request` the one being served here; `leave` undoes it."""
    if request.degraded and _spans is not None:
        _spans.serves(request)
    return _current.set(request)


def leave(token: Token[Request | None]) -> None:
    """Back to what was served before `enter`."""
    _current.reset(token)


@contextmanager
def scope(
    *, trace_id: str = "", criticality: Criticality | None = None, timeout_s: float | None = None
) -> Iterator[Request]:
    """Calls made inside carry this trace id and criticality, and end within `timeout_s`.

    What is not given is inherited from the request being served; outside of one the trace id is new.
    """
    outer = _current.get()
    deadline_s = outer.deadline_s if outer else None
    if timeout_s is not None:
        deadline_s = earliest(time.monotonic() + timeout_s, deadline_s)
    inherited = outer.criticality if outer else Criticality.CRITICAL
    request = Request(
        trace_id=trace_id or (outer.trace_id if outer else new_trace_id()),
        criticality=inherited if criticality is None else criticality,
        deadline_s=deadline_s,
        degraded=outer.degraded if outer else False,
    )
    token = _current.set(request)
    try:
        yield request
    finally:
        _current.reset(token)


def _text(value: str | bytes) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def incoming(metadata: Iterable[Metadatum], time_remaining_s: float | None = None) -> Request:
    """The request that this metadata came with. What is missing or malformed gets its default: nobody is refused."""
    found_id, found_criticality, attempt = "", Criticality.CRITICAL, 0
    for key, value in metadata:
        if key == TRACE_ID_KEY and _TRACE_ID.fullmatch(_text(value)):
            found_id = _text(value)
        elif key == CRITICALITY_KEY:
            found_criticality = Criticality.__members__.get(_text(value), Criticality.CRITICAL)
        elif key == ATTEMPT_KEY and _ATTEMPT.fullmatch(_text(value)):
            attempt = int(value)
    deadline_s = None if time_remaining_s is None else time.monotonic() + time_remaining_s
    request = Request(found_id or new_trace_id(), found_criticality, deadline_s, attempt)
    if _spans is not None:
        _spans.serves(request)
    return request


class Outgoing(NamedTuple):
    """What a call sends on. `trace_id` empty: the server gives the request one."""

    metadata: Metadata
    criticality: Criticality
    trace_id: str

    def identified(self) -> "Outgoing":
        """The same with a trace id, for a caller who has to know it."""
        if self.trace_id:
            return self
        made = new_trace_id()
        return Outgoing((*self.metadata, (TRACE_ID_KEY, made)), self.criticality, made)


# What calls send that are made for no request and say nothing of their own.
_PLAIN: Final = {
    level: Outgoing(() if level is Criticality.CRITICAL else ((CRITICALITY_KEY, level.name),), level, "")
    for level in Criticality
}


def outgoing(metadata: Iterable[Metadatum] | None, chosen: Criticality | None, fresh: str = "") -> Outgoing:
    """The metadata to send, and what it says. Criticality: the call's own, else the channel's, else the inherited one.

    `fresh`: the trace id if none is given or inherited; empty: that of the active span, if spans are observed, else none.
    """
    request = _current.get()
    if not (metadata or request or fresh or _spans):
        return _PLAIN[Criticality.CRITICAL if chosen is None else chosen]
    given = tuple(metadata) if metadata else ()
    level = (request.criticality if request else Criticality.CRITICAL) if chosen is None else chosen
    said = dict(given)
    trace_id = _text(said.get(TRACE_ID_KEY, ""))
    own: list[Metadatum] = []
    if not trace_id:
        trace_id = request.trace_id if request else fresh or (new_trace_id() if _spans is not None else "")
        if trace_id:
            own.append((TRACE_ID_KEY, trace_id))
    if CRITICALITY_KEY in said:
        level = Criticality.__members__.get(_text(said[CRITICALITY_KEY]), level)
    elif level is not Criticality.CRITICAL:
        # What everybody takes a request for that says nothing need not be said.
        own.append((CRITICALITY_KEY, level.name))
    return Outgoing((*given, *own), level, trace_id)


def deadline_of(timeout_s: float | None, now_s: float) -> float | None:
    """When a call must have ended, on the monotonic clock: its own timeout, and never later than the request served."""
    own_s = None if timeout_s is None else now_s + timeout_s
    request = _current.get()
    return own_s if request is None else earliest(own_s, request.deadline_s)
