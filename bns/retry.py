"""How long to wait before the next try. PURE."""

import random

from bns import limits


class Backoff:
    """Waits that double from `first_s` to `max_s`, each with full jitter, so that a crowd never comes back at once."""

    def __init__(
        self, rng: random.Random, first_s: float = limits.BACKOFF_FIRST_S, max_s: float = limits.BACKOFF_MAX_S
    ) -> None:
        self._rng = rng
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def delay_s(self) -> float:
        """The wait before the next try."""
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, self._max_s)
        return self._rng.uniform(0.0, wait_s)

    def reset(self) -> None:
        """It worked: the next failure starts from `first_s` again."""
        self._next_s = self._first_s
