"""What `gslb check` prints: everything that an operator should know about, worst first, each line with what to do."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from bns.etcd.advice import Level, quota_alarm, version_warning
from bns.etcd.errors import EtcdError
from bns.etcd.v3 import rpc_pb2
from bns.model import HealthStatus
from gslb.balancer.callees import Overfull, overfull_after_losses
from gslb.balancer.contingency import Loss, losses
from gslb.balancer.quota import Row, Standing
from gslb.balancer.sharing import Use
from gslb.balancer.state import Decision, ServiceDecision
from gslb.control import keys
from gslb.control.ingest.frontends import Frontend
from gslb.model import limits
from gslb.model.validate import validate
from gslb.v1 import admin_pb2

if TYPE_CHECKING:
    from gslb.control.recorder import Recorder
    from gslb.control.replica import Replica

OK, WARNING, ERROR = admin_pb2.SEVERITY_OK, admin_pb2.SEVERITY_WARNING, admin_pb2.SEVERITY_ERROR
Findings = Iterator[admin_pb2.Finding]
K = TypeVar("K")
V = TypeVar("V")

# Of one sort of trouble at most so many lines.
LINES_MAX = 50
LOSSES_MAX = 500
# Services that call each other, times localities: beyond this a check would take seconds.
CALLEE_PAIRS_MAX = 20_000
EXPIRES_SOON_S = 1800.0
ETCD_TIMEOUT_S = 2.0
ETCD_SILENT_S = 5.0
# Something that services share is as good as used up; rounding beyond all of it.
SHARED_FULL = 0.95
OVER_TOLERANCE = 2e-3


def _finding(severity: admin_pb2.Severity.ValueType, subject: str, message: str) -> admin_pb2.Finding:
    return admin_pb2.Finding(severity=severity, subject=subject, message=message)


async def findings_of(replica: "Replica") -> list[admin_pb2.Finding]:
    """All findings, the worst first."""
    found = [*await _etcd(replica), *_replica(replica), *_records(replica), *_agents(replica), *_services(replica)]
    found += [
        *shared_findings(replica.planner.decision.uses),
        *quota_findings(replica.quotas.rows(), replica.quotas.unenforced(time.monotonic())),
        *frontend_findings(replica.frontends.recent(time.monotonic()), time.monotonic()),
        *_single_losses(replica),
        *await _callees(replica),
        *_drains(replica),
        *_clocks(replica),
    ]
    return sorted(found, key=lambda one: -one.severity)


async def _etcd(replica: "Replica") -> list[admin_pb2.Finding]:
    try:
        async with asyncio.timeout(ETCD_TIMEOUT_S):
            statuses, alarms = await asyncio.gather(replica.etcd.statuses(), replica.etcd.alarms())
    except (EtcdError, TimeoutError) as error:
        silent_s = replica.etcd.silent_s()
        since = "it has never answered" if silent_s is None else f"it last answered {silent_s:.0f} s ago"
        why = str(error) or f"etcd does not answer at {', '.join(replica.settings.etcd.endpoints)}"
        message = f"{why}; {since}; what was read from it is served on: look after etcd, or correct --etcd"
        return [_finding(ERROR, "etcd", message)]
    found = [
        _finding(ERROR, "etcd", f"etcd has raised alarm {_alarm_name(alarm.alarm)}: see `etcdctl alarm list`")
        for alarm in alarms
    ]
    for endpoint, status in statuses.items():
        found += _member(endpoint, status)
    return found


def _member(endpoint: str, status: rpc_pb2.StatusResponse | EtcdError) -> Findings:
    subject = f"etcd {endpoint}"
    if isinstance(status, EtcdError):
        yield _finding(ERROR, subject, f"this member does not answer: {status}")
        return
    warning = version_warning(status.version)
    if warning:
        yield _finding(WARNING, subject, warning)
    quota = quota_alarm(status.dbSize)
    if quota:
        yield _finding(ERROR if quota[0] is Level.CRITICAL else WARNING, subject, quota[1])
    if not warning and not quota:
        yield _finding(OK, subject, f"version {status.version}, {status.dbSize / 2**20:.0f} MiB")


def _alarm_name(number: int) -> str:
    return {1: "NOSPACE", 2: "CORRUPT"}.get(number, str(number))


def _replica(replica: "Replica") -> Findings:
    subject = f"replica {replica.settings.replica}"
    if replica.warm:
        role = "leads" if replica.elector.leadership else "follows"
        yield _finding(
            OK, subject, f"{role}; {replica.planner.steps} rounds, the last took {replica.planner.step_s:.3f} s"
        )
    else:
        yield _finding(WARNING, subject, f"it answers no readers yet: {replica.why_cold}")
    leader = replica.mirror.leaders.leader
    if leader is None:
        yield _finding(ERROR, "leader", "no replica leads: plans stay as they are until one does")
    else:
        yield _finding(
            OK, "leader", f"{leader.replica or '?'} at {leader.address or '?'}, epoch {leader.create_revision}"
        )
    if replica.strange_rows:
        message = f"{replica.strange_rows} rows of demand were for services or from localities that are not configured"
        yield _finding(WARNING, "demand", f"{message}: compare the clients' localities with `gslb get datacenter`")
    yield from _recorder(replica.recorder)
    for reporter, refusal in islice(replica.refusals.recent(time.monotonic()).items(), LINES_MAX):
        message = (
            f"{refusal.count} refused, the last because: {refusal.reason}; what it said before stands: look after it"
        )
        yield _finding(WARNING, f"reports: {reporter}", message)
    for service, reason in _some(replica.planner.refused):
        yield _finding(ERROR, f"service {service}", f"its plan is not published: {reason}")
    yield from alarm_findings(replica.planner.decision)


def alarm_findings(decision: Decision) -> Findings:
    """What is wrong with the plans as a whole; a plan that is held is told with its service."""
    with_services = {f"{name}: {each.held}" for name, each in decision.services.items() if each.held}
    for alarm in islice((alarm for alarm in decision.alarms if alarm not in with_services), LINES_MAX):
        yield _finding(ERROR, "plans", alarm)


def _recorder(recorder: "Recorder | None") -> Findings:
    if recorder is None:
        yield _finding(OK, "recorder", "off: --recorder of `gslb serve` turns it on")
        return
    missing = [
        f"{count} {what}" for count, what in ((recorder.dropped, "dropped"), (recorder.failed, "failed")) if count
    ]
    counts = ", ".join([f"{recorder.recorded} steps recorded, {recorder.size / 2**20:.1f} MiB", *missing])
    if recorder.trouble:
        message = f"steps are not recorded, plans go on: {recorder.trouble} ({counts})"
        yield _finding(WARNING, "recorder", f"{message}; make room or correct --recorder: it tries again by itself")
    elif recorder.dropped:
        yield _finding(WARNING, "recorder", f"{counts}: the disk of {recorder.directory} is too slow, give it another")
    else:
        yield _finding(OK, "recorder", f"{counts} in {recorder.directory}")


def _records(replica: "Replica") -> Findings:
    config = replica.mirror.config
    what = "quarantined, and the last good value is used if there was one"
    for key, reason in _some(config.quarantined):
        yield _finding(ERROR, keys.shown(key), f"{what}: {reason}; apply it again or delete it")
    for key, reason in _some(replica.mirror.plans.quarantined):
        yield _finding(ERROR, keys.shown(key), f"{what}: {reason}; the leader writes the next one")
    for name, reason in _some(replica.store.view.quarantined):
        yield _finding(ERROR, name, f"{what}: {reason}; register it again or delete it")
    for key in islice(sorted(config.vanished), LINES_MAX):
        yield _finding(
            ERROR,
            keys.shown(key),
            "it vanished from etcd without being deleted and is served as it was: apply it again",
        )
    for problem in islice(validate(config.catalog), LINES_MAX):
        yield _finding(ERROR, problem.subject, problem.message)


def _agents(replica: "Replica") -> Findings:
    now_s = time.monotonic()
    view = replica.store.view
    silent = sorted(replica.stale_agents())
    for datacenter, agent in silent[:LINES_MAX]:
        columns = replica.board.loads.columns_of((datacenter, agent))
        heard = (
            "it has not reported to this replica"
            if columns is None
            else (f"its last report is {now_s - columns.received_s:.0f} s old")
        )
        lease = "its liveness lease holds" if view.is_live(datacenter, agent) else "its liveness lease is gone"
        tasks = len(view.tasks.owned_by(datacenter, agent))
        message = f"{heard}, {lease}; its {tasks} tasks are served with their last known health: look after the agent"
        yield _finding(WARNING, f"agent {datacenter}/{agent}", message)
    if not silent:
        yield _finding(OK, "agents", f"{len(view.tasks.owners)} agents report, {len(view.tasks)} tasks are registered")


def _services(replica: "Replica") -> Findings:
    world, now_s = replica.world, time.monotonic()
    for name, reason in _some(world.held()):
        yield _finding(ERROR, f"service {name}", f"endpoints that vanished from BNS are still served: {reason}")
    for name, tasks in _some(world.unported()):
        port = world.catalog.services[name].port_name
        yield _finding(
            ERROR,
            f"service {name}",
            f"{len(tasks)} tasks have no port named {port!r} and get nothing, such as {tasks[0]}",
        )
    silent = 0
    for name, decision in islice(replica.planner.decision.services.items(), limits.SERVICES_MAX):
        states = world.states_of(name, now_s)
        unknown = sum(1 for state in states if state.health is HealthStatus.UNKNOWN)
        lines = list(service_findings(name, decision, len(states), unknown))
        silent += not lines
        yield from lines
    if replica.planner.decision.services:
        yield _finding(OK, "services", f"{silent} of {len(replica.planner.decision.services)} have nothing to tell")


def service_findings(name: str, decision: ServiceDecision, tasks: int, unknown: int) -> Findings:
    """What there is to say of one service, of whose `tasks` the health of so many is `unknown`."""
    subject = f"service {name}"
    if not tasks:
        yield _finding(WARNING, subject, "no task is registered for any of its backends: it cannot serve")
        return
    if unknown:
        yield _finding(
            WARNING, subject, f"the health of {unknown} of {tasks} tasks is not known: does their agent run?"
        )
    if decision.overload > 1.0 + 1e-6:
        message = f"demand is {decision.overload:.0%} of the capacity that is left: add tasks or lift a drain"
        yield _finding(ERROR, subject, message)
    # Of a plan that is held the notes say just that.
    for note in () if decision.held else decision.notes[:LINES_MAX]:
        yield _finding(WARNING, subject, note)
    if decision.held:
        yield _finding(ERROR, subject, f"its plan is held: {decision.held}")


def _single_losses(replica: "Replica") -> Findings:
    """Every datacenter whose loss would leave a service with less capacity than it needs now."""
    told = 0
    for name, decision in replica.planner.decision.services.items():
        for loss in losses(decision.plan) if decision.plan is not None else ():
            if loss.survivable:
                continue
            told += 1
            if told <= LOSSES_MAX:
                yield _finding(WARNING, f"service {name}", _loss_message(loss))
    if told > LOSSES_MAX:
        yield _finding(
            WARNING, "services", f"{told - LOSSES_MAX} more single losses could not be survived within capacity"
        )
    if not told and replica.planner.decision.services:
        yield _finding(OK, "losses", "every service survives the loss of any one datacenter within capacity")


async def _callees(replica: "Replica") -> list[admin_pb2.Finding]:
    """Losses whose callers would overfill somebody before there is a new plan."""
    planner = replica.planner
    plans = {name: each.plan for name, each in planner.decision.services.items() if each.plan is not None}
    callers = planner.callers
    pairs = sum(len(plans[name].shares) for name in callers if name in plans)
    if pairs > CALLEE_PAIRS_MAX:
        message = f"losses are judged without callers' moves: {pairs} pairs of service and locality, at most {CALLEE_PAIRS_MAX}"
        return [_finding(OK, "losses", message)]
    found = await asyncio.to_thread(overfull_after_losses, plans, callers)
    return [
        _finding(
            WARNING,
            f"service {one.service}",
            f"if {one.lost} is lost, {', '.join(one.callers)} call it from elsewhere, and {one.datacenter} would be at "
            f"{_percent(one)} of its capacity until the next plan: add tasks in {one.datacenter}",
        )
        for one in found[:LINES_MAX]
    ]


def _percent(one: Overfull) -> str:
    return f"{one.load_rps / one.capacity_rps:.0%}" if one.capacity_rps > 0 else "more than all"


def _loss_message(loss: Loss) -> str:
    if loss.remaining_rps <= 0:
        return f"the loss of {loss.datacenter} would leave no capacity at all: add a backend in another datacenter"
    return (
        f"the loss of {loss.datacenter} could not be survived within capacity: {loss.remaining_rps:.6g} rps would remain "
        f"for {loss.demand_rps:.6g} rps ({loss.overload:.0%}): add {loss.demand_rps - loss.remaining_rps:.6g} rps elsewhere"
    )


def shared_findings(uses: Iterable[Use]) -> Findings:
    """What services share in a datacenter, and how much of it the plans take."""
    for use in islice(uses, LINES_MAX):
        what = use.shared
        taken = f"the plans take {use.used:.4g} of {what.limit:.6g} {what.unit}, {use.fraction:.0%}"
        subject = f"{what.what} of {what.datacenter}"
        if use.fraction > 1 + OVER_TOLERANCE:
            yield _finding(ERROR, subject, f"{taken}: it is not enough for all; add some, or tasks elsewhere")
        elif use.fraction > SHARED_FULL:
            yield _finding(WARNING, subject, f"{taken}: what more is asked for goes elsewhere")
        else:
            yield _finding(OK, subject, taken)


def quota_findings(rows: Iterable[Row], unenforced: Iterable[str]) -> Findings:
    """Clients that ask for more than their quota, and services whose quotas (`unenforced`) nobody looks at."""
    for name in islice(unenforced, LINES_MAX):
        message = "it has quotas, and none of its servers reports what clients ask: give their interceptors `Quotas`"
        yield _finding(WARNING, f"service {name}", message)
    told, over = 0, 0
    for row in rows:
        told += 1
        if row.standing is not Standing.OVER:
            continue
        over += 1
        if over <= LINES_MAX:
            message = (
                f"caller {row.caller!r} asks for {row.asked:.4g} {row.unit.value} and its quota is {row.quota:.6g}: what is"
                " beyond is refused; let it ask less, or raise its quota"
            )
            yield _finding(WARNING, f"service {row.service}", message)
    if told and not over:
        yield _finding(OK, "quotas", f"all {told} are kept")


def frontend_findings(frontends: Mapping[str, Frontend], now_s: float) -> Findings:
    """Every DNS frontend with what answers there, or how long it has been silent."""
    for name, frontend in _some(frontends):
        silent_s = frontend.silent_s(now_s)
        if silent_s:
            message = f"it has not reported for {silent_s:.0f} s: look after it, unless it was taken down"
            yield _finding(WARNING, f"DNS frontend {name}", message)
        else:
            yield _finding(OK, f"DNS frontend {name}", f"UDP is answered by {frontend.responder}")


def _drains(replica: "Replica") -> Findings:
    now = datetime.now(UTC)
    for drain in islice(replica.world.catalog.drains.values(), LINES_MAX):
        left_s = (drain.expires_at - now).total_seconds()
        if left_s <= 0:
            continue
        subject = f"drain {drain.name}"
        progress = drain.progress(now) if drain.active(now) else 0.0
        if 0 < progress < 1:
            rest_s = (1 - progress) * drain.ramp_s
            yield _finding(
                OK, subject, f"under way: {progress:.0%} of the capacity is out, all of it in {rest_s:.0f} s"
            )
        if left_s < EXPIRES_SOON_S:
            yield _finding(
                WARNING, subject, f"expires in {left_s / 60:.0f} min, and traffic returns: drain again or undrain"
            )
        if drain.overridden:
            yield _finding(WARNING, subject, f"overrides the capacity rule: {drain.reason} ({drain.author})")


def _clocks(replica: "Replica") -> Findings:
    for candidate in replica.mirror.leaders.candidates.values():
        skew_s = candidate.skew_s
        if skew_s is not None and abs(skew_s) > limits.CLOCK_SKEW_MAX_S:
            message = (
                f"its clock differed by {skew_s:+.1f} s from ours when it started: drains would end at other times"
            )
            yield _finding(WARNING, f"replica {candidate.replica}", f"{message}; look after NTP")


def _some(trouble: Mapping[K, V]) -> Iterable[tuple[K, V]]:
    return islice(trouble.items(), LINES_MAX)
