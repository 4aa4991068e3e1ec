"""The bulletin board: servers whose loads are posted only from time to time, to all clients at once.

Mitzenmacher's model of old information: servers with exponential service times of mean 1 and first come, first served;
Poisson arrivals at `load` of what they can do; the board is posted every `age` service times. All clients see the same
board, so one rule stands for all of them.
"""

import heapq
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from typing_extensions import override

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.choice import Report, Rng, Rule
from gslb.rpc.policy.interpret import poured
from gslb.rpc.policy.member import Member

# The first part of the arrivals fills the empty servers and does not count.
_WARM: Final = 0.2


@dataclass(frozen=True, slots=True)
class BoardScene:
    """`age`: service times between two postings."""

    age: float
    seed: int
    servers: int = 100
    load: float = 0.9
    arrivals: int = 60_000


def fleet(servers: int) -> list[Member]:
    """Members that nobody is connected to."""
    return [
        Member(ServiceEndpoint(f"/bns/dc/u/j/{i}", f"10.0.{i >> 8}.{i & 255}", 80, HealthStatus.HEALTHY))
        for i in range(servers)
    ]


def mean_sojourn(scene: BoardScene, rule: Rule[Member]) -> float:
    """Mean time from arrival to departure, in service times, of the requests after the first fifth."""
    rng = random.Random(scene.seed)  # noqa: S311 (a simulation, no secret)
    members = fleet(scene.servers)
    number = {member: i for i, member in enumerate(members)}
    rule.assign(members, 0.0)
    queue, free_at, ended = [0] * scene.servers, [0.0] * scene.servers, [0] * scene.servers
    departures: list[tuple[float, int]] = []
    now, posted, total, counted = 0.0, 0.0, 0.0, 0

    def depart(until: float) -> None:
        while departures and departures[0][0] <= until:
            server = heapq.heappop(departures)[1]
            queue[server] -= 1
            ended[server] += 1

    for arrival in range(scene.arrivals):
        now += rng.expovariate(scene.servers * scene.load)
        while posted <= now:
            depart(posted)
            _post(rule, members, queue, ended, posted, scene.age)
            posted += scene.age
        depart(now)
        i = number[rule.pick(rng.random, now)]
        queue[i] += 1
        free_at[i] = max(now, free_at[i]) + rng.expovariate(1.0)
        heapq.heappush(departures, (free_at[i], i))
        if arrival >= _WARM * scene.arrivals:
            total += free_at[i] - now
            counted += 1
    return total / counted


def _post(
    rule: Rule[Member], members: Sequence[Member], queue: Sequence[int], ended: list[int], now: float, age: float
) -> None:
    for i, member in enumerate(members):
        rule.reported(member, Report(queue[i], rps=ended[i] / age), now)
        ended[i] = 0


class KnownInterpretation(Rule[Member]):
    """Load interpretation that knows the rate and the age instead of learning them: the mark to measure ours by."""

    def __init__(self, scene: BoardScene) -> None:
        self._expected = scene.servers * scene.load * scene.age
        self._members: Sequence[Member] = ()
        self._levels: dict[Member, float] = {}
        self._parts: list[float] = []

    @override
    def assign(self, members: Sequence[Member], now_s: float) -> None:
        self._members = members

    @override
    def reported(self, member: Member, report: Report, now_s: float, *, probe: bool = False) -> None:
        self._levels[member] = report.in_flight
        self._parts = []

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> Member:
        if not self._parts:
            parts = list(accumulate(poured([self._levels[member] for member in self._members], self._expected)))
            self._parts = [part / parts[-1] for part in parts]
        return self._members[min(bisect_right(self._parts, rng()), len(self._members) - 1)]


@dataclass(slots=True)
class Blind(Rule[Member]):
    """Anybody."""

    _members: Sequence[Member] = field(default_factory=tuple)

    @override
    def assign(self, members: Sequence[Member], now_s: float) -> None:
        self._members = members

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> Member:
        return self._members[int(rng() * len(self._members))]
