"""What keeps a locality's requests from a datacenter that they would rather go to, and its price in ms. PURE.

The price of a constraint is what a request of the locality would win if just this constraint gave way a little (the dual of
the program, where there is one): of a full datacenter Phi' at its load (`gslb.balancer.congestion`), of anything else the
difference between what the dearest request of the locality costs now and what it would cost there, Phi' included.
Prices are those of the program: what policies and transfer times add is in them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Final

import numpy as np

from gslb.balancer.bandwidth import curve_of
from gslb.balancer.congestion import PRICE_TOP_MS, curve
from gslb.balancer.damping import plannable_rps
from gslb.balancer.state import ServiceMemory

# Load within this part of a capacity of a step of Phi' stands on the step.
STEP_TOLERANCE: Final = 1e-4
# What a request could win by less than this is nothing: ties are broken by as much.
WIN_MIN_MS: Final = 0.05


class Constraint(Enum):
    """What may bind, in the words of `gslb explain service`."""

    OUT = "out"  # health, a drain, no task
    CAPACITY = "capacity"
    SHARED = "shared limit"  # what it may place of a CPU or uplink that others use too
    PATH = "path"
    STICKINESS = "stickiness"
    RAMP = "ramp"
    HOLD = "hold"  # the plan stays for a TTL, or while demand is within its band


@dataclass(frozen=True, slots=True)
class Binding:
    """One constraint that binds. `price_ms` is of one request."""

    constraint: Constraint
    price_ms: float


@dataclass(frozen=True, slots=True)
class Place:
    """One candidate, as far as it matters here. Costs in ms of the program."""

    datacenter: str
    cost_ms: float  # of the way there, with what the policy adds
    share: float
    out: bool
    paid_ms: float = 0.0  # Phi' of the last request there
    asked_ms: float = 0.0  # Phi' of another one
    shared: bool = False  # its capacity is a budget, less than what its tasks could serve
    path: bool = False  # the path there carries only so much


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps a plan from moving. `stickiness_ms`: mu of now."""

    stickiness_ms: float
    ramping: bool


def bindings(places: Sequence[Place], hold: Hold) -> dict[str, Binding]:
    """By datacenter, of those that some of the locality's requests are kept from: they go to a dearer one."""
    used = [place for place in places if place.share > 0]
    if not used:
        return {}
    farthest_ms = max(place.cost_ms for place in used)
    dearest_ms = max(place.cost_ms + place.paid_ms for place in used)
    return {
        place.datacenter: _binding(place, dearest_ms - place.cost_ms, hold)
        for place in places
        if place.cost_ms < farthest_ms - WIN_MIN_MS
    }


def _binding(place: Place, way_ms: float, hold: Hold) -> Binding:
    """`way_ms`: what a request would win by going there, were it as empty as can be."""
    if place.out and not place.share:
        return Binding(Constraint.OUT, max(way_ms, 0.0))
    win_ms = way_ms - place.asked_ms
    if win_ms <= WIN_MIN_MS:
        return Binding(Constraint.SHARED if place.shared else Constraint.CAPACITY, place.asked_ms)
    if place.path:
        return Binding(Constraint.PATH, win_ms)
    if win_ms <= hold.stickiness_ms + WIN_MIN_MS:
        return Binding(Constraint.STICKINESS, win_ms)
    return Binding(Constraint.RAMP if hold.ramping else Constraint.HOLD, win_ms)


def full_prices_ms(memory: ServiceMemory, datacenters: Sequence[str]) -> Mapping[str, tuple[float, float]]:
    """Phi' of the last request that each datacenter was planned to take, and of another one, in ms; empty without a plan.

    `datacenters`: those of the last program, in its order.
    """
    solved = memory.solved
    if solved is None or len(solved.used_rps) != len(datacenters):
        return {}
    used = np.array(solved.used_rps)
    room = plannable_rps(used, float(solved.demand_rps.sum())) * solved.overload
    own = curve_of(memory.service, memory.bandwidth, datacenters, used)
    phi = own or curve(memory.service.max_utilization)
    prices = phi.rows(np.arange(len(datacenters)))
    ends = list(accumulate(phi.width[:-1].tolist()))
    found = {}
    for j, (name, load) in enumerate(zip(datacenters, solved.held.load_rps.tolist(), strict=True)):
        part = load / room[j] if room[j] > 0 else 1.0
        # Beyond its room stands the wall, which is no price that anybody pays.
        last = max(bisect_left(ends, part - STEP_TOLERANCE), 0)
        following = bisect_right(ends, part + STEP_TOLERANCE)
        found[name] = tuple(min(float(prices[j, min(step, len(ends) - 1)]), PRICE_TOP_MS) for step in (last, following))
    return {name: (paid, asked) for name, (paid, asked) in found.items()}
