"""Why a client gets the answer it gets: the same walk as for a query, with its reasons kept."""

import ipaddress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dns_frontend.limits import EXPLAIN_ANSWERS_MAX
from dns_frontend.responder.edns import FAMILY_IPV4, FAMILY_IPV6, ClientSubnet
from dns_frontend.responder.locate import Located, Source, locate
from dns_frontend.responder.message import Query
from dns_frontend.responder.resolve import Asker, Reply, resolve
from dns_frontend.table.model import OwnedRRset
from dns_frontend.table.serving import Serving, coordinates_of
from dns_frontend.table.steering import SteeredService
from dns_frontend.zone.dump import rdata_text
from dns_frontend.zone.name import BadNameError, from_text, to_text
from dns_frontend.zone.rtype import ADDRESS_TYPES, CLASS_IN, Rcode, RType, type_text
from gslb.geo.cidr import Address
from gslb.geo.places import described
from gslb.model.errors import InvalidValueError, NotFoundError
from gslb.model.plan import Plan, Shares

OPERATOR: Final = "client areas"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One answer with its reasons."""

    name: str
    reason: str
    answers: tuple[str, ...] = ()
    ttl_s: int = 0
    service: str = ""
    locality: str = ""
    matched_prefix: str = ""
    matched_source: str = ""  # what the prefix is from
    place: str = ""
    plan: Plan | None = None
    shares: Shares = field(default_factory=dict)
    usable: Shares = field(default_factory=dict)  # what ill health leaves of them
    panic: bool = False
    chosen: str = ""
    scope: int = 0


def explain(serving: Serving, name: str, type_: str, client_ip: str, default_locality: str = "") -> Explanation:
    """Why a client at `client_ip` that its resolver tells us of gets what it gets for `name`.

    Raises InvalidValueError on a malformed argument, NotFoundError for a name outside all zones.
    """
    query = _query(name, type_)
    address = _address(client_ip)
    source = Source(address.version, int(address))
    reply = resolve(serving, query, Asker(source, default_locality))
    if reply.rcode == Rcode.REFUSED:
        raise NotFoundError(f"{name!r} is in no zone that this frontend serves; `gslb get zones` lists them")
    if not serving.ready:
        raise NotFoundError("this frontend has heard nothing yet, neither from a control plane nor from a snapshot")
    shown = to_text(query.name)
    answers = tuple(_record(owned, rdata) for owned in reply.answer for rdata in owned.rrset.rdatas)
    answers = answers[:EXPLAIN_ANSWERS_MAX]
    ttl_s = min((owned.rrset.ttl_s for owned in reply.answer), default=0)
    if not reply.service:
        return Explanation(shown, _static_reason(reply), answers, ttl_s)
    service = serving.services[reply.service]
    family, bits = (FAMILY_IPV4, 32) if address.version == 4 else (FAMILY_IPV6, 128)
    client = locate(serving, ClientSubnet(family, bits, address.packed), source, default_locality)
    steered = service.steer(query.rtype, client.locality, client.key)
    match = _match(serving, address)
    return Explanation(
        name=shown,
        reason="; ".join([*_where(client, match, default_locality), *_reason(service, query.rtype, client, reply)]),
        answers=answers,
        ttl_s=ttl_s,
        service=reply.service,
        locality=client.locality,
        matched_prefix=match.prefix,
        matched_source=match.source,
        place=match.place,
        plan=service.view.plan,
        shares=service.planned_shares(client.locality),
        usable=service.usable_shares(query.rtype, client.locality),
        panic=service.panic(query.rtype),
        chosen=reply.datacenter,
        scope=client.scope_of(steered) if steered else 0,
    )


class _Match(NamedTuple):
    """The entry of the map that decided; all empty: none did."""

    prefix: str = ""
    source: str = ""
    place: str = ""


def _match(serving: Serving, address: Address) -> _Match:
    prefix = serving.cidrs.prefix_of(address)
    if prefix is not None:
        return _Match(str(prefix), OPERATOR)
    if serving.geo is None:
        return _Match()
    found = serving.geo.find(address)
    return _Match(str(found.prefix), serving.geo.name, described(found, coordinates_of(serving.catalog)))


def _where(client: Located, match: _Match, default_locality: str) -> list[str]:
    """The steps from the address to the locality."""
    if not client.locality:
        return [
            "no client area has the client's address" + (f", nor has {match.source} a place" if match.source else "")
        ]
    if match.source == OPERATOR:
        return [f"the client is in {client.locality}, by the operator's {match.prefix}"]
    if match.place and client.locality != default_locality:
        return [f"the client is in {client.locality}: {match.source} has {match.prefix} at {match.place}"]
    return [f"nothing has the client's address: the default locality, {client.locality}"]


def _query(name: str, type_: str) -> Query:
    kind = (type_ or "A").upper()
    try:
        rtype = int(RType[kind]) if kind in RType.__members__ else int(kind.removeprefix("TYPE"))
    except ValueError as error:
        raise InvalidValueError(
            f"type {type_[:40]!r}: give A, AAAA, or another type's name or TYPE and number"
        ) from error
    if not 0 < rtype < 65536:
        raise InvalidValueError(f"type {type_[:40]!r}: a type is a number from 1 to 65535")
    try:
        wire = from_text(name)
    except BadNameError as error:
        raise InvalidValueError(f"name {error}") from error
    return Query(0, 0, b"", wire, wire.lower(), rtype, CLASS_IN, None)


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidValueError(f"client address {text[:80]!r} is not an IPv4 or IPv6 address") from error


def _record(owned: OwnedRRset, rdata: bytes) -> str:
    """An address, or the type and the data as a zone file has them."""
    rtype = owned.rrset.rtype
    if rtype in ADDRESS_TYPES:
        return str(ipaddress.ip_address(rdata))
    return f"{type_text(rtype)} {rdata_text(rtype, rdata)}"


def _static_reason(reply: Reply) -> str:
    if reply.rcode == Rcode.SERVFAIL:
        return "the name's service has no endpoint yet: SERVFAIL, so that nobody caches its absence"
    if reply.bns and reply.answer:
        return "the name of a task or of a job's port: from BNS, the same for everybody, but for jobs of many tasks"
    if reply.answer:
        return "static records of the zone, the same for everybody"
    if not reply.authoritative:
        return "the name is delegated: a referral to its servers"
    return f"{Rcode(reply.rcode).name}: the zone has no such " + ("name" if reply.rcode == Rcode.NXDOMAIN else "record")


def _reason(service: SteeredService, rtype: int, client: Located, reply: Reply) -> list[str]:
    """The steps from the locality to the datacenter, in the order in which they were taken."""
    if not reply.datacenter:
        return ["no endpoint of the service has an address of this type"]
    planned = service.planned_shares(client.locality)
    usable = service.usable_shares(rtype, client.locality)
    plan = service.view.plan
    if plan is None:
        basis = "there is no plan yet: by distance, or by endpoints"
    elif client.locality in plan.shares:
        basis = "the plan has shares for it"
    else:
        basis = "the plan has no shares for it: those of the nearest datacenter, or of all demand together"
    steps = [basis]
    lost = [name for name, share in sorted(planned.items()) if share > 0 and name not in usable]
    if lost:
        steps.append(f"nothing can be served in {', '.join(lost)} now: its share goes to the others")
    if service.panic(rtype):
        steps.append("panic: no endpoint is healthy, so those that are not are given")
    share = usable.get(reply.datacenter, 0.0)
    steps.append(
        f"{reply.datacenter} has all of it"
        if share > 1 - 1e-9
        else f"the client's prefix falls on {reply.datacenter} ({share:.1%})"
    )
    return steps
