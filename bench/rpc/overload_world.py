"""A service under overload, request by request: clients with the throttle and budget of the library, servers with its guard.

The rules are `gslb.rpc.policy`, unchanged; here are only a clock, a network of half a millisecond, and work: a server has a
few workers, a request takes one of them for an exponential time, and a refusal costs a part of that, which whoever is
begun next pays. Clients choose by power of two on their own requests in flight, errors as load.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from bns.model import HealthStatus
from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.budget import RetryBudget
from gslb.rpc.policy.errors import LOOK_S
from gslb.rpc.policy.failure import Failure
from gslb.rpc.policy.guard import Decision, Fate, Guard
from gslb.rpc.policy.line import Ticket
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.p2c import group_of, without
from gslb.rpc.policy.throttle import Throttle

NETWORK_S: Final = 0.0005
# What a client makes of how an attempt ended; a connection that fails is no fate of a request.
_FAILURES: Final[dict[Fate | None, Failure | None]] = {
    Fate.BEGIN: None,
    Fate.REFUSED: Failure.REFUSED,
    Fate.REFUSED_EVERYWHERE: Failure.SHED,
    Fate.EXPIRED: Failure.TIMED_OUT,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What there is. Capacity is servers * workers / work_s."""

    servers: int = 10
    workers: int = 4
    work_s: float = 0.04
    clients: int = 20
    rejection_cost: float = 0.1  # of a request's work
    deadline_s: float = 1.0
    excess: float | None = limits.THROTTLE_EXCESS  # K; None: clients do not throttle
    calls: int = 1  # of a task, one after the other: it succeeds when all do

    @property
    def capacity_rps(self) -> float:
        return self.servers * self.workers / self.work_s


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of time: rps by criticality, in units of the capacity. `down`: nobody answers."""

    until_s: float
    load: tuple[float, float, float, float]
    down: bool = False


@dataclass(slots=True)
class Second:
    """What happened to tasks that began in one second, by criticality."""

    asked: list[int] = field(default_factory=lambda: [0] * len(Criticality))
    ok: list[int] = field(default_factory=lambda: [0] * len(Criticality))
    held_back: int = 0
    attempts: int = 0
    retries: int = 0


class Server:
    """One task of the service."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._guard = Guard(world.shape.workers)
        self._answers: dict[Ticket, Callable[[Fate], None]] = {}
        self._debt_s = 0.0  # work of refusals that nobody has done yet

    @property
    def guard(self) -> Guard:
        return self._guard

    def ask(self, ticket: Ticket, answer: Callable[[Fate], None]) -> None:
        """A request arrives; `answer` with Fate.BEGIN when it is served, else with how it was refused."""
        self._answers[ticket] = answer
        self._carry_out(self._guard.arrive(ticket, self._world.now_s))

    def _carry_out(self, decisions: Sequence[Decision]) -> None:
        shape, world = self._world.shape, self._world
        for ticket, fate in decisions:
            if fate is Fate.BEGIN:
                took_s = world.rng.expovariate(1.0 / shape.work_s) + self._debt_s
                self._debt_s = 0.0
                world.after(took_s, partial(self._finish, ticket))
            elif fate is not Fate.WAIT:
                self._debt_s += shape.rejection_cost * shape.work_s
                self._answers.pop(ticket)(fate)

    def _finish(self, ticket: Ticket) -> None:
        self._answers.pop(ticket)(Fate.BEGIN)
        self._carry_out(self._guard.finish(ticket, self._world.now_s))


class Client:
    """One process that calls the service."""

    def __init__(self, world: "World") -> None:
        self._world = world
        excess = world.shape.excess
        self._throttle = Throttle() if excess is None else Throttle(excess)
        self._budget = RetryBudget()
        self._tasks = tuple(_task(number) for number in range(world.shape.servers))
        self._group = group_of("here", self._tasks)

    @property
    def throttle(self) -> Throttle:
        return self._throttle

    def call(self, level: Criticality, rank: float, ended: Callable[[bool], None]) -> None:
        """One logical call with up to three attempts."""
        world = self._world
        self._budget.request(world.now_s)
        throttled = world.shape.excess is not None
        if throttled and not self._throttle.admit(level, rank, world.rng.random(), world.now_s):
            world.second.held_back += 1
            ended(False)
            return
        self._attempt(level, rank, world.now_s + world.shape.deadline_s, [], ended)

    def _attempt(
        self, level: Criticality, rank: float, deadline_s: float, tried: list[Member], ended: Callable[[bool], None]
    ) -> None:
        world = self._world
        task = self._pick(tried)
        attempt = len(tried)
        sent_s = world.now_s
        task.in_flight += 1
        world.second.attempts += 1

        def over(fate: Fate | None) -> None:
            task.in_flight -= 1
            refused = fate in {Fate.REFUSED, Fate.REFUSED_EVERYWHERE}
            if fate in _FAILURES and task.charge(_FAILURES[fate], world.now_s, refused=refused):
                world.after(LOOK_S, partial(self._relieve, task))
            self._throttle.ended(level, sent_s, world.now_s, refused=refused, rank=rank)
            if fate is Fate.BEGIN:
                ended(world.now_s <= deadline_s)
                return
            if attempt and not refused:
                self._budget.in_vain(world.now_s)
            again = fate is None or fate is Fate.REFUSED
            if again and attempt + 1 < limits.ATTEMPTS_MAX and self._budget.take(world.now_s):
                world.second.retries += 1
                self._attempt(level, rank, deadline_s, [*tried, task], ended)
            else:
                ended(False)

        if world.down:
            world.after(NETWORK_S, lambda: over(None))
            return
        server = world.servers[self._tasks.index(task)]
        ticket = Ticket(level, rank, world.now_s + NETWORK_S, deadline_s, attempt)
        back = lambda fate: world.after(NETWORK_S, lambda: over(fate))  # noqa: E731  # as short as it gets
        world.after(NETWORK_S, lambda: server.ask(ticket, back))

    def _pick(self, tried: list[Member]) -> Member:
        group = (without(self._group, tried) if tried else None) or self._group
        return group.pick(self._world.rng.random)

    def _relieve(self, task: Member) -> None:
        if task.relieve(self._world.now_s):
            self._world.after(LOOK_S, partial(self._relieve, task))


def _task(number: int) -> Member:
    return Member(
        ServiceEndpoint(f"/bns/here/bench/server/{number}", "127.0.0.1", 1 + number, HealthStatus.HEALTHY, 1.0)
    )


class World:
    """Runs the stages; `seconds[i]` is what happened to the tasks that began in second i."""

    def __init__(self, shape: Shape, stages: list[Stage], seed: int) -> None:
        self.shape = shape
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.down = False
        self.seconds: list[Second] = []
        self.servers = [Server(self) for _ in range(shape.servers)]
        self._clients = [Client(self) for _ in range(shape.clients)]
        self._stages = stages
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    @property
    def second(self) -> Second:
        """This second."""
        number = int(self.now_s)
        while len(self.seconds) <= number:
            self.seconds.append(Second())
        return self.seconds[number]

    @property
    def clients(self) -> list[Client]:
        return self._clients

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Runs `callback` then."""
        self._order += 1
        heapq.heappush(self._events, (self.now_s + delay_s, self._order, callback))

    def run(self) -> list[Second]:
        """From the first stage to the last; what is under way at the end is not waited for."""
        for stage in self._stages:
            self.down = stage.down
            total = sum(stage.load) * self.shape.capacity_rps
            next_s = self.now_s + self.rng.expovariate(total)
            while next_s < stage.until_s:
                self._until(next_s)
                self._arrive(stage.load)
                next_s += self.rng.expovariate(total)
            self._until(stage.until_s)
        return self.seconds

    def _until(self, when_s: float) -> None:
        while self._events and self._events[0][0] <= when_s:
            self.now_s, _, callback = heapq.heappop(self._events)
            callback()
        self.now_s = when_s

    def _arrive(self, load: tuple[float, float, float, float]) -> None:
        level = self.rng.choices(list(Criticality), load)[0]
        rank = self.rng.random()
        client = self._clients[int(self.rng.random() * len(self._clients))]
        second = self.second
        second.asked[level] += 1
        self._call(client, level, rank, second, self.shape.calls)

    def _call(self, client: Client, level: Criticality, rank: float, second: Second, left: int) -> None:
        def ended(ok: bool) -> None:
            if not ok:
                return
            if left > 1:
                self._call(client, level, rank, second, left - 1)
            else:
                second.ok[level] += 1

        client.call(level, rank, ended)
