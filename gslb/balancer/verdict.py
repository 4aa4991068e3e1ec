"""A task's health from what its agent says and what others saw: the rule of the two witnesses. PURE.

An agent that reports is believed. An agent that is silent proves nothing by its silence: it may have crashed, been
upgraded, or lost its way to us, while its tasks serve on. So silence freezes what was known, and only a second witness
(clients' requests, or probes from other datacenters) turns it into TIMEOUT. A second witness never overrules an agent
that speaks. How long silence must last depends on what others see: where nearly all that an agent speaks for fails at
once, one missed report is enough; for single tasks it takes several. Drains are laid over the verdict later: they say
what should be, this says what is.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from bns.model import HealthStatus

# At least so many votes, and this part of them, before others' failures count as a witness.
FAILING_VOTES_MIN = 0.5
FAILING_FRACTION = 0.7
# Nearly all of an agent's tasks fail: this part of those that anybody said anything of, who are at least this part of
# all, with at least so many failing votes together.
DESERTED_FRACTION = 0.9
DESERTED_SEEN_MIN = 0.5
DESERTED_VOTES_MIN = 2.0


class Witness(Enum):
    """What clients and remote probes together say of one task."""

    NONE = "none"
    SERVING = "serving"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Evidence:
    """`reported` is the agent's last word since this replica started, None if it never spoke of the task."""

    reported: HealthStatus | None
    silent: bool  # the agent has not been heard for REPORT_STALE_PERIODS
    witness: Witness = Witness.NONE
    late: bool = False  # it has missed a report (REPORT_LATE_PERIODS)
    deserted: bool = False  # others see nearly all of the agent's tasks fail

    @property
    def lost(self) -> bool:
        """Whether the agent went together with what it speaks for."""
        return self.deserted and (self.late or self.silent)


def judge(previous: HealthStatus, evidence: Evidence) -> HealthStatus:
    """The verdict that follows `previous` (UNKNOWN at first)."""
    # Until a lost agent speaks again, its last word is no reason to undo what others saw.
    unheard = evidence.silent or evidence.lost or (evidence.late and previous is HealthStatus.TIMEOUT)
    if evidence.reported is not None and not unheard:
        return evidence.reported
    if evidence.witness is Witness.FAILING or (evidence.lost and evidence.witness is Witness.NONE):
        return HealthStatus.TIMEOUT
    if evidence.witness is Witness.SERVING:
        # Somebody is being served: an agent's word stands, and where it never spoke the task is in service.
        return HealthStatus.HEALTHY if evidence.reported is None else evidence.reported
    if previous is HealthStatus.TIMEOUT:
        # Nobody sends to a task that timed out, so no news is expected: it takes a report or a success to end it.
        return HealthStatus.TIMEOUT
    return previous if evidence.reported is None else evidence.reported


@dataclass(frozen=True, slots=True)
class Votes:
    """What others saw within one window: each report of one observer adds one vote, split by what it saw.

    One vote a report bounds what a single busy or broken client can claim.
    """

    serving: float = 0.0
    failing: float = 0.0

    def add(self, ok: int, failed: int) -> "Votes":
        """With the counts of one more report; nothing seen is no vote."""
        total = ok + failed
        if total == 0:
            return self
        return Votes(self.serving + ok / total, self.failing + failed / total)

    def __add__(self, other: "Votes") -> "Votes":
        return Votes(self.serving + other.serving, self.failing + other.failing)

    @property
    def witness(self) -> Witness:
        total = self.serving + self.failing
        if total == 0:
            return Witness.NONE
        if self.failing >= FAILING_VOTES_MIN and self.failing >= FAILING_FRACTION * total:
            return Witness.FAILING
        return Witness.SERVING if self.serving >= FAILING_VOTES_MIN else Witness.NONE


def deserted(votes: Collection[Votes]) -> bool:
    """Whether others see nearly all tasks of one agent fail; `votes` has an entry for each of its tasks."""
    seen = [each.witness for each in votes if each.witness is not Witness.NONE]
    failing = sum(witness is Witness.FAILING for witness in seen)
    return (
        len(seen) >= max(1.0, DESERTED_SEEN_MIN * len(votes))
        and failing >= DESERTED_FRACTION * len(seen)
        and sum(each.failing for each in votes) >= DESERTED_VOTES_MIN
    )
