"""Which tasks the active drains cover. PURE."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gslb.balancer.inputs import TaskState
from gslb.model.resources import Catalog, Drain, DrainScope


@dataclass(frozen=True, slots=True)
class Coverage:
    """All active drains, indexed so that one task costs a few look-ups. Values are the drains' names."""

    drains: tuple[Drain, ...] = ()
    by_datacenter: Mapping[str, str] = field(default_factory=dict)
    by_service: Mapping[str, str] = field(default_factory=dict)  # SERVICE or SERVICE@DATACENTER
    by_job: Mapping[str, str] = field(default_factory=dict)
    by_task: Mapping[str, str] = field(default_factory=dict)
    by_machine: Mapping[str, str] = field(default_factory=dict)

    def drain_of(self, service: str, task: TaskState) -> str:
        """Name of a drain that covers `task` as part of `service`; empty: none does. The widest scope is named."""
        if not self.drains:
            return ""
        return (
            self.by_datacenter.get(task.datacenter)
            or self.by_service.get(service)
            or self.by_service.get(f"{service}@{task.datacenter}")
            or self.by_job.get(task.job)
            or self.by_task.get(task.name)
            or (self.by_machine.get(task.machine, "") if task.machine else "")
        )


def active_drains(catalog: Catalog, now_s: float) -> tuple[Drain, ...]:
    """The drains that hold at `now_s` (UTC seconds since the epoch), by name."""
    now = datetime.fromtimestamp(now_s, UTC)
    return tuple(drain for _, drain in sorted(catalog.drains.items()) if drain.active(now))


def coverage_of(drains: Iterable[Drain], catalog: Catalog) -> Coverage:
    """An index of `drains`; a region covers the datacenters that the catalog puts in it."""
    drains = tuple(drains)
    index: dict[DrainScope, dict[str, str]] = {scope: {} for scope in DrainScope}
    for drain in drains:
        index[drain.scope].setdefault(drain.target, drain.name)
    datacenters = dict(index[DrainScope.DATACENTER])
    for datacenter in catalog.datacenters.values():
        drain_name = index[DrainScope.REGION].get(datacenter.region)
        if drain_name:
            datacenters.setdefault(datacenter.name, drain_name)
    return Coverage(
        drains,
        datacenters,
        index[DrainScope.SERVICE],
        index[DrainScope.JOB],
        index[DrainScope.TASK],
        index[DrainScope.MACHINE],
    )
