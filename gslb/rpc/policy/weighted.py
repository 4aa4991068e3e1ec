"""Weighted round robin by what servers report: gRPC's weighted_round_robin (proposal A58). PURE.

    weight = rps / (utilization + eps / rps * penalty)

A task that reports nothing usable, or not yet for long, weighs what the others weigh on average; if fewer than two do
report, all weigh the same. Our own errors with a task divide its weight, so a task that lies about its load attracts
nothing while it fails; and no weight is more than WEIGHT_SPREAD times the median. Turns are given by earliest deadline:
task i has one each 1/weight, in between the others'.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from typing_extensions import override

from gslb.rpc.policy.choice import Report, Rng, Rule
from gslb.rpc.policy.p2c import M


@dataclass(frozen=True, slots=True)
class Timing:
    """Defaults as in A58."""

    update_s: float = 1.0
    blackout_s: float = 10.0  # how long a task must have reported before it is believed
    expiry_s: float = 180.0
    error_penalty: float = 1.0


A58: Final = Timing()
# Machines differ by less; a report that says more is a lie or a rounding error of an idle server.
WEIGHT_SPREAD: Final = 10.0


@dataclass(slots=True)
class _Weight:
    value: float
    since_s: float  # it has reported without a gap
    at_s: float


class WeightedRoundRobin(Rule[M]):
    """See the module."""

    listens: ClassVar[bool] = True

    def __init__(self, timing: Timing = A58) -> None:
        self._timing = timing
        self._members: tuple[M, ...] = ()
        self._weights: dict[M, _Weight] = {}
        self._turns: list[tuple[float, int, float]] = []  # deadline, place in _members, 1 / weight
        self._due_s = 0.0

    @override
    def assign(self, members: Sequence[M], now_s: float) -> None:
        self._members = tuple(members)
        known = frozenset(members)
        self._weights = {member: weight for member, weight in self._weights.items() if member in known}
        self._due_s = now_s

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> M:
        del key
        if now_s >= self._due_s:
            self._update(rng, now_s)
        deadline, i, step = self._turns[0]
        heapq.heapreplace(self._turns, (deadline + step, i, step))
        return self._members[i]

    @override
    def reported(self, member: M, report: Report, now_s: float, *, probe: bool = False) -> None:
        if report.rps <= 0 or not math.isfinite(report.rps):
            return
        used = report.utilization + report.eps / report.rps * self._timing.error_penalty
        if not (used > 0 and math.isfinite(report.rps / used)):
            return
        weight = self._weights.get(member)
        if weight is None or now_s - weight.at_s > self._timing.expiry_s:
            self._weights[member] = _Weight(report.rps / used, now_s, now_s)
        else:
            weight.value, weight.at_s = report.rps / used, now_s

    def _update(self, rng: Rng, now_s: float) -> None:
        """Weighs all tasks anew; each begins at a random part of its turn, so that clients do not march in step."""
        timing = self._timing
        self._due_s = now_s + timing.update_s
        usable: dict[M, float] = {
            member: weight.value
            for member, weight in self._weights.items()
            if now_s - weight.since_s >= timing.blackout_s and now_s - weight.at_s <= timing.expiry_s
        }
        if len(usable) < 2:
            usable = {}
        most = WEIGHT_SPREAD * sorted(usable.values())[(len(usable) - 1) // 2] if usable else 1.0
        usable = {member: min(weight, most) for member, weight in usable.items()}
        mean = sum(usable.values()) / len(usable) if usable else 1.0
        self._turns = []
        for i, member in enumerate(self._members):
            step = (1.0 + member.burden) / (usable.get(member, mean) * member.weight)
            self._turns.append((rng() * step, i, step))
        heapq.heapify(self._turns)

    @override
    def knows(self, member: M, now_s: float) -> Mapping[str, float]:
        weight = self._weights.get(member)
        if weight is None:
            return {}
        return {"weight": weight.value, "age_s": now_s - weight.at_s, "reporting_s": now_s - weight.since_s}
