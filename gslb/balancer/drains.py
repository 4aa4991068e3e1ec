"""What a drain would do, and whether it may. PURE.

A drain is admitted when, of every service that it takes capacity from, what remains with headroom still carries the
demand, and some healthy task remains (design section 6, invariant 7). Load may go to any datacenter, so sums decide;
the preview shows where it goes by running the very step that will run once the drain is written.
"""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from gslb.balancer.capacity import ServiceCapacity, capacity_of
from gslb.balancer.coverage import active_drains, coverage_of
from gslb.balancer.inputs import Inputs
from gslb.balancer.learning import UNLEARNED
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.resources import Drain, Service


@dataclass(frozen=True, slots=True)
class DrainEffect:
    """One service in one datacenter, before and after."""

    service: str
    datacenter: str
    capacity_before_rps: float
    capacity_after_rps: float
    load_before_rps: float
    load_after_rps: float


@dataclass(frozen=True, slots=True)
class DrainPreview:
    """Empty violations: the drain may be written. No covered task: it would do nothing."""

    effects: tuple[DrainEffect, ...]
    violations: tuple[str, ...]
    covered_tasks: int


@dataclass(frozen=True, slots=True)
class _Change:
    """Capacity of one service without and with the drain."""

    service: str
    before: ServiceCapacity
    after: ServiceCapacity
    demand_rps: float
    covered_tasks: int

    @property
    def remaining_tasks(self) -> int:
        return _undrained(self.after)


def admission_violations(
    inputs: Inputs, drain: Drain, *, now_s: float, state: BalancerState | None = None
) -> tuple[str, ...]:
    """The rules that `drain` would break now, each with its numbers; `now_s` is UTC seconds since the epoch.

    Without `state` tasks serve what is declared, whatever was learned.
    """
    changes = _changes(inputs, drain, now_s, state or BalancerState())
    return tuple(violation for change in changes for violation in _violations(change))


def preview_drain(inputs: Inputs, drain: Drain, *, now_s: float, state: BalancerState | None = None) -> DrainPreview:
    """Every datacenter's load before and after `drain`, as if it began now.

    With `state`, only what changes is solved.
    """
    changes = _changes(inputs, drain, now_s, state or BalancerState())
    settled, before = step(state or BalancerState(), inputs, now_s=now_s)
    touched = [change for change in changes if change.covered_tasks]
    _, after = step(settled, _with_drain(inputs, drain, now_s), now_s=now_s)
    effects = tuple(effect for change in touched for effect in _effects(change, before, after))
    violations = tuple(violation for change in changes for violation in _violations(change))
    return DrainPreview(effects, violations, sum(change.covered_tasks for change in changes))


def _with_drain(inputs: Inputs, drain: Drain, now_s: float) -> Inputs:
    """The inputs with `drain` in force."""
    now = datetime.fromtimestamp(now_s, UTC)
    forced = replace(drain, starts_at=now, expires_at=max(drain.expires_at, now + timedelta(seconds=1)), ramp_s=0.0)
    drains = {**inputs.catalog.drains, drain.name: forced}
    return replace(inputs, catalog=replace(inputs.catalog, drains=drains))


def _changes(inputs: Inputs, drain: Drain, now_s: float, state: BalancerState) -> list[_Change]:
    """Every service that can be reckoned with, by name."""
    others = [other for other in active_drains(inputs.catalog, now_s) if other.name != drain.name]
    without = coverage_of(others, inputs.catalog)
    together = coverage_of([*others, drain], inputs.catalog)
    alone = coverage_of([drain], inputs.catalog)
    changes = []
    for name, service in sorted(inputs.catalog.services.items()):
        tasks = inputs.tasks.get(name, ())
        covered = sum(1 for task in tasks if alone.drain_of(name, task) and _serves(service, task.job))
        if not covered:
            continue
        try:
            learning = state.services[name].learning if name in state.services else UNLEARNED
            before = capacity_of(service, tasks, without, learning)
            after = capacity_of(service, tasks, together, learning)
        except InvalidValueError:
            # A service with a broken definition keeps its last plan whatever is drained; the check shows it.
            continue
        changes.append(_Change(name, before, after, _demand_rps(inputs, name), covered))
    return changes


def _serves(service: Service, job: str) -> bool:
    return any(backend.job == job for backend in service.backends)


def _demand_rps(inputs: Inputs, service: str) -> float:
    return math.fsum(rps for rps in inputs.demand.get(service, {}).values() if 0 <= rps <= limits.RATE_MAX_RPS)


def _undrained(capacity: ServiceCapacity) -> int:
    return sum(site.tasks - site.drained for site in capacity.datacenters)


def _violations(change: _Change) -> list[str]:
    before, after = change.before.total_rps, change.after.total_rps
    if not change.remaining_tasks and _undrained(change.before):
        return [f"service {change.service}: no task would remain ({change.before.tasks} registered, all drained)"]
    if before > 0 and after == 0:
        return [
            f"service {change.service}: no healthy task would remain ({change.remaining_tasks} unhealthy ones would)"
        ]
    remaining = after * (1 - limits.DRAIN_HEADROOM_FRACTION)
    if after < before and remaining < change.demand_rps:
        return [
            (
                f"service {change.service}: demand {change.demand_rps:.6g} rps > {remaining:.6g} rps that remain "
                f"({before:.6g} - {before - after:.6g} drained, {100 * limits.DRAIN_HEADROOM_FRACTION:.3g} % headroom)"
            )
        ]
    return []


def _effects(change: _Change, before: Decision, after: Decision) -> list[DrainEffect]:
    loads = [_loads(decision, change.service) for decision in (before, after)]
    return [
        DrainEffect(
            change.service,
            old.datacenter,
            old.capacity_rps,
            new.capacity_rps,
            loads[0].get(old.datacenter, 0.0),
            loads[1].get(new.datacenter, 0.0),
        )
        for old, new in zip(change.before.datacenters, change.after.datacenters, strict=True)
    ]


def _loads(decision: Decision, service: str) -> dict[str, float]:
    plan = decision.services[service].plan
    return dict(plan.load_rps) if plan else {}
