"""What a decision comes to for an operator, and what differs between two. PURE."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from gslb.balancer.callees import ByService, changed, follow, loads, moved_demand
from gslb.balancer.contingency import losses
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model import limits
from gslb.model.plan import Plan
from gslb.recorder.whatif import Moment

# Within this nothing has moved: rps, and shares.
LOAD_TOLERANCE_RPS: Final = 0.05
SHARE_TOLERANCE: Final = limits.PUBLISH_SHARE_CHANGE
# Ramps and the stickiness that they leave are over by then.
SETTLE_STEPS_MAX: Final = 240
SETTLED_STEPS: Final = 6


@dataclass(frozen=True, slots=True)
class Load:
    """One service in one datacenter: by the recorded decision, in the step after the change, and in the end. rps."""

    service: str
    datacenter: str
    capacity_before_rps: float
    capacity_after_rps: float
    before_rps: float
    at_once_rps: float
    settled_rps: float

    @property
    def moved(self) -> bool:
        return (
            max(abs(self.at_once_rps - self.before_rps), abs(self.settled_rps - self.before_rps)) > LOAD_TOLERANCE_RPS
            or abs(self.capacity_after_rps - self.capacity_before_rps) > LOAD_TOLERANCE_RPS
        )


@dataclass(frozen=True, slots=True)
class Move:
    """One locality's shares of a service by datacenter, where they moved. `rps`: its demand that moved at once."""

    service: str
    locality: str
    rps: float
    before: Mapping[str, float]
    at_once: Mapping[str, float]
    settled: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What would be otherwise. `*_new`: that were not there without the change; `*_gone`: that are no more."""

    loads: tuple[Load, ...]  # all, moved or not
    moves: tuple[Move, ...]
    alarms_new: tuple[str, ...]
    alarms_gone: tuple[str, ...]
    losses_new: tuple[str, ...]  # single losses that could no longer be survived within capacity
    losses_gone: tuple[str, ...]
    settled_s: float  # so long it takes
    settles: bool  # False: not within the time that was looked at


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Decisions of a moment that goes on unchanged: the first, and the one after which nothing moves."""

    at_once: Decision
    settled: Decision
    after_s: float
    settles: bool


def run(moment: Moment, before: ByService) -> Course:
    """Steps with the same inputs, one a period, each published before the next, until nothing moves.

    `before`: what each service's datacenters carried (`callees.loads`); callees' demand follows callers that move.
    """
    start = follow(moment.state, moment.inputs, before, now_s=moment.now_s)
    state, first = start.state, start.decision
    inputs, last, quiet, moved_at = replace(start.inputs, changed=frozenset()), first, 0, 0
    for number in range(1, SETTLE_STEPS_MAX + 1):
        inputs = replace(inputs, previous={**inputs.previous, **_news(last)})
        state, last = step(state, inputs, now_s=moment.now_s + number * limits.PLAN_PERIOD_S)
        demand = moved_demand(moment.inputs.demand, inputs.callers, before, loads(last, inputs.demand))
        if changed(inputs.demand, demand):
            inputs = replace(inputs, demand=demand)
            quiet, moved_at = 0, number
        elif _news(last):
            quiet, moved_at = 0, number
        else:
            quiet += 1
        if quiet >= SETTLED_STEPS and not _ramping(state):
            return Course(first, last, moved_at * limits.PLAN_PERIOD_S, settles=True)
    return Course(first, last, SETTLE_STEPS_MAX * limits.PLAN_PERIOD_S, settles=False)


def _news(decision: Decision) -> dict[str, Plan]:
    """The plans that would be published."""
    return {name: one.plan for name, one in decision.services.items() if one.changed and one.plan is not None}


def _ramping(state: BalancerState) -> bool:
    return any(memory.solved is not None and memory.solved.held.ramping for memory in state.services.values())


def loads_of(decision: Decision) -> tuple[Load, ...]:
    """What is planned, by service and datacenter."""
    return tuple(_loads(decision, Course(decision, decision, 0.0, settles=True)))


def compare(before: Decision, course: Course) -> Outcome:
    """What the course does otherwise than the decision."""
    lost, lose = _unsurvivable(before), _unsurvivable(course.settled)
    alarms, raised = _alarms(before), _alarms(course.at_once)
    return Outcome(
        tuple(_loads(before, course)),
        tuple(_moves(before, course)),
        tuple(line for line in raised if line not in alarms),
        tuple(line for line in alarms if line not in raised),
        tuple(line for key, line in lose.items() if key not in lost),
        tuple(line for key, line in lost.items() if key not in lose),
        course.after_s,
        course.settles,
    )


def _plan_numbers(decision: Decision, service: str, what: str) -> Mapping[str, float]:
    one = decision.services.get(service)
    if one is None or one.plan is None:
        return {}
    return one.plan.load_rps if what == "load" else one.plan.capacity_rps


def _loads(before: Decision, course: Course) -> list[Load]:
    found = []
    for service in sorted({*before.services, *course.settled.services}):
        old, first, last = (_plan_numbers(each, service, "load") for each in (before, course.at_once, course.settled))
        had, has = (_plan_numbers(each, service, "capacity") for each in (before, course.settled))
        found += [
            Load(
                service,
                name,
                had.get(name, 0.0),
                has.get(name, 0.0),
                old.get(name, 0.0),
                first.get(name, 0.0),
                last.get(name, 0.0),
            )
            for name in sorted({*old, *first, *last, *had, *has})
        ]
    return found


def _moves(before: Decision, course: Course) -> list[Move]:
    found = []
    for service in sorted({*before.services, *course.settled.services}):
        plans = [
            one.plan if (one := each.services.get(service)) else None
            for each in (before, course.at_once, course.settled)
        ]
        old, first, last = ({} if plan is None else plan.shares for plan in plans)
        demand = {} if plans[1] is None else plans[1].demand_rps
        for locality in sorted({*old, *first, *last}):
            was, now, then = (shares.get(locality, {}) for shares in (old, first, last))
            if max(_distance(was, now), _distance(was, then)) > SHARE_TOLERANCE:
                moved_rps = _distance(was, now) * demand.get(locality, 0.0)
                found.append(Move(service, locality, moved_rps, dict(was), dict(now), dict(then)))
    return found


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The part that goes elsewhere."""
    return math.fsum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other}) / 2


def _alarms(decision: Decision) -> tuple[str, ...]:
    overloads = [
        f"{name}: demand is {one.overload:.0%} of the capacity that is left"
        for name, one in decision.services.items()
        if one.overload > 1 + 1e-6
    ]
    # Ramps are on their way, and no trouble.
    notes = [
        f"{name}: {note}"
        for name, one in decision.services.items()
        for note in one.notes
        if not note.startswith(("ramp:", "overload:", "held:"))
    ]
    return tuple(dict.fromkeys([*decision.alarms, *overloads, *notes]))


def _unsurvivable(decision: Decision) -> dict[tuple[str, str], str]:
    found = {}
    for name, one in decision.services.items():
        for loss in losses(one.plan) if one.plan is not None else ():
            if not loss.survivable:
                found[(name, loss.datacenter)] = (
                    f"{name}: the loss of {loss.datacenter} would leave {loss.remaining_rps:.6g} rps "
                    f"for {loss.demand_rps:.6g}"
                )
    return found
