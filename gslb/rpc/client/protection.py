"""What keeps one channel from doing harm, and from being harmed: calls held back, failing tasks left out, second copies.

Three pure rules and what they have in common: they are told of each call and of how each attempt ended. Guarded by the
core's lock; times are monotonic seconds.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.rpc.policy.failure import Failure, Refusal
from gslb.rpc.policy.hedge import Hedging
from gslb.rpc.policy.outlier import Outliers
from gslb.rpc.policy.rank import rank_of
from gslb.rpc.policy.throttle import Throttle

# What a call that was held back ends with, as RESOURCE_EXHAUSTED: nobody should try it again soon.
HELD_BACK: Final = (
    "overloaded; don't retry: held back by this client, as {percent:.0f} % of its {level} calls are,"
    " because the service refuses them"
)

# What a task is held to when it is compared with the others. Refusals for want of room are no errors, and connections
# that fail take it out of the choice by themselves.
_ERRORS: Final = frozenset({Failure.ERRED, Failure.REFUSED, Failure.TIMED_OUT, Failure.DENIED})


class Retry(Enum):
    """Whether an attempt may be made again."""

    NO = "the budget is spent"
    FREE = "it was never sent, and somebody answers"
    PAID = "out of the budget"


class Outcome(NamedTuple):
    """How an attempt ended, and what it was."""

    failure: Failure | None = None  # None: with a response
    cancelled: bool = False  # by the caller: says nothing about the task
    refused: Refusal = Refusal.NO
    criticality: Criticality = Criticality.CRITICAL
    sent_s: float = 0.0
    trace_id: str = ""


@dataclass(slots=True)
class Protection:
    """One channel's. `hedging`: None: no call is sent twice."""

    hedging: Hedging | None = None
    throttle: Throttle = field(default_factory=Throttle)
    quota: Throttle | None = None  # towards refusals over quota; None: there was none yet
    outliers: Outliers = field(default_factory=Outliers)
    ejected: frozenset[str] = frozenset()  # the tasks that are left out
    hedges: int = 0

    def admit(self, criticality: Criticality, trace_id: str, rng: Callable[[], float], now_s: float) -> bool:
        """Whether a call may go out, or would only be refused."""
        if self.hedging is not None:
            self.hedging.request(now_s)
        if self.quota is None and self.throttle.whole:
            # Nobody is held back, as nearly always: the rank is of no interest then, nor is the draw.
            return self.throttle.admit(criticality, 0.0, 0.0, now_s)
        rank, u = _rank(trace_id), rng()
        if self.quota is not None and not self.quota.admit(criticality, rank, u, now_s):
            return False
        return self.throttle.admit(criticality, rank, u, now_s)

    def sent_fraction(self, criticality: Criticality) -> float:
        """The part of its calls that a class sends now."""
        part = self.throttle.fraction(criticality)
        return part if self.quota is None else min(part, self.quota.fraction(criticality))

    def held_back(self, criticality: Criticality) -> int:
        """Calls of a class that were not sent, since the channel was made."""
        count = self.throttle.held_back()[criticality]
        return count if self.quota is None else count + self.quota.held_back()[criticality]

    def why_held_back(self, criticality: Criticality) -> str:
        """The details of a call that `admit` did not let go."""
        return HELD_BACK.format(percent=100 * (1 - self.sent_fraction(criticality)), level=criticality.name)

    def ended(self, task: str, outcome: Outcome, now_s: float) -> bool:
        """An attempt ended, and its caller did not cancel it. Whether it is time to `look`."""
        failure, refused = outcome.failure, outcome.refused
        # Only of refused calls the rank is of interest: they may have been sent to ask.
        rank = 0.0 if refused is Refusal.NO else _rank(outcome.trace_id)
        level, sent_s = outcome.criticality, outcome.sent_s
        self.throttle.ended(level, sent_s, now_s, refused=refused is Refusal.FULL, rank=rank)
        if refused is Refusal.QUOTA and self.quota is None:
            self.quota = Throttle(limits.QUOTA_EXCESS)
        if self.quota is not None:
            self.quota.ended(level, sent_s, now_s, refused=refused is Refusal.QUOTA, rank=rank)
        hedging = self.hedging
        if hedging is not None and refused is not Refusal.NO:
            hedging.refused(now_s)
        elif hedging is not None and failure is None:
            hedging.answered(now_s - outcome.sent_s)
        return self.outliers.ended(task, now_s, error=failure in _ERRORS and refused is Refusal.NO)

    def look(self, tasks: Collection[str], now_s: float) -> bool:
        """Compares the tasks; whether others than before are left out now."""
        before, self.ejected = self.ejected, self.outliers.look(tasks, now_s)
        return self.ejected != before

    def hedge_in_s(self, left_s: float | None, now_s: float) -> float | None:
        """After how long a call is late, so that a second copy may go out; None: never. `left_s`: to its deadline."""
        return None if self.hedging is None else self.hedging.delay_s(left_s, now_s)

    def take_hedge(self, now_s: float) -> bool:
        """Takes a second copy from the budget; False: it is spent."""
        if self.hedging is None or not self.hedging.take(now_s):
            return False
        self.hedges += 1
        return True


def _rank(trace_id: str) -> float:
    """That of a call; the first to go of one that went out before anybody was held back, and has no id."""
    return rank_of(trace_id) if trace_id else 0.0
