"""Load interpretation: reports that are old when they are used say where to send the next ones, all together. PURE.

Between two reports of a task many requests come, from all clients, and if everybody took the least loaded of an old board,
it would be crushed (a herd; Mitzenmacher 2000, "How useful is old information?"). So the reports are read as levels of
water (Dahlin 2000, "Interpreting stale load information"): the K requests that all clients will send until the next report
are poured over the tasks, and each task's part of the pour is its chance. With fresh reports K is small and the least
loaded get all; with old ones K is large and all get the same: it never does worse than choosing blindly.

K is learned: what all tasks report to end per second, times the time that lies between two reports of a task.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Final

from typing_extensions import override

from gslb.rpc.policy.choice import Report, Rng, Rule
from gslb.rpc.policy.p2c import M

_SMOOTHING: Final = 0.2
# New reports count from this part of the time between reports on: pouring takes O(n log n).
_POUR_EVERY: Final = 0.02


def poured(levels: Sequence[float], amount: float) -> list[float]:
    """What each of several basins of unit area gets when `amount` > 0 is poured over all: up to one common level."""
    order = sorted(levels)
    below = 0.0
    level = order[0] + amount
    for count, bottom in enumerate(order, 1):
        below += bottom
        level = (below + amount) / count
        if count < len(order) and level <= order[count]:
            break
    return [max(0.0, level - bottom) for bottom in levels]


@dataclass(slots=True)
class _Known:
    in_flight: float = 0.0
    rps: float = 0.0
    at_s: float = -math.inf
    ours: int = 0  # in flight when it reported


class LoadInterpretation(Rule[M]):
    """See the module. Our own requests, which a report cannot have yet, are added to it."""

    listens: ClassVar[bool] = True

    def __init__(self) -> None:
        self._members: tuple[M, ...] = ()
        self._known: dict[M, _Known] = {}
        self._between_s = 0.0
        self._changed = False
        self._poured_s = -math.inf
        self._chances: list[float] = []

    @override
    def assign(self, members: Sequence[M], now_s: float) -> None:
        del now_s
        self._members = tuple(members)
        self._known = {member: self._known.get(member) or _Known() for member in members}
        self._changed, self._poured_s = True, -math.inf

    @override
    def reported(self, member: M, report: Report, now_s: float, *, probe: bool = False) -> None:
        known = self._known.get(member)
        if known is None or not (report.in_flight >= 0.0 and report.rps >= 0.0):
            return
        if not (math.isfinite(report.in_flight) and math.isfinite(report.rps)):
            return
        between_s = now_s - known.at_s
        if math.isfinite(between_s):
            self._between_s += (_SMOOTHING if self._between_s else 1.0) * (between_s - self._between_s)
        known.in_flight, known.rps, known.at_s, known.ours = report.in_flight, report.rps, now_s, member.in_flight
        self._changed = True

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> M:
        del key
        if self._changed and now_s - self._poured_s >= _POUR_EVERY * self._between_s:
            self._pour(now_s)
        members = self._members
        return members[min(bisect_right(self._chances, rng()), len(members) - 1)]

    def _pour(self, now_s: float) -> None:
        self._changed, self._poured_s = False, now_s
        known = self._known
        expected = max(1.0, self._between_s * sum(each.rps for each in known.values()))
        levels = [
            known[member].in_flight + max(0, member.in_flight - known[member].ours) + member.burden
            for member in self._members
        ]
        parts = [part * member.weight for part, member in zip(poured(levels, expected), self._members, strict=True)]
        sums = list(accumulate(parts))
        self._chances = [part / sums[-1] for part in sums]

    @override
    def knows(self, member: M, now_s: float) -> Mapping[str, float]:
        known = self._known.get(member)
        if known is None or not math.isfinite(known.at_s):
            return {}
        return {"in_flight": known.in_flight, "rps": known.rps, "age_s": now_s - known.at_s}
