"""What becomes of each request that arrives at a server: begun, put in the line, or refused, and how. PURE.

The guard is told what happens (`arrive`, `finish`, `leave`) and answers with fates; the edges (threads, asyncio, ASGI)
and the simulator carry them out. It takes at most `slots` requests at a time, fewer in the first seconds of a process
(`gslb.rpc.policy.slow_start`: empty caches make work dear), lets others wait in a bounded line, and refuses:

- what the level does not admit (`gslb.rpc.policy.admission`);
- what would wait too long, as far as is known: in a window after an overloaded one, who would have to wait longer than
  LONGEST times the patience of his class at the rate at which requests were finished;
- who has no place in the line, or stood there too long;
- what nobody waits for any more.

"Don't retry" is said when others have no room either: when requests of the class come that were refused elsewhere; and
always to sheddable ones, so that the budget for retries is there for those that matter. It is not said to requests that
the level admits, or all but does (BORDER): levels differ a little between servers, and what three of four calls were
spent on need not be lost because the fourth met the lowest of them.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from gslb.model.criticality import Criticality
from gslb.rpc.policy.admission import Admission
from gslb.rpc.policy.line import Line, Ticket, too_late
from gslb.rpc.policy.slow_start import admits_at_most

# Who has waited this many times the patience of his class is refused: the answer would come, but far too late.
LONGEST: Final = 5.0
UNLIMITED: Final = 2**31
# When this part of the arrivals of a window are retries, others refuse as well.
RETRIES_EVERYWHERE: Final = 0.02
# So far above the level, in parts of its height in the class, another server's level may be.
BORDER: Final = 0.15
LINE_PER_SLOT: Final = 16
LINE_LEAST: Final = 64


class Fate(Enum):
    """What becomes of a ticket."""

    BEGIN = "begin"
    WAIT = "wait in the line"
    REFUSED = "overloaded: try another task"
    REFUSED_EVERYWHERE = "overloaded; don't retry"
    EXPIRED = "its deadline passed before it was begun"


class Decision(NamedTuple):
    """The fate of a ticket that was waiting."""

    ticket: Ticket
    fate: Fate


@dataclass(slots=True)
class Guard:
    """One server's. Not thread-safe: its owner has a lock. Times are monotonic seconds.

    `slots`: requests at a time; UNLIMITED when something else limits them, such as the threads of gRPC's executor.
    `ramp_s`: for so long after `started_s` fewer are taken; 0: no ramp.
    """

    slots: int = UNLIMITED
    started_s: float = 0.0
    ramp_s: float = 0.0
    admission: Admission = field(default_factory=Admission)
    line: Line = field(init=False)
    in_flight: int = 0
    refused: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # by criticality, since the start
    expired: int = 0
    _busy_s: float = 0.0  # of slots, in this window
    _looked_s: float | None = None
    # By criticality, in this window.
    _retries: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    _arrivals: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    _refusals: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    _everywhere: tuple[bool, ...] = (False, False, True, True)

    def __post_init__(self) -> None:
        self.line = Line(max(LINE_LEAST, LINE_PER_SLOT * self.slots) if self.slots < UNLIMITED else UNLIMITED)

    def admit(self, ticket: Ticket, now_s: float) -> Fate | None:
        """The first look at a request, before anything was spent on it; None: it may `enter`."""
        self._look(now_s)
        self._arrivals[ticket.criticality] += 1
        self._retries[ticket.criticality] += ticket.attempt > 0
        ticket.degraded = self.admission.overloaded
        if too_late(ticket, now_s):
            self.expired += 1
            return Fate.EXPIRED
        if not self.admission.admits(ticket.criticality, ticket.rank) or self._hopeless(ticket):
            return self._refuse(ticket)
        return None

    def enter(self, ticket: Ticket, now_s: float) -> list[Decision]:
        """An admitted request asks for a slot: its own fate first, then that of one that it displaced in the line."""
        self._look(now_s)
        if too_late(ticket, now_s) or self._too_long(ticket, now_s):
            return [self._drop(ticket, now_s)]
        if self.in_flight < self._room(now_s) and not self.line.ahead_of(ticket.criticality):
            return [self._begin(ticket, now_s)]
        displaced = self.line.join(ticket)
        if displaced is None:
            return [Decision(ticket, Fate.WAIT)]
        self.admission.overflowed(displaced.criticality)
        refused = Decision(displaced, self._refuse(displaced))
        return [refused] if displaced is ticket else [Decision(ticket, Fate.WAIT), refused]

    def arrive(self, ticket: Ticket, now_s: float) -> list[Decision]:
        """`admit` and `enter` in one."""
        fate = self.admit(ticket, now_s)
        return self.enter(ticket, now_s) if fate is None else [Decision(ticket, fate)]

    def finish(self, ticket: Ticket, now_s: float) -> list[Decision]:
        """A request that was begun is over; the fates of those whose turn it is."""
        self._look(now_s)
        self.in_flight -= 1
        self.admission.done(now_s - (now_s if ticket.began_s is None else ticket.began_s))
        return self.advance(now_s)

    def leave(self, ticket: Ticket, now_s: float) -> bool:
        """The client of a waiting request went away; False: it was not waiting."""
        gone = self.line.leave(ticket)
        if gone:
            self.admission.begun(ticket.criticality, now_s - ticket.arrived_s)
        return gone

    def advance(self, now_s: float) -> list[Decision]:
        """The fates of those whose turn it is; also when time alone has made room (a ramp) or someone late."""
        decided: list[Decision] = []
        room = self._room(now_s)
        while self.in_flight < room and (ticket := self.line.first()) is not None:
            late = too_late(ticket, now_s) or self._too_long(ticket, now_s)
            decided.append(self._drop(ticket, now_s) if late else self._begin(ticket, now_s))
        return decided

    def _room(self, now_s: float) -> int:
        if self.ramp_s <= 0.0 or self.slots >= UNLIMITED:
            return self.slots
        return admits_at_most(now_s - self.started_s, self.slots, self.ramp_s)

    def _begin(self, ticket: Ticket, now_s: float) -> Decision:
        ticket.began_s = now_s
        self.in_flight += 1
        self.admission.begun(ticket.criticality, now_s - ticket.arrived_s)
        return Decision(ticket, Fate.BEGIN)

    def _drop(self, ticket: Ticket, now_s: float) -> Decision:
        self.admission.begun(ticket.criticality, now_s - ticket.arrived_s)
        if too_late(ticket, now_s):
            self.expired += 1
            return Decision(ticket, Fate.EXPIRED)
        return Decision(ticket, self._refuse(ticket))

    def _refuse(self, ticket: Ticket) -> Fate:
        self.refused[ticket.criticality] += 1
        self._refusals[ticket.criticality] += 1
        if ticket.attempt or (self._everywhere[ticket.criticality] and not self._on_the_border(ticket)):
            return Fate.REFUSED_EVERYWHERE
        return Fate.REFUSED

    def _on_the_border(self, ticket: Ticket) -> bool:
        """Whether another server's level may well admit it."""
        height = self.admission.level - ticket.criticality
        return ticket.criticality < Criticality.SHEDDABLE_PLUS and ticket.rank < (1.0 + BORDER) * height

    def _hopeless(self, ticket: Ticket) -> bool:
        """Whether the line is longer than what is finished in the time that the ticket would wait."""
        admission = self.admission
        if not admission.overloaded:
            return False
        most_s = LONGEST * admission.patience_s(ticket.criticality)
        return self.line.ahead_of(ticket.criticality) > most_s * admission.done_rps

    def _too_long(self, ticket: Ticket, now_s: float) -> bool:
        """Whether a ticket has waited longer than it is good for."""
        return now_s - ticket.arrived_s > LONGEST * self.admission.patience_s(ticket.criticality)

    def _look(self, now_s: float) -> None:
        """Takes in the time that has passed; ends the window when it is over."""
        if self._looked_s is not None:
            self._busy_s += self.in_flight * max(0.0, now_s - self._looked_s)
        self._looked_s = now_s
        if not self.admission.due(now_s):
            return
        since_s = self.admission.since_s
        elapsed_s = now_s - since_s if since_s is not None else 0.0
        room = self._room(now_s)
        utilization = self._busy_s / (elapsed_s * room) if elapsed_s > 0.0 and room < UNLIMITED else 1.0
        self.admission.turn(now_s, utilization, self.line.oldest_s(now_s))
        self._everywhere = tuple(self._is_everywhere(level) for level in Criticality)
        self._busy_s = 0.0
        self._retries, self._arrivals, self._refusals = [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]

    def _is_everywhere(self, level: Criticality) -> bool:
        """Whether a class is to be told not to try again: it stays so while any of it is refused."""
        if level >= Criticality.SHEDDABLE_PLUS or (self._everywhere[level] and self._refusals[level]):
            return True
        return self._retries[level] > RETRIES_EVERYWHERE * self._arrivals[level]
