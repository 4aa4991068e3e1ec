"""Phi: what load costs a datacenter, in ms a request, as a function of its utilization. PURE.

The price of one more request, Phi', is piecewise constant and grows in steps below half of the stickiness, so that a
little noise never carries a whole locality across a step. It has three parts:

- almost flat up to `max_utilization`;
- from there to the brink, 98 % at the default, it rises by 40 ms: load goes to a neighbour who is that much farther away
  and has room, and not around the world. A steeper rise would level all utilizations, which is neither cheap nor still:
  with 400 ms between 80 % and 100 %, plans cost 9 % more round-trip time than the least and moved 1.7 times as much as
  they must after the loss of a datacenter, with 40 ms 3 % and 1.3 times (`python -m bench balancer`, 1000 x 40);
- on the brink it rises by 200 ms, as much as the far end of the earth is away: everything spills before 100 %.

Above 100 % stands a wall higher than any difference of round-trip times.

With less capacity than demand the wall is moved, not climbed: the program is solved with every capacity multiplied by
demand / capacity (`overload_factor`). Load can go anywhere, so that program is feasible and fills all datacenters to
exactly 100 % of the scaled capacity: the overload is the same everywhere. Fine steps beyond 100 % would need
thousands of segments to be as equal.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.model import limits

Vector = NDArray[np.float64]

GENTLE_SEGMENTS: Final = 4
GENTLE_STEP_MS: Final = 1.0
RISE_SEGMENTS: Final = 20
RISE_STEP_MS: Final = 2.0
BRINK_SEGMENTS: Final = 20
BRINK_STEP_MS: Final = 10.0
# The brink is this part of what lies between `max_utilization` and 100 %.
BRINK_FRACTION: Final = 0.1
RISEN_MS: Final = GENTLE_SEGMENTS * GENTLE_STEP_MS + RISE_SEGMENTS * RISE_STEP_MS
PRICE_TOP_MS: Final = RISEN_MS + BRINK_SEGMENTS * BRINK_STEP_MS
WALL_MS: Final = 4 * limits.RTT_MAX_MS
# There is always some room to spill in before 100 %.
KNEE_MAX: Final = 0.95

assert max(GENTLE_STEP_MS, RISE_STEP_MS, BRINK_STEP_MS) < limits.STICKINESS_MS / 2


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Segments of a datacenter: `width[k]` of its capacity at `price_ms[k]` a request; the last is endless.

    The prices are the same for every datacenter, (K,), or each has its own, (D, K).
    """

    width: Vector
    price_ms: Vector

    def rows(self, chosen: NDArray[np.intp]) -> Vector:
        """The prices of the chosen datacenters, (len(chosen), K)."""
        if self.price_ms.ndim == 1:
            return np.tile(self.price_ms, (len(chosen), 1))
        own: Vector = self.price_ms[chosen]
        return own


@lru_cache(maxsize=256)
def curve(max_utilization: float) -> Curve:
    """Phi' for a service whose owner wants at most `max_utilization` (0..1]."""
    knee = min(max(max_utilization, 0.05), KNEE_MAX)
    brink = BRINK_FRACTION * (1.0 - knee)
    gentle = np.arange(GENTLE_SEGMENTS) * GENTLE_STEP_MS
    rise = GENTLE_SEGMENTS * GENTLE_STEP_MS + np.arange(RISE_SEGMENTS) * RISE_STEP_MS
    steep = RISEN_MS + np.arange(BRINK_SEGMENTS) * BRINK_STEP_MS
    width = np.concatenate(
        [
            np.full(GENTLE_SEGMENTS, knee / GENTLE_SEGMENTS),
            np.full(RISE_SEGMENTS, (1.0 - knee - brink) / RISE_SEGMENTS),
            np.full(BRINK_SEGMENTS, brink / BRINK_SEGMENTS),
            [np.inf],
        ]
    )
    return Curve(width, np.concatenate([gentle, rise, steep, [WALL_MS]]))


def overload_factor(demand_rps: float, capacity_rps: float) -> float:
    """What every capacity is multiplied by: 1 while capacity suffices, else demand / capacity."""
    return max(1.0, demand_rps / capacity_rps) if capacity_rps > 0 else 1.0
