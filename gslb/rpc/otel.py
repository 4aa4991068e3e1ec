"""Spans of our calls, made with OpenTelemetry's API. Imported by `gslb.rpc.tracing` only: it needs the extra `otel`.

    Sent.pkg.Service.Method       the call, as its caller sees it
      Attempt.pkg.Service.Method  each task that was asked; the server's span is inside of it

The names are those of gRPC's own plugins (gRFC A72). The attempt is what crosses the wire, so it is the CLIENT span that
service maps count, and the call around it is INTERNAL.
"""

import threading
from collections.abc import Mapping
from typing import Final

import grpc
from opentelemetry import propagate, trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.context import Metadata, Outgoing, Request
from gslb.rpc.policy.failure import Failure

# A peer's text goes into spans, but not more of it than this.
DETAILS_MAX_CHARS: Final = 300
_STATUS_CODE: Final = "rpc.grpc.status_code"


class _Call:
    """What all copies of one call share; the span ends with the last of them."""

    __slots__ = (
        "_code",
        "_copies",
        "_details",
        "_lock",
        "attributes",
        "inside",
        "method",
        "recording",
        "span",
        "tracer",
    )

    def __init__(self, tracer: Tracer, service: str, method: str) -> None:
        outside = get_current()
        self.tracer = tracer
        self.method = method.lstrip("/").replace("/", ".")
        self.attributes = _attributes(service, method)
        self.span = tracer.start_span(f"Sent.{self.method}", outside, SpanKind.INTERNAL, self.attributes)
        self.inside = trace.set_span_in_context(self.span, outside)
        self.recording = self.span.is_recording()
        self._lock = threading.Lock()
        self._copies = 1
        self._code = grpc.StatusCode.CANCELLED
        self._details = ""

    def add_copy(self) -> None:
        """Another copy is sent."""
        with self._lock:
            self._copies += 1

    def copy_over(self, code: grpc.StatusCode, details: str) -> None:
        """One copy ended so: the call ended well if any did, and was given up only if all were."""
        with self._lock:
            self._copies -= 1
            last = self._copies == 0
            if code is not grpc.StatusCode.CANCELLED and self._code is not grpc.StatusCode.OK:
                self._code, self._details = code, details
        if last and self.recording:
            _end(self.span, self._code, self._details)


class CallSpans:
    """A `gslb.rpc.client.spans.CallTrace`. A trace that is not sampled is passed on, and costs no spans of attempts."""

    __slots__ = ("_attempt", "_call", "_code", "_details", "_over", "trace_id")

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._attempt: trace.Span | None = None  # of the attempt under way
        self._code = grpc.StatusCode.CANCELLED  # of the last attempt
        self._details = ""
        self._over = False
        self.trace_id = trace_id_of(call.span)

    def sends(self, sent: Outgoing) -> None:
        """Criticality and trace id of the call."""
        if self._call.recording:
            self._call.span.set_attributes({"gslb.criticality": sent.criticality.name, "gslb.trace_id": sent.trace_id})

    def attempt(self, endpoint: ServiceEndpoint, before: int, metadata: Metadata) -> Metadata:
        """A span for it, known to the task by what is added to the metadata."""
        call = self._call
        if not call.recording:
            return _with(metadata, call.inside)
        attributes: dict[str, str | int | bool] = {
            **call.attributes,
            "server.address": endpoint.address,
            "server.port": endpoint.port,
            "gslb.task": endpoint.task,
            "gslb.datacenter": endpoint.datacenter,
            "gslb.attempt": before + 1,
            "gslb.retry": before > 0,
        }
        span = call.tracer.start_span(f"Attempt.{call.method}", call.inside, SpanKind.CLIENT, attributes)
        self._attempt = span
        return _with(metadata, trace.set_span_in_context(span, call.inside))

    def attempt_over(self, failure: Failure | None, code: grpc.StatusCode, details: str) -> None:
        """Its span ends."""
        span, self._attempt = self._attempt, None
        if span is None:
            return
        self._code, self._details = code, details
        ended = "cancelled" if code is grpc.StatusCode.CANCELLED else "ok"
        span.set_attribute("gslb.outcome", ended if failure is None else failure.value)
        _end(span, code, details)

    def over(self, code: grpc.StatusCode | None, details: str) -> None:
        """The call's span ends, if no other copy is under way."""
        if self._over:
            return
        self._over = True
        if code is None:
            code, details = self._code, self._details
        self._call.copy_over(code, details)

    def beside(self) -> "CallSpans":
        """A copy inside of the same span, with attempts of its own."""
        self._call.add_copy()
        return CallSpans(self._call)


class ActiveSpan:
    """The span that is active where it is asked: `gslb.rpc.context.Spans`."""

    def trace_id(self) -> str:
        """Its trace's id; empty when there is none."""
        return trace_id_of(trace.get_current_span())

    def serves(self, request: Request) -> None:
        """The server's span learns what only we know of the request."""
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes(
                {
                    "gslb.criticality": request.criticality.name,
                    "gslb.trace_id": request.trace_id,
                    "gslb.attempt": request.attempt + 1,
                    "gslb.degraded": request.degraded,
                }
            )


def begin_with(tracer: Tracer, service: str, method: str) -> CallSpans:
    """The trace of a call that begins here: inside of the span that is active, else of its own."""
    return CallSpans(_Call(tracer, service, method))


def trace_id_of(span: trace.Span) -> str:
    """The id of a span's trace as 32 hexadecimal digits; empty when it has none."""
    found = span.get_span_context()
    return trace.format_trace_id(found.trace_id) if found.is_valid else ""


def _attributes(service: str, method: str) -> Mapping[str, str]:
    package, _, name = method.lstrip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": package, "rpc.method": name, "gslb.service": service}


def _with(metadata: Metadata, context: Context) -> Metadata:
    """The metadata with what says which span the server's is inside of, in place of what said so before."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    added = {key.lower(): value for key, value in carrier.items()}
    return (*(pair for pair in metadata if pair[0] not in added), *added.items())


def _end(span: trace.Span, code: grpc.StatusCode, details: str) -> None:
    # What the caller gave up is nobody's error.
    span.set_attribute(_STATUS_CODE, code.value[0])
    if code not in {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}:
        span.set_status(Status(StatusCode.ERROR, f"{code.name}: {details}"[:DETAILS_MAX_CHARS]))
    span.end()
