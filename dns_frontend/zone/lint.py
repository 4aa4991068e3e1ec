"""What a zone says and its writer probably did not mean. PURE.

None of it keeps a zone from being served: it is served as it is written, and the operator is told.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from dns_frontend.zone.name import WILDCARD, is_under, parent_of, to_text
from dns_frontend.zone.records import RRsets, ZoneData
from dns_frontend.zone.rtype import ADDRESS_TYPES, RType, type_text
from dns_frontend.zone.targets import target_of

WARNINGS_MAX: Final = 1000
# A zone whose numbers are below these makes its secondaries and resolvers busy for nothing, or ask no more.
_TARGETS: Final = (RType.NS, RType.MX, RType.SRV)


def warnings_of(data: ZoneData, lines: Mapping[tuple[bytes, int], str]) -> tuple[str, ...]:
    """One line each, with the NAME:LINE at which the RRset begins."""
    found: list[str] = []
    for name, rrsets in data.nodes.items():
        for rtype, text in _of_node(data, name, rrsets):
            found.append(f"{lines[name, rtype]}: {to_text(name)} {type_text(rtype)}: {text}")
            if len(found) >= WARNINGS_MAX:
                return tuple(found)
    return tuple(found)


def _of_node(data: ZoneData, name: bytes, rrsets: RRsets) -> Iterator[tuple[int, str]]:
    hidden = hidden_by(name, data)
    if hidden is not None:
        what = "delegation" if is_cut(hidden, data) else "DNAME"
        shown = next(iter(rrsets))
        if what == "DNAME" or not ADDRESS_TYPES.issuperset(rrsets):
            yield shown, f"is not served, it is below the {what} {to_text(hidden)}"
        return
    if name != data.origin and RType.NS in rrsets and name.startswith(WILDCARD):
        yield int(RType.NS), "NS at a wildcard is no delegation (RFC 4592 section 4.2)"
    if is_cut(name, data) and RType.DNAME in rrsets:
        yield int(RType.DNAME), "is not served beside a delegation (RFC 6672 section 2.3)"
    for rtype in _TARGETS:
        if rtype in rrsets:
            yield from _of_targets(data, rtype, rrsets)


def _of_targets(data: ZoneData, rtype: int, rrsets: RRsets) -> Iterator[tuple[int, str]]:
    """Servers that this zone names and has no address for."""
    for rdata in rrsets[rtype].rdatas:
        target = (target_of(rtype, rdata) or b"\x00").lower()
        if target == b"\x00" or not is_under(target, data.origin) or _delegated_elsewhere(target, data):
            continue
        known = data.match(target)
        if known is not None and RType.CNAME in known:
            yield rtype, f"{to_text(target)} is a CNAME, which such a target must not be (RFC 2181 section 10.3)"
        elif known is None or ADDRESS_TYPES.isdisjoint(known):
            yield rtype, f"{to_text(target)} has neither A nor AAAA in this zone"


def _delegated_elsewhere(target: bytes, data: ZoneData) -> bool:
    """Below a delegation, and without a record here: its address is the other zone's business, unless it is glue."""
    cut = hidden_by(target, data)
    if cut is None or target in data.nodes:
        return False
    servers = data.nodes[cut].get(RType.NS)
    return servers is None or not any(rdata.lower() == target for rdata in servers.rdatas)


def is_cut(name: bytes, data: ZoneData) -> bool:
    """Whether a delegation begins here. NS at a wildcard has no meaning as one (RFC 4592 section 4.2)."""
    return name != data.origin and RType.NS in data.nodes.get(name, {}) and not name.startswith(WILDCARD)


def hidden_by(name: bytes, data: ZoneData) -> bytes | None:
    """The delegation or DNAME strictly above `name` in its zone, the topmost one."""
    found: bytes | None = None
    at = name
    while at != data.origin and (above := parent_of(at)) is not None:
        at = above
        if is_cut(at, data) or RType.DNAME in data.nodes.get(at, {}):
            found = at
    return found
