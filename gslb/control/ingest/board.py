"""Every task's health as this replica sees it: agents' reports, others' observations, and the rule that joins them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bns.model import HealthStatus, Task
from gslb.balancer.verdict import Evidence, judge
from gslb.balancer.witness import WitnessStand
from gslb.control.ingest.load import AgentKey, LoadStore
from gslb.control.ingest.rtt import RttTable
from gslb.model import limits
from gslb.v1 import report_pb2

TasksOf = Callable[[], Mapping[str, Task]]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one observer saw of one task in one report."""

    task: str
    ok: int
    failed: int
    rtt_ms: float


def owner_of(task: Task) -> AgentKey:
    """The agent whose word about the task counts: the one that registered it, of the task's own datacenter."""
    return (task.datacenter, task.agent)


class HealthBoard:
    """Verdicts by task. `tasks_of` gives BNS's present tasks; times are monotonic seconds."""

    def __init__(self, tasks_of: TasksOf) -> None:
        self._tasks_of = tasks_of
        self._verdicts: dict[str, HealthStatus] = {}
        self._of_agent: dict[AgentKey, set[str]] = {}
        self._stand = WitnessStand()
        self.loads = LoadStore()
        self.rtt = RttTable()

    def health_of(self, task: str) -> HealthStatus:
        """Before drains; UNKNOWN when nothing is known."""
        return self._verdicts.get(task, HealthStatus.UNKNOWN)

    def fold(self, report: report_pb2.LoadReport, now_s: float) -> frozenset[str]:
        """Takes a load report in; the tasks whose verdict changed. Raises InvalidValueError."""
        probes = [self._checked(row) for row in report.remote]
        folded = self.loads.fold(report, now_s)
        suspects = self._of_agent.get(folded.agent, set()) if folded.returned else folded.spoken
        changed = self._look(suspects, now_s)
        return changed | self.observe(report.datacenter, probes, now_s)

    def observe(self, locality: str, probes: Iterable[Probe], now_s: float) -> frozenset[str]:
        """Takes one observer's report in; `locality` is where it is ("": unknown). The tasks whose verdict changed."""
        tasks = self._tasks_of()
        suspects: set[str] = set()
        late: set[AgentKey] = set()
        for probe in probes:
            task = tasks.get(probe.task)
            if task is None:
                continue
            self._stand.add(probe.task, probe.ok, probe.failed, now_s)
            self.rtt.add(locality, task.datacenter, probe.rtt_ms, now_s)
            # An agent that speaks is not overruled, so only the tasks of the others need another look.
            if self.loads.late(owner_of(task), now_s):
                late.add(owner_of(task))
                suspects.add(probe.task)
            elif self.loads.health_of(owner_of(task), task.name) is None:
                suspects.add(probe.task)
        return self._look(suspects.union(*(self._of_agent.get(key, ()) for key in late)), now_s)

    def registered(self, names: Iterable[str], now_s: float) -> frozenset[str]:
        """BNS changed these names: came, went, or went to another agent. The tasks whose verdict changed."""
        tasks = self._tasks_of()
        present = set()
        for name in names:
            task = tasks.get(name)
            if task is None:
                self._verdicts.pop(name, None)
            else:
                self._of_agent.setdefault(owner_of(task), set()).add(name)
                present.add(name)
        return self._look(present, now_s)

    def sweep(self, now_s: float) -> frozenset[str]:
        """To be called about once a second: agents that fell silent or are late. The tasks whose verdict changed."""
        suspects: set[str] = set()
        for key in {*self.loads.newly_silent(now_s), *self.loads.overdue(now_s)}:
            suspects |= self._of_agent.get(key, set())
        return self._look(suspects, now_s)

    def tidy(self, live_agents: Iterable[AgentKey], now_s: float) -> None:
        """Forgets agents that are silent, not live, and own no task."""
        tasks = self._tasks_of()
        for key, names in list(self._of_agent.items()):
            held = {name for name in names if (task := tasks.get(name)) is not None and owner_of(task) == key}
            if held:
                self._of_agent[key] = held
            else:
                del self._of_agent[key]
        live = set(live_agents)
        gone = [
            key
            for key in self.loads.agents
            if key not in live and key not in self._of_agent and self.loads.silent(key, now_s)
        ]
        self.loads.forget(gone)

    def _look(self, names: Iterable[str], now_s: float) -> frozenset[str]:
        """Judges these tasks anew."""
        tasks = self._tasks_of()
        changed = []
        deserted: dict[AgentKey, bool] = {}
        for name in names:
            task = tasks.get(name)
            if task is None:
                continue
            key = owner_of(task)
            if key not in deserted:
                deserted[key] = self.loads.late(key, now_s) and self._deserted(key, now_s)
            before = self.health_of(name)
            after = judge(before, self._evidence(task, before, now_s, deserted=deserted[key]))
            if after is not before:
                self._verdicts[name] = after
                changed.append(name)
        return frozenset(changed)

    def _deserted(self, key: AgentKey, now_s: float) -> bool:
        """Whether others see nearly all tasks of this agent fail."""
        tasks = self._tasks_of()
        own = [name for name in self._of_agent.get(key, ()) if name in tasks and owner_of(tasks[name]) == key]
        return self._stand.deserted(own, now_s)

    def _evidence(self, task: Task, before: HealthStatus, now_s: float, *, deserted: bool) -> Evidence:
        key = owner_of(task)
        out = before is HealthStatus.TIMEOUT
        return Evidence(
            reported=self.loads.health_of(key, task.name),
            silent=self.loads.silent(key, now_s),
            witness=self._stand.witness(task.name, now_s, deserted=deserted, out=out),
            late=self.loads.late(key, now_s),
            deserted=deserted,
        )

    @staticmethod
    def _checked(row: report_pb2.RemoteProbe) -> Probe:
        rtt_ms = row.rtt_ms if 0.0 <= row.rtt_ms <= limits.RTT_MAX_MS else 0.0
        return Probe(row.task, int(row.ok), int(not row.ok), rtt_ms)
