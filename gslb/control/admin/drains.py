"""Drain and undrain: admitted with numbers, named by what they drain, always with an end and an author."""

import hashlib
import math
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bns.view import BnsView
from gslb.balancer.drains import DrainPreview, preview_drain
from gslb.balancer.inputs import Inputs
from gslb.balancer.state import BalancerState
from gslb.control.admin.apply import tombstone
from gslb.control.admin.desk import Change, Snapshot
from gslb.control.view.config import Stored
from gslb.model import limits
from gslb.model.errors import InvalidValueError, NotFoundError, RefusedError
from gslb.model.meta import Meta
from gslb.model.resources import Catalog, Drain, DrainScope, Resource
from gslb.model.validate import target_problem
from gslb.v1 import admin_pb2
from gslb.wire.codec import decode_scope

_NOT_LABEL = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Wish:
    """A drain as it was asked for, checked by itself."""

    scope: DrainScope
    target: str
    duration_s: float
    reason: str
    author: str
    override: bool
    ramp_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What a drain is judged by."""

    inputs: Inputs
    state: BalancerState
    utc_s: float


def read_wish(request: admin_pb2.DrainRequest, principal: str) -> Wish:
    """Raises InvalidValueError."""
    scope = decode_scope(request.scope)
    problem = target_problem(scope, request.target)
    if problem:
        raise InvalidValueError(f"target of the drain: {problem}")
    duration_s = request.duration_s or limits.DRAIN_DEFAULT_S
    if not (math.isfinite(duration_s) and 1.0 <= duration_s <= limits.DRAIN_MAX_S):
        raise InvalidValueError(
            f"a drain of {request.duration_s:g} s: give 1 s to {limits.DRAIN_MAX_S / 3600:g} h"
            f" (`--for 2h`), and drain again when it ends"
        )
    reason = request.reason.strip()
    if not reason:
        raise InvalidValueError("a drain needs a reason: say why, with --reason")
    author = request.author.strip() or principal
    for what, text in (("reason", reason), ("author", author)):
        if len(text) > limits.REASON_MAX_CHARS or not text.isprintable():
            raise InvalidValueError(
                f"{what} {text[:40]!r}... has {len(text)} characters: at most {limits.REASON_MAX_CHARS}, on one line"
            )
    ramp_s = request.ramp_s
    if not 0 <= ramp_s <= duration_s:
        raise InvalidValueError(
            f"a ramp of {ramp_s:g} s in a drain of {duration_s:g} s: give one that is shorter, or a later end (`--for`)"
        )
    return Wish(scope, request.target, duration_s, reason, author, request.override, ramp_s)


def make_drain(snapshot: Snapshot, wish: Wish, principal: str) -> Change:
    """The drain as it would be written: a drain of the same target is replaced, with its new end."""
    held = _held(snapshot, wish.scope, wish.target)
    if held is not None:
        name, owner, before = held.resource.meta.name, held.resource.meta.owner, held.resource.meta.generation
    else:
        name, owner = _free_name(snapshot, wish.scope, wish.target), Meta("").owner
        former = snapshot.find("drain", name, owner)
        before = former.resource.meta.generation if former else 0
    starts_at, ramp_s = _ramp(held.resource if held else None, wish, snapshot.now)
    drain = Drain(
        meta=Meta(name, owner, before + 1, snapshot.now, None, principal),
        scope=wish.scope,
        target=wish.target,
        reason=wish.reason,
        author=wish.author,
        starts_at=starts_at,
        expires_at=snapshot.now + timedelta(seconds=wish.duration_s),
        overridden=wish.override,
        ramp_s=ramp_s,
    )
    return Change(drain, "changed" if held is not None else "created")


def _ramp(held: Resource | None, wish: Wish, now: datetime) -> tuple[datetime, float]:
    """Start and length of the ramp. A drain that is there already gives nothing back: it stays as far as it is."""
    if wish.ramp_s <= 0 or not isinstance(held, Drain) or not held.active(now):
        return now, wish.ramp_s
    if held.progress(now) >= 1:
        return now, 0.0
    longest = timedelta(seconds=limits.DRAIN_MAX_S)
    if now + timedelta(seconds=wish.duration_s) - held.starts_at > longest:
        return now, 0.0
    return held.starts_at, held.ramp_s


def _held(snapshot: Snapshot, scope: DrainScope, target: str) -> Stored | None:
    for stored in snapshot.stored.values():
        drain = stored.resource
        if isinstance(drain, Drain) and not stored.deleted and (drain.scope, drain.target) == (scope, target):
            return stored
    return None


def _free_name(snapshot: Snapshot, scope: DrainScope, target: str) -> str:
    """Such as datacenter-us-east1; with a piece of a hash where that is too long or taken."""
    text = f"{scope.value}-{_NOT_LABEL.sub('-', target.lower().removeprefix('/bns/')).strip('-')}"
    taken = snapshot.find("drain", text)
    if len(text) <= limits.NAME_MAX_CHARS and (taken is None or taken.deleted):
        return text
    digest = hashlib.blake2b(f"{scope.value} {target}".encode(), digest_size=4).hexdigest()
    return f"{text[: limits.NAME_MAX_CHARS - 9].rstrip('-')}-{digest}"


def check_known(catalog: Catalog, view: BnsView, scope: DrainScope, target: str) -> None:
    """Raises NotFoundError when there is nothing of that name to drain."""
    service, at, datacenter = target.partition("@")
    known = False
    match scope:
        case DrainScope.DATACENTER:
            known = target in catalog.datacenters
        case DrainScope.REGION:
            known = any(one.region == target for one in catalog.datacenters.values())
        case DrainScope.SERVICE:
            declared = catalog.services.get(service)
            known = declared is not None and (
                not at or any(backend.datacenter == datacenter for backend in declared.backends)
            )
        case DrainScope.JOB:
            known = bool(view.tasks.job(target)) or any(
                backend.job == target for declared in catalog.services.values() for backend in declared.backends
            )
        case DrainScope.TASK:
            known = target in view.tasks
        case DrainScope.MACHINE:
            known = any(task.machine == target for task in view.tasks.values())
    if not known:
        raise NotFoundError(f"there is no {scope.value} {target!r} to drain: {_where_to_look(scope)}")


def _where_to_look(scope: DrainScope) -> str:
    match scope:
        case DrainScope.DATACENTER | DrainScope.REGION:
            return "`gslb get datacenter` lists what there is"
        case DrainScope.SERVICE:
            return "`gslb get service` lists the services and their datacenters"
        case _:
            return "`bns ls /bns/` lists what is registered"


def preview(drain: Drain, catalog: Catalog, moment: Moment) -> DrainPreview:
    """What it would do. Runs the balancer twice: not on the event loop."""
    inputs = replace(moment.inputs, catalog=catalog)
    return preview_drain(inputs, drain, now_s=moment.utc_s, state=moment.state)


def refuse(drain: Drain, violations: tuple[str, ...]) -> None:
    """Raises RefusedError when there are violations."""
    if violations:
        raise RefusedError(
            f"draining {drain.scope.value} {drain.target} is refused; with --override it is done all the same",
            violations,
        )


def decide_undrain(snapshot: Snapshot, request: admin_pb2.UndrainRequest, principal: str) -> list[Change]:
    """The drains to end. Raises InvalidValueError, NotFoundError."""
    live = [one for one in snapshot.stored.values() if isinstance(one.resource, Drain) and not one.deleted]
    if request.name:
        found = [one for one in live if one.resource.meta.name == request.name]
        what = f"drain {request.name[:80]!r}"
    else:
        scope = decode_scope(request.scope)
        found = [
            one
            for one in live
            if isinstance(one.resource, Drain) and (one.resource.scope, one.resource.target) == (scope, request.target)
        ]
        what = f"drain of {scope.value} {request.target[:200]!r}"
    if not found:
        names = ", ".join(sorted(one.resource.meta.name for one in live)) or "none"
        raise NotFoundError(f"there is no {what}; drains now: {names[:500]}")
    return [tombstone(one, snapshot, principal) for one in found]
