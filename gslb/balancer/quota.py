"""What all clients ask of all servers of a service, and how much of each client's quota each server may let in. PURE.

Servers report what was asked of them a few times a second, and are told their shares in the answer:

- While a client asks for less than its quota, every server may let in the whole of it: nobody is refused for where he
  asks.
- When it is near its quota, or over it, the quota is shared out in proportion to what is asked of each server, so that
  each of its requests has the same chance wherever it goes. A small part (ROOM) goes to all servers alike: one that
  the client turns to has something to begin with, and shows by its next report that it needs more. The shares of all
  servers sum up to the quota.

Near and over differ in what servers may save up (`gslb.rpc.policy.quota`): a client that is near its quota by chance
must not be refused for a handful of requests that came together; one that is over must not live on what it saved.

Each client is looked at by itself: quotas may sum up to more than the service has. What is asked of a server is its last
report or the smoothed ones, whichever is more: a rise counts at once, and a lull of one report moves nothing.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from gslb.model import limits
from gslb.model.quota import Quota, Share, Unit, Usage

# Of a quota that is shared out: what all servers get alike.
ROOM: Final = 0.03
# How far beyond its quota a client is over, in its last reports and in what it was let use: more than chance makes of so
# many requests (in deviations of a Poisson count), and more than this part.
OVER: Final = 0.05
OVER_DEVIATIONS: Final = 3.0
USED: Final = 0.03
USED_DEVIATIONS: Final = 1.0
# A client is near its quota beyond this part of it.
NEAR: Final = 0.95
HOLD_S: Final = 5.0
# Weight of a server's newest report; of few requests it says little.
_NEWEST: Final = 0.7
_NEWEST_OF_FEW: Final = 0.25
_FEW: Final = 8
_NEWEST_USED: Final = 0.4
# Rows of clients that went away must go: what is left of this part of the most that they asked is nothing.
_NOTHING: Final = 1e-3
PERIOD_MIN_S: Final = 0.05
PERIOD_MAX_S: Final = 60.0


class Standing(IntEnum):
    """What a client asks, against its quota."""

    WITHIN = 0
    NEAR = 1  # so near that chance alone may take it beyond
    OVER = 2


class Row(NamedTuple):
    """How one client stands with one service, for people; rates per second in the unit."""

    service: str
    caller: str
    unit: Unit
    quota: float
    asked: float
    used: float
    standing: Standing
    servers: int  # that it asked lately


@dataclass(slots=True)
class _Row:
    """One client at one server."""

    unit: Unit
    last: float
    smooth: float
    used: float  # smoothed
    requests: int = 0
    peak: float = 0.0  # the most that it asked

    @property
    def weight(self) -> float:
        return max(self.last, self.smooth)


@dataclass(slots=True)
class _Client:
    """One client of a service: sums over its servers."""

    unit: Unit
    last: float = 0.0
    smooth: float = 0.0
    weight: float = 0.0
    used: float = 0.0
    requests: float = 0.0
    standing: Standing = Standing.WITHIN
    calm_s: float = 0.0  # when it was last seen to ask for more than that standing allows

    def add(self, row: _Row, sign: float) -> None:
        self.last += sign * row.last
        self.smooth += sign * row.smooth
        self.weight += sign * row.weight
        self.used += sign * row.used
        self.requests += sign * row.requests


@dataclass(slots=True)
class _Server:
    heard_s: float
    every_s: float
    rows: dict[str, _Row] = field(default_factory=dict)


@dataclass(slots=True)
class _Service:
    servers: dict[str, _Server] = field(default_factory=dict)
    clients: dict[str, _Client] = field(default_factory=dict)


class QuotaFold:
    """One replica's. `now_s` of every call is of one monotonic clock; memory is bounded by servers times quotas."""

    def __init__(self) -> None:
        self._services: dict[str, _Service] = {}
        self._count = 0  # servers

    @property
    def servers(self) -> int:
        """How many are remembered."""
        return self._count

    def heard(self, service: str) -> bool:
        """Whether any server of it reports."""
        return service in self._services

    def every_s(self, quotas: Mapping[str, Quota]) -> float:
        """How often a server of a service with these quotas is to report."""
        if not quotas:
            return limits.QUOTA_REPORT_IDLE_S
        stretched_s = self._count / limits.QUOTA_REPORTS_MAX_PER_S
        return min(limits.QUOTA_REPORT_MAX_S, max(limits.QUOTA_REPORT_PERIOD_S, stretched_s))

    def greet(self, service: str, server: str, now_s: float) -> str:
        """A server is there. Why it is refused; empty: it is not."""
        held = self._services.setdefault(service, _Service())
        known = held.servers.get(server)
        if known is not None:
            known.heard_s = now_s
            return ""
        if self._count >= limits.QUOTA_SERVERS_MAX:
            return f"{self._count} servers report their usage already"
        held.servers[server] = _Server(now_s, limits.QUOTA_REPORT_IDLE_S)
        self._count += 1
        return ""

    def report(  # what is said, by whom, of what, and when
        self,
        service: str,
        server: str,
        usages: Iterable[Usage],
        period_s: float,
        quotas: Mapping[str, Quota],
        *,
        now_s: float,
    ) -> str:
        """Takes in what one server says of a period. Why it is refused; empty: it is not."""
        refusal = self.greet(service, server, now_s)
        if refusal:
            return refusal
        held = self._services[service]
        known = held.servers[server]
        known.every_s = self.every_s(quotas)
        said = {usage.caller: usage for usage in usages if usage.caller in quotas}
        period_s = min(PERIOD_MAX_S, max(PERIOD_MIN_S, period_s))
        for caller in known.rows.keys() | said.keys():
            before = known.rows.pop(caller, None)
            quota, client = quotas.get(caller), held.clients.get(caller)
            if before is not None and client is not None and client.unit is before.unit:
                client.add(before, -1.0)
            if quota is None:
                continue
            row = _followed(before, said.get(caller), quota.unit, period_s)
            if row.weight > 0.0:
                known.rows[caller] = row
            if client is None or client.unit is not quota.unit:
                client = held.clients[caller] = _Client(quota.unit)
            client.add(row, 1.0)
            _judge(client, quota.rate, now_s)
        return ""

    def held_back(self, service: str) -> set[str]:
        """The clients that are near their quota or over it."""
        held = self._services.get(service)
        return {caller for caller, client in held.clients.items() if client.standing} if held else set()

    def shares(
        self, service: str, server: str, quotas: Mapping[str, Quota], only: Iterable[str] | None = None
    ) -> dict[str, Share]:
        """What this server may let in of each client that has a quota, or of `only` these of them."""
        held = self._services.get(service, _Service())
        known = held.servers.get(server)
        count = max(1, len(held.servers))
        shares = {}
        for caller in quotas if only is None else quotas.keys() & only:
            quota, client = quotas[caller], held.clients.get(caller)
            if client is None or client.unit is not quota.unit or client.standing is Standing.WITHIN:
                shares[caller] = Share(quota.unit, quota.rate, quota.rate)
                continue
            row = known.rows.get(caller) if known else None
            part = row.weight / client.weight if row is not None and client.weight > 0.0 else 0.0
            rate = quota.rate * min(1.0, (1.0 - ROOM) * min(1.0, part) + ROOM / count)
            shares[caller] = Share(quota.unit, rate, quota.rate, over=client.standing is Standing.OVER)
        return shares

    def thaw(self, frozen_s: float) -> None:
        """Nobody was heard for so long because nobody listened."""
        for held in self._services.values():
            for known in held.servers.values():
                known.heard_s += frozen_s

    def sweep(self, quotas: Mapping[str, Mapping[str, Quota]], now_s: float) -> None:
        """To be called about once a second: forgets servers that fell silent and quotas that are gone; sums up anew."""
        for name, held in list(self._services.items()):
            for server, known in list(held.servers.items()):
                if now_s - known.heard_s > limits.QUOTA_SILENT_PERIODS * known.every_s:
                    del held.servers[server]
                    self._count -= 1
            if not held.servers:
                del self._services[name]
                continue
            self._sum_up(held, quotas.get(name, {}), now_s)

    def rows(self, quotas: Mapping[str, Mapping[str, Quota]]) -> Iterator[Row]:
        """Every quota, with what is asked of it and used."""
        for name, of_service in sorted(quotas.items()):
            held = self._services.get(name, _Service())
            for caller, quota in sorted(of_service.items()):
                client = held.clients.get(caller)
                if client is None or client.unit is not quota.unit:
                    client = _Client(quota.unit)
                servers = sum(1 for known in list(held.servers.values()) if caller in known.rows)
                asked, used = max(0.0, client.smooth), max(0.0, client.used)
                yield Row(name, caller, quota.unit, quota.rate, asked, used, client.standing, servers)

    @staticmethod
    def _sum_up(held: _Service, quotas: Mapping[str, Quota], now_s: float) -> None:
        """The sums anew from the rows: floats that are added and taken away drift, and servers have gone."""
        before, held.clients = held.clients, {}
        for caller, quota in quotas.items():
            old = before.get(caller)
            if old is not None and old.unit is quota.unit:
                held.clients[caller] = _Client(quota.unit, standing=old.standing, calm_s=old.calm_s)
        for known in held.servers.values():
            for caller, row in list(known.rows.items()):
                client = held.clients.get(caller)
                if client is None or client.unit is not row.unit:
                    del known.rows[caller]
                else:
                    client.add(row, 1.0)
        for caller, client in held.clients.items():
            _judge(client, quotas[caller].rate, now_s)


def _followed(before: _Row | None, said: Usage | None, unit: Unit, period_s: float) -> _Row:
    """A server's row after a report; what it says in another unit than the quota's is not known yet."""
    if said is not None and said.unit is not unit:
        said = None
    asked = said.asked / period_s if said else 0.0
    used = said.used / period_s if said else 0.0
    requests = said.requests if said else 0
    if before is None or before.unit is not unit:
        return _Row(unit, asked, asked, used, requests, asked)
    newest = _NEWEST if requests >= _FEW else _NEWEST_OF_FEW
    smooth = before.smooth + newest * (asked - before.smooth)
    if asked == 0.0 and smooth < _NOTHING * before.peak:
        return _Row(unit, 0.0, 0.0, 0.0)
    smooth_used = before.used + _NEWEST_USED * (used - before.used)
    return _Row(unit, asked, smooth, smooth_used, requests, max(before.peak, asked))


def _judge(client: _Client, quota: float, now_s: float) -> None:
    """How the client stands: worse at once, better after HOLD_S."""
    deviation = 1.0 / math.sqrt(max(1.0, client.requests))
    if client.last > quota * (1.0 + OVER + OVER_DEVIATIONS * deviation) or client.used > quota * (
        1.0 + USED + USED_DEVIATIONS * deviation
    ):
        found = Standing.OVER
    elif client.smooth > NEAR * quota or client.last > quota:
        found = Standing.NEAR
    else:
        found = Standing.WITHIN
    if found >= client.standing:
        client.standing, client.calm_s = found, now_s
    elif now_s - client.calm_s >= HOLD_S:
        client.standing, client.calm_s = Standing(client.standing - 1), now_s
