"""A planet of many agents with many tasks: who there is, and what each of them says."""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from agents.load.cpu import MachineLoad
from agents.load.rates import Rates
from agents.load.report import Sender, TaskRow, pack
from bns.model import HealthStatus, Task
from gslb.v1 import config_pb2, report_pb2

USER = "bench"
TASKS_PER_JOB = 100
PLACES = (
    ("us-east1", "na", 33.2, -80.0),
    ("europe-west1", "eu", 50.4, 3.8),
    ("asia-east1", "asia", 24.1, 120.5),
    ("southamerica-east1", "sa", -23.5, -46.6),
    ("us-west1", "na", 45.6, -121.2),
    ("europe-north1", "eu", 60.6, 27.2),
    ("asia-south1", "asia", 19.1, 72.9),
    ("australia-southeast1", "asia", -33.9, 151.2),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """One agent and the tasks that it looks after."""

    datacenter: str
    agent: str
    number: int
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fleet:
    """`agents` machines spread over the first `datacenters` places; every job has at most TASKS_PER_JOB tasks."""

    datacenters: int
    agents: int
    tasks_per_agent: int
    tasks_per_job: int = TASKS_PER_JOB

    @property
    def tasks(self) -> int:
        return self.agents * self.tasks_per_agent

    def machines(self) -> Iterator[Machine]:
        """All of them, in order."""
        begun = [0] * self.datacenters
        for number in range(self.agents):
            place = number % self.datacenters
            name = PLACES[place][0]
            first, begun[place] = begun[place], begun[place] + self.tasks_per_agent
            tasks = tuple(
                f"/bns/{name}/{USER}/job{index // self.tasks_per_job}/{index % self.tasks_per_job}"
                for index in range(first, begun[place])
            )
            yield Machine(name, f"machine{number}", number, tasks)

    def records(self) -> Iterator[Task]:
        """What BNS holds of them."""
        for machine in self.machines():
            for index, name in enumerate(machine.tasks):
                yield Task(
                    name=name,
                    address=f"10.{machine.number >> 8}.{machine.number & 255}.1",
                    port=10_000 + index,
                    agent=machine.agent,
                    named_ports={"http": 20_000 + index},
                    cpu_cores=1.0,
                    pid=1000 + index,
                    generation=1,
                    machine=f"0123456789abcdef-{machine.number}",
                )

    def resources(self, task_capacity_rps: float = 100.0) -> Iterator[config_pb2.Resource]:
        """Datacenters, and services `service0`... that have a job of the same number in each datacenter."""
        names = [place[0] for place in PLACES[: self.datacenters]]
        for name, region, latitude, longitude in PLACES[: self.datacenters]:
            place = config_pb2.Datacenter(region=region, latitude=latitude, longitude=longitude)
            resource = config_pb2.Resource(datacenter=place)
            resource.meta.name = name
            yield resource
        jobs = max(int(task.rsplit("/", 2)[1].removeprefix("job")) for m in self.machines() for task in m.tasks) + 1
        for job in range(jobs):
            resource = config_pb2.Resource(service=config_pb2.Service())
            resource.meta.name = f"service{job}"
            for name in names:
                resource.service.backends.add(job=f"/bns/{name}/{USER}/job{job}", task_capacity_rps=task_capacity_rps)
            yield resource


@dataclass(slots=True)
class Voice:
    """What a machine's reports are made with: a sequence that grows, the health of the tasks that are not HEALTHY."""

    machine: Machine
    period_s: float
    seq: int
    rng: random.Random
    ill: dict[str, HealthStatus] = field(default_factory=dict)

    def report(self, only: Collection[str] | None = None) -> report_pb2.LoadReport:
        """The next report: of all tasks, each a little busier or idler than before, or a partial one of `only`."""
        self.seq += 1
        sender = Sender(self.machine.agent, self.machine.datacenter, "bench-boot", self.period_s)
        rows = [self._row(name) for name in (self.machine.tasks if only is None else only)]
        return pack(sender, self.seq, rows, (), MachineLoad(0.5, 16.0), partial=only is not None)

    def _row(self, name: str) -> TaskRow:
        rng = self.rng
        return TaskRow(
            name,
            self.ill.get(name, HealthStatus.HEALTHY),
            rng.uniform(0.1, 0.8),
            Rates((0.0, rng.uniform(10, 60), rng.uniform(0, 5), 0.0), (0.0, rng.uniform(0, 0.2), 0.0, 0.0), 2),
        )
