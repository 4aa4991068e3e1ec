"""The octets of a compiled table: the format that the data plane reads. PURE.

Little-endian. A table is the magic, the version of the format, its kind (whole, or a patch of another), the length of what
follows, and sections; a section is its kind, its length and its body. What each body has is said at the function that
writes it. The reader (`dataplane/core`) checks every number in it, so that a mistake here is an error there and never a
wrong answer.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from dns_frontend.table.model import Node, Table, Zone
from dns_frontend.table.steering import SteeredService
from dns_frontend.zone.name import ROOT
from dns_frontend.zone.records import RRset
from dns_frontend.zone.rtype import COMPRESSIBLE_NAMES, RType
from gslb.geo.cidr import CidrMap
from gslb.model.plan import Shares
from gslb.steer.choice import salt_of

MAGIC: Final = b"GSLBDNST"
VERSION: Final = 3
WHOLE, PATCH = 0, 1
_NONE: Final = 0xFFFF_FFFF

# Sections
_LAYOUT, _MAP, _NAMES, _SERVICE, _GUARD = 1, 2, 3, 4, 5
# Flags of a name: what the reference is asked for, and what is there
_ASK, _ASK_BELOW, _ASK_DS, _ALIAS, _DATA, _HTTPS = 1, 2, 4, 8, 16, 32
# Kinds of RRsets
_LEFT, _RECORDS = 0, 1
_SPLIT: Final = 1

_HEAD: Final = struct.Struct("<8sHBI")  # magic, version, kind, octets that follow
_SECTION: Final = struct.Struct("<BI")
_NODE: Final = struct.Struct("<IBII")  # zone, flags, slot, number of RRsets
_RRSET: Final = struct.Struct("<HB")  # type, kind
_RECORD_SET: Final = struct.Struct("<IBBI")  # TTL, octets before names, names, number of records
_SERVICE_HEAD: Final = struct.Struct("<IBIIH")  # slot, present, TTL, addresses per answer, length of the name
_SHARE: Final = struct.Struct("<QdH")  # salt, share, index of the datacenter in this family
_U32: Final = struct.Struct("<I")
_U16: Final = struct.Struct("<H")


class Layout(NamedTuple):
    """What the numbers in a table stand for. A locality of "" is that of clients whom nothing else covers."""

    slots: Mapping[str, int]  # of services
    slot_count: int
    localities: Mapping[str, int]
    datacenters: Mapping[str, int]


class Guarding(NamedTuple):
    """Cookies, rate limit and what else OPT says, as `responder/guard.py` has them; options as they are sent.

    `token_ns` 0: no rate limit. `seed`: 16 octets that nobody outside knows, for the places of buckets.
    """

    required: bool
    secrets: tuple[bytes, ...]
    nsid: bytes
    stale: bytes
    panic: bytes
    slip: int
    token_ns: int
    window_ns: int
    exempt: tuple[tuple[int, int, int], ...]  # IP version, first and last address
    seed: bytes = bytes(16)


def guard_section(guard: Guarding) -> bytes:
    """Flags, secrets, options, the rule of the rate limit, and who is exempt from it."""
    parts = [bytes((guard.required, len(guard.secrets))), *guard.secrets]
    for option in (guard.nsid, guard.stale, guard.panic):
        parts += (_U16.pack(len(option)), option)
    parts += (guard.seed, struct.pack("<IQQ", guard.slip, guard.token_ns, guard.window_ns))
    parts.append(_U32.pack(len(guard.exempt)))
    for version, first, last in guard.exempt:
        parts += (bytes((version,)), first.to_bytes(16, "little"), last.to_bytes(16, "little"))
    return _section(_GUARD, b"".join(parts))


def table_octets(kind: int, sections: Iterable[bytes]) -> bytes:
    """A table, or a patch of one."""
    body = b"".join(sections)
    return _HEAD.pack(MAGIC, VERSION, kind, len(body)) + body


def _section(kind: int, body: bytes) -> bytes:
    return _SECTION.pack(kind, len(body)) + body


def layout_section(layout: Layout) -> bytes:
    """Numbers of slots, localities and datacenters; the first section of every table and patch."""
    return _section(
        _LAYOUT, struct.pack("<IHH", layout.slot_count, len(layout.localities), max(1, len(layout.datacenters)))
    )


def map_section(cidrs: CidrMap, localities: Mapping[str, int], default_locality: str) -> bytes:
    """For IPv4, then IPv6: how many intervals, the first address of each, the locality of each."""
    parts: list[bytes] = []
    for version, octets in ((4, 4), (6, 16)):
        family = cidrs.families[version]
        parts.append(_U32.pack(len(family.starts)))
        parts.extend(start.to_bytes(octets, "little") for start in family.starts)
        numbers = [localities[name or default_locality] for name in family.localities]
        parts.append(struct.pack(f"<{len(numbers)}H", *numbers))
    return _section(_MAP, b"".join(parts))


def names_section(table: Table, slots: Mapping[str, int]) -> bytes:
    """The zones, each with its origin and the SOA of negative answers; then every name with its records."""
    numbers = {origin: number for number, origin in enumerate(table.zones)}
    parts = [_U32.pack(len(numbers)), *(_zone(zone) for zone in table.zones.values()), _U32.pack(len(table.nodes))]
    for name, node in table.nodes.items():
        parts.append(_name(name))
        slot = slots[node.service] if node.service else _NONE
        flags = _flags(name, node, ask_ds=name in table.parents)
        parts.append(_NODE.pack(numbers[node.zone.origin], flags, slot, len(node.rrsets)))
        for rtype, rrset in node.rrsets.items():
            if rtype in node.extras:  # an additional section: the reference writes it
                parts.append(_RRSET.pack(rtype, _LEFT))
            else:
                parts.append(_RRSET.pack(rtype, _RECORDS))
                parts.append(_records(rrset))
    return _section(_NAMES, b"".join(parts))


def _name(name: bytes) -> bytes:
    return bytes((len(name),)) + name


def _zone(zone: Zone) -> bytes:
    return _name(zone.origin) + _records(zone.negative_soa)


def _flags(name: bytes, node: Node, *, ask_ds: bool) -> int:
    rooted = ROOT in {name, node.zone.origin}  # its owner is no pointer, for once
    flags = 0
    if node.cut or rooted:
        flags |= _ASK | _ASK_BELOW
    if RType.DNAME in node.rrsets or node.bns:
        flags |= _ASK_BELOW
    if ask_ds:
        flags |= _ASK_DS
    if RType.CNAME in node.rrsets:
        flags |= _ALIAS
    if node.rrsets or node.service:
        flags |= _DATA
    if RType.HTTPS in node.planned:
        flags |= _HTTPS
    return flags


def _records(rrset: RRset) -> bytes:
    """TTL, where names are in the data, and the data of each record."""
    before, names = COMPRESSIBLE_NAMES.get(rrset.rtype, (0, 0))
    parts = [_RECORD_SET.pack(rrset.ttl_s, before, names, len(rrset.rdatas))]
    for rdata in rrset.rdatas:
        parts.append(_U16.pack(len(rdata)))
        parts.append(rdata)
    return b"".join(parts)


def gone_section(slot: int) -> bytes:
    """The service of this slot is no more."""
    return _section(_SERVICE, struct.pack("<IB", slot, 0))


def service_section(slot: int, service: SteeredService, layout: Layout) -> bytes:
    """Slot, TTL, addresses per answer, name, what an HTTPS record says before its hints (nothing: there is none); then
    the family of A and that of AAAA.
    """
    name = service.view.name.encode()
    parts = [_SERVICE_HEAD.pack(slot, 1, service.ttl_s, service.addresses_per_answer, len(name)), name]
    parts += (_U16.pack(len(service.https)), service.https)
    parts += (_family(service, int(rtype), layout) for rtype in (RType.A, RType.AAAA))
    return _section(_SERVICE, b"".join(parts))


def _family(service: SteeredService, rtype: int, layout: Layout) -> bytes:
    """Number of datacenters, whether nothing is healthy, each datacenter's addresses; the different rows of shares; for
    each locality which row is its own.

    No datacenters: no endpoint has an address of this type, and nothing follows.
    """
    family = service.families.get(rtype)
    if family is None:
        return _U16.pack(0)
    parts = [_U16.pack(len(family.rdatas)), bytes((service.panic(rtype),))]
    for name, rdatas in family.rdatas.items():
        parts.append(struct.pack("<HI", layout.datacenters[name], len(rdatas)))
        parts.extend(rdatas)
    places = {name: place for place, name in enumerate(family.rdatas)}
    rows, row_of = _rows(lambda locality: service.usable_shares(rtype, locality), layout.localities, places)
    parts.append(_U16.pack(len(rows)))
    parts.extend(rows)
    parts.append(struct.pack(f"<{len(row_of)}H", *row_of))
    return b"".join(parts)


def _rows(
    shares_of: Callable[[str], Shares], localities: Iterable[str], places: Mapping[str, int]
) -> tuple[Sequence[bytes], Sequence[int]]:
    """The different rows, and the number of each locality's. Most localities of a service have one of few rows."""
    rows: list[bytes] = []
    known: dict[tuple[tuple[str, float], ...], int] = {}
    row_of: list[int] = []
    for locality in localities:
        key = tuple(shares_of(locality).items())
        number = known.get(key)
        if number is None:
            number = known[key] = len(rows)
            rows.append(_row(key, places))
        row_of.append(number)
    return rows, row_of


def _row(shares: tuple[tuple[str, float], ...], places: Mapping[str, int]) -> bytes:
    """Whether the choice is the client's own, then salt, share and place of each datacenter, in the order of names."""
    used = sorted((name, share) for name, share in shares if share > 0)
    split = 0 if len(used) == 1 else _SPLIT
    entries = b"".join(_SHARE.pack(salt_of(name), share, places[name]) for name, share in used)
    return struct.pack("<BH", split, len(used)) + entries
