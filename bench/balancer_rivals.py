"""Other ways to assign demand to datacenters, to stand beside ours: pro-rata waterfall, cheapest edge first, plain LP.

They know one capacity, are not told of a previous plan, and give flows (L, D) that sum to the demand.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.solver import Columns, Program

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

EARTH_RADIUS_KM = 6371.0


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """A planet: places at random on a sphere, Pareto demand, log-normal capacity (facts: prototypes/sim/lp.py)."""

    cost_ms: Matrix
    demand: Vector
    capacity: Vector


def instance(seed: int, localities: int, datacenters: int, load: float = 0.85) -> Instance:
    """One planet; demand is 1 in all and `load` of the capacity."""
    rng = np.random.default_rng(seed)
    here, there = _sphere(rng, localities), _sphere(rng, datacenters)
    demand = rng.pareto(1.2, localities) + 0.1
    capacity = rng.lognormal(0, 0.6, datacenters)
    km = np.arccos(np.clip(here @ there.T, -1, 1)) * EARTH_RADIUS_KM
    return Instance(km / 100 * 1.5 + 2, demand / demand.sum(), capacity / capacity.sum() / load)


def _sphere(rng: np.random.Generator, count: int) -> Matrix:
    points = rng.normal(size=(count, 3))
    unit: Matrix = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def waterfall(cost: Matrix, demand: Vector, capacity: Vector) -> Matrix:
    """Everybody offers what is left to its k-th nearest, which admits all offers pro rata, for k = 1, 2, ..."""
    count, width = cost.shape
    room, need = capacity.copy(), demand.copy()
    flow = np.zeros_like(cost)
    order = np.argsort(cost, axis=1)
    for k in range(width):
        at = order[:, k]
        offered = np.bincount(at, weights=need, minlength=width)
        # Rounding may leave a hair less than nothing.
        admitted = np.clip(np.divide(room, offered, out=np.ones(width), where=offered > 0), 0.0, 1.0)
        taken = need * admitted[at]
        flow[np.arange(count), at] += taken
        room -= np.bincount(at, weights=taken, minlength=width)
        need = need - taken
    return flow


def edge_first(cost: Matrix, demand: Vector, capacity: Vector) -> Matrix:
    """The globally cheapest pair takes all it can, then the next."""
    width = cost.shape[1]
    room, need = capacity.tolist(), demand.tolist()
    flow = np.zeros_like(cost)
    for edge in np.argsort(cost, axis=None).tolist():
        i, j = divmod(edge, width)
        taken = min(need[i], room[j])
        if taken > 0:
            flow[i, j] += taken
            need[i] -= taken
            room[j] -= taken
    return flow


def plain_lp(cost: Matrix, demand: Vector, capacity: Vector) -> Matrix:
    """minimise sum x * cost, subject to capacity: no congestion price, no memory."""
    count, width = cost.shape
    unit = demand.mean() / 100
    rows, columns = np.divmod(np.arange(count * width), width)
    pairs = np.stack([rows, count + columns], axis=1).ravel()
    index = np.concatenate([pairs, count + np.arange(width)]).astype(np.int32)
    start = np.concatenate([np.arange(0, 2 * count * width, 2), 2 * count * width + np.arange(width)]).astype(np.int32)
    whole = Columns(
        np.concatenate([cost.ravel(), np.zeros(width)]),
        np.full(count * width + width, np.inf),
        start,
        index,
        np.ones(len(index)),
    )
    solution = Program(np.concatenate([demand, capacity]) / unit, whole).solve()
    flow: Matrix = np.maximum(solution.value[: count * width], 0).reshape(count, width) * unit
    return flow
