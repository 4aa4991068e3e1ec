"""What is served: the contract between the responders. PURE, immutable, swapped whole.

One mapping from a name in lower case to its node, over all zones: an exact hit is one lookup, whatever the zone. What
a delegation or a DNAME hides is not in it, so that the nearest name above a missing one says all there is to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dns_frontend.zone.name import parent_of
from dns_frontend.zone.records import RRset, RRsets, ZoneData


class OwnedRRset(NamedTuple):
    """An RRset and whose it is."""

    owner: bytes
    rrset: RRset


@dataclass(frozen=True, slots=True, eq=False)
class Zone:
    """What every answer from a zone may need."""

    origin: bytes
    soa: RRset
    negative_soa: RRset
    synthetic: bool = False  # made up around a service's name that no zone of the catalog covers
    # All records of a zone that has no other names than these, for transfers; None: a plan or BNS answers for some.
    static: ZoneData | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One name. Without records, service or cut it is an empty non-terminal: it exists and has no data (RFC 8020)."""

    zone: Zone
    rrsets: RRsets = field(default_factory=dict)
    service: str = ""  # whose plan gives the records of the types `planned`
    planned: frozenset[int] = frozenset()
    bns: bool = False  # tasks have names below: see dns_frontend.table.bns
    cut: bool = False  # a delegation: the records are NS, DS and nothing else to speak of
    glue: tuple[OwnedRRset, ...] = ()  # addresses of the delegation's servers, as far as they are in the zone
    # By type of an answer: what goes along with it if there is room, addresses of the targets that it names.
    extras: Mapping[int, tuple[OwnedRRset, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """Everything under the zones' origins, and nothing else: other names are REFUSED."""

    nodes: Mapping[bytes, Node] = field(default_factory=dict)
    # Origins whose parent zone is served too: DS at a delegation belongs to the parent (RFC 4035 section 3.1.4.1).
    parents: Mapping[bytes, Node] = field(default_factory=dict)
    zones: Mapping[bytes, Zone] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def encloser(self, name: bytes) -> tuple[bytes, Node] | None:
        """The closest existing name above `name`, with its node; None outside all zones. At most 127 lookups."""
        nodes = self.nodes
        above = parent_of(name)
        while above is not None:
            if (node := nodes.get(above)) is not None:
                return above, node
            above = parent_of(above)
        return None
