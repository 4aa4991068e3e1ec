"""Exponential back-off with jitter. PURE.

Everything of ours that tries again waits by this rule, so that a crowd that lost the same peer comes back spread out.
"""


def backoff_s(failures: int, least_s: float, most_s: float, u: float) -> float:
    """Seconds to wait after `failures` failures in a row (>= 1); `u` is drawn uniformly from [0, 1).

    The wait doubles from `least_s` up to `most_s`; half of it is fixed and half is drawn, so that it is never zero.
    """
    # The exponent is bounded: a peer that has been away for a month must not overflow a float.
    whole = min(most_s, least_s * 2.0 ** min(max(failures, 1) - 1, 60))
    return whole * (0.5 + 0.5 * u)
