"""The linear program of one service: how much of each locality goes to each datacenter. PURE.

x[l,d] >= 0 is the rps of locality l sent to datacenter d, p[l,d] = previous share * demand[l]:

    minimise  sum x[l,d] * (rtt[l,d] + tie[l,d])              nearest first
            + sum_d capacity_d * Phi(load_d / capacity_d)     spill before 100 % (gslb.balancer.congestion)
            + mu * sum max(x[l,d] - p[l,d], 0)                what stays, stays
    subject to  sum_d x[l,d] = demand[l]

x is split into w <= p at the plain price and z at the price + mu, so stickiness costs no row. Only the nearest few
datacenters of each locality get columns at first; then all others are priced by the duals, those that would pay are
added, and the program goes on from where it was, until none would pay: the optimum is that of the whole program.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.congestion import Curve, curve, overload_factor
from gslb.balancer.lanes import NO_LANES, Expanded, Lanes
from gslb.balancer.solver import Columns, Program, SolverError, Vector
from gslb.model import limits

Matrix = NDArray[np.float64]
Pairs = NDArray[np.intp]

NEAREST: Final = 6
# A small program is solved faster whole than priced.
WHOLE_DATACENTERS: Final = 12
PRICING_TOLERANCE_MS: Final = 1e-6
PRICING_ROUNDS_MAX: Final = 100
SHARE_MIN: Final = 1e-6
# A locality without demand takes part with this fraction of the mean one, so that it gets shares like the others.
FLOOR_FRACTION: Final = 1e-6
# The mean locality's demand in the program's units: with it the floor is a thousand times the engine's tolerance of 1e-7.
MEAN_UNITS: Final = 100.0
# Below this fraction of the largest capacity a datacenter takes no part; beyond this multiple of all demand, more
# capacity is no news.
CAPACITY_MIN_FRACTION: Final = 1e-9
CAPACITY_MAX_FACTOR: Final = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One service at one moment; L localities, D datacenters, at least one with capacity."""

    demand_rps: Vector  # (L,) >= 0
    cost_ms: Matrix  # (L, D) round-trip time and tie-break
    capacity_rps: Vector  # (D,) >= 0
    max_utilization: float
    previous: Matrix  # (L, D) shares; rows of zeros where there were none
    stickiness_ms: float
    curve: Curve | None = None  # what being full costs; None: by `max_utilization`
    lanes: Lanes = NO_LANES  # paths that carry only so much


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The answer. `gain_ms`: the most that one request could still win and stickiness forbids; 0: nothing."""

    shares: Matrix  # (L, D), rows sum to 1
    load_rps: Vector  # (D,) of the real demand
    overload: float  # demand over capacity, at least 1
    gain_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class _Scaled:
    """The problem over datacenters that take part, in units of a hundredth of the mean locality's demand."""

    demand: Vector
    cost: Matrix
    capacity: Vector  # times the overload factor
    held: Matrix  # p
    mu: float
    width: Vector  # (K,) of the segments, in capacities
    price_ms: Matrix  # (D, K)
    lanes: Lanes


def assign(problem: Problem) -> Assignment:
    """The optimal shares. Raises SolverError when nothing has capacity, and if the engine fails."""
    capacity = problem.capacity_rps
    active = np.flatnonzero(capacity > CAPACITY_MIN_FRACTION * max(float(capacity.max(initial=0.0)), 0.0))
    if not len(active):
        raise SolverError("no datacenter has capacity")
    demand = floored(problem.demand_rps)
    total, unit = float(demand.sum()), float(demand.mean()) / MEAN_UNITS
    overload = overload_factor(total, float(capacity[active].sum()))
    full = problem.curve or curve(problem.max_utilization)
    scaled = _Scaled(
        demand / unit,
        np.ascontiguousarray(problem.cost_ms[:, active]),
        np.minimum(capacity[active] * overload, CAPACITY_MAX_FACTOR * total) / unit,
        problem.previous[:, active] * (demand / unit)[:, None]
        if problem.stickiness_ms > 0
        else _no_memory(problem, active),
        problem.stickiness_ms,
        full.width,
        full.rows(active),
        problem.lanes.among(active, len(capacity), 1.0 / unit),
    )
    flow, gain = _solve(scaled)
    shares = np.zeros_like(problem.cost_ms)
    shares[:, active] = _tidy(flow)
    return Assignment(shares, problem.demand_rps @ shares, overload, gain)


def floored(demand_rps: Vector) -> Vector:
    """Demand with its floor: every locality takes part, however quiet it is, and none weighs on the others."""
    mean = float(demand_rps.mean()) if len(demand_rps) else 0.0
    return np.maximum(demand_rps, FLOOR_FRACTION * mean if mean > 0 else limits.DEMAND_FLOOR_RPS)


def _no_memory(problem: Problem, active: Pairs) -> Matrix:
    return np.zeros((len(problem.demand_rps), len(active)))


def _solve(scaled: _Scaled) -> tuple[Matrix, float]:
    """Solves, prices the columns that are not there, adds those that pay, and again. Returns flow and gain."""
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
    return flow, _gain(flow, *scaled.lanes.priced(marginal, flow))


def _first_columns(scaled: _Scaled) -> NDArray[np.bool_]:
    """Which pairs get a column from the start: all of a small program, the nearest of a large one."""
    datacenters = scaled.cost.shape[1]
    if datacenters <= WHOLE_DATACENTERS:
        return np.ones(scaled.cost.shape, dtype=np.bool_)
    present = np.zeros(scaled.cost.shape, dtype=np.bool_)
    nearest = np.argpartition(scaled.cost, NEAREST, axis=1)[:, :NEAREST]
    np.put_along_axis(present, nearest, values=True, axis=1)
    return present


def _all_columns(scaled: _Scaled, kept: Expanded, free: Expanded) -> Columns:
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
    return _joined(
        segment,
        _pair_columns(cost, kept.within(held), (kept.row, kept.column), localities),
        _free_columns(scaled, free),
    )


def _free_columns(scaled: _Scaled, free: Expanded) -> Columns:
    """What may come on top of what is held: lane by lane, as much as that leaves."""
    cost = scaled.cost[free.row, free.column] + free.price_ms + scaled.mu
    left = free.width - free.within(scaled.held[free.row, free.column]) if scaled.lanes.any else free.width
    return _pair_columns(cost, left, (free.row, free.column), len(scaled.demand))


def _pair_columns(cost: Vector, upper: Vector, pairs: tuple[Pairs, Pairs], localities: int) -> Columns:
    """Columns of (locality, datacenter) pairs: 1 in the locality's row, 1 in the datacenter's."""
    index = np.stack([pairs[0], localities + pairs[1]], axis=1).ravel().astype(np.int32)
    return Columns(cost, upper, np.arange(0, len(index), 2, dtype=np.int32), index, np.ones(len(index)))


def _joined(*parts: Columns) -> Columns:
    offsets = np.cumsum([0] + [len(part.index) for part in parts[:-1]])
    return Columns(
        np.concatenate([part.cost for part in parts]),
        np.concatenate([part.upper for part in parts]),
        np.concatenate([part.start + np.int32(offset) for part, offset in zip(parts, offsets, strict=True)]),
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


def _flow(scaled: _Scaled, value: Vector, kept: Expanded, free: Expanded) -> Matrix:
    """x = w + z."""
    flow = np.zeros_like(scaled.cost)
    first = len(scaled.capacity) * len(scaled.width)
    np.add.at(flow, (kept.row, kept.column), value[first : first + len(kept.row)])
    np.add.at(flow, (free.row, free.column), value[first + len(kept.row) :])
    return np.maximum(flow, 0.0)


def _gain(flow: Matrix, paid: Matrix, offered: Matrix) -> float:
    """The largest difference, over localities, between the dearest datacenter in use and the cheapest of all, in ms."""
    used = flow > SHARE_MIN * flow.sum(axis=1, keepdims=True)
    dearest = np.where(used, paid, -np.inf).max(axis=1)
    return max(0.0, float((dearest - offered.min(axis=1)).max(initial=0.0)))


def _tidy(flow: Matrix) -> Matrix:
    """Rows as shares: crumbs below SHARE_MIN are dropped and the rest made to sum to 1."""
    share = flow / flow.sum(axis=1, keepdims=True)
    share[share < SHARE_MIN] = 0.0
    tidy: Matrix = share / share.sum(axis=1, keepdims=True)
    return tidy
