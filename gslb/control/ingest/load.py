"""The last load report of every agent: replays refused, columns checked, changes of health named."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bns.model import HealthStatus
from gslb.control.ingest.columns import Columns, check_identity, parse
from gslb.control.ingest.replay import ReplayGuard
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.v1 import report_pb2

AgentKey = tuple[str, str]  # (datacenter, agent)


@dataclass(frozen=True, slots=True)
class Folded:
    """What one accepted report changed. `spoken` has the tasks whose reported health differs from before."""

    agent: AgentKey
    spoken: frozenset[str]
    returned: bool  # the agent had been silent or late, or is new: everything it says must be looked at again


class LoadStore:
    """Columns by agent, at most AGENTS_MAX of them."""

    def __init__(self) -> None:
        self._guard = ReplayGuard(limits.AGENTS_MAX)
        self._columns: dict[AgentKey, Columns] = {}
        self._streams: dict[AgentKey, int] = {}
        self._silent: set[AgentKey] = set()

    @property
    def agents(self) -> Mapping[AgentKey, Columns]:
        return self._columns

    def fold(self, report: report_pb2.LoadReport, now_s: float) -> Folded:
        """Takes one report in. Raises InvalidValueError: then nothing has changed, but for the sequence of a replay."""
        check_identity(report)
        key = (report.datacenter, report.agent)
        previous = self._columns.get(key)
        if previous is None and len(self._columns) >= limits.AGENTS_MAX:
            raise InvalidValueError(f"agent {report.agent}: {limits.AGENTS_MAX} agents report already")
        columns = parse(report, previous, now_s)
        refusal = self._guard.admit(f"{report.datacenter}/{report.agent}", report.boot_id, report.seq)
        if refusal:
            raise InvalidValueError(refusal)
        returned = key in self._silent or self.late(key, now_s)
        self._columns[key] = columns
        self._silent.discard(key)
        return Folded(key, _spoken(previous, columns, report), returned)

    def columns_of(self, key: AgentKey) -> Columns | None:
        return self._columns.get(key)

    def reported(self, key: AgentKey) -> bool:
        """Whether the agent has sent a whole report since this replica started."""
        columns = self._columns.get(key)
        return columns is not None and columns.complete

    def health_of(self, key: AgentKey, task: str) -> HealthStatus | None:
        columns = self._columns.get(key)
        return None if columns is None else columns.health_of(task)

    def stream_opened(self, key: AgentKey) -> None:
        self._streams[key] = self._streams.get(key, 0) + 1

    def stream_closed(self, key: AgentKey) -> None:
        """A lost stream shortens the patience with its agent: see `silent`."""
        left = self._streams.get(key, 0) - 1
        if left > 0:
            self._streams[key] = left
        else:
            self._streams.pop(key, None)

    def silent(self, key: AgentKey, now_s: float) -> bool:
        """Not heard for REPORT_STALE_PERIODS, or, when its connection broke, for one period."""
        columns = self._columns.get(key)
        if columns is None:
            return True
        periods = limits.REPORT_STALE_PERIODS if key in self._streams else 1
        return now_s - columns.received_s > periods * columns.period_s

    def late(self, key: AgentKey, now_s: float) -> bool:
        """Whether the agent missed a report."""
        columns = self._columns.get(key)
        return columns is None or now_s - columns.received_s > limits.REPORT_LATE_PERIODS * columns.period_s

    def newly_silent(self, now_s: float) -> list[AgentKey]:
        """The agents that fell silent since the last call."""
        fallen = [key for key in self._columns if key not in self._silent and self.silent(key, now_s)]
        self._silent.update(fallen)
        return fallen

    def overdue(self, now_s: float) -> list[AgentKey]:
        """The agents that missed a report and are not called silent yet."""
        return [key for key in self._columns if key not in self._silent and self.late(key, now_s)]

    def forget(self, keys: Iterable[AgentKey]) -> None:
        """Drops what agents said that BNS does not know any more; their sequences stay, against replays."""
        for key in keys:
            self._columns.pop(key, None)
            self._silent.discard(key)

    def thaw(self, now_s: float, frozen_s: float) -> None:
        """This process itself stood still for `frozen_s`: what it did not hear then was nobody's silence."""
        for key, columns in self._columns.items():
            self._columns[key] = replace(columns, received_s=min(now_s, columns.received_s + frozen_s))


def _spoken(previous: Columns | None, columns: Columns, report: report_pb2.LoadReport) -> frozenset[str]:
    if previous is None:
        return frozenset(columns.tasks)
    if previous.tasks is columns.tasks and previous.health == columns.health:
        return frozenset()
    tasks = report.task if report.partial else columns.tasks
    return frozenset(task for task in tasks if previous.health_of(task) != columns.health_of(task))
