"""One task as a channel sees it: requests in flight, what became of them, and whether it is out for a while. PURE.

State without locks and clocks: the channel's core guards it and says what time it is.
"""

from dataclasses import dataclass, field

from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.backoff import backoff_s
from gslb.rpc.policy.errors import ErrorLoad, errors_in
from gslb.rpc.policy.failure import ANSWERS, Failure


@dataclass(slots=True, eq=False)
class Member:
    """Mutable, compared by identity: one for each (task, address) that a channel knows."""

    endpoint: ServiceEndpoint
    in_flight: int = 0
    picks: int = 0
    ok: int = 0  # since the last report
    failed: int = 0  # since the last report
    failures: int = 0  # in a row: connections refused or broken, background probes that failed
    down: bool = False  # locally out of the choice until a background probe succeeds
    proved: bool = False  # has answered a request since it is known, or since a probe brought it back
    ejected: bool = False  # left out for a while: it fails much more than others
    heard_s: float = 0.0  # when it last answered anything
    waiting_s: float = 0.0  # since when it has requests in flight
    patience_s: float = limits.STALL_S  # how long it may be silent with requests in flight
    doubted: bool = False  # somebody has asked whether it is there
    stalled: bool = False  # left out: it takes requests and answers nothing (`gslb.rpc.policy.stall`)
    leaving: bool = False  # no endpoint of the service any more: closed when its calls have ended
    burden: float = 0.0  # its recent errors, in requests that count as if they were in flight
    error_load: ErrorLoad = field(default_factory=ErrorLoad)
    watched: bool = False  # somebody is going to relieve it of its burden
    known_s: float = 0.0  # monotonic: since when this process of the task is known
    target: str = field(init=False)
    weight: float = field(init=False)

    def __post_init__(self) -> None:
        self.target = self.endpoint.target
        self.weight = self.endpoint.weight

    @property
    def set_aside(self) -> bool:
        """Whether it is left out although it can be reached, as far as is known."""
        return self.ejected or self.stalled

    def update(self, endpoint: ServiceEndpoint, now_s: float) -> None:
        """The control plane says something new about it: health, weight, that it was started anew."""
        if endpoint.started_s != self.endpoint.started_s:
            self.known_s = now_s
        self.endpoint = endpoint
        self.weight = endpoint.weight

    def answered(self, now_s: float) -> None:
        """An attempt ended with a response: `note` and `charge` in one step, for nearly all end so."""
        self.ok += 1
        self.proved = True
        self._heard(now_s)
        self.burden = self.error_load.add(0.0, now_s)

    def note(self, failure: Failure | None) -> bool:
        """Counts how an attempt ended (None: with a response). Whether the task must leave the choice now."""
        if failure in ANSWERS:
            # Any status that it sent itself shows that it is there.
            self.ok += 1
            self.proved = True
            return False
        self.failed += 1
        if failure is Failure.TIMED_OUT or self.down:
            return False
        self.down = True
        self.failures += 1
        return True

    def charge(self, failure: Failure | None, now_s: float, *, refused: bool = False) -> bool:
        """Counts how an attempt ended as load, if it was an error. Whether somebody must begin to `relieve` the task.

        `refused`: for want of room, or of the caller's quota.
        """
        if failure in ANSWERS:
            self._heard(now_s)
        errors = errors_in(failure, refused=refused) if failure is not None else 0.0
        self.burden = self.error_load.add(errors, now_s)
        if not self.burden or self.watched:
            return False
        self.watched = True
        return True

    @property
    def silent_since_s(self) -> float:
        """Since when somebody waits for it and it has said nothing."""
        return max(self.heard_s, self.waiting_s)

    def _heard(self, now_s: float) -> None:
        """It answered a request: it is waited for as long as that took, or has taken lately."""
        took_s = now_s - max(self.heard_s, self.waiting_s)
        if took_s > self.patience_s:
            self.patience_s = min(limits.STALL_PATIENCE_MAX_S, took_s)
        elif self.patience_s > limits.STALL_S:
            self.patience_s = max(limits.STALL_S, took_s, self.patience_s / 2)
        self.heard_s = now_s

    def is_there(self, now_s: float) -> None:
        """Asked whether it is there while callers wait, it said yes: it may take longer the next time."""
        self.heard_s = now_s
        self.patience_s = min(limits.STALL_PATIENCE_MAX_S, 2 * self.patience_s)

    def relieve(self, now_s: float) -> bool:
        """Lets time pass over its errors. Whether a burden is left, to be relieved once more."""
        self.burden = self.error_load.look(now_s)
        self.watched = self.burden > 0.0
        return self.watched

    def retry_in_s(self, failure: Failure, u: float) -> float:
        """Seconds until a background probe: soon after a broken connection, which may be the only one that broke."""
        if failure is Failure.BROKEN and self.failures <= 1:
            return 0.02 * u
        return backoff_s(self.failures, limits.TASK_BACKOFF_MIN_S, limits.TASK_BACKOFF_MAX_S, u)

    def probed(self, *, ok: bool) -> None:
        """The outcome of a background probe: up again, or out for longer."""
        if ok:
            self.ok += 1
            self.failures = 0
            self.down = self.proved = False
        else:
            self.failed += 1
            self.failures += 1
            self.down = True
