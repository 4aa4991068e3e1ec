"""Node agents: what they measure of the tasks of their datacenter, and say each period and on each change of health."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bns.model import HealthStatus
from gslb.sim.servers import Job, Task


class TaskLoad(NamedTuple):
    """One task in one report."""

    health: HealthStatus
    ok_rps: float
    error_rps: float
    cpu_utilization: float


@dataclass(frozen=True, slots=True)
class AgentReport:
    """Everything that the agent of a datacenter knows. `probes`: tasks elsewhere that it tried, and whether they serve."""

    datacenter: str
    number: int  # of the last report that was due: one in between repeats its load
    tasks: Mapping[str, TaskLoad]
    probes: Mapping[str, bool] = field(default_factory=dict)


@dataclass(slots=True)
class _Sums:
    """A job since the last report."""

    ok: float = 0.0
    errors: float = 0.0
    busy: float = 0.0
    ticks: int = 0


@dataclass(slots=True)
class Agent:
    """The agents of one datacenter, as one."""

    datacenter: str
    due_s: float
    jobs: list[Job]
    silent: bool = False
    number: int = 0
    said: dict[str, HealthStatus] = field(default_factory=dict)
    loads: dict[str, TaskLoad] = field(default_factory=dict)  # of the last report that was due
    sums: dict[str, _Sums] = field(default_factory=dict)

    def measure(self) -> None:
        """Adds the tick that has just been served."""
        for job in self.jobs:
            sums = self.sums.setdefault(job.name, _Sums())
            sums.ok += job.served.ok_rps
            sums.errors += job.served.errors_rps + job.served.shed_rps
            sums.busy += job.served.busy
            sums.ticks += 1

    def report(self, now_s: float, period_s: float, noise: float, rng: random.Random) -> AgentReport | None:
        """The report that is due now, or that a change of health makes due."""
        if self.silent:
            return None
        health = {task.name: _health(task, now_s) for job in self.jobs for task in job.tasks}
        due = now_s >= self.due_s
        if not due and health == self.said:
            return None
        if due:
            self.due_s += period_s * max(1, int((now_s - self.due_s) / period_s) + 1)
        self.said = health
        if due or not self.loads:
            self.number += 1
            self.loads = dict(self._loads(health, noise, rng))
            self.sums.clear()
        tasks = {name: self.loads[name]._replace(health=status) for name, status in health.items()}
        return AgentReport(self.datacenter, self.number, tasks)

    def _loads(
        self, health: Mapping[str, HealthStatus], noise: float, rng: random.Random
    ) -> Iterable[tuple[str, TaskLoad]]:
        for job in self.jobs:
            sums = self.sums.get(job.name, _Sums())
            ticks, up = max(1, sums.ticks), max(1, len(job.up))
            for task in job.tasks:
                if not task.up:
                    yield task.name, TaskLoad(health[task.name], 0.0, 0.0, 0.0)
                    continue
                cpu = sums.busy / ticks * (1 + rng.uniform(-noise, noise))
                if job.lie is not None:
                    cpu = job.lie
                load = TaskLoad(health[task.name], sums.ok / ticks / up, sums.errors / ticks / up, cpu)
                yield task.name, load


def _health(task: Task, now_s: float) -> HealthStatus:
    if not task.up:
        return HealthStatus.UNHEALTHY
    if task.flaps_s > 0 and int(now_s / task.flaps_s) % 2:
        return HealthStatus.UNHEALTHY
    return HealthStatus.HEALTHY
