"""Why a locality's requests of a service go where they go. PURE."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gslb.balancer.backing import backing_notes
from gslb.balancer.bandwidth import Bandwidth, Transfer, transfer
from gslb.balancer.binding import Binding, Hold, Place, bindings, full_prices_ms
from gslb.balancer.capacity import DatacenterCapacity
from gslb.balancer.contingency import peak_after
from gslb.balancer.following import moved_by
from gslb.balancer.inputs import Inputs
from gslb.balancer.policy import cost_ms
from gslb.balancer.quiet import stickiness_ms
from gslb.balancer.state import BalancerState, ServiceMemory
from gslb.model.errors import NotFoundError
from gslb.model.plan import ZERO_STAMP, Plan, Shares, Stamp
from gslb.model.resources import Policy, Service

# Load within this fraction of a threshold has reached it.
FULL_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Candidate:
    """One datacenter of the service, as seen from the locality."""

    datacenter: str
    rtt_ms: float
    capacity_rps: float
    load_rps: float
    healthy_tasks: int
    tasks: int
    drain: str  # name of a drain that applies; empty: none
    share: float
    reason: str
    if_lost: (
        Shares  # where the locality's part would go if this datacenter were lost; empty: it has none, or nobody is left
    )
    fullest_if_lost: str = ""  # the survivor that would be fullest then; empty: none
    fullest_utilization: float = 0.0
    binds: Binding | None = None  # what keeps some of the locality's requests from here; None: nothing does


@dataclass(frozen=True, slots=True)
class Explanation:
    """Candidates in the order of the service's policy: by default nearest first; by transfer time if that is its wish."""

    service: str
    locality: str
    demand_rps: float
    stamp: Stamp
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Site:
    """What a reason is made from."""

    capacity: DatacenterCapacity
    rtt_ms: float
    load_rps: float
    share: float
    max_utilization: float
    cost_ms: float
    policy: Policy
    transfer: Transfer | None = None  # when transfer times are planned by

    @property
    def utilization(self) -> float:
        return self.load_rps / self.capacity.capacity_rps if self.capacity.capacity_rps > 0 else 0.0

    @property
    def full(self) -> bool:
        return self.utilization >= self.max_utilization - FULL_TOLERANCE

    @property
    def out(self) -> str:
        """Why it can take nothing; empty: it can."""
        here = self.capacity
        if here.withdrawn:
            return here.withdrawn
        if not here.tasks:
            return "no task is registered here"
        if here.capacity_rps > 0:
            return ""
        if here.drained:
            return f"drained by {', '.join(here.drains)}" if here.drains else "its tasks are drained"
        if here.held:
            return f"hold-down: its {here.held} healthy tasks fell ill too often lately"
        return f"no healthy task (0 of {here.tasks})"


def explain(state: BalancerState, inputs: Inputs, service: str, locality: str, *, now_s: float) -> Explanation:
    """Explains the published plan, or the computed one before the first is published. Raises NotFoundError."""
    declared = inputs.catalog.services.get(service)
    memory = state.services.get(service)
    if declared is None or memory is None:
        raise NotFoundError(f"there is no service {service!r}: `gslb get services` lists them")
    network = state.network
    row = network.row.get(locality)
    if row is None:
        raise NotFoundError(
            f"there is no datacenter or client area {locality!r}: see `gslb get datacenters` and `gslb get areas`"
        )
    plan = inputs.previous.get(service) or memory.decision.plan
    shares = plan.shares.get(locality, {}) if plan else {}
    loads = load_of(plan, inputs.demand.get(service, {})) if plan else {}
    bandwidth = memory.bandwidth
    weight = bandwidth.rtt_weight(declared.objective)
    costs = cost_ms(declared, inputs.catalog.datacenters, network, range(len(network.datacenters)), weight)
    demand = inputs.demand.get(service, {}).get(locality, 0.0)
    sites = sorted(
        (
            _Site(
                here,
                float(network.rtt_ms[row, network.column[here.datacenter]]),
                loads.get(here.datacenter, 0.0),
                shares.get(here.datacenter, 0.0),
                declared.max_utilization,
                float(costs[row, network.column[here.datacenter]]),
                declared.policy,
                _transfer(declared, bandwidth, (locality, here.datacenter), shares, loads, demand),
            )
            for here in memory.decision.capacity.datacenters
            if here.datacenter in network.column
        ),
        key=lambda site: (
            site.transfer.slowdown if site.transfer else 0.0,
            site.cost_ms,
            site.capacity.datacenter,
        ),
    )
    since_s = memory.solved.stickiness_since_s if memory.solved else now_s
    sticky_ms = stickiness_ms(since_s, now_s)
    binding = bindings(
        _places(memory, sites, locality), Hold(sticky_ms, bool(memory.solved and memory.solved.held.ramping))
    )
    candidates = tuple(
        Candidate(
            site.capacity.datacenter,
            site.rtt_ms,
            site.capacity.capacity_rps,
            site.load_rps,
            site.capacity.healthy,
            site.capacity.tasks,
            ", ".join(site.capacity.drains),
            site.share,
            _reason(site, sites[:i], panic=memory.decision.capacity.panic, sticky_ms=sticky_ms),
            *_if_lost(
                plan,
                locality,
                site.capacity.datacenter,
                moved_by(memory.moves, site.capacity.datacenter, memory.network),
            ),
            binding.get(site.capacity.datacenter),
        )
        for i, site in enumerate(sites)
    )
    stamp = plan.stamp if plan else ZERO_STAMP
    notes = (*memory.decision.notes, *backing_notes(memory, network))
    return Explanation(service, locality, demand, stamp, candidates, notes)


def _places(memory: ServiceMemory, sites: Sequence[_Site], locality: str) -> list[Place]:
    """The candidates as `gslb.balancer.binding` looks at them."""
    prices = full_prices_ms(memory, sorted(site.capacity.datacenter for site in sites))
    places = []
    for site in sites:
        name = site.capacity.datacenter
        budget = memory.budgets.get((memory.service.name, name), math.inf)
        places.append(
            Place(
                name,
                site.cost_ms,
                site.share,
                bool(site.out),
                *prices.get(name, (0.0, 0.0)),
                shared=budget < site.capacity.capacity_rps * (1 - FULL_TOLERANCE),
                path=(locality, name) in memory.bandwidth.path_mbps,
            )
        )
    return places


def _transfer(
    service: Service,
    bandwidth: Bandwidth,
    path: tuple[str, str],
    shares: Shares,
    loads: Mapping[str, float],
    demand_rps: float,
) -> Transfer | None:
    """The transfer from the locality to the datacenter, as planned; None when latency is what counts."""
    if not bandwidth.matters(service.objective):
        return None
    return transfer(bandwidth, path, demand_rps * shares.get(path[1], 0.0), loads.get(path[1], 0.0))


def _if_lost(
    plan: Plan | None, locality: str, datacenter: str, moves: Mapping[str, float]
) -> tuple[Shares, str, float]:
    """What the contingency says: the heirs of the locality's part, the fullest survivor and its utilization.

    `moves`: what callers that move then add to the demand of localities, or take.
    """
    heirs = plan.contingencies.get(datacenter, {}).get(locality, {}) if plan else {}
    return (heirs, *peak_after(plan, datacenter, moves)) if plan and heirs else ({}, "", 0.0)


def load_of(plan: Plan, demand: Mapping[str, float]) -> dict[str, float]:
    """What `plan` sends to each datacenter when demand is `demand` (rps by locality)."""
    loads: dict[str, float] = {}
    for locality, rps in demand.items():
        for datacenter, share in plan.shares.get(locality, {}).items():
            loads[datacenter] = loads.get(datacenter, 0.0) + share * rps
    return loads


def _reason(site: _Site, nearer: Sequence[_Site], *, panic: str, sticky_ms: float) -> str:
    """Why `site` has its share, or none; `nearer` are the candidates before it, nearest first."""
    reason = _reason_of_share(site, nearer, panic=panic, sticky_ms=sticky_ms)
    left, held = site.capacity.easing, site.capacity.held
    if held and not site.out:
        reason = f"{reason}; {held} of {site.capacity.healthy} healthy tasks are in hold-down: they fell ill too often"
    return f"{reason}; a drain under way has left {left:.0%} of it" if left < 1 and not site.out else reason


def _reason_of_share(site: _Site, nearer: Sequence[_Site], *, panic: str, sticky_ms: float) -> str:
    if site.out:
        return f"{site.out}; serves because of {panic}" if site.share > 0 else site.out
    if site.transfer:
        return _reason_by_transfer(site, site.transfer, nearer)
    if site.share == 0:
        return _reason_for_none(site, nearer)
    percent = f"{100 * site.utilization:.0f} % used"
    lacking = [
        f"{other.capacity.datacenter}: {other.out or _fullness(other)}" for other in nearer if other.out or other.full
    ]
    if site.policy is not Policy.NEAREST:
        return _reason_by_policy(site, percent, lacking, nearer)
    if len(lacking) < len(nearer):
        kept = [other.capacity.datacenter for other in nearer if not other.out and not other.full]
        return f"stays for now ({percent}): {kept[0]} is nearer and has room; stickiness {sticky_ms:.3g} ms is decaying"
    if not nearer:
        return f"nearest, full ({percent}): the rest spills over" if site.full else f"nearest ({percent})"
    return f"next nearest with room ({percent}); before it {'; '.join(lacking)}"


def _reason_by_transfer(site: _Site, transfer: Transfer, quicker: Sequence[_Site]) -> str:
    """Objective throughput: what a request takes to send, and beside whom."""
    here = f"objective throughput: {transfer.words}"
    if site.share > 0:
        return here
    taker = next((other for other in quicker if other.share > 0 and other.transfer), None)
    if taker is None or taker.transfer is None:
        return f"no share, held or returning; {here}"
    return f"not needed: {taker.capacity.datacenter} is {_better(taker, site)} and takes it; {here}"


def _better(taker: _Site, site: _Site) -> str:
    """What a taker has over another place that has none of it."""
    if taker.rtt_ms <= site.rtt_ms:
        return f"{site.rtt_ms - taker.rtt_ms:.3g} ms nearer"
    return "less slowed down"


def _reason_by_policy(site: _Site, percent: str, lacking: Sequence[str], before: Sequence[_Site]) -> str:
    policy = f"policy {site.policy.value}"
    if site.policy is Policy.SPRAY_TO_REGION:
        return f"its part by capacity, {policy} ({percent})"
    if not before:
        return f"first choice of {policy} ({percent})"
    return (
        f"next choice of {policy} ({percent}); before it {'; '.join(lacking) or 'others have room and it is returning'}"
    )


def _reason_for_none(site: _Site, nearer: Sequence[_Site]) -> str:
    if any(other.share > 0 for other in nearer):
        taker = next(other for other in nearer if other.share > 0)
        if site.policy is not Policy.NEAREST:
            return f"not needed: {taker.capacity.datacenter} comes before it by policy {site.policy.value} and takes it"
        return f"not needed: {taker.capacity.datacenter} is {site.rtt_ms - taker.rtt_ms:.3g} ms nearer and takes it"
    return (
        f"{_fullness(site)} by demand that has farther to go elsewhere" if site.full else "no share: held or returning"
    )


def _fullness(site: _Site) -> str:
    return f"full ({100 * site.utilization:.0f} % used)"
