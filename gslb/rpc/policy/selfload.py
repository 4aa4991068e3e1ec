"""What a server says of itself: requests in flight, and what a request takes at about so many. PURE.

The estimate is Prequal's (Wydrowski et al., NSDI 2024, section 4): of the last requests that ended, the median latency of
those that found nearly as many in flight as there are now. So a server that was idle a moment ago and is busy now does
not advertise what requests took while it was idle.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

# Requests that are remembered, and how many of them, nearest in load, make an estimate.
REMEMBERED: Final = 16
NEAREST: Final = 5


@dataclass(slots=True)
class SelfLoad:
    """Requests of one server; times are monotonic seconds. Not for several threads at once."""

    in_flight: int = 0
    _recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def began(self, now_s: float) -> None:
        del now_s
        self.in_flight += 1

    def ended(self, seen: int, latency_s: float, now_s: float) -> None:
        """A request that found `seen` others under way ended after `latency_s`."""
        del now_s
        self.in_flight -= 1
        self._recent.append((seen, latency_s))

    def latency_s(self) -> float:
        """What a request takes at about the present load; 0 while nobody knows."""
        if not self._recent:
            return 0.0
        now = self.in_flight
        near = sorted([(abs(seen - now), latency_s) for seen, latency_s in self._recent])[:NEAREST]
        return sorted([latency_s for _, latency_s in near])[len(near) // 2]
