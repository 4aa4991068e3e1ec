"""How many requests a server can have under way before they slow one another: its room, as it finds out itself. PURE.

What a machine leaves a server changes with what else runs on it, and no declared capacity knows. The server sees it in
two figures that cost nothing: requests under way and CPU consumed, both summed over time. Their ratio, CPU seconds per
second of a request under way, is what requests get; the most that they got of late is what they could use. When they get
less, the server is stretched, and

    room = CPU per second / what a request under way could use.

While it is not stretched nothing is learned but that there was room for those under way: the room grows slowly, and only
while at least half of it is used. So a server that was squeezed is not met by everybody the moment it looks idle.
"""

import math
from dataclasses import dataclass
from typing import Final

# How long the two figures are summed up (an exponential window).
WINDOW_S: Final = 0.1
# How fast a stretched server learns its room.
LEARN_S: Final = 0.05
# A request that gets less than this part of what it could use is held up.
STRETCHED_BELOW: Final = 0.9
GROWTH_PER_S: Final = 0.1
# How fast the most that requests ever got is forgotten: what they do may change.
FORGET_PER_S: Final = 1 / 60
ROOM_MIN: Final = 1.0
ROOM_MAX: Final = 1e6
_ROOM_AT_FIRST: Final = 10.0


@dataclass(slots=True)
class Room:
    """One server's; fed with what passed since the last time, at least some times in each WINDOW_S under load."""

    requests: float = _ROOM_AT_FIRST
    _under_way_s: float = 0.0
    _cpu_s: float = 0.0
    _span_s: float = 0.0
    _could_use: float = 0.0  # CPU seconds per second under way, the most of late

    def passed(self, span_s: float, under_way_s: float, cpu_s: float) -> None:
        """Takes in `span_s` seconds, in which requests were under way for `under_way_s` together and used `cpu_s`."""
        if span_s <= 0.0:
            return
        left = math.exp(-span_s / WINDOW_S)
        self._under_way_s = self._under_way_s * left + under_way_s
        self._cpu_s = self._cpu_s * left + cpu_s
        self._span_s = self._span_s * left + span_s
        if self._under_way_s <= 0.0:
            return
        get = self._cpu_s / self._under_way_s
        could_use = self._could_use = max(get, self._could_use * (1.0 - FORGET_PER_S * min(span_s, 1.0)))
        if cpu_s < STRETCHED_BELOW * could_use * under_way_s:
            # Only what passed just now, if that was stretched: quieter moments before it would lower the sum.
            room = max(ROOM_MIN, cpu_s / span_s / could_use)
            self.requests += (room - self.requests) * (1.0 - math.exp(-span_s / LEARN_S))
        elif self._under_way_s > self.requests / 2 * self._span_s:
            self.requests = min(ROOM_MAX, self.requests * (1.0 + GROWTH_PER_S * span_s))
