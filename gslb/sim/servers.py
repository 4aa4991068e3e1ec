"""The tasks of one job: CPU, queue, admission. One call to `serve` is one tick; rates are over the tick.

A task has one core. Requests are a fluid: RPC clients spread evenly over the tasks that they can reach (power of two
choices on requests in flight does just that with equal tasks), so tasks differ in being up or down, and share one queue
length. Work is in core-seconds.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gslb.sim.setup import Overload, Work

CLASSES: Final = 4
# A task whose queue stands at this limit runs out of memory (Overload.CRASH), and is back after a while.
QUEUE_LIMIT_S: Final = 5.0
CRASH_RATE_PER_S: Final = 0.2
RESTART_S: Final = 30.0
# What a task that answers errors at once spends on one, in ok requests.
CHEAP_ERROR: Final = 0.1


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a tick's requests, rps by criticality; `utilization` is what was asked of the CPU that there is."""

    ok: tuple[float, ...] = (0.0,) * CLASSES
    shed: tuple[float, ...] = (0.0,) * CLASSES
    errors_rps: float = 0.0  # errors, and answers that came too late
    utilization: float = 0.0  # offered work over CPU; may exceed 1
    busy: float = 0.0  # CPU that was really used, of the tasks that are up: what an agent measures

    @property
    def ok_rps(self) -> float:
        return sum(self.ok)

    @property
    def shed_rps(self) -> float:
        return sum(self.shed)


@dataclass(slots=True)
class Task:
    """One running server, or one that is down until `back_s`."""

    name: str
    up: bool = True
    back_s: float = float("inf")
    flaps_s: float = 0.0  # its health check's verdict changes with this period; 0: it does not


@dataclass(slots=True)
class Job:
    """All tasks of a service in one datacenter."""

    name: str
    service: str
    datacenter: str
    work: Work
    tasks: list[Task]
    cost_factor: float = 1.0  # of each request, against `work`
    errors: float = 0.0  # this part of the requests is answered by a cheap error
    cpu_budget: float = 1.0  # of its cores, what others on the same machines leave
    lie: float | None = None  # CPU utilization that the agent reports instead of the measured one
    queue: float = 0.0  # work that waits
    served: Served = field(default_factory=Served)

    @property
    def up(self) -> list[Task]:
        return [task for task in self.tasks if task.up]

    def wanted_cores(self, offered: Sequence[float]) -> float:
        """The cores that these requests a second need."""
        return sum(offered) * self._cost() + self.work.idle_utilization * len(self.up)

    def serve(self, offered: Sequence[float], dt_s: float) -> Served:
        """Takes `offered` (rps by criticality) for one tick."""
        cores = len(self.up) * self.cpu_budget
        if cores <= 0:
            self.queue = 0.0
            self.served = Served(errors_rps=sum(offered))
            return self.served
        idle = self.work.idle_utilization * len(self.up)
        failing = [rps * self.errors for rps in offered]
        error_cores = sum(failing) * CHEAP_ERROR * self._cost()
        real = [rps - bad for rps, bad in zip(offered, failing, strict=True)]
        free = max(0.0, cores - idle - error_cores)
        utilization = (idle + error_cores + sum(real) * self._cost()) / cores
        if self.work.overload is Overload.SHED:
            ok, shed, used = self._admit(real, free)
            late = 0.0
        else:
            ok, shed, used, late = self._queue(real, free, dt_s)
        self.served = Served(
            tuple(ok), tuple(shed), sum(failing) + late, utilization, min(1.0, (idle + error_cores + used) / cores)
        )
        return self.served

    def turn(self, now_s: float, dt_s: float, rng: random.Random) -> None:
        """Tasks crash under a standing queue and come back when their time has come."""
        for task in self.tasks:
            if not task.up and now_s >= task.back_s:
                task.up, task.back_s = True, float("inf")
        cores = len(self.up) * self.cpu_budget
        if self.work.overload is not Overload.CRASH or cores <= 0 or self.queue < QUEUE_LIMIT_S * cores:
            return
        for task in self.up:
            if rng.random() < CRASH_RATE_PER_S * dt_s:
                task.up, task.back_s = False, now_s + RESTART_S
                self.queue *= 1 - 1 / (len(self.up) + 1)

    def _cost(self) -> float:
        return self.cost_factor / self.work.serves_rps

    def _admit(self, real: Sequence[float], free: float) -> tuple[list[float], list[float], float]:
        """The most critical first; a rejection costs a part of a request, so too many of them cost requests."""
        cost = self._cost()
        asked = sum(real) * cost
        part = self.work.rejection_cost
        # admitted + (asked - admitted) * part = free
        room = free if asked <= free else max(0.0, (free - asked * part) / (1 - part))
        left = room / cost
        ok, shed = [], []
        for rps in real:
            taken = min(rps, left)
            left -= taken
            ok.append(taken)
            shed.append(rps - taken)
        return ok, shed, min(free, sum(ok) * cost + sum(shed) * cost * part)

    def _queue(self, real: Sequence[float], free: float, dt_s: float) -> tuple[list[float], list[float], float, float]:
        """First come, first served; what waited beyond the deadline is done in vain. The limit drops the newest."""
        cost = self._cost()
        arrived = sum(real)
        waits_s = self.queue / free if free > 0 else float("inf")
        self.queue += arrived * cost * dt_s
        done = min(self.queue, free * dt_s)
        self.queue -= done
        most = QUEUE_LIMIT_S * max(free, 1e-9)
        dropped = max(0.0, self.queue - most) / cost / dt_s
        self.queue = min(self.queue, most)
        done_rps = done / cost / dt_s
        good = done_rps if waits_s <= self.work.deadline_s else 0.0
        part = min(1.0, good / arrived) if arrived > 0 else 0.0
        lost = min(1.0 - part, dropped / arrived) if arrived > 0 else 0.0
        ok = [rps * part for rps in real]
        shed = [rps * lost for rps in real]
        return ok, shed, done / dt_s, max(0.0, arrived - sum(ok) - sum(shed))


def fresh_job(name: str, service: str, work: Work, tasks: int) -> Job:
    """A job with that many tasks, all up."""
    return Job(name, service, name.split("/")[2], work, [Task(f"{name}/{i}") for i in range(tasks)])
