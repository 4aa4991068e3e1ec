"""One step of the balancer: from what is wanted and what is seen to a plan for every service. PURE.

A service is solved again only when something of its own changed: its definition, the health or the drains of its
tasks, the distances, its demand or learned capacity beyond the band of `gslb.balancer.damping`, or when its stickiness
has decayed so far that a move it forbade would pay now. Whatever is wrong with one service's numbers stays with that
service: it keeps its last plan and says why.
"""

from dataclasses import dataclass, replace
from typing import Final

from gslb.balancer import service_step
from gslb.balancer.backing import backings
from gslb.balancer.bandwidth import bandwidths
from gslb.balancer.case import Moment
from gslb.balancer.claims import loads_of, share
from gslb.balancer.coverage import Coverage, coverage_at
from gslb.balancer.following import Rerouted, callers_first, moves_of
from gslb.balancer.following import rerouted as rerouted_by
from gslb.balancer.inputs import Inputs
from gslb.balancer.network import Network, network_of
from gslb.balancer.safety import RemovalBudget
from gslb.balancer.service_step import NO_CALLS, Calls
from gslb.balancer.sharing import uses_of
from gslb.balancer.state import BalancerState, Decision, ServiceDecision, ServiceMemory

ALARMS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class _Names:
    """The verdict on the names of services and localities."""

    services: RemovalBudget
    localities: RemovalBudget
    lost_services: str  # why services that are gone may not be dropped; empty: they may
    lost_localities: str


def step(state: BalancerState, inputs: Inputs, *, now_s: float) -> tuple[BalancerState, Decision]:
    """Plans every service.

    `now_s`: UTC seconds since the epoch (drains end by it). Never raises on the values of `inputs`.
    """
    names = _judge_names(state, inputs, now_s)
    network = _network(state, inputs, names)
    coverage = _coverage(state, inputs, now_s)
    hold = names.lost_localities if names.lost_localities and network is not state.network else ""
    sharing = share(state.sharing, inputs, network, coverage, state.services, now_s=now_s)
    having = bandwidths(state.bandwidths, inputs, sharing)
    moment = Moment(inputs, network, coverage, now_s, hold, sharing.budgets, having)
    memories, rerouted = _advanced(state, moment)
    gone = sorted((state.services.keys() | inputs.previous.keys()) - memories.keys())
    decisions = {name: memory.decision for name, memory in memories.items()}
    held = {name for name in gone if name not in inputs.deleted.services} if names.lost_services else set()
    for name in sorted(held):
        kept = _kept(state, inputs, name, names.lost_services)
        decisions[name] = kept
        if name in state.services:
            memories[name] = replace(state.services[name], decision=kept)
    alarms = [alarm for alarm in (names.lost_services, names.lost_localities) if alarm]
    alarms += [f"{name}: {decision.held}" for name, decision in decisions.items() if decision.held]
    decision = Decision(
        decisions,
        tuple(name for name in gone if name not in held),
        tuple(dict.fromkeys(alarms))[:ALARMS_MAX],
        sum(each.recomputed for each in decisions.values()),
        uses_of(sharing, loads_of(decisions)) if sharing.claims else (),
    )
    after = BalancerState(network, coverage, memories, names.services, names.localities, sharing, having, rerouted)
    return after, decision


def _advanced(state: BalancerState, moment: Moment) -> tuple[dict[str, ServiceMemory], dict[str, Rerouted]]:
    """Every service's memory after this step, by name; and where losses would take the load of those that call others."""
    inputs, network = moment.inputs, moment.network
    calling = {caller for parts in inputs.callers.values() for _, caller in parts}
    # As of the step before, for those who call each other in a circle.
    known = {name: one for name, one in state.rerouted.items() if name in calling and one.network is network}
    for name in sorted(calling & state.services.keys() - known.keys()):
        if last := state.services[name].decision.plan:
            known[name] = rerouted_by(last, state.services[name].moves, network)
    memories: dict[str, ServiceMemory] = {}
    order = callers_first(inputs.callers, inputs.catalog.services) if calling else sorted(inputs.catalog.services)
    backing = backings(order, inputs.callers, inputs.demand, state.services, network) if calling else {}
    for name in order:
        before = state.services.get(name)
        moves = None
        if name in inputs.callers:
            held = before.moves if before else None
            moves = moves_of(name, inputs.demand.get(name, {}), inputs.callers, known, held)
        calls = Calls(moves, backing.get(name)) if calling else NO_CALLS
        memory = service_step.advance(before, inputs.catalog.services[name], moment, calls)
        memories[name] = memory
        plan, told = memory.decision.plan, known.get(name)
        if name in calling and plan and not (told and told.plan is plan and told.moves is moves):
            known[name] = rerouted_by(plan, moves, network)
    return {name: memories[name] for name in sorted(memories)}, known


def _judge_names(state: BalancerState, inputs: Inputs, now_s: float) -> _Names:
    """Services and localities may not vanish faster than the budget; a new leader counts from the published plans.

    What an operator deleted did not vanish.
    """
    services, localities = state.service_names, state.locality_names
    if not services.names:
        services = RemovalBudget(frozenset(inputs.previous), frozenset(inputs.previous))
    if not localities.names:
        known = frozenset(locality for plan in inputs.previous.values() for locality in plan.shares)
        localities = RemovalBudget(known, known)
    catalog = inputs.catalog
    services, localities = services.without(inputs.deleted.services), localities.without(inputs.deleted.localities)
    services, lost_services = services.judge(frozenset(catalog.services), "services", now_s=now_s)
    places = frozenset(catalog.datacenters) | frozenset(catalog.areas)
    localities, lost_localities = localities.judge(places, "localities", now_s=now_s)
    return _Names(services, localities, lost_services, lost_localities)


def _network(state: BalancerState, inputs: Inputs, names: _Names) -> Network:
    """The distances; while localities are missing beyond the budget, those that were known before."""
    if names.lost_localities and state.network.localities:
        return state.network
    return network_of(inputs.catalog, inputs.rtt_ms, state.network)


def _coverage(state: BalancerState, inputs: Inputs, now_s: float) -> Coverage:
    """The drains that hold; the same object as long as they are the same."""
    coverage = coverage_at(inputs.catalog, now_s)
    return state.coverage if coverage == state.coverage else coverage


def _kept(state: BalancerState, inputs: Inputs, name: str, reason: str) -> ServiceDecision:
    """A service that vanished against the rules keeps its plan."""
    memory: ServiceMemory | None = state.services.get(name)
    plan = inputs.previous.get(name) or (memory.decision.plan if memory else None)
    return ServiceDecision(plan, notes=(f"held: {reason}",), held=reason)
