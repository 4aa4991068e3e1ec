"""Whole zones over TCP: AXFR (RFC 5936), and IXFR answered with the whole zone (RFC 1995 section 4).

Only to whom the operator lets (`--allow-transfer`), and only static zones: what a plan or BNS answers for cannot be
copied. Messages are made one at a time, as the client takes them: a large zone costs neither memory nor a long turn of
the event loop.
"""

from collections.abc import Iterator
from typing import Final

from dns_frontend.limits import HEADER_OCTETS, TRANSFER_MESSAGE_OCTETS
from dns_frontend.responder.edns import opt_record
from dns_frontend.responder.message import QR, RD, Query
from dns_frontend.responder.writer import Writer
from dns_frontend.table.model import OwnedRRset
from dns_frontend.zone.name import to_text
from dns_frontend.zone.records import RRset, ZoneData, soa_serial
from dns_frontend.zone.rtype import RType

_AA: Final = 0x0400
TRANSFER_TYPES: Final = frozenset({int(RType.AXFR), int(RType.IXFR)})
_SOA_NUMBERS_OCTETS: Final = 20


def is_current(packet: bytes, query: Query, data: ZoneData) -> bool:
    """Whether an IXFR query has the zone's serial already, or a later one (RFC 1982): the SOA alone is the answer then."""
    if query.rtype != RType.IXFR:
        return False
    theirs = _serial_of(packet, query)
    if theirs is None:
        return False
    return (theirs - soa_serial(data.soa)) & 0xFFFF_FFFF < 1 << 31


def _serial_of(packet: bytes, query: Query) -> int | None:
    """The serial in the first record after the question, when that is an SOA; its form was checked with the query's."""
    at = HEADER_OCTETS + len(query.question)
    while at < len(packet) and packet[at]:
        if packet[at] >= 0xC0:
            at += 1
            break
        at += 1 + packet[at]
    at += 1
    rtype, length = int.from_bytes(packet[at : at + 2], "big"), int.from_bytes(packet[at + 8 : at + 10], "big")
    rdata = packet[at + 10 : at + 10 + length]
    if rtype != RType.SOA or len(rdata) < _SOA_NUMBERS_OCTETS:
        return None
    return int.from_bytes(rdata[-_SOA_NUMBERS_OCTETS : 4 - _SOA_NUMBERS_OCTETS], "big")


def only_soa(query: Query, data: ZoneData) -> bytes:
    """The answer to a client that has the zone."""
    return _Message(query).with_records([OwnedRRset(data.origin, data.soa)])


def messages(query: Query, data: ZoneData) -> Iterator[bytes]:
    """The zone: its SOA, every other record, the SOA again, in as many messages as it takes."""
    message = _Message(query)
    for owned in _records(data):
        if not message.add(owned):
            yield message.finish()
            message = _Message(query)
            added = message.add(owned)
            assert added, f"{to_text(owned.owner)}: an RRset fits into a message of its own"
    yield message.finish()


def _records(data: ZoneData) -> Iterator[OwnedRRset]:
    soa = OwnedRRset(data.spelled.get(data.origin, data.origin), data.soa)
    yield soa
    for name, rrsets in data.nodes.items():
        owner = data.spelled.get(name, name)
        for rtype, rrset in rrsets.items():
            if rtype != RType.SOA:
                yield from _pieces(OwnedRRset(owner, rrset))
    yield soa


def _pieces(owned: OwnedRRset) -> Iterator[OwnedRRset]:
    """A large RRset in parts, for transfers are of records."""
    octets = 0
    part: list[bytes] = []
    rrset = owned.rrset
    for rdata in rrset.rdatas:
        octets += len(rdata) + len(owned.owner) + 10
        if part and octets > TRANSFER_MESSAGE_OCTETS // 2:
            yield OwnedRRset(owned.owner, RRset(rrset.rtype, rrset.ttl_s, tuple(part)))
            octets, part = len(rdata), []
        part.append(rdata)
    yield OwnedRRset(owned.owner, RRset(rrset.rtype, rrset.ttl_s, tuple(part)))


class _Message:
    """One message of a transfer in the making."""

    def __init__(self, query: Query) -> None:
        self._query = query
        # A single record may be as long as a message; then it gets one of its own.
        self._writer = Writer(query.question, query.name, 65_535)
        self._count = 0

    def add(self, owned: OwnedRRset) -> bool:
        """False: the message is full, nothing was added."""
        out = self._writer.out
        size = sum(len(rdata) for rdata in owned.rrset.rdatas) + len(owned.rrset.rdatas) * (len(owned.owner) + 10)
        if self._count and len(out) + size > TRANSFER_MESSAGE_OCTETS:
            return False
        written, whole = self._writer.section([owned])
        self._count += written
        return whole

    def with_records(self, records: list[OwnedRRset]) -> bytes:
        for owned in records:
            self.add(owned)
        return self.finish()

    def finish(self) -> bytes:
        query, additional = self._query, 0
        if query.edns is not None:
            self._writer.out += opt_record(query.edns, 0, None)
            additional = 1
        flags = QR | _AA | (query.flags & RD)
        return self._writer.finish(query.id, flags, [1, self._count, 0, additional])
