"""A query's octets to a `Query`: strict, bounded, and without a byte taken on trust.

Written for queries only and not on a DNS library: dnslib refuses labels that are not UTF-8 (RFC 2181 section 11 allows
any octets) and takes labels of 64 to 191 octets for real ones; what a hostile packet can do is easier to see here.
"""

import struct
from typing import Final, NamedTuple

from dns_frontend.limits import HEADER_OCTETS, QUERY_RECORDS_MAX
from dns_frontend.responder.edns import Edns, parse_opt
from dns_frontend.zone.name import LABEL_MAX_OCTETS, NAME_MAX_OCTETS
from dns_frontend.zone.rtype import Rcode, RType

_HEADER: Final = struct.Struct("!HHHHHH")
_QUESTION_TAIL: Final = struct.Struct("!HH")
_RECORD_TAIL: Final = struct.Struct("!HHIH")  # type, class, TTL, data length
_POINTER: Final = 0xC0
QR: Final = 0x8000
OPCODE_MASK: Final = 0x7800
RD: Final = 0x0100


class Query(NamedTuple):
    """One question. `name` as it was sent, `key` in lower case; `question` is the section's octets, for the echo."""

    id: int
    flags: int
    question: bytes
    name: bytes
    key: bytes
    rtype: int
    rclass: int
    edns: Edns | None


class BadQueryError(ValueError):
    """The query is answered with this code and nothing but a header."""

    def __init__(self, reason: str, rcode: int = Rcode.FORMERR) -> None:
        super().__init__(reason)
        self.rcode = rcode


def is_query(packet: bytes) -> bool:
    """Whether anything at all is to be said to it.

    Less than a header has no ID to answer with, and an answer to an answer could go on for ever: silence.
    """
    return len(packet) >= HEADER_OCTETS and not packet[2] & 0x80


def parse_query(packet: bytes) -> Query:
    """The query in `packet`, for which `is_query` holds. Raises BadQueryError."""
    ident, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if flags & OPCODE_MASK:
        raise BadQueryError("only the opcode QUERY is implemented", Rcode.NOTIMP)
    if questions != 1:
        raise BadQueryError(f"{questions} questions: one is answered at a time (RFC 9619)")
    end = _name_end(packet)
    if end + _QUESTION_TAIL.size > len(packet):
        raise BadQueryError("the question is cut short")
    rtype, rclass = _QUESTION_TAIL.unpack_from(packet, end)
    name = packet[HEADER_OCTETS:end]
    at = end + _QUESTION_TAIL.size
    question = packet[HEADER_OCTETS:at]
    edns: Edns | None = None
    if answers or authorities or additionals:
        edns = _find_edns(packet, at, answers + authorities, additionals)
    return Query(ident, flags, question, name, name.lower(), rtype, rclass, edns)


def cookie_probe(packet: bytes) -> Edns | None:
    """What a query without a question asks for: a cookie (RFC 7873 section 5.4), or nothing at all (None)."""
    _, flags, questions, *counts = _HEADER.unpack_from(packet)
    if flags & OPCODE_MASK or questions or not any(counts):
        return None
    try:
        edns = _find_edns(packet, HEADER_OCTETS, counts[0] + counts[1], counts[2])
    except BadQueryError:
        return None
    return edns if edns is not None and edns.cookie is not None else None


def _name_end(packet: bytes) -> int:
    """Where the name of the question ends. A pointer has nothing to point at there, and is refused."""
    at = HEADER_OCTETS
    size = len(packet)
    while at < size:
        length = packet[at]
        at += 1 + length
        if not length:
            break
        if length > LABEL_MAX_OCTETS:
            raise BadQueryError("the question's name has a pointer or a label that is too long")
    else:
        raise BadQueryError("the question's name is cut short")
    if at - HEADER_OCTETS > NAME_MAX_OCTETS:
        raise BadQueryError("the question's name is too long")
    return at


def _skip_name(packet: bytes, at: int) -> int:
    """Past a record's owner name, which may end in a pointer; where that points does not matter to us."""
    size = len(packet)
    begin = at
    while at < size:
        length = packet[at]
        if length >= _POINTER:
            return at + 2
        if length > LABEL_MAX_OCTETS or at - begin > NAME_MAX_OCTETS:
            break
        at += 1 + length
        if not length:
            return at
    raise BadQueryError("a record's name is malformed")


def _find_edns(packet: bytes, at: int, before: int, additionals: int) -> Edns | None:
    """The OPT record among the records after the question; one, with the root as its name, in the last section."""
    found: Edns | None = None
    if before + additionals > QUERY_RECORDS_MAX:
        raise BadQueryError(f"{before + additionals} records beside the question: {QUERY_RECORDS_MAX} are read")
    for index in range(before + additionals):
        is_root = at < len(packet) and not packet[at]
        at = _skip_name(packet, at)
        if at + _RECORD_TAIL.size > len(packet):
            raise BadQueryError("a record is cut short")
        rtype, rclass, ttl, length = _RECORD_TAIL.unpack_from(packet, at)
        at += _RECORD_TAIL.size
        if at + length > len(packet):
            raise BadQueryError("a record's data is cut short")
        if rtype == RType.OPT:
            if found is not None or not is_root or index < before:
                raise BadQueryError(
                    "OPT is there twice, has a name or is in the wrong section (RFC 6891 section 6.1.1)"
                )
            found = parse_opt(rclass, ttl, packet[at : at + length])
        at += length
    return found
