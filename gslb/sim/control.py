"""The control plane under the virtual clock: reports in, the production step, views out.

What the real process does with etcd, streams and threads is here a call; everything that decides is the production
code itself: the rule of the two witnesses, the demand fold, the balancer's step, the readers' view.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from bns.model import HealthStatus
from gslb.balancer.coverage import Coverage, full_coverage
from gslb.balancer.demand import DemandFold, DemandReport
from gslb.balancer.inputs import Callers, Inputs, TaskState
from gslb.balancer.outstanding import by_dns
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.balancer.verdict import Evidence, Witness, judge
from gslb.balancer.witness import WitnessStand
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Backend, CapacityMode, Catalog, DemandSource
from gslb.sim.agents import AgentReport, TaskLoad
from gslb.sim.setup import Knobs, Setup
from gslb.steer.view import ServiceView

# Story time 0 on the calendar: 2026-01-01 00:00 UTC.
EPOCH_S: Final = 1_767_225_600.0
# As gslb.control.planner: a rise beyond this since the last plan is planned at once.
JUMP_FRACTION: Final = 0.25
JUMP_RPS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Published:
    """A plan that was published, and the part of the service's demand that it moved from where it was."""

    at_s: float
    service: str
    moved: float


@dataclass(slots=True)
class _Heard:
    """The last word of a datacenter's agent."""

    at_s: float
    report: int
    tasks: Mapping[str, TaskLoad]


class Control:
    """`views` is what readers are given. Times are story seconds."""

    def __init__(self, setup: Setup, knobs: Knobs) -> None:
        self._setup = setup
        self._knobs = knobs
        self._fold = DemandFold()
        self._stand = WitnessStand()
        self._heard: dict[str, _Heard] = {}
        self._fresh: set[str] = set()  # datacenters whose agent has just spoken
        self._coverage = Coverage()
        self._shown: dict[str, tuple[object, ...]] = {}
        self._verdicts: dict[str, HealthStatus] = {}
        self._states: dict[str, tuple[TaskState, ...]] = {}
        self._state = BalancerState()
        self._plans: dict[str, Plan] = {}
        self._planned_rps: dict[str, float] = {}
        self._due_s = 0.0
        self._urgent = True
        self.catalog = setup.catalog
        self.rtt_ms: Mapping[tuple[str, str], float] = {}
        self.demand: Mapping[str, Mapping[str, float]] = {}
        self.callers: Callers = {}  # who asks for it, as of the last periodic round
        self.decision = Decision()
        self.inputs = Inputs(setup.catalog)
        self.views: dict[str, ServiceView] = {}
        self.published: list[Published] = []
        self._tasks = {
            name: [
                (f"{backend.job}/{i}", backend)
                for backend in service.backends
                for i in range(setup.tasks.get(backend.job, 0))
            ]
            for name, service in setup.catalog.services.items()
        }
        self._tasks_at: dict[str, list[str]] = {name: [] for name in setup.catalog.datacenters}
        for tasks in self._tasks.values():
            for task, backend in tasks:
                self._tasks_at.setdefault(backend.datacenter, []).append(task)

    def set_catalog(self, catalog: Catalog) -> None:
        """Desired state changed: a drain came or went."""
        self.catalog = catalog
        self._urgent = True

    def hear_agent(self, report: AgentReport, now_s: float) -> None:
        self._heard[report.datacenter] = _Heard(now_s, report.number, report.tasks)
        self._fresh.add(report.datacenter)
        for task, ok in report.probes.items():
            self._stand.add(task, int(ok), int(not ok), now_s)

    def hear_demand(self, report: DemandReport, counts: Mapping[str, tuple[int, int]], now_s: float) -> None:
        """A client process's report: its first attempts, and what it saw of tasks."""
        reason = self._fold.accept(report, now_s=now_s)
        assert not reason, reason
        for task, (ok, failed) in counts.items():
            self._stand.add(task, ok, failed, now_s)

    def tick(self, now_s: float) -> None:
        """Judges health, looks for jumps of demand, and plans when it is time."""
        touched = self._judge_all(now_s)
        self.demand = self._fold.demand(self._sources, now_s=now_s)
        periodic = now_s >= self._due_s
        touched |= self._jumped()
        if periodic:
            self.callers = self._fold.callers(self._sources, now_s=now_s)
        if periodic or touched or self._urgent:
            self._plan(now_s, None if periodic or self._urgent else frozenset(touched))
        if periodic:
            self._due_s = now_s + self._knobs.plan_period_s
        self._urgent = False
        self._show(now_s)

    @property
    def _sources(self) -> dict[str, DemandSource]:
        return {name: service.source for name, service in self.catalog.services.items()}

    def _judge_all(self, now_s: float) -> set[str]:
        """Every task's verdict; the services with a changed one."""
        touched = set()
        fresh, self._fresh = self._fresh, set()
        late = {name for name in self.catalog.datacenters if self._late(name, limits.REPORT_LATE_PERIODS, now_s)}
        deserted = {name for name in late if self._stand.deserted(self._tasks_at[name], now_s)}
        for service, tasks in self._tasks.items():
            for task, backend in tasks:
                datacenter = backend.datacenter
                if datacenter not in late and datacenter not in fresh:
                    continue
                before = self._verdicts.get(task, HealthStatus.UNKNOWN)
                evidence = self._evidence(
                    task, datacenter, now_s, late=datacenter in late, deserted=datacenter in deserted
                )
                verdict = judge(before, evidence)
                if verdict is not before:
                    self._verdicts[task] = verdict
                    self._states.pop(service, None)
                    touched.add(service)
        return touched

    def _late(self, datacenter: str, periods: float, now_s: float) -> bool:
        """Whether its agent has not been heard for so many report periods."""
        heard = self._heard.get(datacenter)
        return heard is None or now_s - heard.at_s > periods * self._knobs.report_period_s

    def _evidence(self, task: str, datacenter: str, now_s: float, *, late: bool, deserted: bool) -> Evidence:
        heard = self._heard.get(datacenter)
        load = heard.tasks.get(task) if heard else None
        # An agent that speaks is not overruled: its tasks need no witness.
        out = self._verdicts.get(task) is HealthStatus.TIMEOUT
        witness = self._stand.witness(task, now_s, deserted=deserted, out=out) if late else Witness.NONE
        silent = self._late(datacenter, limits.REPORT_STALE_PERIODS, now_s)
        return Evidence(load.health if load else None, silent, witness, late, deserted)

    def _jumped(self) -> set[str]:
        return {
            service
            for service, rps in self.demand.items()
            if math.fsum(rps.values()) > self._planned_rps.get(service, 0.0) * (1 + JUMP_FRACTION) + JUMP_RPS
        }

    def _plan(self, now_s: float, changed: frozenset[str] | None) -> None:
        self.inputs = Inputs(
            self.catalog,
            {name: self._states_of(name, now_s, fresh=changed is None) for name in self.catalog.services},
            self.demand,
            self.rtt_ms,
            dict(self._plans),
            self.callers,
            changed=changed,
        )
        self._state, self.decision = step(self._state, self.inputs, now_s=EPOCH_S + now_s)
        for name, decided in self.decision.services.items():
            self._planned_rps[name] = math.fsum(self.demand.get(name, {}).values())
            if decided.plan is not None and decided.changed:
                self._publish(decided.plan, now_s)

    def _publish(self, plan: Plan, now_s: float) -> None:
        before = self._plans.get(plan.service)
        version = before.stamp.version + 1 if before else 1
        after = replace(plan, stamp=Stamp(1, 1, version))
        self._plans[plan.service] = after
        self.published.append(Published(now_s, plan.service, moved_fraction(before, after)))

    def _states_of(self, service: str, now_s: float, *, fresh: bool) -> tuple[TaskState, ...]:
        declared = self.catalog.services[service]
        learns = by_dns(declared) or any(b.mode is CapacityMode.UTILIZATION for b in declared.backends)
        if service not in self._states or (fresh and learns):
            self._states[service] = tuple(self._state_of(task, b, now_s) for task, b in self._tasks[service])
        return self._states[service]

    def _state_of(self, task: str, backend: Backend, now_s: float) -> TaskState:
        heard = self._heard.get(backend.datacenter)
        load = heard.tasks.get(task) if heard else None
        health = self._verdicts.get(task, HealthStatus.UNKNOWN)
        if heard is None or load is None:
            return TaskState(task, backend.datacenter, backend.job, health)
        # The age that a planner knows is the one since arrival: clocks of two machines are not compared.
        age_s = now_s - heard.at_s
        return TaskState(
            task,
            backend.datacenter,
            backend.job,
            health,
            load.ok_rps,
            load.error_rps,
            load.cpu_utilization,
            age_s,
            report=heard.report,
        )

    def _show(self, now_s: float) -> None:
        """What readers see from now on."""
        coverage = full_coverage(self.catalog, EPOCH_S + now_s)
        if coverage != self._coverage:
            self._coverage = coverage
        for name, service in self.catalog.services.items():
            plan = self._plans.get(name)
            verdicts = tuple(self._verdicts.get(task, HealthStatus.UNKNOWN) for task, _ in self._tasks[name])
            shown = (verdicts, self._coverage, plan.stamp if plan else None)
            if self._shown.get(name) == shown:
                continue
            self._shown[name] = shown
            view = self.views.get(name) or ServiceView.build(name, service)
            if view.plan is not plan:
                view = view.with_plan(plan)
            endpoints = dict(self._endpoints(name))
            self.views[name] = view if view.endpoints == endpoints else view.with_endpoints(endpoints)

    def capacity_rps(self, service: str, datacenter: str) -> float:
        """As the last step saw it; the published plan's is older while no share moves."""
        decided = self.decision.services.get(service)
        sites = decided.capacity.datacenters if decided else ()
        return next((site.capacity_rps for site in sites if site.datacenter == datacenter), 0.0)

    def _endpoints(self, service: str) -> Iterable[tuple[str, ServiceEndpoint]]:
        for number, (task, backend) in enumerate(self._tasks[service]):
            health = self._verdicts.get(task, HealthStatus.UNKNOWN)
            if self._coverage.drain_of(service, TaskState(task, backend.datacenter, backend.job, health)):
                health = HealthStatus.DRAINING
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            yield task, ServiceEndpoint(task, address, 1, health)


def moved_fraction(before: Plan | None, after: Plan) -> float:
    """The part of today's demand that goes elsewhere by `after` than by `before`."""
    if before is None:
        return 0.0
    total = math.fsum(after.demand_rps.values())
    moved = 0.0
    for locality, shares in after.shares.items():
        old = before.shares.get(locality, {})
        moved += after.demand_rps.get(locality, 0.0) * sum(
            max(0.0, share - old.get(datacenter, 0.0)) for datacenter, share in shares.items()
        )
    return moved / total if total > 0 else 0.0


def utc(now_s: float) -> datetime:
    """Story seconds as a calendar time."""
    return datetime.fromtimestamp(EPOCH_S + now_s, UTC)
