"""What a service prefers where there is room, as prices of the program. PURE.

Every policy is the same program with other prices. What is to be used last is dearer by more than a datacenter on the
brink of its capacity is (`gslb.balancer.congestion`), so that the first choice is used until it is all but full, and
never beyond. Spraying over a region is a second look at the answer: the program says how much stays in each region, and
within a region that is spread by capacity.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.congestion import BRINK_SEGMENTS, BRINK_STEP_MS, RISEN_MS
from gslb.balancer.network import Matrix, Network
from gslb.model.resources import Datacenter, Policy, Service

Vector = NDArray[np.float64]
Regions = NDArray[np.str_]

# Dearer than half-way up the brink.
LAST_MS: Final = RISEN_MS + BRINK_STEP_MS * BRINK_SEGMENTS / 2
RANKS_MAX: Final = 60
# Distance decides among the equally preferred.
RTT_WEIGHT: Final = 1e-3


def cost_ms(
    service: Service,
    datacenters: Mapping[str, Datacenter],
    network: Network,
    columns: Sequence[int],
    rtt_weight: float = 1.0,
) -> Matrix:
    """The price of each (locality, datacenter in `columns`), in ms; of a round trip counts `rtt_weight`."""
    chosen = list(columns)
    cost: Matrix = rtt_weight * network.rtt_ms[:, chosen] + network.tie_ms[:, chosen]
    names = [network.datacenters[column] for column in chosen]
    match service.policy:
        case Policy.NEAREST:
            return cost
        case Policy.FAILOVER:
            order = {name: rank for rank, name in enumerate(service.failover)}
            ranks = np.array([min(order.get(name, len(order)), RANKS_MAX) for name in names])
            return ranks[None, :] * LAST_MS + RTT_WEIGHT * cost
        case _:
            inside = _regions_of_localities(datacenters, network)[:, None] == _regions(datacenters, names)[None, :]
            farthest = np.where(inside, cost, 0.0).max(axis=1, initial=0.0)
            nearest = np.where(inside, np.inf, cost).min(axis=1, initial=np.inf)
            beyond = np.maximum(farthest - np.where(np.isfinite(nearest), nearest, 0.0), 0.0) + LAST_MS
            at_home = cost if service.policy is Policy.WATERFALL_BY_REGION else RTT_WEIGHT * cost
            dearer: Matrix = np.where(inside, at_home, cost + beyond[:, None])
            return dearer


def spread(
    service: Service,
    shares: Matrix,
    used_rps: Vector,
    datacenters: Mapping[str, Datacenter],
    names: Sequence[str],
) -> Matrix:
    """For policy spray: what goes to each region, by capacity within it; for the others the shares as they are."""
    if service.policy is not Policy.SPRAY_TO_REGION:
        return shares
    spread_out = np.zeros_like(shares)
    regions = _regions(datacenters, names)
    for region in sorted(set(regions.tolist())):
        here = regions == region
        capacity = used_rps * here
        if capacity.sum() > 0:
            spread_out += shares[:, here].sum(axis=1, keepdims=True) * (capacity / capacity.sum())[None, :]
    return spread_out


def _regions(datacenters: Mapping[str, Datacenter], names: Sequence[str]) -> Regions:
    return np.array([datacenters[name].region if name in datacenters else "" for name in names], dtype=np.str_)


def _regions_of_localities(datacenters: Mapping[str, Datacenter], network: Network) -> Regions:
    """A datacenter's own region; a client area's is that of the datacenter nearest to it."""
    regions = _regions(datacenters, network.datacenters)
    by_distance: Regions = regions[network.rtt_ms.argmin(axis=1)]
    own = [datacenters[name].region if name in datacenters else "" for name in network.localities]
    return np.where(np.array(own, dtype=np.str_) != "", np.array(own, dtype=np.str_), by_distance)
