"""Zones and services' names to a `Table`. PURE.

Rules where the two meet:
- a service's name belongs to the zone with the longest origin that covers it; without one, a zone of its own is made up
  around it (`synthetic_zone`), so that a service is reachable before anybody wrote a zone;
- at a service's name the plan gives A and AAAA, and HTTPS where the service has such records; static records of other
  types stay, those of these and CNAMEs do not;
- a service's name that a delegation or DNAME hides, or that another service has, is not served; `problems` says so.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dns_frontend.table.bns import BNS_LABEL
from dns_frontend.table.extras import Planned, extras_of
from dns_frontend.table.model import Node, OwnedRRset, Table, Zone
from dns_frontend.zone.lint import hidden_by, is_cut
from dns_frontend.zone.name import BadNameError, from_text, is_under, parent_of, to_text
from dns_frontend.zone.records import RRset, RRsets, ZoneData, synthetic_zone
from dns_frontend.zone.rtype import ADDRESS_TYPES, RType

_WITH_HTTPS: Final = ADDRESS_TYPES | {int(RType.HTTPS)}


class Named(NamedTuple):
    """A service's DNS names, and whether its plan gives HTTPS records for them beside addresses."""

    names: tuple[str, ...]
    https: bool = False


class _Steered(NamedTuple):
    """Whose name it is, and the types that the service's plan answers."""

    service: str
    planned: frozenset[int]


@dataclass(slots=True)
class _Draft:
    """A table in the making."""

    nodes: dict[bytes, Node] = field(default_factory=dict)
    parents: dict[bytes, Node] = field(default_factory=dict)
    zones: dict[bytes, Zone] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def build_table(zones: Iterable[ZoneData], services: Mapping[str, Named], bns_origins: Collection[bytes] = ()) -> Table:
    """The table of these zones and of the services' names. Equal input gives an equal table.

    Below each of `bns_origins` tasks have names.
    """
    draft = _Draft()
    steered = _steered_names(services, draft.problems)
    by_origin = {zone.origin: zone for zone in zones}
    made_up = _uncovered(steered, by_origin)
    everything = {**by_origin, **{origin: synthetic_zone(origin) for origin in made_up}}
    # Shorter origins first: a child zone comes after its parent and takes its names over.
    planned = {name: found.planned for name, found in steered.items()}
    alive = {*bns_origins, *(_zone_of(name, everything) for name in steered)}
    for origin in sorted(everything, key=len):
        data = everything[origin]
        static = None if origin in alive else data
        zone = Zone(origin, data.soa, data.negative_soa, origin in made_up, static)
        _add_zone(draft, zone, data, everything, planned)
    for origin in everything:
        _add_parent(draft, origin, everything)
    for origin in bns_origins:
        _add_bns(draft, origin)
    for name, found in steered.items():
        _add_service(draft, name, found)
    return Table(draft.nodes, draft.parents, draft.zones, tuple(draft.problems))


def _steered_names(services: Mapping[str, Named], problems: list[str]) -> dict[bytes, _Steered]:
    """By name; the first service by name has a name that two claim."""
    steered: dict[bytes, _Steered] = {}
    for service in sorted(services):
        planned = _WITH_HTTPS if services[service].https else ADDRESS_TYPES
        for text in services[service].names:
            try:
                name = from_text(text).lower()
            except BadNameError as error:
                problems.append(f"service {service!r}: DNS name {error}")
                continue
            owner = steered.setdefault(name, _Steered(service, planned)).service
            if owner != service:
                problems.append(
                    f"service {service!r}: DNS name {text!r} is {owner!r}'s already; take it from one of them"
                )
    return steered


def _uncovered(names: Iterable[bytes], zones: Mapping[bytes, ZoneData]) -> set[bytes]:
    """Those of the names that need a zone made up: no zone covers them, nor one made up for a shorter name."""
    made_up: set[bytes] = set()
    for name in sorted(names, key=len):
        if _zone_of(name, zones) is None and _zone_of(name, made_up) is None:
            made_up.add(name)
    return made_up


def _zone_of(name: bytes | None, origins: Mapping[bytes, object] | set[bytes]) -> bytes | None:
    at = name
    while at is not None and at not in origins:
        at = parent_of(at)
    return at


def _add_zone(
    draft: _Draft, zone: Zone, data: ZoneData, everything: Mapping[bytes, ZoneData], planned: Planned
) -> None:
    draft.zones[data.origin] = zone
    for name in sorted(data.nodes, key=len):
        rrsets = data.nodes[name]
        below = hidden_by(name, data)
        if _zone_of(name, everything) != data.origin:
            continue  # at or below the origin of another of our zones, which answers for it
        if below is not None:
            if not is_cut(below, data):
                draft.problems.append(
                    f"zone {to_text(data.origin)}: {to_text(name)} is hidden by DNAME {to_text(below)}"
                )
            continue
        cut = is_cut(name, data)
        extras = {} if cut else extras_of(name, rrsets, data, planned)
        node = Node(zone, rrsets, cut=cut, glue=_glue(rrsets, data) if cut else (), extras=extras)
        _put(draft, name, node)


def _add_parent(draft: _Draft, origin: bytes, everything: Mapping[bytes, ZoneData]) -> None:
    """DS at a child's top is the parent's to answer, even if the parent forgot to delegate it."""
    above = _zone_of(parent_of(origin), everything)
    if above is not None:
        ds = everything[above].nodes.get(origin, {}).get(RType.DS)
        draft.parents[origin] = Node(draft.zones[above], {int(RType.DS): ds} if ds else {})


def _glue(rrsets: RRsets, data: ZoneData) -> tuple[OwnedRRset, ...]:
    """The addresses that this zone has for the servers of a delegation: hidden ones, and a wildcard's, too.

    RFC 1034 section 4.2.1, and section 4.3.2 step 3b: "whatever addresses are available".
    """
    found: list[OwnedRRset] = []
    for server in rrsets[RType.NS].rdatas:
        name = server.lower()
        if is_under(name, data.origin):
            known = data.match(name) or {}
            found.extend(OwnedRRset(server, known[key]) for key in sorted(ADDRESS_TYPES) if key in known)
    return tuple(found)


def _put(draft: _Draft, name: bytes, node: Node) -> None:
    """Adds a node, and the empty non-terminals between it and its zone's origin."""
    draft.nodes[name] = node
    at = name
    while at != node.zone.origin and (above := parent_of(at)) is not None:
        if above in draft.nodes and draft.nodes[above].zone is node.zone:
            break
        at = above
        draft.nodes[at] = Node(node.zone)


def _add_service(draft: _Draft, name: bytes, steered: _Steered) -> None:
    service = steered.service
    origin = _zone_of(name, draft.zones)
    if origin is None:
        raise AssertionError("every service's name is covered by a zone, if need be by one made up for it")
    known = draft.nodes.get(name)
    if known is None and (hidden := _hidden_in(draft, name)) is not None:
        draft.problems.append(
            f"service {service!r}: DNS name {to_text(name)} is hidden by the delegation or DNAME at {to_text(hidden)};"
            " remove that, or make a zone of its own for the name"
        )
        return
    if known is not None and known.cut:
        draft.problems.append(f"service {service!r}: DNS name {to_text(name)} is delegated away; remove its NS records")
        return
    rrsets: dict[int, RRset] = dict(known.rrsets) if known else {}
    shadowed = [key for key in rrsets if key in steered.planned or key == RType.CNAME]
    if shadowed:
        kinds = ", ".join(RType(key).name for key in sorted(shadowed))
        draft.problems.append(
            f"service {service!r}: the zone's {kinds} at {to_text(name)} is not served: its plan answers there"
        )
    for key in shadowed:
        del rrsets[key]
    extras = {key: found for key, found in known.extras.items() if key in rrsets} if known else {}
    _put(draft, name, Node(draft.zones[origin], rrsets, service, steered.planned, extras=extras))


def _add_bns(draft: _Draft, origin: bytes) -> None:
    """The node below which tasks have names."""
    name = BNS_LABEL + origin
    shown = to_text(name)
    zone = draft.zones.get(origin)
    known = draft.nodes.get(name)
    if zone is None or zone.synthetic:
        draft.problems.append(f"names of tasks below {shown}: no zone {to_text(origin)} is served: make one")
    elif known is None and _hidden_in(draft, name) is not None:
        draft.problems.append(f"names of tasks below {shown}: it is hidden by a delegation or DNAME; remove that")
    elif known is not None and (known.zone is not zone or known.cut or RType.DNAME in known.rrsets):
        draft.problems.append(f"names of tasks below {shown}: it is delegated or redirected; remove that")
    else:
        _put(draft, name, Node(zone, known.rrsets if known else {}, bns=True))


def _hidden_in(draft: _Draft, name: bytes) -> bytes | None:
    """The delegation or DNAME above a name that has no node yet."""
    at = parent_of(name)
    while at is not None:
        node = draft.nodes.get(at)
        if node is not None:
            return at if node.cut or RType.DNAME in node.rrsets else None
        at = parent_of(at)
    return None
