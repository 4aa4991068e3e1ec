"""Choices that no client can make, because they see all servers as they are this moment: marks to measure rules by."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from gslb.rpc.policy.choice import Rng, Rule
from gslb.rpc.policy.member import Member
from gslb.sim.replicas.fleet import Fleet


@dataclass(slots=True)
class _Oracle(Rule[Member]):
    """Knows the fleet itself, not what servers tell."""

    fleet: Fleet
    _members: Sequence[Member] = field(default_factory=tuple)

    @override
    def assign(self, members: Sequence[Member], now_s: float) -> None:
        self._members = members


@dataclass(slots=True)
class Omniscient(_Oracle):
    """The server with the most cores for one request more; ties broken at random."""

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> Member:
        servers = self.fleet.servers
        first = int(rng() * len(servers))
        order = [*range(first, len(servers)), *range(first)]
        return self._members[min(order, key=lambda i: (len(servers[i].queue) + 1) / servers[i].cores)]


@dataclass(slots=True)
class IdealPowerOfTwo(_Oracle):
    """Of two servers drawn, the one with fewer requests in flight, known exactly and at no cost."""

    @override
    def pick(self, rng: Rng, now_s: float, key: str = "") -> Member:
        servers, count = self.fleet.servers, len(self._members)
        i, j = int(rng() * count), int(rng() * (count - 1))
        j += j >= i
        return self._members[i if len(servers[i].queue) <= len(servers[j].queue) else j]
