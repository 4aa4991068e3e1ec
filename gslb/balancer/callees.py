"""Draining a frontend moves where its backends are asked from: demand after a move, through the caller -> callee matrix. PURE.

A service's demand at a datacenter is in part what other services' tasks there ask for. When those callers' load moves,
what they ask for goes with it: it leaves the places where the caller lost load, in proportion to what was lost, and
arrives where the caller gained some, in proportion to what was gained. Totals stay: how often a caller asks for each of its
own requests is not read place by place, because demand is smoothed and a plan is not, so that for a while after each move
the two do not match. What moved then moves the callees' own callees, until nobody's demand changes.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gslb.balancer.explain import load_of
from gslb.balancer.following import SAME_RPS, shift
from gslb.balancer.inputs import Callers, Inputs
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model import limits
from gslb.model.plan import Plan

Rates = Mapping[str, float]  # rps by locality or by datacenter
ByService = Mapping[str, Rates]

# Frontend to backend to storage and a few more; a circle of services that call each other ends here too.
ROUNDS_MAX: Final = 8
# Demand that differs by less is the same.
SAME_FRACTION: Final = 1e-3
# Beyond its capacity by less than this is rounding.
FULL_TOLERANCE: Final = 1e-2


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What the balancer decides once callers have moved and their callees followed. `inputs`: with the demand of then."""

    state: BalancerState
    decision: Decision
    inputs: Inputs


def follow(state: BalancerState, inputs: Inputs, before: ByService, *, now_s: float) -> Aftermath:
    """Plans `inputs` until callees have followed their callers.

    `before`: what each service's datacenters carry now (`loads`), while `inputs.demand` arises where it does.
    `now_s` as in `step`. Never raises on the values of `inputs`.
    """
    state, decision = step(state, inputs, now_s=now_s)
    demand = inputs.demand
    for _ in range(ROUNDS_MAX):
        moved = moved_demand(demand, inputs.callers, before, loads(decision, inputs.demand))
        if not changed(inputs.demand, moved):
            break
        inputs = replace(inputs, demand=moved)
        state, decision = step(state, inputs, now_s=now_s)
    return Aftermath(state, decision, inputs)


def loads(decision: Decision, demand: ByService) -> ByService:
    """What the plans send to each datacenter, by service, when demand is `demand`."""
    plans = {name: each.plan for name, each in decision.services.items() if each.plan is not None}
    return {name: load_of(plan, demand.get(name, {})) for name, plan in plans.items()}


@dataclass(frozen=True, slots=True)
class Overfull:
    """A survivor of a loss that callers make overfull: until the next plan, though capacity suffices elsewhere."""

    lost: str
    service: str
    datacenter: str
    load_rps: float
    capacity_rps: float
    callers: tuple[str, ...]


def overfull_after_losses(plans: Mapping[str, Plan], callers: Callers) -> tuple[Overfull, ...]:
    """Callees beyond capacity after the loss of one datacenter, though the capacity of all that is left suffices, by name.

    Contingencies are made for the same moves of demand: what is found here is beyond them, because who arrives at a
    place sends on to where that place sends whoever is lost.
    """
    asking = {caller for parts in callers.values() for _, caller in parts}
    places = sorted({name for service in asking if service in plans for name in plans[service].load_rps})
    found = []
    for lost in places:
        carried = after_loss(plans, callers, lost)
        for service in sorted(carried.keys() & callers.keys()):
            plan = plans[service]
            if math.fsum(rps for name, rps in plan.capacity_rps.items() if name != lost) < math.fsum(
                plan.demand_rps.values()
            ):
                continue
            for name, rps in sorted(carried[service].items()):
                capacity = plan.capacity_rps.get(name, 0.0)
                if rps > max(capacity, plan.load_rps.get(name, 0.0)) * (1 + FULL_TOLERANCE):
                    found.append(Overfull(lost, service, name, rps, capacity, callers_of(callers, service)))
    return tuple(found)


def after_loss(plans: Mapping[str, Plan], callers: Callers, lost: str) -> ByService:
    """What each service's datacenters carry once `lost` is gone, by the plans' contingencies: before anything is planned.

    Only of services that call or are called; the others' own contingencies say it all.
    """
    asking = {caller for parts in callers.values() for _, caller in parts}
    known = {name: plan for name, plan in plans.items() if name in asking or name in callers}
    demand = {name: plan.demand_rps for name, plan in known.items()}
    before = {name: load_of(plan, demand[name]) for name, plan in known.items()}

    def carried(moved: ByService) -> ByService:
        return {name: load_after_loss(plan, moved[name], lost) for name, plan in known.items()}

    return carried(_settled(demand, callers, before, carried))


def load_after_loss(plan: Plan, demand: Rates, lost: str) -> dict[str, float]:
    """What `plan` sends to each survivor of the loss of `lost`, as readers do: by contingency, failing that in proportion."""
    carried: dict[str, float] = {}
    heirs_of = plan.contingencies.get(lost, {})
    for locality, rps in demand.items():
        shares = plan.shares.get(locality, {})
        kept = {name: share for name, share in shares.items() if name != lost}
        part = shares.get(lost, 0.0)
        heirs = heirs_of.get(locality) or {name: share / (1 - part) for name, share in kept.items() if part < 1}
        for name in {*kept, *heirs}:
            carried[name] = carried.get(name, 0.0) + rps * (kept.get(name, 0.0) + part * heirs.get(name, 0.0))
    return carried


def moved_demand(demand: ByService, callers: Callers, before: ByService, after: ByService) -> ByService:
    """`demand` once the callers' loads are `after` and no longer `before`; the same objects where nothing moves."""
    moved: dict[str, Rates] = dict(demand)
    for callee, parts in callers.items():
        base = demand.get(callee)
        if base:
            asked = _asked(base, parts)
            changes = [_change(rates, before.get(name, {}), after.get(name, {})) for name, rates in asked.items()]
            moved[callee] = _added(base, changes)
    return moved


def changed(one: ByService, other: ByService) -> tuple[str, ...]:
    """The services whose rates differ, by name."""
    return tuple(sorted(name for name in {*one, *other} if not _same(one.get(name, {}), other.get(name, {}))))


def callers_of(callers: Callers, callee: str) -> tuple[str, ...]:
    """The services that ask `callee` for something, by name."""
    return tuple(sorted({caller for _, caller in callers.get(callee, {})}))


def _settled(
    demand: ByService, callers: Callers, before: ByService, carried: Callable[[ByService], ByService]
) -> ByService:
    """Demand once every callee has followed; `carried`: the loads at some demand."""
    settled = demand
    for _ in range(ROUNDS_MAX):
        moved = moved_demand(demand, callers, before, carried(settled))
        if not changed(settled, moved):
            break
        settled = moved
    return settled


def _asked(base: Rates, parts: Mapping[tuple[str, str], float]) -> dict[str, dict[str, float]]:
    """rps by caller and locality: parts of the demand there, all together never more than it."""
    sums: dict[str, float] = {}
    for (locality, _), part in parts.items():
        if 0 < part < math.inf:
            sums[locality] = sums.get(locality, 0.0) + part
    asked: dict[str, dict[str, float]] = {}
    for (locality, caller), part in parts.items():
        rps = base.get(locality, 0.0)
        if 0 < part < math.inf and 0 < rps <= limits.RATE_MAX_RPS:
            asked.setdefault(caller, {})[locality] = rps * part / max(1.0, sums[locality])
    return asked


def _change(asked: Rates, old: Rates, new: Rates) -> dict[str, float]:
    """What one caller's move adds to the demand of each locality, or takes; it sums to nothing."""
    names = sorted({*asked, *new})
    asked_rps, old_rps, new_rps = (np.array([rates.get(name, 0.0) for name in names]) for rates in (asked, old, new))
    return dict(zip(names, shift(asked_rps, old_rps, new_rps[None, :])[0].tolist(), strict=True))


def _added(base: Rates, changes: Iterable[Mapping[str, float]]) -> Rates:
    moved: dict[str, float] | None = None
    for change in changes:
        for locality, rps in change.items():
            if rps:
                moved = dict(base) if moved is None else moved
                moved[locality] = max(0.0, moved.get(locality, 0.0) + rps)
    return base if moved is None else moved


def _same(one: Rates, other: Rates) -> bool:
    return one is other or all(
        math.isclose(one.get(name, 0.0), other.get(name, 0.0), rel_tol=SAME_FRACTION, abs_tol=SAME_RPS)
        for name in {*one, *other}
    )
