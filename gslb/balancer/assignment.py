"""The linear program of one service: how much of each locality goes to each datacenter. PURE.

x[l,d] >= 0 is the rps of locality l sent to datacenter d, p[l,d] = previous share * demand[l]:

    minimise  sum x[l,d] * (rtt[l,d] + tie[l,d])              nearest first
            + sum_d capacity_d * Phi(load_d / capacity_d)     spill before 100 % (gslb.balancer.congestion)
            + mu * sum max(x[l,d] - p[l,d], 0)                what stays, stays
    subject to  sum_d x[l,d] = demand[l]

x is split into w <= p at the plain price and z at the price + mu, so stickiness costs no row. `gslb.balancer.optimum`
solves it, `gslb.balancer.limited` where paths carry only so much or places have prices of their own.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer import limited
from gslb.balancer.congestion import Curve, curve, overload_factor
from gslb.balancer.lanes import NO_LANES, Lanes
from gslb.balancer.limited import Limited
from gslb.balancer.optimum import optimum
from gslb.balancer.solver import SolverError, Vector
from gslb.balancer.transport import Transport
from gslb.model import limits

Matrix = NDArray[np.float64]
Pairs = NDArray[np.intp]

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
    held = problem.previous[:, active] * (demand / unit)[:, None]
    if problem.stickiness_ms <= 0:
        held = np.zeros_like(held)
    scaled = (
        demand / unit,
        np.ascontiguousarray(problem.cost_ms[:, active]),
        np.minimum(capacity[active] * overload, CAPACITY_MAX_FACTOR * total) / unit,
        held,
        problem.stickiness_ms,
    )
    if problem.lanes.any or full.price_ms.ndim > 1:
        lanes = problem.lanes.among(active, len(capacity), 1.0 / unit)
        flow, paid, offered = limited.solve(Limited(*scaled, full.width, full.rows(active), lanes))
    else:
        transport = Transport(*scaled, full)
        best = optimum(transport)
        flow, paid = best.flow, transport.cost + best.price_ms
        offered = paid
    shares = np.zeros_like(problem.cost_ms)
    shares[:, active] = _tidy(flow)
    # Not by a product of matrices: on a busy machine the threads of the BLAS wait for each other for milliseconds.
    load = np.einsum("l,ld->d", problem.demand_rps, shares)
    return Assignment(shares, load, overload, _gain(flow, paid, offered))


def floored(demand_rps: Vector) -> Vector:
    """Demand with its floor: every locality takes part, however quiet it is, and none weighs on the others."""
    mean = float(demand_rps.mean()) if len(demand_rps) else 0.0
    return np.maximum(demand_rps, FLOOR_FRACTION * mean if mean > 0 else limits.DEMAND_FLOOR_RPS)


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
