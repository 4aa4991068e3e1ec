"""Requests that wait for their turn: bounded, and the most critical first. PURE."""

from collections import deque
from dataclasses import dataclass, field

from gslb.model.criticality import Criticality
from gslb.rpc.policy.deadline import expired


@dataclass(slots=True, eq=False)
class Ticket:
    """One request at a server. `attempt`: 0 for a first one, 1 and more for retries. Times are monotonic seconds."""

    criticality: Criticality
    rank: float
    arrived_s: float
    deadline_s: float | None = None
    attempt: int = 0
    began_s: float | None = None
    degraded: bool = False  # it came at a time of overload: less is asked of its answer


@dataclass(slots=True)
class Line:
    """At most `most` tickets."""

    most: int
    _waiting: tuple[deque[Ticket], ...] = field(default_factory=lambda: tuple(deque() for _ in Criticality))

    def __len__(self) -> int:
        return sum(len(one) for one in self._waiting)

    def ahead_of(self, criticality: Criticality) -> int:
        """How many would go before a newcomer of this class."""
        return sum(len(self._waiting[level]) for level in Criticality if level <= criticality)

    def join(self, ticket: Ticket) -> Ticket | None:
        """Puts a ticket in. Who has no place any more: the newest of the least critical, perhaps `ticket` itself."""
        self._waiting[ticket.criticality].append(ticket)
        if len(self) <= self.most:
            return None
        return next(one for one in reversed(self._waiting) if one).pop()

    def leave(self, ticket: Ticket) -> bool:
        """Takes out a ticket whose client went away; False: it was not there."""
        try:
            self._waiting[ticket.criticality].remove(ticket)
        except ValueError:
            return False
        return True

    def first(self) -> Ticket | None:
        """Takes out whose turn it is."""
        return next((one.popleft() for one in self._waiting if one), None)

    def oldest_s(self, now_s: float) -> float:
        """How long the first of any class has waited, at most."""
        return max((now_s - one[0].arrived_s for one in self._waiting if one), default=0.0)


def too_late(ticket: Ticket, now_s: float) -> bool:
    """Whether nobody waits for the answer any more."""
    return expired(ticket.deadline_s, now_s)
