"""The balancer's program as it is defined, every column of it, handed to the engine without a hint: slow and plain."""

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.assignment import SHARE_MIN, Problem, floored
from gslb.balancer.congestion import curve, overload_factor
from gslb.balancer.solver import Columns, Program

Matrix = NDArray[np.float64]


def plain_shares(problem: Problem) -> Matrix:
    """The optimal shares (L, D); all datacenters must have capacity or none of it."""
    demand = floored(problem.demand_rps)
    unit = float(demand.mean()) / 100
    active = np.flatnonzero(problem.capacity_rps > 0)
    capacity = problem.capacity_rps[active] * overload_factor(float(demand.sum()), float(problem.capacity_rps.sum()))
    localities, datacenters = len(demand), len(active)
    phi = curve(problem.max_utilization)
    cost, upper, entries = [], [], []
    for d in range(datacenters):
        for width, price in zip(phi.width, phi.price_ms, strict=True):
            cost.append(price)
            upper.append(width * capacity[d] / unit)
            entries.append([(localities + d, -1.0)])
    first = len(cost)
    for row in range(localities):
        for d, column in enumerate(active.tolist()):
            held = problem.previous[row, column] * demand[row] / unit if problem.stickiness_ms > 0 else 0.0
            for most, more in ((held, 0.0), (np.inf, problem.stickiness_ms)):
                cost.append(problem.cost_ms[row, column] + more)
                upper.append(most)
                entries.append([(row, 1.0), (localities + d, 1.0)])
    flat = [entry for each in entries for entry in each]
    columns = Columns(
        np.array(cost),
        np.array(upper),
        np.cumsum([0] + [len(each) for each in entries[:-1]]).astype(np.int32),
        np.array([row for row, _ in flat], dtype=np.int32),
        np.array([value for _, value in flat]),
    )
    solved = Program(np.concatenate([demand / unit, np.zeros(datacenters)]), columns).solve().value[first:]
    flow = np.zeros((localities, len(problem.capacity_rps)))
    flow[:, active] = solved.reshape(localities, datacenters, 2).sum(axis=2)
    flow /= flow.sum(axis=1, keepdims=True)
    flow[flow < SHARE_MIN] = 0.0
    shares: Matrix = flow / flow.sum(axis=1, keepdims=True)
    return shares
