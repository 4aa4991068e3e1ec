"""Bandwidth: what each service has of uplinks and of limited paths, and what a transfer costs there. PURE.

An uplink (`uplink_mbps`) is split among its services by `gslb.balancer.sharing`; a limited path (`links` of a
datacenter) here, to each what it needs, the neediest what is left. Both are limits for every service that says how much
its requests send.

For a service with objective `throughput` they are the price, too. Over a stretch of which the fraction u is in use a
transfer takes 1 / (1 - u) times as long as over an idle one (processor sharing); what the program weighs instead of round
trips is that slowdown, UNIT_MS for each time that it is longer: stickiness and the brink mean the same for uploads of every
size. 200 ms of round trip, the far end of the earth, count as much as one idle transfer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.congestion import GENTLE_SEGMENTS, WALL_MS, Curve, curve
from gslb.balancer.inputs import Inputs
from gslb.balancer.lanes import NO_LANES, Lanes
from gslb.balancer.sharing import Sharing
from gslb.model import limits
from gslb.model.resources import Backend, Datacenter, Objective, Service

Vector = NDArray[np.float64]
Path = tuple[str, str]  # (locality, datacenter)

UNIT_MS: Final = 4.0
# 200 ms, the far end of the earth, weigh one unit.
RTT_WEIGHT: Final = UNIT_MS / 200.0
# The gentle part of the price of being full is cut finer, or a transfer time would jump.
FINER: Final = 6
LANES: Final = 12
# A lane beyond this fraction of a path would cost as much as the wall.
LANE_TOP: Final = 0.98
# A path's services want room for this much more than is asked of them.
NEED_FACTOR: Final = 1.25


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """What one service has."""

    uplink_mbps: Mapping[str, float] = field(default_factory=dict)  # by datacenter; absent: not limited
    path_mbps: Mapping[Path, float] = field(default_factory=dict)  # absent: not limited
    mbit: Mapping[str, float] = field(default_factory=dict)  # what a request sends, by datacenter

    def matters(self, objective: Objective) -> bool:
        """Whether transfer times are what to plan by, and any is known."""
        return objective is Objective.THROUGHPUT and bool(self.uplink_mbps or self.path_mbps)

    def rtt_weight(self, objective: Objective) -> float:
        """What a round trip counts beside a transfer."""
        return RTT_WEIGHT if self.matters(objective) else 1.0


NO_BANDWIDTH: Final = Bandwidth()


def bandwidths(before: Mapping[str, Bandwidth], inputs: Inputs, sharing: Sharing) -> Mapping[str, Bandwidth]:
    """By service, of those whose requests send something; what did not change is the object of before."""
    places = inputs.catalog.datacenters
    if not any(place.uplink_mbps > 0 or place.links for place in places.values()):
        # Most planets: looking at every backend of 1,000 services would take longer than planning one anew.
        return {}
    sending = {
        name: sent
        for name, service in inputs.catalog.services.items()
        if (sent := {each.datacenter: each.request_mbit for each in service.backends if _sends(each, places)})
    }
    if not sending:
        return {}
    uplinks = _uplinks(sharing)
    paths: dict[str, dict[Path, float]] = {}
    for datacenter in {name for sent in sending.values() for name in sent}:
        for link in places[datacenter].links:
            path = (link.locality, datacenter)
            for name, mbps in _parts(path, link.mbps, sending, inputs.demand).items():
                paths.setdefault(name, {})[path] = mbps
    after = {name: Bandwidth(uplinks.get(name, {}), paths.get(name, {}), sent) for name, sent in sending.items()}
    return {name: before[name] if before.get(name) == one else one for name, one in after.items()}


def _sends(backend: Backend, places: Mapping[str, Datacenter]) -> bool:
    return 0 < backend.request_mbit <= limits.REQUEST_MAX_MBIT and backend.datacenter in places


def _uplinks(sharing: Sharing) -> dict[str, dict[str, float]]:
    """Of each service, by datacenter: the uplink in proportion to what it and the others may place there, in Mbit/s."""
    sums: dict[str, float] = {}
    claimed: list[tuple[str, str, float, float]] = []
    for pair, claim in sharing.claims.items():
        for resource, cost in claim.costs:
            if resource.what == "uplink":
                mbps = cost * sharing.budgets.get(pair, 0.0)
                sums[claim.datacenter] = sums.get(claim.datacenter, 0.0) + mbps
                claimed.append((claim.service, claim.datacenter, mbps, resource.limit))
    parts: dict[str, dict[str, float]] = {}
    for service, datacenter, mbps, limit in claimed:
        if mbps > 0:
            parts.setdefault(service, {})[datacenter] = limit * mbps / sums[datacenter]
    return parts


def _parts(
    path: Path,
    mbps: float,
    sending: Mapping[str, Mapping[str, float]],
    demand: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """A path's Mbit/s by service: none gets less than an equal part unless it needs less; the rest goes in equal parts."""
    locality, datacenter = path
    needs = {
        name: NEED_FACTOR * sent[datacenter] * _sensible_rps(demand.get(name, {}).get(locality, 0.0))
        for name, sent in sending.items()
        if datacenter in sent
    }
    parts: dict[str, float] = {}
    left = mbps
    for count, name in zip(range(len(needs), 0, -1), sorted(needs, key=lambda name: (needs[name], name)), strict=True):
        parts[name] = min(needs[name], left / count)
        left -= parts[name]
    return {name: part + left / len(parts) for name, part in parts.items()}


def _sensible_rps(rps: float) -> float:
    """What is no rate counts as none here: its service is held for it, and the others on the path go on."""
    return rps if 0 <= rps <= limits.RATE_MAX_RPS else 0.0


def lanes_of(service: Service, bandwidth: Bandwidth, row: Mapping[str, int], datacenters: Iterable[str]) -> Lanes:
    """The limited paths as lanes of the program, in rps; `datacenters` in the order of its columns."""
    if not bandwidth.path_mbps:
        return NO_LANES
    column = {name: j for j, name in enumerate(datacenters)}
    timed = bandwidth.matters(service.objective)
    # Edges so that each lane is dearer than the one before by the same factor; without transfer times one lane will do.
    edges = 1 - (1 - LANE_TOP) ** (np.arange(LANES + 1) / LANES) if timed else np.array([0.0, 1.0])
    edges[-1] = 1.0
    rows, columns, rates, prices = [], [], [], []
    for (locality, datacenter), mbps in sorted(bandwidth.path_mbps.items()):
        if locality in row and datacenter in column:
            rows.append(row[locality])
            columns.append(column[datacenter])
            rates.append(mbps / bandwidth.mbit[datacenter])
            prices.append(_price_ms(edges[:-1]) if timed else np.zeros(1))
    if not rows:
        return NO_LANES
    rate, price = np.array(rates)[:, None], np.minimum(np.array(prices), WALL_MS / 2)
    endless = np.full((len(rows), 1), np.inf)
    return Lanes(
        np.array(rows, dtype=np.intp),
        np.array(columns, dtype=np.intp),
        rate * edges[None, :],
        np.concatenate([rate * np.diff(edges)[None, :], endless], axis=1),
        np.concatenate([price, np.full((len(rows), 1), WALL_MS)], axis=1),
    )


def _price_ms(used: Vector) -> Vector:
    """What a slowdown weighs, by the fraction in use."""
    price: Vector = UNIT_MS * (slowdown(used) - 1)
    return price


def slowdown(used: Vector) -> Vector:
    """How many times longer than over an idle stretch a transfer takes; of what is full, fifty times."""
    times: Vector = 1 / np.clip(1 - used, 1 - LANE_TOP, 1.0)
    return times


def curve_of(service: Service, bandwidth: Bandwidth, datacenters: Iterable[str], used_rps: Vector) -> Curve | None:
    """What load costs each datacenter when transfer time counts; None when it does not."""
    if not bandwidth.matters(service.objective):
        return None
    base = curve(service.max_utilization)
    cut = np.where(np.arange(len(base.width)) < GENTLE_SEGMENTS, FINER, 1)
    width, price = np.repeat(base.width / cut, cut), np.repeat(base.price_ms, cut)
    # Of a segment the middle; the last one is the wall, whatever the bandwidth.
    middle = np.concatenate([np.cumsum(width[:-1]) - width[:-1] / 2, [1.0]])
    prices = np.tile(price, (len(used_rps), 1))
    for j, name in enumerate(datacenters):
        mbps = bandwidth.uplink_mbps.get(name, 0.0)
        if mbps > 0:
            used = middle * min(1.0, float(used_rps[j]) * bandwidth.mbit[name] / mbps)
            prices[j] += _price_ms(used)
    return Curve(width, prices)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a request's transfer from one locality to one datacenter meets, by the plan."""

    mbit: float
    uplink_mbps: float  # 0: not limited
    uplink_used_mbps: float
    path_mbps: float  # 0: not limited
    path_used_mbps: float

    @property
    def slowdown(self) -> float:
        """How many times longer it takes than over idle lines, both stretches together."""
        used = np.array([self.uplink_used_mbps, self.path_used_mbps])
        mbps = np.array([self.uplink_mbps, self.path_mbps])
        return 1.0 + float((slowdown(np.divide(used, mbps, out=np.zeros(2), where=mbps > 0)) - 1).sum())

    @property
    def words(self) -> str:
        """Both stretches, for people."""
        parts = [
            f"{what} of {mbps:.4g} Mbit/s {100 * used / mbps:.0f} % used"
            for what, mbps, used in (
                ("uplink", self.uplink_mbps, self.uplink_used_mbps),
                ("path", self.path_mbps, self.path_used_mbps),
            )
            if mbps > 0
        ]
        times = f"{self.mbit:.3g} Mbit take {self.slowdown:.2g} times as long as over an idle line"
        return f"{times} ({', '.join(parts)})" if parts else f"{self.mbit:.3g} Mbit over an unlimited line"


def transfer(bandwidth: Bandwidth, path: Path, path_rps: float, load_rps: float) -> Transfer:
    """`path_rps` of the locality go to the datacenter, `load_rps` altogether."""
    mbit = bandwidth.mbit.get(path[1], 0.0)
    return Transfer(
        mbit,
        bandwidth.uplink_mbps.get(path[1], 0.0),
        mbit * load_rps,
        bandwidth.path_mbps.get(path, 0.0),
        mbit * path_rps,
    )
