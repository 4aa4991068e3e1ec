"""The step of one service: is there anything new, and if so, what is its plan now. PURE."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from gslb.balancer import contingency, outstanding
from gslb.balancer.assignment import Assignment, Matrix, Problem, assign, floored
from gslb.balancer.bandwidth import NO_BANDWIDTH, Bandwidth, curve_of, lanes_of
from gslb.balancer.capacity import ServiceCapacity, capacity_of
from gslb.balancer.congestion import overload_factor
from gslb.balancer.coverage import Coverage
from gslb.balancer.damping import (
    Held,
    Move,
    Placement,
    growth_rps,
    plannable_rps,
    pressed,
    ramp,
    ramp_note,
    signature,
    within_band,
)
from gslb.balancer.flaps import follow
from gslb.balancer.inputs import Inputs, TaskState
from gslb.balancer.lanes import Lanes
from gslb.balancer.learning import learn
from gslb.balancer.network import Network
from gslb.balancer.outstanding import Outstanding, answered, by_dns, committed, learned, mended
from gslb.balancer.policy import cost_ms, spread
from gslb.balancer.safety import RemovalBudget, auto_drained, plan_violations
from gslb.balancer.sharing import Pair
from gslb.balancer.solver import SolverError, Vector
from gslb.balancer.state import ServiceDecision, ServiceMemory, Solved
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.plan import Plan
from gslb.model.resources import DemandSource, Objective, Service

# Stickiness below this is none; it gets there in ten minutes.
STICKINESS_MIN_MS: Final = 0.02
# A move that stickiness forbade is tried again when stickiness is down to this fraction of what it would win.
GAIN_FRACTION: Final = 0.7
# So much before that moment the service is looked at more closely.
QUIET_MARGIN_S: Final = 0.01
# Load on a datacenter beyond its capacity by less than this is rounding.
FORCED_TOLERANCE: Final = 1e-3
# A path that carries more than it can by less than this is noise.
PATH_TOLERANCE: Final = 0.02
PATH_NOTES_MAX: Final = 5
# Late resolvers never leave less than this part of a capacity to answers.
COMMITTED_ROOM_MIN: Final = 0.01
PATH_OVERLOAD: Final = "path overload"
FAULTS = (InvalidValueError, SolverError, ArithmeticError, ValueError, LookupError, TypeError)


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


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """One service, ready to be solved."""

    service: Service
    capacity: ServiceCapacity
    columns: tuple[int, ...]  # of the network, one a datacenter of the service that the network knows
    used_rps: tuple[float, ...]  # capacity to plan with, by column
    demand_rps: Vector
    notes: tuple[str, ...]
    bandwidth: Bandwidth
    lanes: Lanes  # limited paths to `columns`


def advance(
    memory: ServiceMemory | None, service: Service, moment: Moment, moves: Matrix | None = None
) -> ServiceMemory:
    """The service's memory after this step, with its decision. Never raises on the values of the inputs.

    `moves`: what losses move of its demand (`gslb.balancer.following`); the same object as long as it is the same.
    """
    if memory is not None and memory.moves is moves and _rests(memory, service, moment):
        return memory
    after = _advanced(memory, service, moment, moves)
    return after if after is memory else replace(after, quiet_until_s=_quiet_until_s(after))


def _rests(memory: ServiceMemory, service: Service, moment: Moment) -> bool:
    """Whether nothing is another object than in the last step; of 1,000 services 999 rest most of the time."""
    inputs, name = moment.inputs, service.meta.name
    return (
        moment.now_s < memory.quiet_until_s
        and memory.service is service
        and memory.compared is inputs.previous.get(name)
        and memory.demand_seen is inputs.demand.get(name)
        and (memory.tasks is inputs.tasks.get(name, ()) or (inputs.changed is not None and name not in inputs.changed))
        and memory.network is moment.network
        and memory.coverage is moment.coverage
        and memory.budgets is moment.budgets
        and memory.bandwidth is moment.bandwidths.get(name, NO_BANDWIDTH)
        and not moment.hold
    )


def _quiet_until_s(memory: ServiceMemory) -> float:
    """Before then time alone changes nothing; a little early."""
    solved, decision = memory.solved, memory.decision
    if solved is None or decision.held or decision.recomputed or solved.held.ramping:
        return -math.inf
    if solved.gain_ms <= STICKINESS_MIN_MS:
        return memory.flaps.due_s
    due_ms = max(GAIN_FRACTION * solved.gain_ms, STICKINESS_MIN_MS)
    half_lives = max(0.0, math.log2(limits.STICKINESS_MS / due_ms))
    due_s = solved.stickiness_since_s + half_lives * limits.STICKINESS_HALF_LIFE_S - QUIET_MARGIN_S
    return min(memory.flaps.due_s, due_s)


def _advanced(memory: ServiceMemory | None, service: Service, moment: Moment, moves: Matrix | None) -> ServiceMemory:
    name = service.name
    inputs = moment.inputs
    tasks = inputs.tasks.get(name, ())
    if memory is not None and inputs.changed is not None and name not in inputs.changed:
        tasks = memory.tasks
    if memory is None:
        memory = ServiceMemory(service)
    elif memory.moves is moves and _untouched(memory, service, tasks, moment):
        return _again(memory, moment)
    following = replace(memory, moves=moves)
    try:
        return _renewed(following, service, tasks, moment, moved=memory.moves is not moves)
    except FAULTS as fault:
        base = replace(following, service=service, tasks=tasks, network=moment.network, coverage=moment.coverage)
        return _holding(base, str(fault), moment)


def stickiness_ms(since_s: float, now_s: float) -> float:
    """mu: full when a move was forced, half each half-life, nothing in the end."""
    mu = limits.STICKINESS_MS * 0.5 ** (max(0.0, now_s - since_s) / limits.STICKINESS_HALF_LIFE_S)
    return mu if mu >= STICKINESS_MIN_MS else 0.0


def _untouched(memory: ServiceMemory, service: Service, tasks: tuple[TaskState, ...], moment: Moment) -> bool:
    """Whether nothing that this service's plan depends on is another object than in the last step."""
    return (
        memory.service is service
        and memory.tasks is tasks
        and memory.network is moment.network
        and memory.coverage is moment.coverage
        and memory.budgets is moment.budgets
        and memory.bandwidth is moment.bandwidth_of(service.name)
        and memory.demand_seen is moment.inputs.demand.get(service.name)
        and not memory.decision.held
        and not moment.hold
        and memory.solved is not None
        and not memory.solved.held.ramping
        and moment.now_s < memory.flaps.due_s
        and not _gain_is_due(memory.solved, moment.now_s)
    )


def _gain_is_due(solved: Solved, now_s: float) -> bool:
    """Whether stickiness forbade a move that would pay now, or would never decay, for the clock was put back."""
    since_s = solved.stickiness_since_s
    return solved.gain_ms > STICKINESS_MIN_MS and (
        since_s > now_s or stickiness_ms(since_s, now_s) <= GAIN_FRACTION * solved.gain_ms
    )


def _again(memory: ServiceMemory, moment: Moment) -> ServiceMemory:
    """The same plan as in the last step, compared with what is published now."""
    published = moment.inputs.previous.get(memory.service.name)
    decision = memory.decision
    if published is memory.compared and not decision.recomputed:
        return memory
    changed = decision.plan is not None and differs(decision.plan, published)
    return replace(memory, compared=published, decision=replace(decision, changed=changed, recomputed=False))


def _renewed(
    memory: ServiceMemory, service: Service, tasks: tuple[TaskState, ...], moment: Moment, *, moved: bool
) -> ServiceMemory:
    """Looks at everything again, and solves if something moved. Raises one of FAULTS.

    `moved`: losses would move its demand otherwise than its contingencies were made for.
    """
    budget, lost = _judge_tasks(memory, service, tasks, moment.now_s)
    flaps = follow(memory.flaps, memory.tasks, tasks, moment.now_s)
    base = replace(
        memory,
        service=service,
        tasks=tasks,
        network=moment.network,
        coverage=moment.coverage,
        budgets=moment.budgets,
        bandwidth=moment.bandwidth_of(service.name),
        budget=budget,
        demand_seen=moment.inputs.demand.get(service.name),
        flaps=flaps,
    )
    published = moment.inputs.previous.get(service.name)
    learning = learn(memory.learning, service, tasks, moment.now_s, published.capacity_rps if published else {})
    needed_rps = math.fsum(moment.inputs.demand.get(service.name, {}).values()) / service.max_utilization
    capacity = capacity_of(service, tasks, moment.coverage, learning, needed_rps, flaps)
    capacity = auto_drained(capacity, memory.decision.capacity, needed_rps * service.max_utilization)
    base = replace(base, learning=learning, decision=replace(memory.decision, capacity=capacity))
    if moment.hold or lost:
        return _holding(base, moment.hold or lost, moment)
    if not capacity.tasks:
        return _holding(base, f"no task of service {service.name} is registered", moment)
    case = _case(service, capacity, moment)
    solved = memory.solved
    if by_dns(service):
        case, out = _seen_through_dns(base, case, moment, fresh=tasks is not memory.tasks)
        base = replace(base, outstanding=out)
        if _answers_wait(memory, case, moment):
            return _unmoved(base, case, moment, moved=moved)
    if solved is not None and _as_planned(solved, case):
        # Never more than there is now: a budget that shrank is somebody else's.
        least = tuple(map(min, solved.used_rps, case.used_rps))
        case = replace(case, demand_rps=solved.demand_rps, used_rps=least)
        if _same(memory, solved, case, moment):
            return _unmoved(base, case, moment, moved=moved)
    return _solved(base, case, moment)


def _unmoved(base: ServiceMemory, case: _Case, moment: Moment, *, moved: bool) -> ServiceMemory:
    """The plan stays; of its contingencies those that other moves of demand have made bad are made anew."""
    plan, solved = base.decision.plan, base.solved
    if moved and plan is not None and solved is not None:
        shares = solved.held.placement.matrix(len(case.demand_rps))
        plan = replace(plan, contingencies=contingency.solve(_placed(base, case, shares, moment), plan))
    decision = replace(base.decision, plan=plan, recomputed=False)
    return _again(replace(base, decision=decision, compared=None), moment)


def _placed(base: ServiceMemory, case: _Case, shares: Matrix, moment: Moment) -> contingency.Placed:
    """The service as its plan places it, for its contingencies."""
    network, moves = moment.network, None
    if base.moves is not None:
        moves = np.zeros((len(case.columns), len(network.localities)))
        moves[:, [network.row[name] for name in network.datacenters]] = base.moves[list(case.columns)]
    return contingency.Placed(
        network.localities,
        _names(case, network),
        case.demand_rps,
        shares,
        _cost(case, moment),
        np.array(case.used_rps),
        case.service.max_utilization,
        moves,
    )


def _seen_through_dns(
    memory: ServiceMemory, case: _Case, moment: Moment, *, fresh: bool
) -> tuple[_Case, Outstanding | None]:
    """The case with demand mended for what nobody counts, and the answers outstanding with what load says of them."""
    out, ttl_s, now_s = memory.outstanding, float(case.service.ttl_s), moment.now_s
    if out is None or memory.solved is None or not out.fits(case.columns, len(case.demand_rps)):
        return case, out
    out = outstanding.not_ahead(out, now_s)
    sites = {site.datacenter: site for site in case.capacity.datacenters}
    here = [sites[name] for name in _names(case, moment.network)]
    dead = np.array([site.capacity_rps <= 0 and not site.drained for site in here])
    if dead.any():
        # DNS queries are counted by the frontends, whoever is dead.
        if case.service.source is DemandSource.EDGE and len(memory.solved.demand_rps) == len(case.demand_rps):
            demand = mended(out, case.demand_rps, memory.solved.demand_rps, dead, ttl_s, now_s)
            case = replace(case, demand_rps=demand)
    elif fresh:
        out = learned(
            out, case.demand_rps, _reported_rps(memory.tasks, [site.datacenter for site in here]), ttl_s, now_s
        )
    return case, out


def _reported_rps(tasks: tuple[TaskState, ...], datacenters: list[str]) -> Vector:
    """The load that agents report, by datacenter; NaN: not all of it."""
    seen = dict.fromkeys(datacenters, 0.0)
    for task in tasks:
        fresh = task.report_age_s <= limits.REPORT_STALE_PERIODS * limits.LOAD_REPORT_PERIOD_MAX_S
        if task.datacenter in seen:
            seen[task.datacenter] += task.ok_rps + task.error_rps if fresh else math.nan
    return np.array([seen[name] for name in datacenters])


def _answers_wait(memory: ServiceMemory, case: _Case, moment: Moment) -> bool:
    """Whether the answers of a service that DNS steers stay as they are, because they changed less than a TTL ago."""
    out, solved = memory.outstanding, memory.solved
    if out is None or solved is None or memory.decision.plan is None or memory.decision.held:
        return False
    if moment.now_s - out.since_s >= case.service.ttl_s or not out.fits(case.columns, len(case.demand_rps)):
        return False
    if memory.network is not moment.network or memory.service != case.service:
        return False
    return not pressed(solved.held, case.demand_rps, np.array(case.used_rps), signature(case.capacity), _overload(case))


def _judge_tasks(
    memory: ServiceMemory, service: Service, tasks: tuple[TaskState, ...], now_s: float
) -> tuple[RemovalBudget, str]:
    """Registered tasks may not vanish faster than the budget; those of backends taken away do not count."""
    jobs = {backend.job for backend in service.backends}
    budget = memory.budget
    if jobs != {backend.job for backend in memory.service.backends}:
        budget = RemovalBudget()
    present = frozenset(task.name for task in tasks if task.job in jobs)
    return budget.judge(present, f"registered tasks of service {service.name}", now_s=now_s)


def _case(service: Service, capacity: ServiceCapacity, moment: Moment) -> _Case:
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
    return _Case(
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


def _as_planned(solved: Solved, case: _Case) -> bool:
    """Whether demand and capacity are still those of the last program."""
    if len(solved.used_rps) != len(case.used_rps) or len(solved.demand_rps) != len(case.demand_rps):
        return False
    if case.lanes.any and _paths_outgrown(solved, case):
        return False
    used = np.array(case.used_rps)
    return within_band(solved.held, case.demand_rps, used, signature(case.capacity), _overload(case))


def _paths_outgrown(solved: Solved, case: _Case) -> bool:
    """Whether a limited path would carry more than it can, and more than it was planned with."""
    shares = solved.held.placement.matrix(len(case.demand_rps))
    planned = np.maximum(case.lanes.flows(shares, solved.demand_rps), case.lanes.full_rps())
    return bool((case.lanes.flows(shares, case.demand_rps) > planned * (1 + PATH_TOLERANCE)).any())


def _same(memory: ServiceMemory, solved: Solved, case: _Case, moment: Moment) -> bool:
    """Whether the last program, whose demand and capacity the case has, would be solved again."""
    if memory.decision.held or memory.network is not moment.network or memory.service != case.service:
        return False
    if solved.held.ramping or _gain_is_due(solved, moment.now_s) or memory.decision.plan is None:
        return False
    # What a path carries was looked at before (`_paths_outgrown`).
    return _kinds(memory.decision.plan.notes) - {PATH_OVERLOAD} == _kinds(_notes(case, solved.overload))


def _overload(case: _Case) -> float:
    return overload_factor(float(floored(case.demand_rps).sum()), math.fsum(case.used_rps))


def _solved(base: ServiceMemory, case: _Case, moment: Moment) -> ServiceMemory:
    """Solves the program and judges its plan. Raises SolverError."""
    published = moment.inputs.previous.get(case.service.name)
    previous = _matrix(published or base.decision.plan, case, moment.network)
    since_s = _stickiness_since(base.solved, case, previous, moment.now_s)
    network = moment.network
    cost = _cost(case, moment)
    out = _outstanding(base, case, previous, moment) if by_dns(case.service) else None
    assignment = _assigned(case, cost, previous, stickiness_ms(since_s, moment.now_s), out, moment)
    names = _names(case, network)
    wanted = _sprayed(assignment, case, moment, names)
    assignment, held = _damped(base, case, previous, wanted, moment.now_s)
    if held.ramping:
        case = replace(case, notes=(*case.notes, ramp_note(names, wanted.load_rps, assignment.load_rps)))
    case = replace(case, notes=(*case.notes, *_path_notes(case, assignment, network)))
    placed = _placed(base, case, assignment.shares, moment)
    plan = replace(_plan(case, assignment, moment), contingencies=contingency.solve(placed, published))
    violations = plan_violations(plan, network.localities, names)
    if violations:
        return _holding(base, "; ".join(violations), moment)
    decision = ServiceDecision(plan, differs(plan, published), True, plan.notes, "", case.capacity, assignment.overload)
    solved = Solved(case.used_rps, case.demand_rps, since_s, assignment.gain_ms, assignment.overload, held)
    if by_dns(case.service):
        out = answered(out, case.columns, assignment.shares, float(case.service.ttl_s), moment.now_s)
    return replace(base, solved=solved, outstanding=out, compared=published, decision=decision)


def _outstanding(base: ServiceMemory, case: _Case, previous: Matrix, moment: Moment) -> Outstanding | None:
    """The answers so far; of a service without a memory those of the published plan."""
    known = base.outstanding
    if known is not None and known.fits(case.columns, len(previous)):
        return known
    if bool((np.abs(previous.sum(axis=1) - 1) > limits.SHARE_SUM_TOLERANCE).any()):
        return known
    return answered(known, case.columns, previous, float(case.service.ttl_s), moment.now_s)


def _assigned(
    case: _Case, cost: Matrix, previous: Matrix, mu_ms: float, out: Outstanding | None, moment: Moment
) -> Assignment:
    """The program's answer. What late resolvers keep where it is takes up capacity there and is not to be placed."""
    used, demand = np.array(case.used_rps), case.demand_rps
    plannable = plannable_rps(used, float(demand.sum()))
    free = demand
    if out is not None and out.fits(case.columns, len(demand)):
        kept = committed(out, used > 0, float(case.service.ttl_s), moment.now_s)
        free = demand * (1 - kept.sum(axis=1))
        plannable = np.maximum(plannable - np.einsum("l,ld->d", demand, kept), COMMITTED_ROOM_MIN * plannable)
    names = _names(case, moment.network)
    curve = curve_of(case.service, case.bandwidth, names, used)
    problem = Problem(free, cost, plannable, case.service.max_utilization, previous, mu_ms, curve, case.lanes)
    assignment = assign(problem)
    if free is demand:
        return assignment
    load = np.einsum("l,ld->d", demand, assignment.shares)
    return replace(assignment, load_rps=load, overload=_overload(case))


def _names(case: _Case, network: Network) -> list[str]:
    return [network.datacenters[column] for column in case.columns]


def _cost(case: _Case, moment: Moment) -> Matrix:
    weight = case.bandwidth.rtt_weight(case.service.objective)
    return cost_ms(case.service, moment.inputs.catalog.datacenters, moment.network, case.columns, weight)


def _path_notes(case: _Case, assignment: Assignment, network: Network) -> list[str]:
    """Limited paths that carry more than they can, because there is no way round."""
    flows, full = case.lanes.flows(assignment.shares, case.demand_rps), case.lanes.full_rps()
    over = np.flatnonzero(flows > full * (1 + PATH_TOLERANCE)).tolist()
    names = _names(case, network)
    return [
        f"{PATH_OVERLOAD}: {network.localities[case.lanes.row[i]]} sends {flows[i]:.4g} rps to"
        f" {names[case.lanes.column[i]]} over a path for {full[i]:.4g} rps"
        for i in over[:PATH_NOTES_MAX]
    ]


def _sprayed(assignment: Assignment, case: _Case, moment: Moment, names: list[str]) -> Assignment:
    places = moment.inputs.catalog.datacenters
    shares = spread(case.service, assignment.shares, np.array(case.used_rps), places, names)
    if shares is assignment.shares:
        return assignment
    return replace(assignment, shares=shares, load_rps=case.demand_rps @ shares)


def _damped(
    base: ServiceMemory, case: _Case, previous: Matrix, wanted: Assignment, now_s: float
) -> tuple[Assignment, Held]:
    """What of the wanted move is made now, and what to hold on to from now on."""
    used = np.array(case.used_rps)
    elapsed_s = now_s - base.solved.held.made_at_s if base.solved else limits.PLAN_PERIOD_S
    room = used * wanted.overload
    growth = growth_rps(used, elapsed_s)
    if by_dns(case.service):
        growth = outstanding.growth_rps(base.outstanding, used, float(case.service.ttl_s), now_s)
    ramped = ramp(
        Move(
            previous,
            wanted.shares,
            case.demand_rps,
            room,
            room * case.service.max_utilization,
            growth,
        )
    )
    load = case.demand_rps @ ramped.shares
    placement = Placement.of(ramped.shares)
    held = Held(placement, load, used, signature(case.capacity), now_s, ramped.done < 1.0)
    return replace(wanted, shares=ramped.shares, load_rps=load), held


def _stickiness_since(solved: Solved | None, case: _Case, previous: Matrix, now_s: float) -> float:
    """When stickiness was last full: now, if a move is forced or a datacenter comes back; else as before."""
    if solved is None or len(solved.used_rps) != len(case.used_rps):
        return now_s
    if any((old > 0) != (new > 0) for old, new in zip(solved.used_rps, case.used_rps, strict=True)):
        return now_s
    load = case.demand_rps @ previous
    used = np.array(case.used_rps)
    room = used * _overload(case) * (1 + FORCED_TOLERANCE)
    return now_s if bool((load > room).any()) else min(solved.stickiness_since_s, now_s)


def _matrix(plan: Plan | None, case: _Case, network: Network) -> Matrix:
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


def _plan(case: _Case, assignment: Assignment, moment: Moment) -> Plan:
    network = moment.network
    names = [network.datacenters[column] for column in case.columns]
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
        notes=_notes(case, assignment.overload),
    )


def _notes(case: _Case, overload: float) -> tuple[str, ...]:
    if overload <= 1 + FORCED_TOLERANCE:
        return case.notes
    demand, capacity = math.fsum(case.demand_rps), math.fsum(case.used_rps)
    return (
        *case.notes,
        f"overload: demand {demand:.6g} rps is {100 * demand / capacity:.0f} % of the capacity of {capacity:.6g} rps",
    )


def _kinds(notes: tuple[str, ...]) -> frozenset[str]:
    """Notes without their numbers."""
    return frozenset(note.partition(":")[0] for note in notes)


def _holding(base: ServiceMemory, reason: str, moment: Moment) -> ServiceMemory:
    """The service keeps its last plan."""
    published = moment.inputs.previous.get(base.service.name)
    decision = ServiceDecision(
        published or base.decision.plan,
        notes=(f"held: {reason}",),
        held=reason,
        capacity=base.decision.capacity,
        overload=base.decision.overload,
    )
    return replace(base, compared=published, decision=decision)


def differs(plan: Plan, published: Plan | None) -> bool:
    """Whether a share is off by more than a basis point, a locality came or went, or the notes say other things."""
    if (
        published is None
        or plan.shares.keys() != published.shares.keys()
        or _kinds(plan.notes) != _kinds(published.notes)
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
