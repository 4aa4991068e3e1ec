"""The program of a service with limited paths, or with a price of its own in each datacenter: all columns by distance. PURE.

`gslb.balancer.optimum` is faster and knows neither. Here x is split into w <= p at the plain price and z at the price + mu,
each lane by lane (`gslb.balancer.lanes`). Only the nearest few datacenters of each locality get columns at first; then all
others are priced by the duals, those that would pay are added, and the program goes on from where it was, until none
would pay: the optimum is that of the whole program.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.lanes import Expanded, Lanes
from gslb.balancer.optimum import joined, pair_columns
from gslb.balancer.solver import Columns, Program, SolverError, Vector

Matrix = NDArray[np.float64]
Pairs = NDArray[np.intp]

NEAREST: Final = 6
# A small program is solved faster whole than priced.
WHOLE_DATACENTERS: Final = 12
PRICING_TOLERANCE_MS: Final = 1e-6
PRICING_ROUNDS_MAX: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class Limited:
    """The problem over datacenters that take part, in units of a hundredth of the mean locality's demand."""

    demand: Vector
    cost: Matrix
    capacity: Vector  # times the overload factor
    held: Matrix  # p
    mu: float
    width: Vector  # (K,) of the segments, in capacities
    price_ms: Matrix  # (D, K)
    lanes: Lanes


def solve(scaled: Limited) -> tuple[Matrix, Matrix, Matrix]:
    """Flow, what a request of each pair costs, and what another one would. Raises SolverError if the engine fails."""
    localities, datacenters = scaled.cost.shape
    present = _first_columns(scaled)
    kept_l, kept_d = np.nonzero(scaled.held > 0)
    free_l, free_d = np.nonzero(present)
    kept = scaled.lanes.expand(kept_l, kept_d)
    free = scaled.lanes.expand(free_l, free_d)
    program = Program(np.concatenate([scaled.demand, np.zeros(datacenters)]), _all_columns(scaled, kept, free))
    for _ in range(PRICING_ROUNDS_MAX):
        solution = program.solve()
        locality_price, datacenter_price = solution.row_price[:localities], -solution.row_price[localities:]
        marginal = scaled.cost + datacenter_price[None, :]
        missing = ~present & (marginal + scaled.mu < locality_price[:, None] - PRICING_TOLERANCE_MS)
        if not missing.any():
            break
        more = scaled.lanes.expand(*np.nonzero(missing))
        program.add(_free_columns(scaled, more))
        present |= missing
        free = free.joined(more)
    else:
        raise SolverError(f"pricing did not end in {PRICING_ROUNDS_MAX} rounds")
    flow = _flow(scaled, solution.value, kept, free)
    return flow, *scaled.lanes.priced(marginal, flow)


def _first_columns(scaled: Limited) -> NDArray[np.bool_]:
    """Which pairs get a column from the start: all of a small program, the nearest of a large one."""
    datacenters = scaled.cost.shape[1]
    if datacenters <= WHOLE_DATACENTERS:
        return np.ones(scaled.cost.shape, dtype=np.bool_)
    present = np.zeros(scaled.cost.shape, dtype=np.bool_)
    nearest = np.argpartition(scaled.cost, NEAREST, axis=1)[:, :NEAREST]
    np.put_along_axis(present, nearest, values=True, axis=1)
    return present


def _all_columns(scaled: Limited, kept: Expanded, free: Expanded) -> Columns:
    """Segments of all datacenters, w of the held pairs, z of the free ones: `_flow` reads them in this order."""
    localities, datacenters = scaled.cost.shape
    segments = len(scaled.width)
    load_rows = (localities + np.repeat(np.arange(datacenters), segments)).astype(np.int32)
    width = (scaled.capacity[:, None] * scaled.width[None, :]).ravel()
    segment = Columns(
        scaled.price_ms.ravel(),
        width,
        np.arange(len(load_rows), dtype=np.int32),
        load_rows,
        np.full(len(load_rows), -1.0),
    )
    held = scaled.held[kept.row, kept.column]
    cost = scaled.cost[kept.row, kept.column] + kept.price_ms
    return joined(
        segment,
        pair_columns(cost, kept.within(held), (kept.row, kept.column), localities),
        _free_columns(scaled, free),
    )


def _free_columns(scaled: Limited, free: Expanded) -> Columns:
    """What may come on top of what is held: lane by lane, as much as that leaves."""
    cost = scaled.cost[free.row, free.column] + free.price_ms + scaled.mu
    left = free.width - free.within(scaled.held[free.row, free.column]) if scaled.lanes.any else free.width
    return pair_columns(cost, left, (free.row, free.column), len(scaled.demand))


def _flow(scaled: Limited, value: Vector, kept: Expanded, free: Expanded) -> Matrix:
    """x = w + z."""
    flow = np.zeros_like(scaled.cost)
    first = len(scaled.capacity) * len(scaled.width)
    np.add.at(flow, (kept.row, kept.column), value[first : first + len(kept.row)])
    np.add.at(flow, (free.row, free.column), value[first + len(kept.row) :])
    return np.maximum(flow, 0.0)
