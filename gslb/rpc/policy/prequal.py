"""Prequal: probes sent ahead of need, and the hot-cold rule over the pool of their answers. PURE.

Wydrowski, Kleinberg, Rumble, Archer: "Load is not what you should balance: introducing Prequal" (NSDI 2024). Each request
has PROBES tasks probed, drawn at random; the answers (requests in flight, latency at about so many) wait in a pool for
the requests that follow. A task is hot if it has more requests in flight than the quantile Q_RIF of the pool. The cold
one with the least latency is picked; if all are hot, the one with the fewest requests in flight.

A pool ages and, because the best entries are used up, decays. So entries expire, each is used a limited number of times

    b_reuse = max(1, (1 + delta) / ((1 - pool / tasks) * probes - removed)),

counts one more request in flight with each use, and with each request the oldest or the worst one, in turn, is removed.

Where the pool has fewer than two entries the paper picks at random. We take the less busy of two, by our own requests: a
service whose tasks cannot be probed is served as by `least_request`. And no task is believed to have less in flight than
we have there ourselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Generic

from typing_extensions import override

from gslb.rpc.policy.choice import Report, Rng, Rule
from gslb.rpc.policy.p2c import Group, M, group_of
from gslb.rpc.policy.suspicion import sample


@dataclass(frozen=True, slots=True)
class Knobs:
    """Defaults as published."""

    pool: int = 16
    age_s: float = 1.0
    probes: float = 3.0  # per request
    removed: float = 1.0  # per request
    delta: float = 1.0
    hot_quantile: float = 2.0**-0.25


PUBLISHED: Final = Knobs()


@dataclass(slots=True, eq=False)
class _Answer(Generic[M]):
    member: M
    in_flight: float
    latency_s: float
    at_s: float
    uses: int  # that are left


def _load(answer: _Answer[M]) -> float:
    """Requests in flight there, errors included: what it said, and never fewer than our own."""
    return max(answer.in_flight, float(answer.member.in_flight)) + answer.member.burden


class Prequal(Rule[M]):
    """See the module."""

    asks: ClassVar[bool] = True

    def __init__(self, knobs: Knobs = PUBLISHED) -> None:
        self._knobs = knobs
        self._group: Group[M] = Group("", ())
        self._known: frozenset[M] = frozenset()
        self._pool: list[_Answer[M]] = []  # in the order in which they came
        self._size = knobs.pool
        self._reuse = 1.0
        self._worst_next = False
        self._to_remove = 0.0
        self._to_probe = 0.0
        self._rng: Rng | None = None

    @override
    def assign(self, members: Sequence[M], now_s: float) -> None:
        self._group = group_of("", members)
        self._known = frozenset(members)
        self._pool = [answer for answer in self._pool if answer.member in self._known]
        knobs, count = self._knobs, len(members)
        # With few tasks a pool of 16 would hold each of them; half of them keeps the formula's divisor above 0.
        self._size = max(2, min(knobs.pool, count // 2))
        left = (1 - self._size / count) * knobs.probes - knobs.removed
        self._reuse = max(1.0, (1 + knobs.delta) / left) if left > 0 else float(self._size)

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> M:
        del key
        self._rng = rng
        oldest_s = now_s - self._knobs.age_s
        pool = self._pool
        while pool and pool[0].at_s < oldest_s:
            del pool[0]
        if len(pool) < 2:
            return self._group.pick(rng)
        loads = sorted([_load(answer) for answer in pool])
        hot_above = loads[min(len(loads) - 1, int(self._knobs.hot_quantile * len(loads)))]
        best = self._best(hot_above)
        best.in_flight += 1
        best.uses -= 1
        if best.uses <= 0:
            pool.remove(best)
        self._remove(hot_above)
        return best.member

    def _best(self, hot_above: float) -> _Answer[M]:
        best, least_s = self._pool[0], -1.0
        for answer in self._pool:
            if _load(answer) < hot_above and (answer.latency_s < least_s or least_s < 0):
                best, least_s = answer, answer.latency_s
        if least_s >= 0:
            return best
        return min(self._pool, key=_load)

    def _remove(self, hot_above: float) -> None:
        """Takes away the oldest and the worst in turn."""
        self._to_remove += self._knobs.removed
        pool = self._pool
        while self._to_remove >= 1.0:
            self._to_remove -= 1.0
            if len(pool) <= 2:
                continue
            self._worst_next = not self._worst_next
            if self._worst_next:
                del pool[0]
                continue
            hottest = max(pool, key=lambda answer: answer.in_flight)
            worst = hottest if hottest.in_flight >= hot_above else max(pool, key=lambda answer: answer.latency_s)
            pool.remove(worst)

    @override
    def probes(self, rng: Rng, now_s: float) -> Sequence[M]:
        del now_s
        self._to_probe += self._knobs.probes
        count = int(self._to_probe)
        self._to_probe -= count
        return sample(self._group.members, rng, count)

    @override
    def reported(self, member: M, report: Report, now_s: float, *, probe: bool = False) -> None:
        if not probe or member not in self._known:
            return
        # Of few tasks a pool could hold one alone: newer word takes the place of older.
        self._pool = [answer for answer in self._pool if answer.member is not member]
        if len(self._pool) >= self._size:
            del self._pool[0]
        whole = int(self._reuse)
        part = self._reuse - whole
        uses = whole + (part > 0 and self._rng is not None and self._rng() < part)
        self._pool.append(_Answer(member, report.in_flight, report.latency_s, now_s, uses))

    @override
    def knows(self, member: M, now_s: float) -> Mapping[str, float]:
        for answer in reversed(self._pool):
            if answer.member is member:
                return {"in_flight": answer.in_flight, "latency_s": answer.latency_s, "age_s": now_s - answer.at_s}
        return {}
