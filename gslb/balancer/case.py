"""One service, ready to be solved, and the plan that says what the program answered. PURE."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gslb.balancer.assignment import Assignment, Matrix, floored
from gslb.balancer.bandwidth import NO_BANDWIDTH, Bandwidth, lanes_of
from gslb.balancer.capacity import ServiceCapacity
from gslb.balancer.congestion import overload_factor
from gslb.balancer.coverage import Coverage
from gslb.balancer.inputs import Inputs
from gslb.balancer.lanes import Lanes
from gslb.balancer.network import Network
from gslb.balancer.policy import cost_ms
from gslb.balancer.sharing import Pair
from gslb.balancer.solver import Vector
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.plan import Plan
from gslb.model.resources import Objective, Service

# Load on a datacenter beyond its capacity by less than this is rounding.
FORCED_TOLERANCE: Final = 1e-3
# A path that carries more than it can by less than this is noise.
PATH_TOLERANCE: Final = 0.02
PATH_NOTES_MAX: Final = 5
PATH_OVERLOAD: Final = "path overload"


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What is common to all services in one step. `hold`: why nobody may get a new plan; empty: they may."""

    inputs: Inputs
    network: Network
    coverage: Coverage
    now_s: float
    hold: str = ""
    budgets: Mapping[Pair, float] = field(default_factory=dict)  # what each may place where it shares something
    bandwidths: Mapping[str, Bandwidth] = field(default_factory=dict)  # by service, of those that send something

    def bandwidth_of(self, service: str) -> Bandwidth:
        return self.bandwidths.get(service, NO_BANDWIDTH)

    def published(self, service: str) -> Plan | None:
        """The plan of `service` that is in force."""
        return self.inputs.previous.get(service)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One service, ready to be solved."""

    service: Service
    capacity: ServiceCapacity
    columns: tuple[int, ...]  # of the network, one a datacenter of the service that the network knows
    used_rps: tuple[float, ...]  # capacity to plan with, by column
    demand_rps: Vector
    notes: tuple[str, ...]
    bandwidth: Bandwidth
    lanes: Lanes  # limited paths to `columns`

    def names(self, network: Network) -> list[str]:
        """The datacenters of `columns`."""
        return [network.datacenters[column] for column in self.columns]

    def overload(self) -> float:
        """Demand over capacity, at least 1."""
        return overload_factor(float(floored(self.demand_rps).sum()), math.fsum(self.used_rps))


def case_of(service: Service, capacity: ServiceCapacity, moment: Moment) -> Case:
    """Raises InvalidValueError for demand that is no rate, or if no task is anywhere that is declared."""
    network = moment.network
    known = [
        (network.column[site.datacenter], min(rps, moment.budgets.get((service.name, site.datacenter), rps)))
        for site, rps in zip(capacity.datacenters, capacity.used_rps(), strict=True)
        if site.datacenter in network.column
    ]
    unknown = [site.datacenter for site in capacity.datacenters if site.datacenter not in network.column]
    notes = [f"unknown datacenter: {name} has backends and is not declared" for name in unknown]
    if not any(rps > 0 for _, rps in known):
        raise InvalidValueError(f"service {service.name} has no task in a declared datacenter")
    demand, more = _demand(moment.inputs.demand.get(service.name, {}), network)
    if capacity.panic:
        notes.append(capacity.panic)
    notes += capacity.notes
    bandwidth = moment.bandwidth_of(service.name)
    if service.objective is Objective.THROUGHPUT and not bandwidth.matters(service.objective):
        notes.append("objective throughput: no datacenter of the service has uplink_mbps or links, so distance decides")
    columns = tuple(column for column, _ in known)
    return Case(
        service,
        capacity,
        columns,
        tuple(rps for _, rps in known),
        demand,
        (*notes, *more),
        bandwidth,
        lanes_of(service, bandwidth, network.row, [network.datacenters[column] for column in columns]),
    )


def _demand(demand: Mapping[str, float], network: Network) -> tuple[Vector, tuple[str, ...]]:
    """Demand by row of the network. Raises InvalidValueError for what is no rate."""
    vector = np.zeros(len(network.localities))
    unknown = 0
    for locality, rps in demand.items():
        if not 0 <= rps <= limits.RATE_MAX_RPS:
            raise InvalidValueError(f"demand of locality {locality[: limits.NAME_MAX_CHARS]} is {rps} rps: no rate")
        row = network.row.get(locality)
        if row is None:
            unknown += rps > 0
        else:
            vector[row] = rps
    return vector, (f"unknown localities: demand of {unknown} is not planned for",) if unknown else ()


def cost_of(case: Case, moment: Moment) -> Matrix:
    """(locality, datacenter of the case): milliseconds, with what the policy of the service adds."""
    weight = case.bandwidth.rtt_weight(case.service.objective)
    return cost_ms(case.service, moment.inputs.catalog.datacenters, moment.network, case.columns, weight)


def path_notes(case: Case, assignment: Assignment, network: Network) -> list[str]:
    """Limited paths that carry more than they can, because there is no way round."""
    flows, full = case.lanes.flows(assignment.shares, case.demand_rps), case.lanes.full_rps()
    over = np.flatnonzero(flows > full * (1 + PATH_TOLERANCE)).tolist()
    names = case.names(network)
    return [
        f"{PATH_OVERLOAD}: {network.localities[case.lanes.row[i]]} sends {flows[i]:.4g} rps to"
        f" {names[case.lanes.column[i]]} over a path for {full[i]:.4g} rps"
        for i in over[:PATH_NOTES_MAX]
    ]


def matrix_of(plan: Plan | None, case: Case, network: Network) -> Matrix:
    """The shares of `plan` as (locality, datacenter of the case); what is not a share counts as none."""
    matrix = np.zeros((len(network.localities), len(case.columns)))
    if plan is None:
        return matrix
    position = {network.datacenters[column]: j for j, column in enumerate(case.columns)}
    for locality, shares in plan.shares.items():
        row = network.row.get(locality)
        if row is None:
            continue
        for datacenter, share in shares.items():
            j = position.get(datacenter)
            if j is not None and 0 < share <= 1:
                matrix[row, j] = share
    return matrix


def plan_of(case: Case, assignment: Assignment, moment: Moment) -> Plan:
    """The plan that says what the program answered; its contingencies come after."""
    network = moment.network
    names = case.names(network)
    shares: dict[str, dict[str, float]] = {locality: {} for locality in network.localities}
    rows, columns = np.nonzero(assignment.shares)
    values = assignment.shares[rows, columns].tolist()
    for row, column, value in zip(rows.tolist(), columns.tolist(), values, strict=True):
        shares[network.localities[row]][names[column]] = value
    return Plan(
        case.service.name,
        shares=shares,
        demand_rps=dict(zip(network.localities, case.demand_rps.tolist(), strict=True)),
        capacity_rps={site.datacenter: site.capacity_rps for site in case.capacity.datacenters},
        load_rps=dict(zip(names, assignment.load_rps.tolist(), strict=True)),
        computed_at_s=moment.now_s,
        notes=notes_of(case, assignment.overload),
    )


def notes_of(case: Case, overload: float) -> tuple[str, ...]:
    """What a plan for this case has to say."""
    if overload <= 1 + FORCED_TOLERANCE:
        return case.notes
    demand, capacity = math.fsum(case.demand_rps), math.fsum(case.used_rps)
    return (
        *case.notes,
        f"overload: demand {demand:.6g} rps is {100 * demand / capacity:.0f} % of the capacity of {capacity:.6g} rps",
    )


def kinds(notes: tuple[str, ...]) -> frozenset[str]:
    """Notes without their numbers."""
    return frozenset(note.partition(":")[0] for note in notes)


def differs(plan: Plan, published: Plan | None) -> bool:
    """Whether a share is off by more than a basis point, a locality came or went, or the notes say other things."""
    if (
        published is None
        or plan.shares.keys() != published.shares.keys()
        or kinds(plan.notes) != kinds(published.notes)
    ):
        return True
    if plan.capacity_rps.keys() != published.capacity_rps.keys() or plan.contingencies != published.contingencies:
        return True
    for locality, shares in plan.shares.items():
        old = published.shares[locality]
        if shares.keys() != old.keys() or any(
            abs(share - old[datacenter]) > limits.PUBLISH_SHARE_CHANGE for datacenter, share in shares.items()
        ):
            return True
    return False
