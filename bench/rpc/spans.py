"""What spans cost: the library's own part of a call when nobody traces, when the trace is not sampled, and when it is.

Spans are made and ended, and no processor takes them: what becomes of them then is OpenTelemetry's.
"""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler

from bench.rows import Row, median_row
from bench.rpc_pick import core_of, microseconds, view_of
from gslb.rpc import tracing
from gslb.rpc.client.attempts import Attempts

_CALLS = 5_000


def rows(quick: bool) -> list[Row]:
    """All rows; CPU time."""
    core = core_of(view_of(3, 20))

    def call() -> None:
        attempts = Attempts(core, "/s/m", 1.0, None)
        attempts.first()
        attempts.succeeded()

    def measured(what: str, sampler: Sampler | None) -> Row:
        if sampler is not None:
            tracing.instrument(TracerProvider(sampler=ParentBased(sampler)))
        try:
            found = microseconds(call, 200 if quick else _CALLS)
        finally:
            tracing.uninstrument()
        return median_row(f"rpc: our part of a call, {what}", found, "us")

    return [
        measured("nobody traces", None),
        measured("traced, not sampled", ALWAYS_OFF),
        measured("traced, spans of call and attempt", ALWAYS_ON),
    ]
