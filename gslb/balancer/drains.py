"""What a drain would do, and whether it may. PURE.

A drain is admitted when, of every service that it takes capacity from, what remains with headroom still carries the
demand, and some healthy task remains (design section 6, invariant 7). Load may go to any datacenter, so sums decide.
The preview shows where it goes by running the very step that will run once the drain is written, and follows the callers
that move to the services they call: those are asked from elsewhere then (`gslb.balancer.callees`), and where services share
CPU or an uplink, what arrives takes from the others. Whoever does not fit any more is a reason to refuse as well.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from gslb.balancer.callees import Aftermath, Rates, callers_of, changed, follow, loads
from gslb.balancer.capacity import ServiceCapacity, capacity_of
from gslb.balancer.claims import usable
from gslb.balancer.coverage import active_drains, coverage_of
from gslb.balancer.inputs import Inputs
from gslb.balancer.learning import UNLEARNED
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.resources import Drain, Service

# Room that shrinks by less is no news: splits wobble.
SAME_ROOM_FRACTION: Final = 0.01


@dataclass(frozen=True, slots=True)
class DrainEffect:
    """One service in one datacenter, before and after."""

    service: str
    datacenter: str
    capacity_before_rps: float
    capacity_after_rps: float
    load_before_rps: float
    load_after_rps: float
    why: str = ""  # what the drain has to do with this service


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


@dataclass(frozen=True, slots=True)
class _Move:
    """One service, its capacity and its load by datacenter, without and with the drain."""

    service: str
    before: tuple[ServiceCapacity, Rates]
    after: tuple[ServiceCapacity, Rates]
    callers: tuple[str, ...]  # whose move moves its demand
    why: str


def admission_violations(
    inputs: Inputs, drain: Drain, *, now_s: float, state: BalancerState | None = None
) -> tuple[str, ...]:
    """The rules that `drain` itself would break now, each with its numbers; `now_s` is UTC seconds since the epoch.

    Nothing is planned for it, so those whom it touches in other ways (`preview_drain`) are not looked at.
    Without `state` tasks serve what is declared, whatever was learned.
    """
    changes = _changes(inputs, drain, now_s, state or BalancerState())
    return tuple(violation for change in changes for violation in _violations(change))


def preview_drain(inputs: Inputs, drain: Drain, *, now_s: float, state: BalancerState | None = None) -> DrainPreview:
    """Every datacenter's load before and after `drain`, callees included, as if it began now.

    With `state`, only what changes is solved.
    """
    changes = {change.service: change for change in _changes(inputs, drain, now_s, state or BalancerState())}
    settled, decision = step(state or BalancerState(), inputs, now_s=now_s)
    before = Aftermath(settled, decision, inputs)
    after = follow(settled, _with_drain(inputs, drain, now_s), loads(decision, inputs.demand), now_s=now_s)
    moves = _moves(before, after, changes)
    effects = tuple(effect for move in moves for effect in _effects(move))
    violations = {change.service: _violations(change) for change in changes.values()}
    for name, violation in _squeezed(before, after, now_s).items():
        violations[name] = violations.get(name) or [violation + _called(name, moves)]
    return DrainPreview(
        effects,
        tuple(violation for _, found in sorted(violations.items()) for violation in found),
        sum(change.covered_tasks for change in changes.values()),
    )


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


def _moves(before: Aftermath, after: Aftermath, changes: Mapping[str, _Change]) -> list[_Move]:
    """Every service that the drain touches, by name: it covers tasks, moves its callers, or takes what it shares."""
    carried, arriving = (loads(each.decision, each.inputs.demand) for each in (before, after))
    called = changed(before.inputs.demand, after.inputs.demand)
    touched = sorted({*changes, *called, *changed(carried, arriving)})
    moves = []
    for name in touched:
        change = changes.get(name)
        callers = (
            tuple(one for one in callers_of(before.inputs.callers, name) if one in touched) if name in called else ()
        )
        why = ["drained"] if change else []
        why += [f"called by {', '.join(callers)}"] if callers else []
        moves.append(
            _Move(
                name,
                ((change.before if change else before.decision.services[name].capacity), carried.get(name, {})),
                ((change.after if change else after.decision.services[name].capacity), arriving.get(name, {})),
                callers,
                ", ".join(why) or "shares a limit",
            )
        )
    return moves


def _squeezed(before: Aftermath, after: Aftermath, now_s: float) -> dict[str, str]:
    """Services that would not fit into what they share with others: with less room than before, and less than demand."""
    old, new = (usable(each.state, each.inputs, now_s=now_s) for each in (before, after))
    found = {}
    for name, room in new.items():
        was = old[name].rps if name in old else math.inf
        remaining = room.rps * (1 - limits.DRAIN_HEADROOM_FRACTION)
        demand = _demand_rps(after.inputs, name)
        if remaining < demand and room.rps < was * (1 - SAME_ROOM_FRACTION):
            found[name] = (
                f"service {name}: demand {demand:.6g} rps > {remaining:.6g} rps that fit into what it shares with others "
                f"({was:.6g} before; {', '.join(room.short)}; {100 * limits.DRAIN_HEADROOM_FRACTION:.3g} % headroom)"
            )
    return found


def _called(service: str, moves: Iterable[_Move]) -> str:
    """Who brings the load, for the refusal."""
    callers = next((move.callers for move in moves if move.service == service), ())
    return f"; it is called by {', '.join(callers)}, whose load moves" if callers else ""


def _effects(move: _Move) -> list[DrainEffect]:
    (old, carried), (new, arriving) = move.before, move.after
    rates = {site.datacenter: site.capacity_rps for site in old.datacenters}
    return [
        DrainEffect(
            move.service,
            site.datacenter,
            rates.get(site.datacenter, 0.0),
            site.capacity_rps,
            carried.get(site.datacenter, 0.0),
            arriving.get(site.datacenter, 0.0),
            move.why,
        )
        for site in new.datacenters
    ]
