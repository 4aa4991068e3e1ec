"""Weighted power of two choices on requests in flight. PURE.

Two tasks are drawn, each with a chance in proportion to its weight, and the one with fewer requests in flight per
weight gets the request; recent errors count as if they were in flight (`gslb.rpc.policy.errors`). Two draws instead of
one take the longest queue from O(log n / log log n) to O(log log n) (Mitzenmacher 2001), and unlike "the least loaded of
all" they do not send every client to the same task.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

from gslb.rpc.policy.member import Member

M = TypeVar("M", bound=Member)


@dataclass(frozen=True, slots=True)
class Group(Generic[M]):
    """The tasks of one datacenter that may be picked now; never empty."""

    datacenter: str
    members: tuple[M, ...]
    # Running sums of the weights, the last is 1; empty when all weigh the same, which is the usual case and faster.
    cumulative: tuple[float, ...] = ()

    def pick(self, rng: Callable[[], float]) -> M:
        """One task; `rng` draws uniformly from [0, 1)."""
        members = self.members
        count = len(members)
        if count == 1:
            return members[0]
        if self.cumulative:
            last = count - 1
            first = members[min(bisect_right(self.cumulative, rng()), last)]
            second = members[min(bisect_right(self.cumulative, rng()), last)]
        else:
            i = int(rng() * count)
            j = int(rng() * (count - 1))
            # Skipping i makes the second draw uniform over the others.
            first, second = members[i], members[j + (j >= i)]
        # Ties go to the first draw, which is in proportion to the weights.
        ours = (first.in_flight + first.burden) * second.weight
        return first if ours <= (second.in_flight + second.burden) * first.weight else second


def group_of(datacenter: str, members: Sequence[M]) -> Group[M]:
    """The group of these tasks; weights must be > 0."""
    weights = [member.weight for member in members]
    if min(weights) == max(weights):
        return Group(datacenter, tuple(members))
    sums = list(accumulate(weights))
    return Group(datacenter, tuple(members), tuple(part / sums[-1] for part in sums))


def without(group: Group[M], tried: Collection[M]) -> Group[M] | None:
    """The group less the tasks that were tried; None when none is left."""
    left = [member for member in group.members if member not in tried]
    return group_of(group.datacenter, left) if left else None
