"""Arithmetic of deadlines. PURE.

A deadline is a moment on the monotonic clock, None: there is none. On the wire goes the time that is left, as gRPC does
in grpc-timeout: clocks of machines differ.
"""


def earliest(first_s: float | None, second_s: float | None) -> float | None:
    """The deadline of work that must meet both: a call never outlives the request that it is made for."""
    if first_s is None or second_s is None:
        return second_s if first_s is None else first_s
    return min(first_s, second_s)


def left_s(deadline_s: float | None, now_s: float) -> float | None:
    """Seconds until then, >= 0; None: no deadline."""
    return None if deadline_s is None else max(0.0, deadline_s - now_s)


def expired(deadline_s: float | None, now_s: float) -> bool:
    """Whether nobody waits for the answer any more."""
    return deadline_s is not None and now_s >= deadline_s
