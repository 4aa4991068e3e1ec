"""What BNS should hold of this agent, what it does hold, and what is to be sent next. PURE.

A session with a replica may end at any moment, and the next one may be with another replica: nothing is remembered of
what was sent, only of what was acknowledged in this session or shown in its welcome.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from agents import limits
from bns.model import Task

OK = 0
# gRPC status codes after which the same request may succeed in a moment.
NOT_FOUND = 5
TRANSIENT = frozenset({1, 4, 8, 10, 13, 14, 15})  # cancelled deadline exhausted aborted internal unavailable data-loss


@dataclass(frozen=True, slots=True)
class Register:
    """Create or update a task."""

    request_id: int
    task: Task


@dataclass(frozen=True, slots=True)
class Deregister:
    """Take a task out."""

    request_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an acknowledgement meant for `name`; `code` 0 is success."""

    name: str
    code: int
    message: str
    removed: bool

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.code in TRANSIENT


@dataclass(frozen=True, slots=True)
class _Sent:
    name: str
    task: Task | None  # None: a removal
    at_s: float


class Ledger:
    """The difference between what is wanted and what is held, worked off a window at a time."""

    def __init__(self) -> None:
        self._wanted: dict[str, Task] = {}
        self._removing: set[str] = set()
        self._held: dict[str, Task] = {}
        self._due: dict[str, float] = {}  # name -> not before
        self._sent: dict[int, _Sent] = {}
        self._busy: set[str] = set()
        self._ids = 0

    # What is wanted.

    def want(self, task: Task, now: float) -> None:
        """`task` is to be held as it is."""
        self._wanted[task.name] = task
        self._removing.discard(task.name)
        self._due[task.name] = now

    def unwant(self, name: str, now: float) -> None:
        """`name` is to be removed, if BNS holds it."""
        self._wanted.pop(name, None)
        self._removing.add(name)
        self._due[name] = now

    # A session with a replica.

    def connected(self, held: Iterable[Task], now: float) -> list[Task]:
        """A session begins, in which BNS holds `held`. Returns those that nobody here knows: to be adopted."""
        self._sent.clear()
        self._busy.clear()
        self._held = {task.name: task for task in held}
        self._due = {name: now for name, task in self._wanted.items() if not self._holds(task)}
        self._due |= dict.fromkeys(sorted(self._removing), now)
        return [task for name, task in self._held.items() if name not in self._wanted and name not in self._removing]

    def disconnected(self) -> None:
        """The session ended: what was sent may or may not have happened."""
        self._sent.clear()
        self._busy.clear()

    def take(self, now: float) -> list[Register | Deregister]:
        """What to send now: at most a window's worth is unanswered at any time, one request a name."""
        room = limits.REGISTER_WINDOW - len(self._sent)
        ripe = (name for name, due in self._due.items() if due <= now and name not in self._busy)
        ready = list(islice(ripe, max(room, 0)))
        return [request for name in ready if (request := self._request(name, now)) is not None]

    def acked(self, request_id: int, code: int, message: str, now: float) -> Outcome | None:
        """An answer came in; None when it is to nothing that was asked in this session."""
        sent = self._sent.pop(request_id, None)
        if sent is None:
            return None
        self._busy.discard(sent.name)
        if sent.task is None and code == NOT_FOUND:
            code = OK  # it is out already
        outcome = Outcome(sent.name, code, message, sent.task is None)
        if code != OK and sent.task is None and not outcome.transient:
            # Not ours any more: asking again would not make it so.
            self._held.pop(sent.name, None)
            if sent.name not in self._wanted:
                self._removing.discard(sent.name)
        elif code != OK:
            delay_s = limits.TRANSIENT_RETRY_S if code in TRANSIENT else limits.REFUSED_RETRY_S
            self._due.setdefault(sent.name, now + delay_s)
        elif sent.task is not None:
            self._held[sent.name] = sent.task
        else:
            self._held.pop(sent.name, None)
            if sent.name not in self._wanted:
                self._removing.discard(sent.name)
        return outcome

    def next_due(self) -> float | None:
        """When take() has something, as far as is known now."""
        if len(self._sent) >= limits.REGISTER_WINDOW:
            return None
        return min((due for name, due in self._due.items() if name not in self._busy), default=None)

    def oldest_unanswered_s(self) -> float | None:
        """When the oldest request that has no answer was sent."""
        return min((sent.at_s for sent in self._sent.values()), default=None)

    def is_settled(self, name: str) -> bool:
        """Whether BNS holds `name` as wanted, or no longer holds it."""
        if name in self._wanted:
            return self._holds(self._wanted[name])
        return name not in self._removing

    def unsettled(self) -> int:
        """How many names BNS does not hold yet as they should be."""
        return sum(not self._holds(task) for task in self._wanted.values()) + len(self._removing)

    def _holds(self, task: Task) -> bool:
        held = self._held.get(task.name)
        return held is not None and comparable(held) == comparable(task)

    def _request(self, name: str, now: float) -> Register | Deregister | None:
        del self._due[name]
        task = self._wanted.get(name)
        if task is None and name not in self._held:
            # The welcome and the answers since say that BNS holds no such task of ours; another agent may have one.
            self._removing.discard(name)
            return None
        if task is not None and self._holds(task):
            return None
        self._ids += 1
        self._sent[self._ids] = _Sent(name, task, now)
        self._busy.add(name)
        return Register(self._ids, task) if task is not None else Deregister(self._ids, name)


def comparable(task: Task) -> Task:
    """A task without what BNS itself writes into it."""
    start = task.start_time.replace(microsecond=0) if task.start_time is not None else None
    return replace(
        task,
        generation=0,
        principal="",
        agent="",
        machine="",
        start_time=start,
        metadata=dict(task.metadata),
        named_ports=dict(task.named_ports),
    )
