"""Desired and observed state put together: which tasks serve which service, at which port, how well.

Changes are only noted as they come; `flush` works them off in one go, so that a burst of registrations or health
reports costs each service it touches one rebuild. What it finds goes to the hub, and from there to readers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from bns.model import HealthStatus, Task
from bns.view import BnsView
from gslb.balancer.coverage import Coverage
from gslb.balancer.inputs import TaskState
from gslb.balancer.safety import NO_NAMES, RemovalBudget
from gslb.control.fanout.hub import Hub
from gslb.control.ingest.board import HealthBoard
from gslb.control.view.config import Config
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.resources import Backend, Catalog, Service

ViewOf = Callable[[], BnsView]


@dataclass(slots=True)
class _Known:
    """What is remembered of one service between rebuilds."""

    service: Service
    budget: RemovalBudget = NO_NAMES
    held: str = ""  # why endpoints that BNS no longer has are still served; empty: none are
    unported: tuple[str, ...] = ()  # tasks that lack the service's named port
    endpoints: dict[str, ServiceEndpoint] = field(default_factory=dict)
    states: tuple[TaskState, ...] | None = None  # for the balancer; None: to be made anew


def state_of(task: Task, health: HealthStatus = HealthStatus.UNKNOWN) -> TaskState:
    """A task without its load."""
    return TaskState(task.name, task.datacenter, task.job, health, machine=task.machine)


class World:
    """See the module. `view_of` gives the present BNS view; clocks are arguments: monotonic seconds."""

    def __init__(self, hub: Hub, board: HealthBoard, view_of: ViewOf) -> None:
        self._hub = hub
        self._board = board
        self._view_of = view_of
        self._known: dict[str, _Known] = {}
        self._jobs: dict[str, tuple[tuple[str, Backend], ...]] = {}
        self._to_rebuild: set[str] = set()
        self._to_refresh: set[str] = set()
        self.catalog = Catalog()
        self.coverage = Coverage()

    # What happened

    def set_config(self, config: Config) -> None:
        """Desired state changed."""
        self.catalog = config.catalog
        services = config.catalog.services
        deleted = {
            one.resource.name for one in config.stored.values() if one.deleted and isinstance(one.resource, Service)
        }
        for name in [name for name in self._known if name not in services and name in deleted]:
            del self._known[name]
            self._hub.delete(name)
        for name, service in services.items():
            known = self._known.get(name)
            if known is None:
                self._known[name] = _Known(service)
            elif known.service == service:
                continue
            else:
                known.service = service
            self._to_rebuild.add(name)
        jobs: dict[str, list[tuple[str, Backend]]] = {}
        for name, known in self._known.items():
            for backend in known.service.backends:
                jobs.setdefault(backend.job, []).append((name, backend))
        self._jobs = {job: tuple(users) for job, users in jobs.items()}

    def set_coverage(self, coverage: Coverage) -> frozenset[str] | None:
        """The drains that hold now; None when they are the same, else the tasks that are drained as such or no more."""
        if coverage == self.coverage:
            return None
        before, self.coverage = self.coverage, coverage
        self._to_rebuild.update(self._known)
        changed = []
        for task in self._view_of().tasks.values():
            state = state_of(task)
            if bool(before.drain_of("", state)) != bool(coverage.drain_of("", state)):
                changed.append(task.name)
        return frozenset(changed)

    def registered(self, names: Iterable[str]) -> None:
        """BNS's tasks of these names came, changed or went."""
        for name in names:
            self._to_rebuild.update(service for service, _ in self._jobs.get(name.rpartition("/")[0], ()))

    def judged(self, names: Iterable[str]) -> None:
        """These tasks' health changed."""
        self._to_refresh.update(names)

    # What follows

    @property
    def pending(self) -> bool:
        return bool(self._to_rebuild or self._to_refresh)

    def flush(self, now_s: float) -> frozenset[str]:
        """Works off what was noted; the services whose tasks differ from before."""
        touched = set(self._to_rebuild)
        rebuild, self._to_rebuild = self._to_rebuild, set()
        refresh, self._to_refresh = self._to_refresh, set()
        for name in rebuild:
            known = self._known.get(name)
            if known is not None:
                self._rebuild(name, known, now_s)
        changes: dict[str, dict[str, ServiceEndpoint | None]] = {}
        for task_name in refresh:
            for service, backend in self._jobs.get(task_name.rpartition("/")[0], ()):
                if service not in rebuild:
                    self._refresh(service, backend, task_name, changes)
        for service, changed in changes.items():
            self._hub.update_endpoints(service, changed)
            self._known[service].states = None
        return frozenset(touched | changes.keys())

    def look_at_held(self) -> None:
        """To be called now and then: what is held back is judged again, for its time may have come."""
        self._to_rebuild.update(name for name, known in self._known.items() if known.held)

    def health_of(self, task_name: str) -> HealthStatus:
        """What BNS's readers are told: the verdict, or DRAINING where an operator drains the task as such."""
        health = self._board.health_of(task_name)
        if not self.coverage.drains:
            return health
        task = self._view_of().tasks.get(task_name)
        drained = task is not None and self.coverage.drain_of("", state_of(task))
        return HealthStatus.DRAINING if drained else health

    def held(self) -> Mapping[str, str]:
        """Services whose endpoints are held back, and why."""
        return {name: known.held for name, known in self._known.items() if known.held}

    def unported(self) -> Mapping[str, tuple[str, ...]]:
        """Services with tasks that lack the named port that its clients use."""
        return {name: known.unported for name, known in self._known.items() if known.unported}

    def states_of(self, service: str, now_s: float, *, fresh: bool = False) -> tuple[TaskState, ...]:
        """The service's tasks for the balancer. `fresh`: with the newest load; else of the last change."""
        known = self._known.get(service)
        if known is None:
            return ()
        if known.states is None or fresh:
            known.states = tuple(state for backend in known.service.backends for state in self._states(backend, now_s))
        return known.states

    def _states(self, backend: Backend, now_s: float) -> Iterator[TaskState]:
        # The same two strings for all tasks of the job: of 100,000 tasks each would have its own.
        job, datacenter = backend.job, backend.datacenter
        for task in self._view_of().tasks.job(job).values():
            columns = self._board.loads.columns_of((datacenter, task.agent))
            row = None if columns is None else columns.index.get(task.name)
            health = self._board.health_of(task.name)
            if columns is None or row is None:
                yield TaskState(task.name, datacenter, job, health, machine=task.machine)
                continue
            yield TaskState(
                task.name,
                datacenter,
                job,
                health,
                ok_rps=columns.ok_rps.item(row),
                error_rps=columns.error_rps.item(row),
                cpu_utilization=columns.cpu_utilization.item(row),
                report_age_s=max(0.0, now_s - columns.received_s),
                machine=task.machine,
                machine_cpu=columns.machine_utilization or math.nan,
                machine_part=task.cpu_cores / columns.machine_cores if columns.machine_cores > 0 else math.nan,
                report=columns.load_seq,
            )

    def _rebuild(self, name: str, known: _Known, now_s: float) -> None:
        service = known.service
        tasks = self._view_of().tasks
        present: dict[str, ServiceEndpoint] = {}
        unported = []
        names = set()
        for backend in service.backends:
            for task in tasks.job(backend.job).values():
                names.add(task.name)
                endpoint = self._endpoint(service, backend, task)
                if endpoint is None:
                    unported.append(task.name)
                else:
                    present[task.name] = endpoint
        jobs = {backend.job for backend in service.backends}
        # Tasks of a job that the owner took out of the service are not missing.
        budget = _within(known.budget, jobs)
        known.budget, known.held = budget.judge(frozenset(names), "tasks", now_s=now_s)
        ghosts = {}
        if known.held:
            ghosts = {
                task: endpoint
                for task, endpoint in known.endpoints.items()
                if task not in names and task.rpartition("/")[0] in jobs
            }
        known.endpoints = {**ghosts, **present}
        known.unported = tuple(sorted(unported))
        known.states = None
        self._hub.set_endpoints(name, known.endpoints)

    def _refresh(
        self, service: str, backend: Backend, task_name: str, changes: dict[str, dict[str, ServiceEndpoint | None]]
    ) -> None:
        known = self._known.get(service)
        task = self._view_of().tasks.get(task_name)
        if known is None or task is None:
            return
        endpoint = self._endpoint(known.service, backend, task)
        if endpoint is not None and known.endpoints.get(task_name) != endpoint:
            known.endpoints[task_name] = endpoint
            changes.setdefault(service, {})[task_name] = endpoint

    def _endpoint(self, service: Service, backend: Backend, task: Task) -> ServiceEndpoint | None:
        """None when the task lacks the port that the service's clients use."""
        port = task.named_ports.get(service.port_name) if service.port_name else task.port
        if port is None:
            return None
        health = self._board.health_of(task.name)
        if self.coverage.drains and self.coverage.drain_of(service.name, state_of(task)):
            health = HealthStatus.DRAINING
        started_s = task.start_time.timestamp() if task.start_time is not None else 0.0
        return ServiceEndpoint(task.name, task.address, port, health, backend.task_capacity_rps, started_s)


def _within(budget: RemovalBudget, jobs: Iterable[str]) -> RemovalBudget:
    kept = frozenset(jobs)

    def inside(names: frozenset[str]) -> frozenset[str]:
        return frozenset(name for name in names if name.rpartition("/")[0] in kept)

    if all(name.rpartition("/")[0] in kept for name in budget.names | budget.accepted):
        return budget
    return replace(budget, names=inside(budget.names), accepted=inside(budget.accepted))
