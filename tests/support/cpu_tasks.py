"""Tasks with a CPU cost model and agents that report it, in virtual time: for tests of learned capacity."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bns.model import HealthStatus
from gslb.balancer.inputs import TaskState
from gslb.balancer.learning import UNLEARNED, JobModel, Learning, learn
from gslb.model.meta import Meta
from gslb.model.resources import Backend, CapacityMode, Service

TARGET = 0.8
IDLE = 0.05
COST = 0.008
# What a task truly serves at its target.
TRUE_RPS = (TARGET - IDLE) / COST
STEP_S = 5.0


def job(datacenter: str = "us-east1", name: str = "backend") -> str:
    return f"/bns/{datacenter}/shakespeare/{name}"


def service(datacenters: Sequence[str] = ("us-east1",), declared_rps: float = 100.0, name: str = "backend") -> Service:
    """Backends in mode utilization."""
    return Service(
        Meta(name),
        tuple(Backend(job(each, name), declared_rps, CapacityMode.UTILIZATION, TARGET) for each in datacenters),
    )


@dataclass(slots=True)
class SimTask:
    """One task; its agent says what happened in the period before each report."""

    name: str
    datacenter: str
    phase_s: float
    health: HealthStatus = HealthStatus.HEALTHY
    said: TaskState | None = None
    reports: int = 0


@dataclass(slots=True)
class Fleet:
    """`load` and `cost` give rps a task and CPU per request by (datacenter, time); errors cost `error_cost` of a request."""

    service: Service
    tasks_per_job: int = 3
    period_s: float = 5.0
    noise: float = 0.1
    seed: int = 1
    idle: float = IDLE
    load: Callable[[str, float], float] = lambda _, __: 60.0
    cost: Callable[[str, float], float] = lambda _, __: COST
    error_share: Callable[[str, float], float] = lambda _, __: 0.0
    error_cost: float = 0.1
    now_s: float = 1000.0
    tasks: list[SimTask] = field(default_factory=list)
    rng: random.Random = field(init=False)
    learning: Learning = UNLEARNED
    history: list[tuple[float, Mapping[str, JobModel]]] = field(default_factory=list)
    lie: Callable[[str, float, float], float] = lambda _, __, cpu: cpu  # of a task at a time, instead of its CPU

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        if not self.tasks:
            for backend in self.service.backends:
                for i in range(self.tasks_per_job):
                    self.add(backend.datacenter, i)

    def add(self, datacenter: str, number: int, health: HealthStatus = HealthStatus.HEALTHY) -> SimTask:
        name = f"{job(datacenter, self.service.name)}/{number}"
        task = SimTask(name, datacenter, self.rng.uniform(0, self.period_s), health)
        self.tasks.append(task)
        return task

    def states(self) -> tuple[TaskState, ...]:
        """Every task as its newest report has it."""
        return tuple(self._state(task) for task in self.tasks)

    def advance(self, seconds: float, step_s: float = STEP_S) -> None:
        """Time passes, and the learner looks once a step."""
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            self.learning = learn(self.learning, self.service, self.states(), self.now_s, {})
            self.history.append((self.now_s, self.learning.jobs))

    def task_rps(self, datacenter: str = "us-east1") -> float:
        return self.learning.jobs[job(datacenter, self.service.name)].task_rps

    def _state(self, task: SimTask) -> TaskState:
        reports = math.floor((self.now_s - task.phase_s) / self.period_s)
        if task.said is None or reports != task.reports:
            task.reports = reports
            task.said = self._report(task, task.phase_s + reports * self.period_s)
        age_s = self.now_s - (task.phase_s + reports * self.period_s)
        said = task.said
        return TaskState(
            task.name,
            task.datacenter,
            said.job,
            task.health,
            ok_rps=said.ok_rps,
            error_rps=said.error_rps,
            cpu_utilization=said.cpu_utilization,
            report_age_s=age_s,
            report=reports + 1,
        )

    def _report(self, task: SimTask, at_s: float) -> TaskState:
        """Load and CPU of the period that ends at `at_s`, which may straddle a change."""
        moments = [at_s - self.period_s * (i + 0.5) / 10 for i in range(10)]
        wobble = 1 + self.noise * self.rng.uniform(-1, 1)
        ok = error = cpu = 0.0
        for moment_s in moments:
            rps = self.load(task.datacenter, moment_s) * wobble / 10
            share = self.error_share(task.datacenter, moment_s)
            ok += rps * (1 - share)
            error += rps * share
            cpu += self.cost(task.datacenter, moment_s) * rps * (1 - share + self.error_cost * share)
        cpu = (self.idle + cpu) * (1 + self.noise * self.rng.uniform(-1, 1))
        cpu = self.lie(task.name, at_s, cpu)
        return TaskState(task.name, task.datacenter, task.name.rpartition("/")[0], task.health, ok, error, cpu)


def day(middle_rps: float, swing: float = 0.3) -> Callable[[str, float], float]:
    """A load that is nothing for the first half minute and then rises and falls every five minutes."""

    def load(_: str, at_s: float) -> float:
        return 0.0 if at_s < 1030.0 else middle_rps * (1 + swing * math.sin(at_s / 50))

    return load


def changed(at_s: float, factor: float, where: str = "us-east1") -> Callable[[str, float], float]:
    """A cost that is `factor` times as high from `at_s` on in one datacenter."""
    return lambda datacenter, now_s: COST * (factor if datacenter == where and now_s >= at_s else 1.0)
