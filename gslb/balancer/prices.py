"""A first guess of what a place in each datacenter costs, for `gslb.balancer.transport`. PURE.

Where everybody has a place and hardly any load is beyond a capacity, the guess is the price of the loads that today's
demand and the previous shares make: little has changed, and most often it is right.

Otherwise the prices are those of a smoothed planet, where a locality does not send all to the cheapest place but shares
it among those that cost about the same (softmin at a "temperature" in ms), and a datacenter's price is interpolated
between segments. There load is a smooth function of price, Newton's method finds the prices at which both sides agree,
and lowering the temperature brings them near to those of the program. A guess need not be right: it only saves steps.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.congestion import GENTLE_SEGMENTS, PRICE_TOP_MS, RISE_SEGMENTS
from gslb.balancer.solver import Vector
from gslb.balancer.transport import FIT_TOLERANCE, Matrix, Pairs, Transport

# Half the precision is twice as fast, and enough for a guess.
Coarse = NDArray[np.float32]

TEMPERATURES_MS: Final = (20.0, 8.0, 4.0)
# Newton steps at each temperature, at most; one that is small is the last.
STEPS_MAX: Final = (8, 2, 1)
STEP_MAX_MS: Final = 40.0
STEP_SMALL_MS: Final = 8.0
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
        return np.where(load > transport.capacity * (1 + FIT_TOLERANCE), BRINK, _step_at(transport, load))
    prices = _smoothed(transport, _prices(transport, load))
    nearest: Pairs = np.abs(transport.curve.price_ms[:-1] - prices[:, None]).argmin(axis=1)
    return nearest


def _step_at(transport: Transport, load: Vector) -> Pairs:
    """The segment that is being filled at this load."""
    inner = transport.filled[1:-1]
    return np.minimum(np.searchsorted(inner, load / transport.capacity), len(inner) - 1)


def _prices(transport: Transport, load: Vector) -> Vector:
    prices: Vector = transport.curve.price_ms[_step_at(transport, load)]
    return prices


def _smoothed(transport: Transport, prices: Vector) -> Vector:
    """Prices at which the smoothed planet is in balance, from `prices` on."""
    # What a locality has somewhere, it need not move there.
    cost = transport.cost + transport.mu
    if transport.mu > 0:
        cost -= transport.mu * transport.held / transport.demand[:, None]
    coarse, demand = cost.astype(np.float32), transport.demand.astype(np.float32)
    price = np.concatenate([[EMPTY_MS], transport.curve.price_ms[:-1], [FULL_MS]])
    filled = transport.filled[:-1]
    part = np.concatenate([[0.0], (filled[:-1] + filled[1:]) / 2, [1.0]])
    supply = _Supply(transport.capacity, price, part, np.diff(part) / np.diff(price))
    for temperature, steps_max in zip(TEMPERATURES_MS, STEPS_MAX, strict=True):
        for _ in range(steps_max):
            step = _newton(coarse + prices.astype(np.float32), demand, supply, prices, temperature)
            prices = np.clip(prices + step, 0.0, PRICE_TOP_MS)
            if float(np.abs(step).max()) <= STEP_SMALL_MS:
                break
    return prices


@dataclass(frozen=True, slots=True, eq=False)
class _Supply:
    """What datacenters hold at which price, linear between `price`."""

    capacity: Vector
    price: Vector
    part: Vector  # of a capacity
    slope: Vector

    def at(self, prices: Vector) -> tuple[Vector, Vector]:
        """What each holds, and how fast that grows."""
        segment = np.searchsorted(self.price, prices, side="right") - 1
        slope = self.slope[segment]
        return self.capacity * (self.part[segment] + slope * (prices - self.price[segment])), self.capacity * slope


def _newton(cost: Coarse, demand: Coarse, supply: _Supply, prices: Vector, temperature: float) -> Vector:
    """The change of prices that would balance load and supply, were both linear."""
    chosen = _softmin(cost, temperature)
    flow = chosen * demand[:, None]
    load = flow.sum(axis=0, dtype=np.float64)
    held, slope = supply.at(prices)
    jacobian = _product(chosen, flow) * (-1.0 / temperature)
    jacobian.flat[:: len(load) + 1] += load / temperature + slope + RIDGE * float(load.sum())
    try:
        step: Vector = np.linalg.solve(jacobian, load - held)
    except np.linalg.LinAlgError:
        # A worse guess is still a guess.
        return np.zeros_like(prices)
    return np.minimum(np.maximum(np.nan_to_num(step), -STEP_MAX_MS), STEP_MAX_MS)


def _product(left: Coarse, right: Coarse) -> Matrix:
    """left.T @ right, in pieces that are not worth another thread to the BLAS.

    Its threads wait busily for each other: on a machine with other work to do, 1000 x 40 took 30 ms instead of 0.5.
    """
    rows = max(1, THREADED_PRODUCTS // max(1, left.shape[1] ** 2))
    product = np.zeros((left.shape[1], right.shape[1]))
    for first in range(0, len(left), rows):
        product += left[first : first + rows].T @ right[first : first + rows]
    return product


def _softmin(cost: Coarse, temperature: float) -> Coarse:
    weight: Coarse = cost.min(axis=1, keepdims=True) - cost
    weight *= np.float32(1.0 / temperature)
    np.exp(weight, out=weight)
    weight /= weight.sum(axis=1, keepdims=True)
    return weight
