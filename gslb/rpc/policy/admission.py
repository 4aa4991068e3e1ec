"""Which requests a server takes: those whose key is below a level that follows how long requests wait. PURE.

After DAGOR (Zhou et al., "Overload Control for Scaling WeChat Microservices", 2018). A request's key is its criticality plus
its rank (`gslb.rpc.policy.rank`), so the level cuts through one class, with all more critical ones whole above it and none
of the less critical ones: SHEDDABLE is refused before the first SHEDDABLE_PLUS. The signal is how long requests waited before
they were begun, not how long they took: a slow callee is no overload of ours.

A window ends after a second or 2,000 arrivals. When the requests that began in it waited too long, the level is put where
of these arrivals 95 % of what was *finished* would have got in; so one window is enough, however great the overload, where
DAGOR goes down by 5 % of what was admitted. Otherwise it goes up, by 1 % at least and as fast as the executor has room:
at a tenth of its capacity in use it doubles.

How long is too long hangs on the class that the level cuts through (PATIENCE_S): a burst that makes sheddable requests go
is no reason yet to refuse a critical one.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from gslb.model.criticality import Criticality

WINDOW_S: Final = 1.0
WINDOW_ARRIVALS: Final = 2000
# CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS, SHEDDABLE; mean over a window.
PATIENCE_S: Final = (0.4, 0.2, 0.02, 0.02)
# The same in units of what a request takes, where that is more: requests of 40 ms queue longer than those of 1 ms.
PATIENCE_WORK: Final = (8.0, 4.0, 2.0, 2.0)
PATIENCE_MOST: Final = 5.0
DOWN: Final = 0.03
UP: Final = 0.01
# With room, the level lets in as many as fill it, but only so many times more a window: little use is hard to measure.
UP_MOST: Final = 3.0
# The same where too few came to say how they are spread.
UP_BLIND: Final = 2.0
# A step to less than so many times the rank is a small one.
CHANCE: Final = 1.3
# What the executor's utilization may be while the level rises faster than by UP.
FULL_UTILIZATION: Final = 1.0
# Everybody is let in.
OPEN: Final = float(len(Criticality))
_SMOOTHING: Final = 0.2
_STEPS: Final = 64  # of rank in a class
# Fewer arrivals than this in a class say nothing about how they are spread.
_TELLING: Final = 10
# Somebody always gets in, or nothing would be known.
_LEAST: Final = 1.0 / _STEPS


@dataclass(slots=True)
class Admission:
    """The level of one server, and what it saw in this window; times are monotonic seconds. Guarded by its owner."""

    level: float = OPEN
    overloaded: bool = False  # so was the last window
    done_rps: float = 0.0  # of the last window
    work_s: float = 0.0  # smoothed: what a request takes, without its wait
    since_s: float | None = None
    _arrivals: list[int] = field(default_factory=lambda: [0] * (len(Criticality) * _STEPS))
    _arrived: int = 0
    _admitted: int = 0
    _done: int = 0
    _took_s: float = 0.0
    _waited_s: list[float] = field(default_factory=lambda: [0.0] * len(Criticality))
    _begun: list[int] = field(default_factory=lambda: [0] * len(Criticality))
    _full: list[bool] = field(default_factory=lambda: [False] * len(Criticality))

    def admits(self, criticality: Criticality, rank: float) -> bool:
        """Counts an arrival; whether it gets in."""
        key = criticality + rank
        self._arrived += 1
        self._arrivals[int(key * _STEPS)] += 1
        if key >= self.level:
            return False
        self._admitted += 1
        return True

    def begun(self, criticality: Criticality, waited_s: float) -> None:
        """A request is begun, or was given up in the line, after so long a wait."""
        self._begun[criticality] += 1
        self._waited_s[criticality] += max(0.0, waited_s)

    def overflowed(self, criticality: Criticality) -> None:
        """A request of this class found the line full, or had to leave it for a more critical one."""
        self._full[criticality] = True

    def done(self, took_s: float) -> None:
        """A request is finished, `took_s` after it was begun."""
        self._done += 1
        self._took_s += max(0.0, took_s)

    def patience_s(self, criticality: Criticality) -> float:
        """How long requests of a class may wait, in the mean over a window."""
        least_s = PATIENCE_S[criticality]
        return min(PATIENCE_MOST * least_s, max(least_s, PATIENCE_WORK[criticality] * self.work_s))

    def due(self, now_s: float) -> bool:
        """Whether the window is over: `turn` it then."""
        if self.since_s is None:
            self.since_s = now_s
        elapsed_s = now_s - self.since_s
        return elapsed_s >= WINDOW_S or (self._arrived >= WINDOW_ARRIVALS and self._done > 0 and elapsed_s > 0.0)

    def turn(self, now_s: float, utilization: float, oldest_s: float = 0.0) -> None:
        """Ends the window. `utilization`: of the executor, in it; `oldest_s`: how long the first in the line has waited."""
        elapsed_s = max(1e-9, now_s - (now_s if self.since_s is None else self.since_s))
        self.done_rps = self._done / elapsed_s
        lowest = self._lowest(oldest_s)
        self.overloaded = self.level > lowest
        if self.overloaded:
            wanted = (1.0 - DOWN) * self._done
            # When fewer came than were finished the line is getting shorter: going lower still would overshoot.
            if self._admitted > wanted:
                self.level = max(_LEAST, lowest, self._towards(min(self.level, self._level_of(wanted))))
        elif self._done:
            # Of calm windows only: in overload all takes longer, and to be more patient then would let in more.
            self.work_s += _SMOOTHING * (self._took_s / self._done - self.work_s)
        if not self.overloaded and self.level < OPEN:
            room = FULL_UTILIZATION / max(utilization, 1e-9)
            self.level = self._towards(self._risen(min(UP_MOST, max(1.0 + UP, room))))
        self._begin(now_s)

    def mean_wait_s(self, criticality: Criticality) -> float:
        """How long requests of a class waited that began in this window."""
        begun = self._begun[criticality]
        return self._waited_s[criticality] / begun if begun else 0.0

    def _lowest(self, oldest_s: float) -> float:
        """How far the level may fall: into a class only when those who get in before its end wait too long for it."""
        stuck = not any(self._begun)  # a line that does not move at all is seen by its head
        longest_s = oldest_s if stuck else 0.0
        lowest = OPEN
        for level in Criticality:
            longest_s = math.inf if self._full[level] else max(longest_s, self.mean_wait_s(level))
            if longest_s > self.patience_s(level):
                lowest = min(lowest, float(level))
        return lowest

    def _towards(self, wanted: float) -> float:
        """Half of a small step, which may be chance, and all of a large one: servers of one kind keep one level."""
        base = math.ceil(min(self.level, wanted)) - 1
        before, after = self.level - base, wanted - base
        return (self.level + wanted) / 2.0 if 1.0 / CHANCE <= after / before <= CHANCE else wanted

    def _level_of(self, wanted: float) -> float:
        """The level below which there were `wanted` arrivals in this window; OPEN when there were not so many."""
        left = wanted
        for step, count in enumerate(self._arrivals):
            if count and count > left:
                return (step + left / count) / _STEPS
            left -= count
        return OPEN

    def _risen(self, times: float) -> float:
        """The level that lets in `times` as many.

        Clients that throttle send next to nothing from above the level, so counting is of no use there. What they send is
        spread evenly up to some rank, which is twice the median of what came; the level goes as far beyond as the same
        density takes. At the end of a class it goes into the next.
        """
        level = min(len(Criticality), math.ceil(self.level)) - 1
        here = self._arrivals[level * _STEPS : (level + 1) * _STEPS]
        count = sum(here)
        if count < _TELLING:
            rank = (self.level - level) * min(times, UP_BLIND)
        else:
            above = sum(self._arrivals[: level * _STEPS])
            rank = (times * self._admitted - above) * 2.0 * _median(here) / count
        grown = level + max(_LEAST, rank) if rank < 1.0 else level + 1.0 + _LEAST
        return min(OPEN, max(self.level, grown))

    def _begin(self, now_s: float) -> None:
        self.since_s = now_s
        self._arrivals = [0] * len(self._arrivals)
        self._arrived = self._admitted = self._done = 0
        self._took_s = 0.0
        self._waited_s = [0.0] * len(Criticality)
        self._begun = [0] * len(Criticality)
        self._full = [False] * len(Criticality)


def _median(steps: list[int]) -> float:
    """The rank that half of the arrivals of a class are below."""
    left = sum(steps) / 2.0
    for step, count in enumerate(steps):
        if count >= left:
            return (step + left / count) / _STEPS
        left -= count
    return 1.0
