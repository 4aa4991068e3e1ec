"""Spans of our calls, made with OpenTelemetry's API. Imported by `gslb.rpc.tracing` only: it needs the extra `otel`.

    Sent.pkg.Service.Method       the call, as its caller sees it
      Attempt.pkg.Service.Method  each task that was asked; the server's span is inside of it

The names are those of gRPC's own plugins (gRFC A72). The attempt is what crosses the wire, so it is the CLIENT span that
service maps count, and the call around it is INTERNAL.
"""

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


class CallSpans:
    """A `gslb.rpc.client.spans.CallTrace`. A trace that is not sampled is passed on, and costs no spans of attempts."""

    __slots__ = (
        "_attempt", "_attributes", "_code", "_details", "_inside", "_method", "_of", "_over", "_recording", "_span",
        "_tracer",
        "trace_id",
    )  # fmt: skip

    def __init__(self, tracer: Tracer, service: str, method: str) -> None:
        outside = get_current()
        self._tracer = tracer
        self._method = method.lstrip("/").replace("/", ".")
        self._attributes = _attributes(service, method)
        self._span = tracer.start_span(f"Sent.{self._method}", outside, SpanKind.INTERNAL, self._attributes)
        self._inside = trace.set_span_in_context(self._span, outside)
        self._recording = self._span.is_recording()
        self._attempt: trace.Span | None = None  # of the attempt under way
        self._code = grpc.StatusCode.CANCELLED  # of the last attempt
        self._details = ""
        self._over = False
        self._of: CallSpans | None = None  # the call that this is a second copy of
        self.trace_id = trace_id_of(self._span)

    def sends(self, sent: Outgoing) -> None:
        """Criticality and trace id of the call."""
        if self._recording:
            self._span.set_attributes({"gslb.criticality": sent.criticality.name, "gslb.trace_id": sent.trace_id})

    def attempt(self, endpoint: ServiceEndpoint, before: int, metadata: Metadata) -> Metadata:
        """A span for it, known to the task by what is added to the metadata."""
        if not self._recording:
            return _with(metadata, self._inside)
        attributes: dict[str, str | int | bool] = {
            **self._attributes,
            "server.address": endpoint.address,
            "server.port": endpoint.port,
            "gslb.task": endpoint.task,
            "gslb.datacenter": endpoint.datacenter,
            "gslb.attempt": before + 1,
            "gslb.retry": before > 0,
        }
        span = self._tracer.start_span(f"Attempt.{self._method}", self._inside, SpanKind.CLIENT, attributes)
        self._attempt = span
        return _with(metadata, trace.set_span_in_context(span, self._inside))

    def attempt_over(self, failure: Failure | None, code: grpc.StatusCode, details: str) -> None:
        """Its span ends."""
        span, self._attempt = self._attempt, None
        if span is None:
            return
        self._code, self._details = code, details
        ended = "cancelled" if code is grpc.StatusCode.CANCELLED else "ok"
        span.set_attribute("gslb.outcome", ended if failure is None else failure.value)
        _end(span, code, details)

    def beside(self) -> "CallSpans":
        """For a second copy of the call: spans of its own attempts, and none of its own."""
        copy = object.__new__(CallSpans)
        for name in CallSpans.__slots__:
            setattr(copy, name, getattr(self, name))
        copy._attempt, copy._of = None, self
        return copy

    def over(self, code: grpc.StatusCode | None, details: str) -> None:
        """The call's span ends. A second copy ends it by its answer; its failure is not the call's."""
        if self._of is not None:
            if self._code is grpc.StatusCode.OK:
                self._of.over(self._code, "")
            return
        if self._over:
            return
        self._over = True
        if code is None:
            code, details = self._code, self._details
        if self._recording:
            _end(self._span, code, details)


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
