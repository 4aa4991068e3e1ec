"""When to think that a whole datacenter is gone, before each of its tasks was asked. PURE.

A connection that fails says something about one task. When a second task of the same datacenter fails within a moment and
nobody there has answered in between, a few others are asked at once; when enough different ones have failed and still none
has answered, all are taken to be gone, and probes find out when they are back. One answer from anywhere in the datacenter
ends the suspicion: what is broken then is single tasks. A call that waited in vain is reason to ask and no proof: a
datacenter that is merely slow must not send its load to others, who would be slow next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

WINDOW_S: Final = 2.0
SUSPECT_AFTER: Final = 2
GONE_AFTER: Final = 4
# So many of them without a connection.
UNREACHED: Final = 3
# How many are asked when suspicion falls on a datacenter.
ASKED: Final = 3

T = TypeVar("T")


class Verdict(Enum):
    """What to do about a datacenter after one more failure."""

    NOTHING = "nothing"
    ASK = "ask others there"
    GONE = "all are gone"


@dataclass(slots=True)
class _Case:
    since_s: float
    failed: set[str] = field(default_factory=set)
    unreached: set[str] = field(default_factory=set)  # of those, the ones without a connection
    asked: bool = False


@dataclass(slots=True)
class Suspicion:
    """Failures by datacenter since its last answer. Guarded by the channel's lock; times are monotonic seconds."""

    cases: dict[str, _Case] = field(default_factory=dict)  # without any, answers need not be told

    def failed(self, datacenter: str, task: str, now_s: float, *, unreached: bool = True) -> Verdict:
        """A connection to `task` failed (`unreached`), or a call to it waited in vain."""
        case = self.cases.get(datacenter)
        if case is None or now_s - case.since_s > WINDOW_S:
            case = self.cases[datacenter] = _Case(now_s)
        case.failed.add(task)
        if unreached:
            case.unreached.add(task)
        if len(case.failed) >= GONE_AFTER and len(case.unreached) >= UNREACHED:
            del self.cases[datacenter]
            return Verdict.GONE
        if len(case.failed) >= SUSPECT_AFTER and not case.asked:
            case.asked = True
            return Verdict.ASK
        return Verdict.NOTHING

    def answered(self, datacenter: str) -> None:
        """Somebody there answered."""
        self.cases.pop(datacenter, None)


def sample(of: Sequence[T], rng: Callable[[], float], count: int = ASKED) -> list[T]:
    """`count` different ones, or all if there are no more; `rng` draws uniformly from [0, 1)."""
    pool = list(of)
    for i in range(min(count, len(pool))):
        j = i + int(rng() * (len(pool) - i))
        pool[i], pool[j] = pool[j], pool[i]
    return pool[:count]
