"""The step of one service: is there anything new, and if so, what is its plan now. PURE."""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gslb.balancer import contingency, outstanding
from gslb.balancer.assignment import Matrix
from gslb.balancer.capacity import capacity_of
from gslb.balancer.case import PATH_OVERLOAD, PATH_TOLERANCE, Case, Moment, case_of, differs, kinds, notes_of
from gslb.balancer.damping import pressed, signature, within_band
from gslb.balancer.flaps import follow
from gslb.balancer.inputs import TaskState
from gslb.balancer.learning import learn
from gslb.balancer.outstanding import Outstanding, by_dns, learned, mended
from gslb.balancer.quiet import gain_is_due, quiet_until_s, rests, untouched
from gslb.balancer.replan import placed, replanned
from gslb.balancer.safety import RemovalBudget, auto_drained
from gslb.balancer.solver import SolverError, Vector
from gslb.balancer.state import ServiceMemory, Solved
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.resources import DemandSource, Service

FAULTS: Final = (InvalidValueError, SolverError, ArithmeticError, ValueError, LookupError, TypeError)


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """What calls between services mean for a service's contingencies; the same objects as long as they say the same."""

    moves: Matrix | None = None  # what losses move of its demand (`gslb.balancer.following`)
    backing_rps: Vector | None = None  # what its callees can take (`gslb.balancer.backing`)

    def known_to(self, memory: ServiceMemory) -> bool:
        """Whether its contingencies were made for these."""
        return memory.moves is self.moves and memory.backing_rps is self.backing_rps


NO_CALLS: Final = Calls()


def advance(memory: ServiceMemory | None, service: Service, moment: Moment, calls: Calls = NO_CALLS) -> ServiceMemory:
    """The service's memory after this step, with its decision. Never raises on the values of the inputs."""
    if memory is not None and calls.known_to(memory) and rests(memory, service, moment):
        return memory
    after = _advanced(memory, service, moment, calls)
    return after if after is memory else replace(after, quiet_until_s=quiet_until_s(after))


def _advanced(memory: ServiceMemory | None, service: Service, moment: Moment, calls: Calls) -> ServiceMemory:
    name = service.name
    inputs = moment.inputs
    tasks = inputs.tasks.get(name, ())
    if memory is not None and inputs.changed is not None and name not in inputs.changed:
        tasks = memory.tasks
    if memory is None:
        memory = ServiceMemory(service)
    elif calls.known_to(memory) and untouched(memory, service, tasks, moment):
        return _again(memory, moment)
    following = replace(memory, moves=calls.moves, backing_rps=calls.backing_rps)
    try:
        return _renewed(following, service, tasks, moment)
    except FAULTS as fault:
        base = replace(following, service=service, tasks=tasks, network=moment.network, coverage=moment.coverage)
        return base.holding(str(fault), moment.published(base.service.name))


def _again(memory: ServiceMemory, moment: Moment) -> ServiceMemory:
    """The same plan as in the last step, compared with what is published now."""
    published = moment.published(memory.service.name)
    decision = memory.decision
    if published is memory.compared and not decision.recomputed:
        return memory
    changed = decision.plan is not None and differs(decision.plan, published)
    return replace(memory, compared=published, decision=replace(decision, changed=changed, recomputed=False))


def _renewed(memory: ServiceMemory, service: Service, tasks: tuple[TaskState, ...], moment: Moment) -> ServiceMemory:
    """Looks at everything again, and solves if something moved. Raises one of FAULTS."""
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
    published = moment.published(service.name)
    learning = learn(memory.learning, service, tasks, moment.now_s, published.capacity_rps if published else {})
    needed_rps = math.fsum(moment.inputs.demand.get(service.name, {}).values()) / service.max_utilization
    capacity = capacity_of(service, tasks, moment.coverage, learning, needed_rps, flaps)
    capacity = auto_drained(capacity, memory.decision.capacity, needed_rps * service.max_utilization)
    base = replace(base, learning=learning, decision=replace(memory.decision, capacity=capacity))
    if moment.hold or lost:
        return base.holding(moment.hold or lost, published)
    if not capacity.tasks:
        return base.holding(f"no task of service {service.name} is registered", published)
    case = case_of(service, capacity, moment)
    solved = memory.solved
    if by_dns(service):
        case, out = _seen_through_dns(base, case, moment, fresh=tasks is not memory.tasks)
        base = replace(base, outstanding=out)
        if _answers_wait(memory, case, moment):
            return _unmoved(base, case, moment)
    if solved is not None and _as_planned(solved, case):
        # Never more than there is now: a budget that shrank is somebody else's.
        least = tuple(map(min, solved.used_rps, case.used_rps))
        planned = replace(case, demand_rps=solved.demand_rps, used_rps=least)
        if _same(memory, solved, planned, moment):
            return _unmoved(base, case, moment)
        case = planned
    return replanned(base, case, moment)


def _unmoved(base: ServiceMemory, case: Case, moment: Moment) -> ServiceMemory:
    """The plan stays; of its contingencies those are made anew that would make somebody overfull today.

    A plan is held for more demand than it was made for, and callers and callees change what a loss would bring.
    """
    plan, solved = base.decision.plan, base.solved
    if plan is not None and solved is not None:
        today = placed(base, case, solved.held.placement.matrix(len(case.demand_rps)), moment)
        if not contingency.fits(today, plan):
            plan = replace(plan, contingencies=contingency.solve(today, plan))
    decision = replace(base.decision, plan=plan, recomputed=False)
    return _again(replace(base, decision=decision, compared=None), moment)


def _seen_through_dns(
    memory: ServiceMemory, case: Case, moment: Moment, *, fresh: bool
) -> tuple[Case, Outstanding | None]:
    """The case with demand mended for what nobody counts, and the answers outstanding with what load says of them."""
    out, ttl_s, now_s = memory.outstanding, float(case.service.ttl_s), moment.now_s
    if out is None or memory.solved is None or not out.fits(case.columns, len(case.demand_rps)):
        return case, out
    out = outstanding.not_ahead(out, now_s)
    sites = {site.datacenter: site for site in case.capacity.datacenters}
    here = [sites[name] for name in case.names(moment.network)]
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


def _answers_wait(memory: ServiceMemory, case: Case, moment: Moment) -> bool:
    """Whether the answers of a service that DNS steers stay as they are, because they changed less than a TTL ago."""
    out, solved = memory.outstanding, memory.solved
    if out is None or solved is None or memory.decision.plan is None or memory.decision.held:
        return False
    if moment.now_s - out.since_s >= case.service.ttl_s or not out.fits(case.columns, len(case.demand_rps)):
        return False
    if memory.network is not moment.network or memory.service != case.service:
        return False
    return not pressed(solved.held, case.demand_rps, np.array(case.used_rps), signature(case.capacity), case.overload())


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


def _as_planned(solved: Solved, case: Case) -> bool:
    """Whether demand and capacity are still those of the last program."""
    if len(solved.used_rps) != len(case.used_rps) or len(solved.demand_rps) != len(case.demand_rps):
        return False
    if case.lanes.any and _paths_outgrown(solved, case):
        return False
    used = np.array(case.used_rps)
    return within_band(solved.held, case.demand_rps, used, signature(case.capacity), case.overload())


def _paths_outgrown(solved: Solved, case: Case) -> bool:
    """Whether a limited path would carry more than it can, and more than it was planned with."""
    shares = solved.held.placement.matrix(len(case.demand_rps))
    planned = np.maximum(case.lanes.flows(shares, solved.demand_rps), case.lanes.full_rps())
    return bool((case.lanes.flows(shares, case.demand_rps) > planned * (1 + PATH_TOLERANCE)).any())


def _same(memory: ServiceMemory, solved: Solved, case: Case, moment: Moment) -> bool:
    """Whether the last program, whose demand and capacity the case has, would be solved again."""
    if memory.decision.held or memory.network is not moment.network or memory.service != case.service:
        return False
    if solved.held.ramping or gain_is_due(solved, moment.now_s) or memory.decision.plan is None:
        return False
    # What a path carries was looked at before (`_paths_outgrown`).
    return kinds(memory.decision.plan.notes) - {PATH_OVERLOAD} == kinds(notes_of(case, solved.overload))
