"""Delays between attempts: full jitter under a doubling bound, so that a restart meets no herd. PURE."""

from agents import limits
from agents.health.schedule import Rng


class Backoff:
    """Grows with each failure; reset() after a success."""

    def __init__(self, rng: Rng, first_s: float = limits.BACKOFF_FIRST_S, max_s: float = limits.BACKOFF_MAX_S) -> None:
        self._rng = rng
        self._first_s = first_s
        self._max_s = max_s
        self._failures = 0

    def reset(self) -> None:
        """It works again."""
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        bound_s = min(self._max_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return self._rng.uniform(bound_s / 4.0, bound_s)
