"""What a call tells whoever traces it; nobody does until `gslb.rpc.tracing.instrument()`, and a call looks at a name for it.

Here and not there, because the calls must not import OpenTelemetry.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import grpc

from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc import context
from gslb.rpc.client.settings import Settings
from gslb.rpc.policy.failure import Failure


class CallTrace(Protocol):
    """One logical call. From any thread, one question at a time."""

    trace_id: str  # 32 hexadecimal digits; empty: there is no trace

    def sends(self, sent: context.Outgoing) -> None:
        """What the call sends on is known."""

    def attempt(self, endpoint: ServiceEndpoint, before: int, metadata: context.Metadata) -> context.Metadata:
        """An attempt at this task begins, after `before` others; the metadata to send with it."""

    def attempt_over(self, failure: Failure | None, code: grpc.StatusCode, details: str) -> None:
        """The attempt under way, if one is, ended so; CANCELLED: it was given up."""

    def beside(self) -> "CallTrace":
        """For a second copy of the call, whose attempts run beside those told here."""

    def over(self, code: grpc.StatusCode | None, details: str) -> None:
        """No other attempt follows. `code` None: the last attempt's end is the call's. Told again, it is not heard."""


Begin = Callable[[str, str], CallTrace]

begin: Begin | None = None  # with (service, method); None: calls are not traced


def use(tracer: Begin | None) -> None:
    """Traces calls that begin from now on with `tracer(service, method)`; None: does not."""
    global begin
    begin = tracer


def traced(
    tracer: Begin, settings: Settings, method: str, metadata: Iterable[context.Metadatum] | None
) -> tuple[context.Outgoing, CallTrace]:
    """What a call that begins here sends on, and its trace."""
    trace = tracer(settings.service, method)
    sent = context.outgoing(metadata, settings.criticality, trace.trace_id)
    trace.sends(sent)
    return sent, trace
