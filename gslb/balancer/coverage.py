"""Which tasks the active drains cover, and how far those have got that take their time. PURE.

A drain with a ramp is no drain yet: its tasks serve on, with a capacity that falls linearly, until nothing is left of
it; then it is one like the others. Where several cover a task, the one that is ahead counts.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from gslb.balancer.inputs import TaskState
from gslb.model.resources import Catalog, Drain, DrainScope

# Capacity falls in so many steps, so that not every moment is a new one.
RAMP_STEPS: Final = 500


@dataclass(frozen=True, slots=True)
class Easing:
    """A drain under way: what is left of the capacity that it covers."""

    remaining: float  # 0..1, above 0
    covers: "Coverage"  # by itself

    @property
    def name(self) -> str:
        return self.covers.drains[0].name


@dataclass(frozen=True, slots=True)
class Coverage:
    """All active drains, indexed so that one task costs a few look-ups. Values are the drains' names."""

    drains: tuple[Drain, ...] = ()
    by_datacenter: Mapping[str, str] = field(default_factory=dict)
    by_service: Mapping[str, str] = field(default_factory=dict)  # SERVICE or SERVICE@DATACENTER
    by_job: Mapping[str, str] = field(default_factory=dict)
    by_task: Mapping[str, str] = field(default_factory=dict)
    by_machine: Mapping[str, str] = field(default_factory=dict)
    easing: tuple[Easing, ...] = ()  # the most advanced first

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

    def easing_of(self, service: str, task: TaskState) -> Easing | None:
        """The most advanced drain under way that covers `task`; None: none does."""
        for one in self.easing:
            if one.covers.drain_of(service, task):
                return one
        return None


def active_drains(catalog: Catalog, now_s: float) -> tuple[Drain, ...]:
    """The drains that hold at `now_s` (UTC seconds since the epoch), by name."""
    now = datetime.fromtimestamp(now_s, UTC)
    return tuple(drain for _, drain in sorted(catalog.drains.items()) if drain.active(now))


def full_coverage(catalog: Catalog, now_s: float) -> Coverage:
    """What is drained wholly at `now_s`: tasks that ask for no more requests."""
    now = datetime.fromtimestamp(now_s, UTC)
    return coverage_of([drain for drain in active_drains(catalog, now_s) if drain.progress(now) >= 1], catalog)


def coverage_at(catalog: Catalog, now_s: float) -> Coverage:
    """What the active drains cover at `now_s`, those under way with what is left."""
    now = datetime.fromtimestamp(now_s, UTC)
    under_way = [drain for drain in active_drains(catalog, now_s) if drain.progress(now) < 1]
    easing = [
        Easing(math.ceil((1 - drain.progress(now)) * RAMP_STEPS) / RAMP_STEPS, coverage_of([drain], catalog))
        for drain in under_way
    ]
    return replace(
        full_coverage(catalog, now_s), easing=tuple(sorted(easing, key=lambda one: (one.remaining, one.name)))
    )


def coverage_of(drains: Iterable[Drain], catalog: Catalog) -> Coverage:
    """An index of `drains`, each as if it were complete; a region covers the datacenters that the catalog puts in it."""
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
