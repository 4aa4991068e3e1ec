"""The plan of one service whose situation is new: solved, spread, ramped and judged. PURE."""

from dataclasses import replace
from typing import Final

import numpy as np

from gslb.balancer import contingency, outstanding
from gslb.balancer.assignment import Assignment, Matrix, Problem, assign
from gslb.balancer.bandwidth import curve_of
from gslb.balancer.case import FORCED_TOLERANCE, Case, Moment, cost_of, differs, matrix_of, path_notes, plan_of
from gslb.balancer.damping import Held, Move, Placement, growth_rps, plannable_rps, ramp, ramp_note, signature
from gslb.balancer.outstanding import Outstanding, answered, by_dns, committed
from gslb.balancer.policy import spread
from gslb.balancer.quiet import stickiness_ms
from gslb.balancer.safety import plan_violations
from gslb.balancer.state import ServiceDecision, ServiceMemory, Solved
from gslb.model import limits

# Late resolvers never leave less than this part of a capacity to answers.
COMMITTED_ROOM_MIN: Final = 0.01


def replanned(base: ServiceMemory, case: Case, moment: Moment) -> ServiceMemory:
    """Solves the program and judges its plan. Raises SolverError."""
    published = moment.published(case.service.name)
    previous = matrix_of(published or base.decision.plan, case, moment.network)
    since_s = _stickiness_since(base.solved, case, previous, moment.now_s)
    network = moment.network
    cost = cost_of(case, moment)
    out = _outstanding(base, case, previous, moment) if by_dns(case.service) else None
    assignment = _assigned(case, cost, previous, stickiness_ms(since_s, moment.now_s), out, moment)
    names = case.names(network)
    wanted = _sprayed(assignment, case, moment, names)
    assignment, held = _damped(base, case, previous, wanted, moment.now_s)
    if held.ramping:
        case = replace(case, notes=(*case.notes, ramp_note(names, wanted.load_rps, assignment.load_rps)))
    case = replace(case, notes=(*case.notes, *path_notes(case, assignment, network)))
    contingencies = contingency.solve(placed(base, case, assignment.shares, moment), published)
    plan = replace(plan_of(case, assignment, moment), contingencies=contingencies)
    violations = plan_violations(plan, network.localities, names)
    if violations:
        return base.holding("; ".join(violations), published)
    decision = ServiceDecision(plan, differs(plan, published), True, plan.notes, "", case.capacity, assignment.overload)
    solved = Solved(case.used_rps, case.demand_rps, since_s, assignment.gain_ms, assignment.overload, held)
    if by_dns(case.service):
        out = answered(out, case.columns, assignment.shares, float(case.service.ttl_s), moment.now_s)
    return replace(base, solved=solved, outstanding=out, compared=published, decision=decision)


def placed(base: ServiceMemory, case: Case, shares: Matrix, moment: Moment) -> contingency.Placed:
    """The service as its plan places it, for its contingencies."""
    network, moves, capacity = moment.network, None, np.array(case.used_rps)
    if base.backing_rps is not None:
        capacity = np.minimum(capacity, base.backing_rps[list(case.columns)])
    if base.moves is not None:
        moves = np.zeros((len(case.columns), len(network.localities)))
        moves[:, [network.row[name] for name in network.datacenters]] = base.moves[list(case.columns)]
    return contingency.Placed(
        network.localities,
        case.names(network),
        case.demand_rps,
        shares,
        cost_of(case, moment),
        capacity,
        case.service.max_utilization,
        moves,
    )


def _outstanding(base: ServiceMemory, case: Case, previous: Matrix, moment: Moment) -> Outstanding | None:
    """The answers so far; of a service without a memory those of the published plan."""
    known = base.outstanding
    if known is not None and known.fits(case.columns, len(previous)):
        return known
    if bool((np.abs(previous.sum(axis=1) - 1) > limits.SHARE_SUM_TOLERANCE).any()):
        return known
    return answered(known, case.columns, previous, float(case.service.ttl_s), moment.now_s)


def _assigned(
    case: Case, cost: Matrix, previous: Matrix, mu_ms: float, out: Outstanding | None, moment: Moment
) -> Assignment:
    """The program's answer. What late resolvers keep where it is takes up capacity there and is not to be placed."""
    used, demand = np.array(case.used_rps), case.demand_rps
    plannable = plannable_rps(used, float(demand.sum()))
    free = demand
    if out is not None and out.fits(case.columns, len(demand)):
        kept = committed(out, used > 0, float(case.service.ttl_s), moment.now_s)
        free = demand * (1 - kept.sum(axis=1))
        plannable = np.maximum(plannable - np.einsum("l,ld->d", demand, kept), COMMITTED_ROOM_MIN * plannable)
    names = case.names(moment.network)
    curve = curve_of(case.service, case.bandwidth, names, used)
    problem = Problem(free, cost, plannable, case.service.max_utilization, previous, mu_ms, curve, case.lanes)
    assignment = assign(problem)
    if free is demand:
        return assignment
    load = np.einsum("l,ld->d", demand, assignment.shares)
    return replace(assignment, load_rps=load, overload=case.overload())


def _sprayed(assignment: Assignment, case: Case, moment: Moment, names: list[str]) -> Assignment:
    places = moment.inputs.catalog.datacenters
    shares = spread(case.service, assignment.shares, np.array(case.used_rps), places, names)
    if shares is assignment.shares:
        return assignment
    return replace(assignment, shares=shares, load_rps=case.demand_rps @ shares)


def _damped(
    base: ServiceMemory, case: Case, previous: Matrix, wanted: Assignment, now_s: float
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


def _stickiness_since(solved: Solved | None, case: Case, previous: Matrix, now_s: float) -> float:
    """When stickiness was last full: now, if a move is forced or a datacenter comes back; else as before."""
    if solved is None or len(solved.used_rps) != len(case.used_rps):
        return now_s
    if any((old > 0) != (new > 0) for old, new in zip(solved.used_rps, case.used_rps, strict=True)):
        return now_s
    load = case.demand_rps @ previous
    used = np.array(case.used_rps)
    room = used * case.overload() * (1 + FORCED_TOLERANCE)
    return now_s if bool((load > room).any()) else min(solved.stickiness_since_s, now_s)
