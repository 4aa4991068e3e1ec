"""Servers of a service under a virtual clock, with the same accounts and the same fold as the real ones.

Nothing is in step: each server reports at a moment of its own, and its answer takes a while. Requests of a client come by
chance (Poisson), at `load(t)` rps, to the servers by `spread(t)`.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gslb.balancer.quota import QuotaFold
from gslb.model import limits
from gslb.model.quota import Quota, Unit
from gslb.rpc.policy.quota import Account

SERVICE = "search"
LATENCY_S = 0.1

Load = Callable[[float], float]
Spread = Callable[[float], Sequence[float]]


@dataclass
class Client:
    """What one client does, and what came of it, by period."""

    quota: Quota
    load: Load
    spread: Spread
    cpu_s: float = 0.0  # mean of what a request takes (exponential)
    asked: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def note(self, t: float, asked: float, used: float, refused: int = 0) -> None:
        period = int(t / limits.QUOTA_PERIOD_S)
        for series in (self.asked, self.used, self.refused):
            series.extend([0] * (period + 1 - len(series)))
        self.asked[period] += asked
        self.used[period] += used
        self.refused[period] += refused

    def over(self, first: int = 0) -> float:
        """The most that was used of the quota in one period, from the period `first` on."""
        return max(self.used[first:]) / (self.quota.rate * limits.QUOTA_PERIOD_S)

    def mean(self, first: int = 0) -> float:
        used = self.used[first:]
        return sum(used) / len(used) / (self.quota.rate * limits.QUOTA_PERIOD_S)


class Fleet:
    """`count` servers, asked by `clients`. `silent(t)`: whether the control plane is gone."""

    def __init__(
        self, count: int, clients: Sequence[Client], seed: int = 1, silent: Callable[[float], bool] = lambda _: False
    ) -> None:
        self.rng = random.Random(seed)
        self.fold = QuotaFold()
        self.clients = {client.quota.caller: client for client in clients}
        self.quotas = {name: client.quota for name, client in self.clients.items()}
        self.servers: list[dict[str, Account]] = [{} for _ in range(count)]
        self.silent = silent
        self._reported = [0.0] * count
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()

    def run(self, lasts_s: float) -> None:
        for server in range(len(self.servers)):
            self._answer(server)(0.0)
            self._at(self.rng.random() * limits.QUOTA_REPORT_PERIOD_S, self._report(server))
        for name in self.clients:
            self._at(0.0, self._arrival(name))
        self._at(1.0, self._sweep)
        while self._events[0][0] < lasts_s:
            t, _, event = heapq.heappop(self._events)
            event(t)

    def _at(self, t: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (t, next(self._order), event))

    def _sweep(self, t: float) -> None:
        if not self.silent(t):
            self.fold.sweep({SERVICE: self.quotas}, t)
        self._at(t + 1.0, self._sweep)

    def _report(self, server: int) -> Callable[[float], None]:
        def event(t: float) -> None:
            usages = [account.take(name) for name, account in self.servers[server].items()]
            period_s, self._reported[server] = t - self._reported[server], t
            if not self.silent(t):
                self.fold.report(SERVICE, str(server), usages, period_s, self.quotas, now_s=t)
                self._at(t + LATENCY_S * self.rng.random(), self._answer(server))
            self._at(t + limits.QUOTA_REPORT_PERIOD_S, event)

        return event

    def _answer(self, server: int) -> Callable[[float], None]:
        shares = self.fold.shares(SERVICE, str(server), self.quotas)

        def event(t: float) -> None:
            for name, share in shares.items():
                account = self.servers[server].get(name)
                if account is None:
                    self.servers[server][name] = Account(share, t)
                else:
                    account.grant(share, t)

        return event

    def _arrival(self, name: str) -> Callable[[float], None]:
        client = self.clients[name]

        def event(t: float) -> None:
            rate = client.load(t)
            if rate > 0.0:
                self._ask(client, t)
            self._at(t + self.rng.expovariate(rate or 50.0), event)

        return event

    def _ask(self, client: Client, t: float) -> None:
        server = self.rng.choices(range(len(self.servers)), client.spread(t))[0]
        account = self.servers[server][client.quota.caller]
        bill = account.admit(t)
        takes = self.rng.expovariate(1 / client.cpu_s) if client.quota.unit is Unit.CPU else 1.0
        if bill is None:
            client.note(t, takes, 0.0, 1)
            return
        client.note(t, takes, takes)
        if client.quota.unit is Unit.RPS:
            account.close(bill, t)
            return

        def end(now: float) -> None:
            account.charge(bill, takes, now)
            account.close(bill, now)

        self._at(t + takes, end)
