"""The names inside rdata that lead to addresses: of servers, exchangers, services. PURE."""

from collections.abc import Mapping
from typing import Final

from dns_frontend.zone.rtype import RType

# Octets before the target's name. The rdata was encoded by dnspython from checked text, so the name is well formed.
_OFFSET: Final[Mapping[int, int]] = {
    int(RType.NS): 0,
    int(RType.MX): 2,  # preference
    int(RType.SRV): 6,  # priority, weight, port
    int(RType.SVCB): 2,  # priority
    int(RType.HTTPS): 2,
}
TARGET_TYPES: Final = frozenset(_OFFSET)
SVCB_TYPES: Final = frozenset({int(RType.SVCB), int(RType.HTTPS)})


def target_of(rtype: int, rdata: bytes) -> bytes | None:
    """The target that a record names, as it is written; None for a type that has none, or data too short for one.

    Data in the form of RFC 3597 was not checked against its type, so every octet is looked at.
    """
    begin = _OFFSET.get(rtype)
    if begin is None:
        return None
    at = begin
    while at < len(rdata) and rdata[at]:
        at += 1 + rdata[at]
    return rdata[begin : at + 1] if at < len(rdata) else None


def is_alias(rdata: bytes) -> bool:
    """Whether an SVCB or HTTPS record is in AliasMode: priority 0 (RFC 9460 section 2.4.2)."""
    return rdata[:2] == b"\x00\x00"
