"""The program of one service as the engine sees it, and the best answer to given prices of datacenters. PURE.

Were the price of a place in each datacenter known, every locality could choose by itself: it keeps what it has where
that is cheap, sends the rest to the nearest place, price included, and datacenters fill up to the segment of Phi' that
costs their price. This answer is optimal for those prices (dual feasible). If it also fits (no datacenter has more or
less than its last segment holds), it is the optimum of the whole program, by duality, and no engine is needed. If it
does not, it still is a start from which the engine needs a few steps instead of one for every locality.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.congestion import Curve
from gslb.balancer.solver import Vector

Matrix = NDArray[np.float64]
Pairs = NDArray[np.intp]
Flags = NDArray[np.bool_]

# What is less than this fraction of a locality's demand is rounding.
ROUNDING: Final = 1e-9
# Shares are kept to a millionth: loads that a plan put just at the end of a segment are found beyond it by as much.
FIT_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, eq=False)
class Transport:
    """L localities, D datacenters that take part, all with capacity; flows in hundredths of the mean demand."""

    demand: Vector  # (L,) > 0
    cost: Matrix  # (L, D)
    capacity: Vector  # (D,) > 0, times the overload factor
    held: Matrix  # (L, D): p of the program, previous share times demand
    mu: float
    curve: Curve

    @cached_property
    def kept(self) -> tuple[Pairs, Pairs]:
        """The pairs (row, column) where p is above zero, by row."""
        rows, columns = np.nonzero(self.held)
        return rows, columns

    @cached_property
    def filled(self) -> Vector:
        """(S + 1,): what part of a capacity the first k segments hold; the last is endless."""
        return np.concatenate([[0.0], np.cumsum(self.curve.width)])


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """The best answer to prices. K kept pairs, in the order of `Transport.kept`."""

    steps: Pairs  # (D,): the segment that each datacenter's price is that of
    kept: Vector  # (K,): flow
    full: Flags  # (K,): all of p, and cheaper than what decides
    kept_decides: Flags  # (K,): the dearest that its locality uses
    nearest: Pairs  # (L,)
    sent: Vector  # (L,): flow to the nearest, beyond what is kept
    sent_decides: Flags  # (L,): that is the dearest that the locality uses
    price: Vector  # (L,): of one more request
    fits: bool  # it is the optimum

    def flow(self, transport: Transport) -> Matrix:
        """As (L, D)."""
        flow = np.zeros_like(transport.cost)
        flow[transport.kept] = self.kept
        flow[np.arange(len(flow)), self.nearest] += self.sent
        return flow


def respond(transport: Transport, steps: Pairs) -> Response:
    """What everybody does when a place in datacenter d costs what segment steps[d] of Phi' does."""
    demand, count = transport.demand, len(transport.demand)
    marginal = transport.cost + transport.curve.price_ms[steps]
    nearest = marginal.argmin(axis=1)
    free = marginal[np.arange(count), nearest] + transport.mu
    rows, columns = transport.kept
    price = marginal[rows, columns]
    wanted = np.where(price < free[rows], transport.held[rows, columns], 0.0)
    order = np.lexsort((price, rows))
    kept = np.empty_like(wanted)
    kept[order] = _poured(wanted[order], rows, demand[rows])
    sent = demand - np.bincount(rows, kept, count)
    sent_decides = sent > ROUNDING * demand
    # Of the pairs that a locality uses, the last in order of price.
    used = order[kept[order] > 0]
    last = np.full(count, -1)
    last[rows[used]] = used
    deciding = last[~sent_decides]
    kept_decides = np.zeros(len(rows), dtype=np.bool_)
    kept_decides[deciding] = True
    sent = np.where(sent_decides, sent, 0.0)
    decided = free.copy()
    decided[~sent_decides] = price[deciding]
    load = np.zeros(len(steps))
    load += np.bincount(columns, kept, len(steps))
    load += np.bincount(nearest, sent, len(steps))
    return Response(
        steps,
        kept,
        (kept > 0) & ~kept_decides,
        kept_decides,
        nearest,
        sent,
        sent_decides,
        decided,
        _fits(transport, steps, load),
    )


def _poured(wanted: Vector, rows: Pairs, demand: Vector) -> Vector:
    """Each row's demand into what is wanted, first come first served; `rows` ascend."""
    if not len(rows):
        return wanted
    total = np.cumsum(wanted)
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    before = total - wanted
    before -= np.repeat(before[first], np.diff(first, append=len(rows)))
    poured: Vector = np.minimum(np.maximum(demand - before, 0.0), wanted)
    return poured


def _fits(transport: Transport, steps: Pairs, load: Vector) -> bool:
    least, most = transport.filled[steps], transport.filled[steps + 1]
    used = load / transport.capacity
    return bool(((used >= least - FIT_TOLERANCE) & (used <= most + FIT_TOLERANCE)).all())
