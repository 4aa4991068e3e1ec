"""What one channel counts: for reports to the control plane, for metrics, for people."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.rpc.policy.member import Member


@dataclass(slots=True)
class Counts:
    """What a channel did, since it was made."""

    requests: int = 0
    retries: int = 0
    retries_refused: int = 0  # by the budget
    no_endpoint: int = 0
    failures: int = 0  # logical calls that ended without an answer
    reports: int = 0  # of tasks on their load, with their answers
    probes: int = 0  # questions to tasks for their load
    probes_failed: int = 0


def _none() -> list[int]:
    return [0] * len(Criticality)


@dataclass(slots=True)
class Tally:
    """First attempts by criticality and answers by task. Guarded by the core's lock."""

    attempts: list[int] = field(default_factory=_none)  # logical first attempts, since the last report
    _reported: list[int] = field(default_factory=_none)  # those before it
    _departed: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def total_attempts(self) -> list[int]:
        """Logical first attempts since the channel was made, by criticality."""
        return [before + now for before, now in zip(self._reported, self.attempts, strict=True)]

    def departs(self, member: Member) -> None:
        """What was seen of a task that goes is for the next report still."""
        if member.ok or member.failed:
            self._departed.append((member.endpoint.task, member.ok, member.failed))
            del self._departed[: -limits.TASKS_PER_REPORT_MAX]

    def take_attempts(self) -> list[int]:
        """Logical first attempts since the last call, by criticality."""
        self._reported = self.total_attempts
        taken, self.attempts = self.attempts, _none()
        return taken

    def take_observations(self, members: Iterable[Member]) -> list[tuple[str, int, int]]:
        """(task, ok, failed) of every task asked since the last call."""
        seen, self._departed = self._departed, []
        for member in members:
            if member.ok or member.failed:
                seen.append((member.endpoint.task, member.ok, member.failed))
                member.ok = member.failed = 0
        return seen
