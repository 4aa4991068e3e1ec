"""Static records as the table keeps them: RRsets of uncompressed rdata. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dns_frontend.zone.name import WILDCARD, from_text, parent_of
from dns_frontend.zone.rtype import RType

# A zone that is made up around a service's name carries these; resolvers keep a negative answer for the last of them.
SYNTHETIC_SOA_TTL_S: Final = 300
SYNTHETIC_REFRESH_S: Final = 3600
SYNTHETIC_RETRY_S: Final = 600
SYNTHETIC_EXPIRE_S: Final = 604_800
SYNTHETIC_MINIMUM_S: Final = 30
_SOA_TAIL = 20  # octets: serial, refresh, retry, expire, minimum


@dataclass(frozen=True, slots=True)
class RRset:
    """All records of one owner and type: they share one TTL (RFC 2181 section 5.2)."""

    rtype: int
    ttl_s: int
    rdatas: tuple[bytes, ...]  # wire form, names in it not compressed


RRsets = Mapping[int, RRset]  # by type


@dataclass(frozen=True, slots=True)
class ZoneData:
    """One zone as its text says: every owner in lower-case wire form. Made by `zone.master`, checked there."""

    origin: bytes
    nodes: Mapping[bytes, RRsets] = field(default_factory=dict)
    spelled: Mapping[bytes, bytes] = field(default_factory=dict)  # owners as written, where not in lower case
    # Names that exist because others are below them, and have no records (RFC 8020).
    empty: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, origin: bytes, nodes: Mapping[bytes, RRsets], spelled: Mapping[bytes, bytes]) -> "ZoneData":
        """The zone with its empty non-terminals found."""
        empty: set[bytes] = set()
        for name in nodes:
            above = parent_of(name) if name != origin else None
            while above is not None and above not in nodes and above not in empty:
                empty.add(above)
                above = parent_of(above)
        return cls(origin, nodes, spelled, frozenset(empty))

    def match(self, name: bytes) -> RRsets | None:
        """The records that answer for a name of this zone: its own, else the wildcard's that covers it; None: neither.

        Delegations are not looked at: this is for addresses of servers, which may be glue.
        """
        known = self.nodes.get(name)
        if known is not None or name in self.empty:
            return known
        at = parent_of(name)
        while at is not None and at not in self.nodes and at not in self.empty:
            at = parent_of(at)
        return self.nodes.get(WILDCARD + at) if at is not None else None

    @property
    def soa(self) -> RRset:
        return self.nodes[self.origin][RType.SOA]

    @property
    def negative_soa(self) -> RRset:
        """The SOA for negative answers: its TTL is the less of its own and MINIMUM (RFC 2308 section 3)."""
        soa = self.soa
        minimum = int.from_bytes(soa.rdatas[0][-4:], "big")
        return RRset(soa.rtype, min(soa.ttl_s, minimum), soa.rdatas)


def soa_serial(soa: RRset) -> int:
    """The serial number of an SOA."""
    rdata = soa.rdatas[0]
    return int.from_bytes(rdata[-_SOA_TAIL : 4 - _SOA_TAIL], "big")


def synthetic_zone(origin: bytes) -> ZoneData:
    """The least zone around a service's name that no zone of the catalog covers: an SOA and nothing else.

    The frontend is then authoritative for that name and what is below it, and for nothing beside it. The SOA is there
    for negative answers (AAAA of a service with IPv4 only); there is no NS, for nobody told us the servers' names.
    """
    numbers = (1, SYNTHETIC_REFRESH_S, SYNTHETIC_RETRY_S, SYNTHETIC_EXPIRE_S, SYNTHETIC_MINIMUM_S)
    # "." as the mailbox means that there is none; MNAME is the name itself.
    rdata = origin + from_text(".") + b"".join(number.to_bytes(4, "big") for number in numbers)
    soa = RRset(int(RType.SOA), SYNTHETIC_SOA_TTL_S, (rdata,))
    return ZoneData(origin, {origin: {int(RType.SOA): soa}})
