"""The record types and response codes that the frontend gives a meaning to (IANA registry of DNS parameters). PURE."""

from enum import IntEnum
from typing import Final


class RType(IntEnum):
    """Types with a role in answering, and the names of the usual others; data of any type is opaque (RFC 3597)."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    MX = 15
    TXT = 16
    KEY = 25
    AAAA = 28
    SRV = 33
    NAPTR = 35
    DNAME = 39
    OPT = 41
    DS = 43
    RRSIG = 46
    NSEC = 47
    SVCB = 64
    HTTPS = 65
    TSIG = 250
    IXFR = 251
    AXFR = 252
    MAILB = 253
    MAILA = 254
    ANY = 255
    CAA = 257


class Rcode(IntEnum):
    """Response codes; above 15 the upper bits travel in OPT."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    YXDOMAIN = 6
    BADVERS = 16
    BADCOOKIE = 23


CLASS_IN: Final = 1
ADDRESS_TYPES: Final = frozenset({int(RType.A), int(RType.AAAA)})
# Questions about a message, a transfer or a pseudo-record (RFC 6895 section 3.1): never the type of data in a zone.
META_TYPES: Final = frozenset({int(RType.OPT), *range(128, 256)})
# Types whose names may be compressed (RFC 3597 section 4) and still occur: octets before the names, how many names.
COMPRESSIBLE_NAMES: Final = {
    int(RType.NS): (0, 1),
    int(RType.CNAME): (0, 1),
    int(RType.SOA): (0, 2),
    int(RType.PTR): (0, 1),
    int(RType.MX): (2, 1),
}


def type_text(rtype: int) -> str:
    """`A`, or `TYPE65280` for a type without a name here (RFC 3597 section 5)."""
    try:
        return RType(rtype).name
    except ValueError:
        return f"TYPE{rtype}"
