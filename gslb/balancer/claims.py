"""Which services share something where, with what they need of it: the input of `gslb.balancer.sharing`. PURE."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gslb.balancer.capacity import ServiceCapacity, capacity_of
from gslb.balancer.coverage import Coverage
from gslb.balancer.inputs import Inputs
from gslb.balancer.network import Network
from gslb.balancer.sharing import NOTHING_SHARED, Claim, Sharing, costs_of, split
from gslb.balancer.state import BalancerState, ServiceDecision, ServiceMemory
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.resources import Service

# A budget below what the tasks could serve by more than this is a limit.
SHORT_FRACTION: Final = 0.01


def share(
    before: Sharing,
    inputs: Inputs,
    network: Network,
    coverage: Coverage,
    memories: Mapping[str, ServiceMemory],
    *,
    now_s: float,
) -> Sharing:
    """The budgets of this step. Never raises on the values of the inputs: a service that makes no sense has no claim."""
    if not any(place.cpu_cores > 0 or place.uplink_mbps > 0 for place in inputs.catalog.datacenters.values()):
        return NOTHING_SHARED
    claims: list[Claim] = []
    demand: dict[str, float] = {}
    for name, service in sorted(inputs.catalog.services.items()):
        if not _shares(service, inputs):
            continue
        try:
            capacity = _capacity(service, inputs, coverage, memories.get(name))
        except (InvalidValueError, ArithmeticError, ValueError):
            continue
        near = _near_rps(service, capacity, inputs, network)
        demand[name] = math.fsum(near.values())
        claims += _claims(service, capacity, near, inputs)
    return split(before, claims, demand, now_s)


@dataclass(frozen=True, slots=True)
class Room:
    """What one service can place within what it shares, all datacenters together. `short`: what limits it, and where."""

    rps: float
    short: tuple[str, ...]


def usable(state: BalancerState, inputs: Inputs, *, now_s: float) -> dict[str, Room]:
    """The room of every service that shares something, once the budgets have got where they are going to."""
    sharing = share(NOTHING_SHARED, inputs, state.network, state.coverage, state.services, now_s=now_s)
    rooms: dict[str, float] = {}
    short: dict[str, dict[str, None]] = {}
    for (service, _), claim in sharing.claims.items():
        budget = min(sharing.budgets.get(claim.pair, claim.own_rps), claim.own_rps)
        rooms[service] = rooms.get(service, 0.0) + budget
        if budget < claim.own_rps * (1 - SHORT_FRACTION):
            names = {f"{what.what} of {what.datacenter}": None for what, _ in claim.costs}
            short.setdefault(service, {}).update(names)
    return {service: Room(rps, tuple(short.get(service, {}))) for service, rps in rooms.items()}


def _shares(service: Service, inputs: Inputs) -> bool:
    places = inputs.catalog.datacenters
    return any(
        backend.datacenter in places and costs_of(places[backend.datacenter], backend) for backend in service.backends
    )


def _capacity(service: Service, inputs: Inputs, coverage: Coverage, memory: ServiceMemory | None) -> ServiceCapacity:
    """What its own tasks can serve, as it will be planned with."""
    tasks = inputs.tasks.get(service.name, ())
    if memory is not None and inputs.changed is not None and service.name not in inputs.changed:
        tasks = memory.tasks
    if memory is None:
        return capacity_of(service, tasks, coverage)
    needed_rps = math.fsum(inputs.demand.get(service.name, {}).values()) / service.max_utilization
    return capacity_of(service, tasks, coverage, memory.learning, needed_rps, memory.flaps)


def _claims(service: Service, capacity: ServiceCapacity, near: Mapping[str, float], inputs: Inputs) -> list[Claim]:
    places = inputs.catalog.datacenters
    backends = {backend.datacenter: backend for backend in service.backends}
    return [
        Claim(
            service.name,
            site.datacenter,
            own_rps,
            near.get(site.datacenter, 0.0),
            backends[site.datacenter].guaranteed_rps,
            costs_of(places[site.datacenter], backends[site.datacenter]),
        )
        for site, own_rps in zip(capacity.datacenters, capacity.used_rps(), strict=True)
        if site.datacenter in places
    ]


def _near_rps(service: Service, capacity: ServiceCapacity, inputs: Inputs, network: Network) -> dict[str, float]:
    """Demand by the nearest datacenter that has capacity for it."""
    names = [
        site.datacenter
        for site, rps in zip(capacity.datacenters, capacity.used_rps(), strict=True)
        if rps > 0 and site.datacenter in network.column
    ]
    if not names:
        return {}
    nearest = network.rtt_ms[:, [network.column[name] for name in names]].argmin(axis=1)
    near = dict.fromkeys(names, 0.0)
    for locality, rps in inputs.demand.get(service.name, {}).items():
        row = network.row.get(locality)
        if row is not None and 0 <= rps <= limits.RATE_MAX_RPS:
            near[names[int(nearest[row])]] += rps
    return near


def loads_of(decisions: Mapping[str, ServiceDecision]) -> dict[tuple[str, str], float]:
    """What the plans place, by service and datacenter."""
    return {
        (name, datacenter): rps
        for name, decision in decisions.items()
        if decision.plan is not None
        for datacenter, rps in decision.plan.load_rps.items()
    }
