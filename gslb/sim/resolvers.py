"""Browsers behind caching resolvers: where a client area's load goes is what was answered up to a TTL ago.

Each resolver asks when its answer has run out and is answered as by a DNS frontend: `gslb.steer`, keyed by the resolver.
Some ignore the TTL and ask ten times less often.
"""

import random
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from gslb.model.plan import Shares
from gslb.model.resources import Catalog
from gslb.steer.choice import live_shares, stable_choice
from gslb.steer.view import ServiceView

RESOLVERS: Final = 2000
LATE_FACTOR: Final = 10.0


@dataclass(slots=True)
class _Resolver:
    key: bytes
    late: bool
    datacenter: str | None = None


@dataclass(slots=True)
class Resolvers:
    """The resolvers of one client area for one service, each with the same part of its browsers."""

    service: str
    area: str
    resolvers: list[_Resolver] = field(default_factory=list)
    asks_s: list[tuple[float, int]] = field(default_factory=list)  # a heap: when each asks again
    counts: dict[str, int] = field(default_factory=dict)  # resolvers by the datacenter that they hold

    @classmethod
    def of(cls, service: str, area: str, ignore_ttl: float, rng: random.Random) -> "Resolvers":
        """Nobody knows anything yet."""
        crowd = [_Resolver(f"{service}\0{area}-{i}".encode(), rng.random() < ignore_ttl) for i in range(RESOLVERS)]
        return cls(service, area, crowd, [(0.0, i) for i in range(RESOLVERS)])

    def split(self, view: ServiceView, catalog: Catalog, now_s: float, rng: random.Random) -> dict[str, float]:
        """The part of the area's load that each datacenter gets now; resolvers whose answer ran out ask first."""
        shares: Shares | None = None
        ttl_s = float(view.service.ttl_s) if view.service else 0.0
        while self.asks_s[0][0] <= now_s:
            _, number = heappop(self.asks_s)
            if shares is None:
                shares = live_shares(view, self.area, catalog)
            resolver = self.resolvers[number]
            first = resolver.datacenter is None
            self._move(resolver, stable_choice(shares, resolver.key))
            kept_s = ttl_s * (LATE_FACTOR if resolver.late else 1.0)
            # The first answers run out at different times, as in a world that has been running for a while.
            heappush(self.asks_s, (now_s + max(1e-3, kept_s * (rng.random() if first else 1.0)), number))
        return {name: count / len(self.resolvers) for name, count in sorted(self.counts.items()) if count}

    def _move(self, resolver: _Resolver, datacenter: str | None) -> None:
        if resolver.datacenter is not None:
            self.counts[resolver.datacenter] -= 1
        if datacenter is not None:
            self.counts[datacenter] = self.counts.get(datacenter, 0) + 1
        resolver.datacenter = datacenter
