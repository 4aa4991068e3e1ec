"""Clients and servers under a virtual clock: requests come at random, each client's rule chooses a server.

The scene of the Prequal paper's test bed (Wydrowski et al., NSDI 2024): each server has a share of a machine with other
users, antagonists, on it. Most of the time the machine has room and a server may use three times what is allotted to it;
now and then an antagonist leaves it just that. Probes take a round trip and cost the server work. A report comes back
with each answer, as in trailers.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.choice import Report, Rule
from gslb.rpc.policy.member import Member
from gslb.sim.replicas.server import Server

_CHUNK: Final = 4096
_NEVER_S: Final = math.inf
_MEASURE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated; loads are relative to what is allotted to all servers together."""

    load: float
    seed: int
    clients: int = 100
    servers: int = 100
    warm_s: float = 6.0  # not counted
    measured_s: float = 12.0
    work_s: float = 0.08  # mean of a normal distribution, whose deviation is the same, cut at 0
    allotted: float = 4.0  # cores
    free: float = 12.0  # cores while there is no antagonist
    antagonised: float = 0.3  # of the servers
    antagonist_s: float = 8.0  # mean time until a machine's antagonists are drawn anew
    deadline_s: float = 5.0
    probe_rtt_s: float = 0.001
    probe_cost_s: float = 0.0001
    latency: bool = True  # whether reports have it: not for rules that do not read it, it is slow to work out
    trailers: bool = True  # whether answers bring reports


@dataclass(slots=True)
class Outcome:
    """Latencies (s, at most the deadline) of the requests that came while it was measured, and how many were errors."""

    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0  # not done by the deadline
    picks: int = 0
    probes: int = 0

    def quantile_ms(self, q: float) -> float:
        """Nearest rank."""
        ordered = np.partition(self.latencies_s, index := max(0, math.ceil(q * len(self.latencies_s)) - 1))
        return 1000 * float(ordered[index])

    @property
    def error_fraction(self) -> float:
        return self.errors / len(self.latencies_s)


MakeRule = Callable[["Fleet"], Rule[Member]]


class Fleet:
    """One run; `rule` makes the rule of each client."""

    def __init__(self, scene: Scene, rule: MakeRule) -> None:
        self.scene = scene
        self.now_s = 0.0
        self.outcome = Outcome()
        self._end_s = scene.warm_s + scene.measured_s
        self._pending = 0  # requests that count and are under way
        self._rng = random.Random(scene.seed)  # noqa: S311 (a simulation, no secret)
        self._draws = np.random.default_rng(scene.seed)
        self.servers = [Server(self._cores(), scene.allotted) for _ in range(scene.servers)]
        endpoints = [
            ServiceEndpoint(f"/bns/dc/u/j/{i}", f"10.0.{i >> 8}.{i & 255}", 80, HealthStatus.HEALTHY)
            for i in range(scene.servers)
        ]
        self.number = {endpoint.target: i for i, endpoint in enumerate(endpoints)}
        self.members = [[Member(endpoint) for endpoint in endpoints] for _ in range(scene.clients)]
        self.rules = [rule(self) for _ in range(scene.clients)]
        for one, members in zip(self.rules, self.members, strict=True):
            one.assign(members, 0.0)
        # Departures: (when, server, version of its announcement).
        self._departures: list[tuple[float, int, int]] = []
        self._asked: deque[tuple[float, int, Sequence[Member]]] = deque()
        self._answers: deque[tuple[float, int, list[tuple[Member, Report]]]] = deque()
        # What happens to machines: (when, server), and a measurement of all servers each second (server -1).
        self._changes = [(self._rng.expovariate(1 / scene.antagonist_s), i) for i in range(scene.servers)]
        self._changes.append((_MEASURE_S, -1))
        heapq.heapify(self._changes)

    def run(self) -> Outcome:
        """Runs until all requests that count have ended, or the deadline of the last of them: the rest are errors."""
        for number, (arrival_s, work_s, client) in enumerate(self._arrivals()):
            if arrival_s > self._end_s and (not self._pending or arrival_s > self._end_s + self.scene.deadline_s):
                break
            self._until(arrival_s)
            self._request(number, arrival_s, work_s, client)
        for _ in range(self._pending):
            self._count(self.scene.deadline_s)
        return self.outcome

    def _arrivals(self) -> Iterator[tuple[float, float, int]]:
        """When, how much work, whose."""
        scene, draws = self.scene, self._draws
        # A normal distribution with deviation = mean, cut at 0: its mean is 1.0833 of that of the whole.
        mean_s = scene.work_s * (0.8413447 + 0.2419707)
        rate = scene.load * scene.allotted * scene.servers / mean_s
        now_s = 0.0
        while True:
            gaps = draws.exponential(1 / rate, _CHUNK).tolist()
            works = np.maximum(draws.normal(scene.work_s, scene.work_s, _CHUNK), 1e-4).tolist()
            for gap_s, work_s, client in zip(
                gaps, works, draws.integers(0, scene.clients, _CHUNK).tolist(), strict=True
            ):
                now_s += gap_s
                yield now_s, work_s, client

    def _until(self, now_s: float) -> None:
        """Everything that happens before `now_s`, in order."""
        departures, changes, asked, answers = self._departures, self._changes, self._asked, self._answers
        while True:
            departure_s = departures[0][0] if departures else _NEVER_S
            asked_s = asked[0][0] if asked else _NEVER_S
            answer_s = answers[0][0] if answers else _NEVER_S
            next_s = min(departure_s, asked_s, answer_s, changes[0][0])
            if next_s >= now_s:
                return
            self.now_s = next_s
            if next_s == departure_s:
                self._departure()
            elif next_s == asked_s:
                self._probed()
            elif next_s == answer_s:
                _, client, reports = answers.popleft()
                rule = self.rules[client]
                for member, report in reports:
                    rule.reported(member, report, next_s, probe=True)
            else:
                self._change()

    def _request(self, number: int, now_s: float, work_s: float, client: int) -> None:
        self.now_s = now_s
        rule, random_ = self.rules[client], self._rng.random
        member = rule.pick(random_, now_s)
        member.in_flight += 1
        i = self.number[member.target]
        server = self.servers[i]
        server.advance(now_s)
        server.arrive(number, work_s, client)
        self._announce(i, server)
        self.outcome.picks += 1
        self._pending += self._counts(now_s)
        if asked := rule.probes(random_, now_s):
            self.outcome.probes += len(asked)
            self._asked.append((now_s + self.scene.probe_rtt_s / 2, client, asked))

    def _announce(self, i: int, server: Server) -> None:
        server.version += 1
        if server.queue:
            heapq.heappush(self._departures, (server.next_departure_s(), i, server.version))

    def _departure(self) -> None:
        now_s, i, version = heapq.heappop(self._departures)
        server = self.servers[i]
        if version != server.version:
            return
        server.advance(now_s)
        arrived_s, client = server.depart()
        latency_s = now_s - arrived_s
        self._announce(i, server)
        if self._counts(arrived_s):
            self._pending -= 1
            self._count(latency_s)
        member = self.members[client][i]
        member.in_flight -= 1
        rule = self.rules[client]
        rule.ended(member, latency_s, now_s, ok=True)
        if self.scene.trailers:
            rule.reported(member, server.report(latency=self.scene.latency), now_s)

    def _counts(self, arrived_s: float) -> bool:
        return self.scene.warm_s < arrived_s <= self._end_s

    def _count(self, latency_s: float) -> None:
        late = latency_s >= self.scene.deadline_s
        self.outcome.latencies_s.append(self.scene.deadline_s if late else latency_s)
        self.outcome.errors += late

    def _probed(self) -> None:
        """Probes reach their servers."""
        now_s, client, asked = self._asked.popleft()
        reports = []
        for member in asked:
            server = self.servers[self.number[member.target]]
            server.debt_s += self.scene.probe_cost_s
            reports.append((member, server.report(latency=self.scene.latency)))
        self._answers.append((now_s + self.scene.probe_rtt_s / 2, client, reports))

    def _cores(self) -> float:
        return self.scene.allotted if self._rng.random() < self.scene.antagonised else self.scene.free

    def _change(self) -> None:
        scene = self.scene
        now_s, i = heapq.heappop(self._changes)
        if i < 0:
            for server in self.servers:
                server.advance(now_s)
                server.measure(_MEASURE_S)
            heapq.heappush(self._changes, (now_s + _MEASURE_S, -1))
            return
        server = self.servers[i]
        server.advance(now_s)
        # An antagonist that is there goes; where there is none one comes, so often that `antagonised` stays true.
        odds = scene.antagonised / (1 - scene.antagonised)
        comes = server.cores != scene.allotted and self._rng.random() < odds
        server.cores = scene.allotted if comes else scene.free
        self._announce(i, server)
        heapq.heappush(self._changes, (now_s + self._rng.expovariate(1 / scene.antagonist_s), i))
