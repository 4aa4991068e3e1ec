"""Affinity: requests with the same key meet at the same task, within a bound on its load. PURE.

Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018): tasks own points on a ring in proportion to
their weights; a key belongs to the first point that follows it; a task that has BOUND times the mean of our requests in
flight is passed over, so that a key that everybody wants spreads to the tasks that follow instead of crushing one. Points
depend on a task's name only: when a task comes or goes, only the keys next to its points move.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

from typing_extensions import override

from gslb.rpc.policy.choice import Rng, Rule
from gslb.rpc.policy.p2c import Group, M, group_of

BOUND: Final = 1.25
# Points of a task of mean weight: with so many, shares of the ring are within some 10 % of even.
POINTS: Final = 100
POINTS_MAX: Final = 1000
# Keys whose place is remembered; then all are forgotten, which costs a hash each.
REMEMBERED: Final = 4096


def point(text: str) -> int:
    """Where a text lies on the ring of 64 bits; the same in every process."""
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


class RingHash(Rule[M]):
    """See the module. Requests without a key go to the less busy of two tasks."""

    def __init__(self) -> None:
        self._members: tuple[M, ...] = ()
        self._points: list[int] = []
        self._owners: list[M] = []
        self._keyless: Group[M] = Group("", ())
        self._cache: dict[str, list[int]] = {}
        self._places: dict[str, int] = {}

    @override
    def assign(self, members: Sequence[M], now_s: float) -> None:
        self._members = tuple(members)
        self._keyless = group_of("", members)
        mean = sum(member.weight for member in members) / len(members)
        known, self._cache = self._cache, {}
        pairs: list[tuple[int, int]] = []
        for i, member in enumerate(members):
            count = max(1, min(POINTS_MAX, round(POINTS * member.weight / mean)))
            name = member.endpoint.task
            points = known.get(name, [])
            points = [*points[:count], *(point(f"{name}#{j}") for j in range(len(points), count))]
            self._cache[name] = points
            pairs += [(at, i) for at in points]
        pairs.sort()
        self._points = [at for at, _ in pairs]
        self._owners = [members[i] for _, i in pairs]
        self._places.clear()

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> M:
        del now_s
        if not key:
            return self._keyless.pick(rng)
        start = self._places.get(key, -1)
        if start < 0:
            start = self._place(key)
        owner = self._owners[start]
        if owner.in_flight + owner.burden < 1.0:
            return owner
        return self._walk(start)

    def _place(self, key: str) -> int:
        if len(self._places) >= REMEMBERED:
            self._places.clear()
        start = self._places[key] = bisect_right(self._points, point(key)) % len(self._points)
        return start

    def _walk(self, start: int) -> M:
        """The first task from there on that is below the bound; the mean counts the new request."""
        members, owners = self._members, self._owners
        total = sum([member.in_flight + member.burden for member in members])
        most = BOUND * (total + 1.0) / len(members)
        passed: set[M] = set()
        for place in range(start, start + len(owners)):
            owner = owners[place % len(owners)]
            if owner in passed:
                continue
            if owner.in_flight + owner.burden + 1.0 <= most:
                return owner
            passed.add(owner)
            if len(passed) == len(members):
                break
        # A mean below one request: everybody is above the bound, the least busy is not far above.
        return min(members, key=lambda member: member.in_flight + member.burden)

    @override
    def knows(self, member: M, now_s: float) -> Mapping[str, float]:
        del now_s
        return {"points": float(len(self._cache.get(member.endpoint.task, ())))}
