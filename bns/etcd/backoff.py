"""How long to wait before trying again: growing, bounded, and jittered so that a crowd never comes back in step."""

import random


class Backoff:
    """Doubles from `first_s` up to `most_s`; each wait is drawn from the upper half of its bound."""

    def __init__(self, rng: random.Random, first_s: float = 0.05, most_s: float = 2.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._most_s = most_s
        self._bound_s = first_s

    def next_s(self) -> float:
        """The seconds to wait now."""
        bound_s = self._bound_s
        self._bound_s = min(bound_s * 2, self._most_s)
        return bound_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked: the next failure starts from the beginning."""
        self._bound_s = self._first_s
