"""Phi: what load costs a datacenter, in ms a request, as a function of its utilization. PURE.

The price of one more request, Phi', is piecewise constant and grows in steps below half of the stickiness, so that a
little noise never carries a whole locality across a step. It is almost flat up to `max_utilization`, then rises by
`PRICE_TOP_MS` until 100 %: a datacenter that is 70 ms nearer than the next one spills after a sixth of that range,
and everything spills before 100 %. Above 100 % stands a wall higher than any difference of round-trip times.

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
STEEP_SEGMENTS: Final = 40
STEEP_STEP_MS: Final = 10.0
PRICE_TOP_MS: Final = GENTLE_SEGMENTS * GENTLE_STEP_MS + STEEP_SEGMENTS * STEEP_STEP_MS
WALL_MS: Final = 4 * limits.RTT_MAX_MS
# There is always some room to spill in before 100 %.
KNEE_MAX: Final = 0.95

assert max(GENTLE_STEP_MS, STEEP_STEP_MS) < limits.STICKINESS_MS / 2


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Segments of a datacenter: `width[k]` of its capacity at `price_ms[k]` a request; the last is endless."""

    width: Vector
    price_ms: Vector


@lru_cache(maxsize=256)
def curve(max_utilization: float) -> Curve:
    """Phi' for a service whose owner wants at most `max_utilization` (0..1]."""
    knee = min(max(max_utilization, 0.05), KNEE_MAX)
    gentle = np.arange(GENTLE_SEGMENTS) * GENTLE_STEP_MS
    steep = GENTLE_SEGMENTS * GENTLE_STEP_MS + np.arange(STEEP_SEGMENTS) * STEEP_STEP_MS
    width = np.concatenate(
        [
            np.full(GENTLE_SEGMENTS, knee / GENTLE_SEGMENTS),
            np.full(STEEP_SEGMENTS, (1.0 - knee) / STEEP_SEGMENTS),
            [np.inf],
        ]
    )
    return Curve(width, np.concatenate([gentle, steep, [WALL_MS]]))


def overload_factor(demand_rps: float, capacity_rps: float) -> float:
    """What every capacity is multiplied by: 1 while capacity suffices, else demand / capacity."""
    return max(1.0, demand_rps / capacity_rps) if capacity_rps > 0 else 1.0
