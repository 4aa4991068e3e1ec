"""Shares made ready to be drawn from: cumulative, in one fixed order. PURE."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from gslb.model.plan import Shares


@dataclass(frozen=True, slots=True)
class ShareTable:
    """Datacenters with a share above zero, by name, and the running sum of their shares; the last sum is 1."""

    datacenters: tuple[str, ...]
    cumulative: tuple[float, ...]

    def pick(self, u: float) -> str:
        """The datacenter of a number drawn uniformly from [0, 1), in O(log #datacenters)."""
        # Rounding may leave the last sum a hair below 1: `min` keeps u = 0.999... inside.
        return self.datacenters[min(bisect_right(self.cumulative, u), len(self.datacenters) - 1)]

    def parts(self) -> dict[str, float]:
        """Each datacenter's share; they sum to 1."""
        before = (0.0, *self.cumulative)
        return {name: self.cumulative[i] - before[i] for i, name in enumerate(self.datacenters)}


def table_of(shares: Shares) -> ShareTable | None:
    """The table of these shares, scaled to sum to 1; None when no share is above zero."""
    used = sorted((name, share) for name, share in shares.items() if share > 0)
    if not used:
        return None
    sums = tuple(accumulate(share for _, share in used))
    return ShareTable(tuple(name for name, _ in used), tuple(part / sums[-1] for part in sums))
