"""A first guess of what a place in each datacenter costs, for `gslb.balancer.transport`. PURE.

Where everybody has a place and hardly any load is beyond a capacity, the guess is the price of the loads that today's
demand and the previous shares make: little has changed, and most often it is right.

Otherwise the prices are those of a smoothed planet, where a locality does not send all to the cheapest place but shares
it among those that cost about the same (softmin at a "temperature" in ms), and a datacenter's price is interpolated
between segments. There load is a smooth function of price, Newton's method finds the prices at which both sides agree,
and lowering the temperature brings them near to those of the program. A guess need not be right: it only saves steps.
"""

from typing import Final

import numpy as np

from gslb.balancer.congestion import GENTLE_SEGMENTS, PRICE_TOP_MS, RISE_SEGMENTS
from gslb.balancer.solver import Vector
from gslb.balancer.transport import Matrix, Pairs, Transport

TEMPERATURES_MS: Final = (20.0, 20.0, 20.0, 8.0, 8.0, 4.0)
STEP_MAX_MS: Final = 25.0
# Below its first segment's price a datacenter is empty, beyond the last one's it is full.
EMPTY_MS: Final = -30.0
FULL_MS: Final = PRICE_TOP_MS + 200.0
# Load beyond capacities that is less than this fraction of all leaves the other prices as they are.
EXCESS_FRACTION: Final = 0.02
BRINK: Final = GENTLE_SEGMENTS + RISE_SEGMENTS
# Localities with less than this fraction of their demand on its way nowhere have a place.
HOMELESS_FRACTION: Final = 1e-6
# OpenBLAS shares products of more multiplications than four times 2^16 among its threads.
THREADED_PRODUCTS: Final = 250_000
# Keeps the system solvable when prices hardly depend on some load.
RIDGE: Final = 1e-9


def first_steps(transport: Transport) -> Pairs:
    """The segment of Phi', below the wall, whose price each datacenter is thought to have."""
    load = transport.held.sum(axis=0)
    homeless = transport.demand - transport.held.sum(axis=1) > HOMELESS_FRACTION * transport.demand
    excess = float(np.maximum(load - transport.capacity, 0.0).sum())
    if not homeless.any() and excess <= EXCESS_FRACTION * float(load.sum()):
        # What is beyond a capacity leaves: then its price is not that of the last segment.
        return np.where(load > transport.capacity, BRINK, _step_at(transport, load))
    prices = _smoothed(transport, _prices(transport, load))
    return np.abs(transport.curve.price_ms[:-1] - prices[:, None]).argmin(axis=1)


def _step_at(transport: Transport, load: Vector) -> Pairs:
    """The segment that is being filled at this load."""
    inner = transport.filled[1:-1]
    return np.minimum(np.searchsorted(inner, load / transport.capacity), len(inner) - 1)


def _prices(transport: Transport, load: Vector) -> Vector:
    prices: Vector = transport.curve.price_ms[_step_at(transport, load)]
    return prices


def _smoothed(transport: Transport, prices: Vector) -> Vector:
    """Prices at which the smoothed planet is in balance, from `prices` on; one Newton step a temperature."""
    # What a locality has somewhere, it need not move there.
    cost = transport.cost + transport.mu * (1.0 - transport.held / transport.demand[:, None])
    price = np.concatenate([[EMPTY_MS], transport.curve.price_ms[:-1], [FULL_MS]])
    filled = transport.filled[:-1]
    part = np.concatenate([[0.0], (filled[:-1] + filled[1:]) / 2, [1.0]])
    slope = np.diff(part) / np.diff(price)
    for temperature in TEMPERATURES_MS:
        chosen = _softmin(cost + prices, temperature)
        flow = chosen * transport.demand[:, None]
        load = flow.sum(axis=0)
        at = np.searchsorted(price, prices, side="right") - 1
        missing = load - transport.capacity * (part[at] + slope[at] * (prices - price[at]))
        jacobian = (np.diag(load) - _product(chosen, flow)) / temperature
        jacobian[np.diag_indices_from(jacobian)] += transport.capacity * slope[at] + RIDGE * load.sum()
        step = np.linalg.solve(jacobian, missing)
        prices = np.clip(prices + np.clip(step, -STEP_MAX_MS, STEP_MAX_MS), 0.0, PRICE_TOP_MS)
    return prices


def _product(left: Matrix, right: Matrix) -> Matrix:
    """left.T @ right, in pieces that are not worth another thread to the BLAS.

    Its threads wait busily for each other: on a machine with other work to do, 1000 x 40 took 30 ms instead of 0.5.
    """
    rows = max(1, THREADED_PRODUCTS // max(1, left.shape[1] ** 2))
    product = np.zeros((left.shape[1], right.shape[1]))
    for first in range(0, len(left), rows):
        product += left[first : first + rows].T @ right[first : first + rows]
    return product


def _softmin(cost: Matrix, temperature: float) -> Matrix:
    weight = np.exp((cost.min(axis=1, keepdims=True) - cost) / temperature)
    softmin: Matrix = weight / weight.sum(axis=1, keepdims=True)
    return softmin
