"""Which statuses are the server's failures, and which requests are counted."""

import grpc

# Infrastructure that asks all the time and says nothing of the service's load.
_UNCOUNTED = ("/grpc.health.v1.Health/", "/grpc.reflection.", "/gslb.rpc.Load/")
# The rest are answers: "no such word" is as good an answer as a page.
_FAILURES = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
# A handler that raises CancelledError lost its client; that is nobody's failure.
NO_DEADLINE_S = 1e8  # what gRPC says when there is none is larger


def counted(method: str) -> bool:
    """Whether requests for this method are load."""
    return not method.startswith(_UNCOUNTED)


def is_failure(code: object, *, raised: bool) -> bool:
    """Whether a handler that set this status (StatusCode, number or None) failed; `raised`: it ended by an exception."""
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    if number is None or number == 0:
        return raised
    return number in _FAILURES


def remaining_s(reported: float | None) -> float | None:
    """What a servicer context says of the time that is left; None: no deadline."""
    return None if reported is None or reported > NO_DEADLINE_S else reported
