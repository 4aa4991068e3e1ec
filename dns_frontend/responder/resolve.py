"""One question against the table: RFC 1034 section 4.3.2, as amended.

Amended by RFC 2308 (negatives), 4592 (wildcards), 6604 (the code of a chain is that of its last name), 6672 (DNAME),
8020 (empty non-terminals exist) and 8482 (ANY).
"""

from dataclasses import dataclass, field
from typing import Final

from dns_frontend.limits import CHAIN_MAX
from dns_frontend.responder.locate import Located, Source, locate
from dns_frontend.responder.message import Query
from dns_frontend.table.model import Node, OwnedRRset
from dns_frontend.table.serving import Serving
from dns_frontend.table.steering import KEY_BITS
from dns_frontend.zone.name import NAME_MAX_OCTETS, WILDCARD
from dns_frontend.zone.records import RRset
from dns_frontend.zone.rtype import ADDRESS_TYPES, CLASS_IN, META_TYPES, Rcode, RType

# What ANY gets (RFC 8482 section 4.2): it says why, and is small.
ANY_ANSWER: Final = RRset(int(RType.HINFO), 3600, (b"\x07RFC8482\x00",))
_TRANSFERS: Final = frozenset({int(RType.AXFR), int(RType.IXFR)})


@dataclass(slots=True)
class Reply:
    """What to say; octets come later. `service` and `datacenter` are set when a plan gave the answer."""

    rcode: int = Rcode.NOERROR
    authoritative: bool = False
    answer: list[OwnedRRset] = field(default_factory=list)
    authority: list[OwnedRRset] = field(default_factory=list)
    additional: list[OwnedRRset] = field(default_factory=list)  # glue: without it a referral is useless
    extras: tuple[OwnedRRset, ...] = ()  # additional too, as far as there is room
    scope: int = 0
    bns: bool = False  # the name is a task's or a job's port
    service: str = ""
    locality: str = ""
    datacenter: str = ""
    panic: bool = False  # no endpoint is healthy, so others are given
    demand: bool = False  # a question for addresses: others come along with such, and do not count
    turns: int = 1  # different orders in which such an answer is given, by the query's ID
    zone: bytes = b""  # whose negative answer or failure it is


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the address of the packet, and the locality of clients that no prefix of the map covers."""

    source: Source
    default_locality: str = ""


def resolve(serving: Serving, query: Query, asker: Asker) -> Reply:
    """The reply to a query whose form is right."""
    refused = _refusal(serving, query)
    return Reply(rcode=refused) if refused else _Walk(serving, query, asker).run()


def _refusal(serving: Serving, query: Query) -> int:
    """The code for questions that the table has nothing to do with; 0 for the others."""
    if query.edns is not None and (query.edns.version or query.edns.malformed):
        return Rcode.BADVERS if query.edns.version else Rcode.FORMERR
    if query.rclass != CLASS_IN or query.rtype in _TRANSFERS:
        return Rcode.REFUSED
    if query.rtype in META_TYPES and query.rtype != RType.ANY:
        return Rcode.FORMERR if query.rtype == RType.OPT else Rcode.NOTIMP
    return Rcode.NOERROR if serving.ready else Rcode.SERVFAIL


class _Walk:
    """One query on its way through the table; `name` moves on with each CNAME and DNAME."""

    __slots__ = ("_asker", "_key", "_name", "_query", "_reply", "_seen", "_serving")

    def __init__(self, serving: Serving, query: Query, asker: Asker) -> None:
        self._serving = serving
        self._query = query
        self._asker = asker
        self._name = query.name
        self._key = query.key
        self._reply = Reply()
        self._seen: set[bytes] = set()

    def run(self) -> Reply:
        while self._step() and len(self._seen) < CHAIN_MAX and self._key not in self._seen:
            pass
        return self._reply

    def _step(self) -> bool:
        """Deals with the present name; whether a chain goes on at another."""
        table = self._serving.table
        node = table.nodes.get(self._key)
        if node is None:
            return self._missing()
        if self._query.rtype == RType.DS and (parent := table.parents.get(self._key)) is not None:
            node = parent
        elif node.cut and self._query.rtype != RType.DS:
            return self._refer(self._key, node)
        return self._data(node)

    def _missing(self) -> bool:
        found = self._serving.table.encloser(self._key)
        if found is None:
            if not self._seen:
                self._reply.rcode = Rcode.REFUSED
            return False
        above, node = found
        if node.cut:
            return self._refer(above, node)
        if (dname := node.rrsets.get(RType.DNAME)) is not None:
            return self._redirect(above, dname)
        if node.bns:
            return self._task(above, node)
        wildcard = self._serving.table.nodes.get(WILDCARD + above)
        if wildcard is not None:
            return self._data(wildcard)
        self._reply.rcode = Rcode.NXDOMAIN
        return self._negative(node)

    def _data(self, node: Node) -> bool:
        reply = self._reply
        reply.authoritative = True
        rtype = self._query.rtype
        if rtype in node.planned:
            return self._steered(node)
        if (rrset := node.rrsets.get(rtype)) is not None:
            reply.answer.append(OwnedRRset(self._name, rrset))
            if node.extras:
                reply.extras = node.extras.get(rtype, ())
            return False
        if (cname := node.rrsets.get(RType.CNAME)) is not None:
            reply.answer.append(OwnedRRset(self._name, cname))
            return rtype != RType.ANY and self._follow(cname.rdatas[0])
        if rtype == RType.ANY and (node.rrsets or node.service):
            reply.answer.append(OwnedRRset(self._name, ANY_ANSWER))
            return False
        return self._negative(node)

    def _steered(self, node: Node) -> bool:
        """Records by the plan. Without any endpoint known there is no answer to give, and none to cache: SERVFAIL."""
        reply, query = self._reply, self._query
        service = self._serving.services.get(node.service)
        if service is None or not service.families:
            reply.rcode = Rcode.SERVFAIL
            reply.zone = node.zone.origin
            reply.answer.clear()
            return False
        client = self._client()
        reply.service, reply.locality = node.service, client.locality
        reply.demand = query.rtype in ADDRESS_TYPES
        steered = service.steer(query.rtype, client.locality, client.key, query.id)
        if steered is None:
            return self._negative(node)
        reply.datacenter = steered.datacenter
        reply.scope = client.scope_of(steered)
        reply.panic = service.panic(query.rtype)
        reply.turns = steered.turns
        reply.answer.append(OwnedRRset(self._name, RRset(query.rtype, service.ttl_s, steered.rdatas)))
        return False

    def _task(self, above: bytes, node: Node) -> bool:
        """A name of BNS: a task's addresses, or where a job's port is to be found."""
        client = self._client()
        self._reply.bns = True
        found = self._serving.bns.find(
            self._serving.services, self._key[: -len(above)], self._name[-len(above) :], client.key
        )
        if found is None:
            self._reply.rcode = Rcode.NXDOMAIN
            return self._negative(node)
        rrset = found.rrsets.get(self._query.rtype)
        if rrset is None:
            return self._negative(node)
        reply = self._reply
        reply.authoritative = True
        reply.answer.append(OwnedRRset(self._name, rrset))
        reply.extras = found.extras
        if found.by_key and client.told:
            reply.scope = KEY_BITS[client.version]
        return False

    def _client(self) -> Located:
        subnet = self._query.edns.subnet if self._query.edns else None
        return locate(self._serving, subnet, self._asker.source, self._asker.default_locality)

    def _follow(self, target: bytes) -> bool:
        """On to a CNAME's target; not to a steered one when a client subnet was told.

        A chain has one scope, and the CNAME does not depend on the client: the resolver asks for the target by itself
        and caches each with its own scope (RFC 7871 section 7.2.1).
        """
        self._seen.add(self._key)
        self._name, self._key = target, target.lower()
        edns = self._query.edns
        if edns is None or edns.subnet is None:
            return True
        node = self._serving.table.nodes.get(self._key)
        return node is None or self._query.rtype not in node.planned

    def _redirect(self, owner: bytes, dname: RRset) -> bool:
        """DNAME: the record, and a CNAME made from it for this name (RFC 6672 section 3)."""
        reply = self._reply
        reply.authoritative = True
        kept = len(self._name) - len(owner)
        reply.answer.append(OwnedRRset(self._name[kept:], dname))
        target = self._name[:kept] + dname.rdatas[0]
        if len(target) > NAME_MAX_OCTETS:
            reply.rcode = Rcode.YXDOMAIN
            return False
        reply.answer.append(OwnedRRset(self._name, RRset(int(RType.CNAME), dname.ttl_s, (target,))))
        return self._query.rtype not in {RType.CNAME, RType.ANY} and self._follow(target)

    def _refer(self, owner: bytes, node: Node) -> bool:
        """To the servers of a delegation. Not our data, so not authoritative, unless a chain of ours led there."""
        reply = self._reply
        reply.authority.append(OwnedRRset(self._name[len(self._name) - len(owner) :], node.rrsets[RType.NS]))
        reply.additional.extend(node.glue)
        return False

    def _negative(self, node: Node) -> bool:
        """The SOA that says how long the negative answer holds."""
        zone = node.zone
        self._reply.authoritative = True
        self._reply.zone = zone.origin
        owner = self._name[len(self._name) - len(zone.origin) :]
        self._reply.authority.append(OwnedRRset(owner, zone.negative_soa))
        return False
