"""What a service can serve in each datacenter: usable tasks times what one task serves. PURE.

Mode `rate`: what the owner declared. Mode `utilization`: what `learning` made of the tasks' CPU. Of tasks that ramp up it
is a part, of those that flap (`gslb.balancer.flaps`) nothing, unless all of it is needed. A task is usable when it is
HEALTHY and no drain covers it. When no task of a service is usable anywhere, the service panics: every task that nobody
wanted out counts with its capacity, and failing that every task.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from bns.model import HealthStatus
from gslb.balancer.coverage import Coverage
from gslb.balancer.flaps import NO_FLAPS, Flaps
from gslb.balancer.inputs import TaskState
from gslb.balancer.learning import UNLEARNED, Learning
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.resources import Backend, Service


@dataclass(frozen=True, slots=True)
class DatacenterCapacity:
    """One service in one datacenter."""

    datacenter: str
    capacity_rps: float = 0.0  # of usable tasks
    tasks: int = 0
    healthy: int = 0
    drained: int = 0
    drained_rps: float = 0.0  # capacity of healthy tasks that a drain covers
    drains: tuple[str, ...] = ()  # names of the drains that cover tasks here
    willing_rps: float = 0.0  # capacity of tasks neither drained nor in lame duck, whatever their health
    declared_rps: float = 0.0  # capacity of all registered tasks
    easing: float = 1.0  # the least that a drain under way has left of a task's capacity here
    serving: int = 0  # healthy tasks that nobody drains
    held: int = 0  # healthy tasks in hold-down: they count only where they are needed
    withdrawn: str = ""  # why healthy tasks here get nothing all the same (`gslb.balancer.safety`); empty: they do


@dataclass(frozen=True, slots=True)
class ServiceCapacity:
    """All datacenters of a service, in order of name."""

    datacenters: tuple[DatacenterCapacity, ...] = ()
    panic: str = ""  # why capacity is not that of usable tasks; empty: it is
    notes: tuple[str, ...] = ()  # what an operator should know of how it was found

    @property
    def total_rps(self) -> float:
        """Sum of usable capacity over all datacenters."""
        return math.fsum(site.capacity_rps for site in self.datacenters)

    @property
    def tasks(self) -> int:
        return sum(site.tasks for site in self.datacenters)

    def used_rps(self) -> tuple[float, ...]:
        """Capacity to plan with, by datacenter: usable, in panic that of the willing tasks, failing that of all."""
        usable = tuple(site.capacity_rps for site in self.datacenters)
        willing = tuple(site.willing_rps for site in self.datacenters)
        if any(usable):
            return usable
        return willing if any(willing) else tuple(site.declared_rps for site in self.datacenters)


NO_CAPACITY = ServiceCapacity()


@dataclass(slots=True)
class _Sum:
    """Adds up one datacenter."""

    capacity_rps: float = 0.0
    tasks: int = 0
    healthy: int = 0
    drained: int = 0
    drained_rps: float = 0.0
    willing_rps: float = 0.0
    declared_rps: float = 0.0
    ramping_rps: float = 0.0  # the part of capacity that is not there yet
    easing: float = 1.0
    serving: int = 0
    held: int = 0

    def add(self, task: TaskState, rps: float, warmth: float, *, drained: bool, held: bool) -> None:
        healthy = task.health is HealthStatus.HEALTHY
        self.tasks += 1
        self.healthy += healthy
        self.drained += drained
        self.declared_rps += rps
        if drained:
            # An effective health of DRAINING was most likely HEALTHY before the operator drained it.
            self.drained_rps += rps if task.health in {HealthStatus.HEALTHY, HealthStatus.DRAINING} else 0.0
            return
        if healthy:
            self.serving += 1
            self.capacity_rps += rps
            self.held += held
            self.ramping_rps += rps if held else rps * (1 - warmth)
        if task.health is not HealthStatus.DRAINING:
            self.willing_rps += rps


def capacity_of(
    service: Service,
    tasks: Sequence[TaskState],
    coverage: Coverage,
    learning: Learning = UNLEARNED,
    needed_rps: float = math.inf,
    flaps: Flaps = NO_FLAPS,
) -> ServiceCapacity:
    """Capacity of `service` by datacenter.

    Tasks and datacenters that ramp up count in part, and those in hold-down do not count, as long as the others carry
    `needed_rps`; as far as they do not, that is skipped. Raises InvalidValueError for a declared capacity that is no
    positive number.
    """
    rps_by_job = {backend.job: _checked(service.name, backend, learning) for backend in service.backends}
    sums = {backend.datacenter: _Sum() for backend in service.backends}
    drains: dict[str, set[str]] = {}
    for task in tasks:
        rps = rps_by_job.get(task.job)
        if rps is None:
            continue
        drain = coverage.drain_of(service.name, task) if coverage.drains else ""
        site = sums.get(task.datacenter)
        easing = coverage.easing_of(service.name, task) if coverage.easing and not drain else None
        if drain or easing:
            drains.setdefault(task.datacenter, set()).add(easing.name if easing else drain)
        if site is not None:
            if easing:
                rps *= easing.remaining
                site.easing = min(site.easing, easing.remaining)
            site.add(
                task,
                min(rps, learning.limit_rps(task)) if learning.guards else rps,
                learning.warmth_of(task) if learning.jobs else 1.0,
                drained=bool(drain) or task.drained,
                held=task.name in flaps.held,
            )
    _hold_back(sums.values(), needed_rps)
    capacity = _with_panic(_sealed(name, sums[name], drains.get(name, ())) for name in sorted(sums))
    notes = (*flaps.notes, *learning.notes)
    return replace(capacity, notes=notes) if notes else capacity


def _hold_back(sites: Collection[_Sum], needed_rps: float) -> None:
    """Takes off what ramps up, the same part everywhere, but leaves what is needed."""
    ramping = math.fsum(site.ramping_rps for site in sites)
    if ramping <= 0 or not needed_rps < math.inf:
        return
    whole = math.fsum(site.capacity_rps for site in sites)
    part = min(max((whole - needed_rps) / ramping, 0.0), 1.0)
    if part * ramping >= whole:
        # Everybody flaps and nobody asks: what there is is better than nothing.
        return
    for site in sites:
        site.capacity_rps -= part * site.ramping_rps


def _sealed(name: str, site: _Sum, drains: Iterable[str]) -> DatacenterCapacity:
    return DatacenterCapacity(
        name,
        site.capacity_rps,
        site.tasks,
        site.healthy,
        site.drained,
        site.drained_rps,
        tuple(sorted(drains)),
        site.willing_rps,
        site.declared_rps,
        site.easing,
        site.serving,
        site.held,
    )


def _with_panic(sites: Iterable[DatacenterCapacity]) -> ServiceCapacity:
    datacenters = tuple(sites)
    if any(site.capacity_rps > 0 for site in datacenters):
        return ServiceCapacity(datacenters)
    if any(site.willing_rps > 0 for site in datacenters):
        return ServiceCapacity(datacenters, "panic: no task is healthy, so all that are not drained serve")
    return ServiceCapacity(datacenters, "panic: every task is drained or in lame duck, so all serve")


def _checked(service: str, backend: Backend, learning: Learning) -> float:
    rps = backend.task_capacity_rps
    if not 0 < rps <= limits.RATE_MAX_RPS:
        raise InvalidValueError(
            f"service {service}: task_capacity_rps of {backend.job} is {rps}: it must be a positive number, at most "
            f"{limits.RATE_MAX_RPS:g}; correct the service"
        )
    return learning.task_rps(backend)
