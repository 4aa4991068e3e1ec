"""EDNS(0) as far as an authoritative server needs it: the OPT record (RFC 6891) and client subnet (RFC 7871)."""

import struct
from typing import Final, NamedTuple

from dns_frontend.limits import OPTIONS_MAX, UDP_PAYLOAD_MAX_OCTETS
from dns_frontend.zone.rtype import RType

OPTION_CLIENT_SUBNET: Final = 8
FAMILY_IPV4, FAMILY_IPV6 = 1, 2
_VERSION_OF: Final = {FAMILY_IPV4: 4, FAMILY_IPV6: 6}
_BITS_OF: Final = {FAMILY_IPV4: 32, FAMILY_IPV6: 128}
_OPT_HEAD: Final = struct.Struct("!BHHBBHH")  # root, OPT, payload, extended rcode, version, flags, data length
_OPTION: Final = struct.Struct("!HH")
_SUBNET: Final = struct.Struct("!HBB")
DO_FLAG: Final = 0x8000


class BadOptionError(ValueError):
    """An option breaks its RFC; the message says how."""


class ClientSubnet(NamedTuple):
    """The client's network as its resolver tells it. `address` is its first octets, as they came, for the echo."""

    family: int
    source: int  # bits
    address: bytes

    @property
    def version(self) -> int:
        """4 or 6; 0 when there is no network in it (source 0: the client wants to be unknown)."""
        return _VERSION_OF.get(self.family, 0) if self.source else 0

    @property
    def value(self) -> int:
        """The first address of the network, as a number."""
        octets = _BITS_OF[self.family] // 8
        return int.from_bytes(self.address.ljust(octets, b"\x00"), "big")


class Edns(NamedTuple):
    """What the OPT record of a query says."""

    payload: int  # octets that the client takes over UDP
    version: int
    dnssec_ok: bool
    subnet: ClientSubnet | None
    malformed: bool = False  # an option breaks its RFC: the answer is FORMERR, with OPT


def parse_opt(payload: int, ttl: int, data: bytes) -> Edns:
    """The OPT record with this class, TTL and data.

    Unknown options and flags are ignored (RFC 6891 section 6.1.2); so are all options of a version we do not speak.
    """
    version = ttl >> 16 & 0xFF
    try:
        subnet = None if version else _options(data)
    except BadOptionError:
        return Edns(payload, version, bool(ttl & DO_FLAG), None, malformed=True)
    return Edns(payload, version, bool(ttl & DO_FLAG), subnet)


def _options(data: bytes) -> ClientSubnet | None:
    """The client subnet among the options. Raises BadOptionError."""
    subnet: ClientSubnet | None = None
    at = seen = 0
    while at < len(data):
        if (seen := seen + 1) > OPTIONS_MAX:
            raise BadOptionError(f"more than {OPTIONS_MAX} options")
        if at + _OPTION.size > len(data):
            raise BadOptionError("an option is cut short")
        code, length = _OPTION.unpack_from(data, at)
        at += _OPTION.size
        if at + length > len(data):
            raise BadOptionError("an option is longer than the record")
        if code == OPTION_CLIENT_SUBNET:
            if subnet is not None:
                raise BadOptionError("client subnet is there twice")
            subnet = parse_subnet(data[at : at + length])
        at += length
    return subnet


def parse_subnet(data: bytes) -> ClientSubnet:
    """The client subnet of a query (RFC 7871 section 6). Raises BadOptionError.

    Family 0 with an empty prefix is what `dig +subnet=0` sends: nobody's network, and harmless.
    """
    if len(data) < _SUBNET.size:
        raise BadOptionError("client subnet is cut short")
    family, source, scope = _SUBNET.unpack_from(data)
    address = data[_SUBNET.size :]
    if scope:
        raise BadOptionError("client subnet of a query has a scope")
    if family == 0 and source == 0 and not address:
        return ClientSubnet(family, source, address)
    bits = _BITS_OF.get(family)
    if bits is None:
        raise BadOptionError(f"client subnet has the unknown family {family}")
    if source > bits or len(address) != (source + 7) // 8:
        raise BadOptionError(f"client subnet of {source} bits has {len(address)} octets")
    if source % 8 and address[-1] & (0xFF >> source % 8):
        raise BadOptionError("client subnet has bits set beyond its prefix")
    return ClientSubnet(family, source, address)


def opt_record(asked: Edns, extended_rcode: int, scope: int | None) -> bytes:
    """The OPT record of an answer; with a `scope`, the query's client subnet comes back with it.

    DO is copied (RFC 3225 section 3), all other flags are zero; the version is ours, 0.
    """
    option = b""
    if scope is not None and asked.subnet is not None:
        family, source, address = asked.subnet
        option = (
            _OPTION.pack(OPTION_CLIENT_SUBNET, _SUBNET.size + len(address))
            + _SUBNET.pack(family, source, scope)
            + address
        )
    flags = DO_FLAG if asked.dnssec_ok else 0
    head = _OPT_HEAD.pack(0, RType.OPT, UDP_PAYLOAD_MAX_OCTETS, extended_rcode, 0, flags, len(option))
    return head + option
