"""The choice of a task for each request: what every rule takes in, and what it gives. PURE.

A rule is one object for each channel and datacenter. It lives as long as the channel: when tasks come and go it is told
who may be picked now and keeps what it knows about the others. The channel tells it what it learns (answers, reports,
probes) and asks it for a task with each request and, after that, whom to probe. Requests in flight and errors are the
channel's to count, on the `Member`.

Calls must not overlap: the channel's lock guards a rule. `now_s` is monotonic seconds; `rng` draws from [0, 1).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic

from typing_extensions import override

from gslb.rpc.policy.p2c import Group, M, group_of

Rng = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Report:
    """What a task says of itself, with an answer or when it is probed. What it does not know, or lies about, is 0."""

    in_flight: float = 0.0  # requests under way there, from all its clients
    latency_s: float = 0.0  # what a request of late took there, at about so many in flight
    utilization: float = 0.0  # of what is allotted to it; may exceed 1
    rps: float = 0.0  # requests that it ended per second, errors included
    eps: float = 0.0  # errors among them
    room: float = 0.0  # requests that it can have under way before they slow one another (`gslb.rpc.policy.room`)
    clients: float = 0.0  # channels that keep a connection to it, the one that asks included; 0: it does not know


class Rule(ABC, Generic[M]):
    """Chooses among the tasks of one datacenter. Rules override what they need."""

    # Whether reports that come with answers are of use to it, and whether it has tasks probed.
    listens: ClassVar[bool] = False
    asks: ClassVar[bool] = False

    @abstractmethod
    def assign(self, members: Sequence[M], now_s: float) -> None:
        """The tasks that may be picked from now on; never empty."""

    @abstractmethod
    def pick(self, rng: Rng, now_s: float, key: str = "") -> M:
        """The task for one request; `key`: requests with the same one should meet at one task, if the rule does that."""

    def probes(self, rng: Rng, now_s: float) -> Sequence[M]:
        """Whom to probe now, after a pick; nobody, for most rules."""
        del rng, now_s
        return ()

    def reported(self, member: M, report: Report, now_s: float, *, probe: bool = False) -> None:
        """A report came, in answer to a probe or with a request's answer. Members not assigned (any more) are ignored."""
        del member, report, now_s, probe

    def ended(self, member: M, latency_s: float, now_s: float, *, ok: bool) -> None:
        """A request there ended after `latency_s`; `ok`: with an answer that is no error."""
        del member, latency_s, now_s, ok

    def knows(self, member: M, now_s: float) -> Mapping[str, float]:
        """What it goes by for this task, for people to read; empty: nothing."""
        del member, now_s
        return {}


class RoundRobin(Rule[M]):
    """One after the other, from a place of each channel's own, so that channels do not march in step."""

    def __init__(self) -> None:
        self._members: tuple[M, ...] = ()
        self._next = -1

    @override
    def assign(self, members: Sequence[M], now_s: float) -> None:
        del now_s
        self._members = tuple(members)

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> M:
        del now_s, key
        members = self._members
        place = self._next
        if place < 0:
            place = int(rng() * len(members))
        elif place >= len(members):
            place = 0
        self._next = place + 1
        return members[place]


class LeastRequest(Rule[M]):
    """The one with fewer requests of our own in flight, of two drawn by weight (`gslb.rpc.policy.p2c`)."""

    def __init__(self) -> None:
        self._group: Group[M] = Group("", ())

    @override
    def assign(self, members: Sequence[M], now_s: float) -> None:
        del now_s
        self._group = group_of("", members)

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> M:
        del now_s, key
        return self._group.pick(rng)
