"""EDNS(0) as far as an authoritative server needs it: the OPT record (RFC 6891) and the options that we know.

Those are client subnet (RFC 7871), cookies (RFC 7873), NSID (RFC 5001), TCP keepalive (RFC 7828) and, in answers,
extended errors (RFC 8914).
"""

import struct
from typing import Final, NamedTuple

from dns_frontend.limits import OPTIONS_MAX, UDP_PAYLOAD_MAX_OCTETS
from dns_frontend.zone.rtype import RType

OPTION_NSID: Final = 3
OPTION_CLIENT_SUBNET: Final = 8
OPTION_COOKIE: Final = 10
OPTION_KEEPALIVE: Final = 11
OPTION_EXTENDED_ERROR: Final = 15
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
    cookie: bytes | None = None  # the option's data, of any length
    nsid: bool = False  # who we are is asked for
    keepalive: bool = False


class _Options(NamedTuple):
    subnet: ClientSubnet | None = None
    cookie: bytes | None = None
    nsid: bool = False
    keepalive: bool = False


_NO_OPTIONS: Final = _Options()


def parse_opt(payload: int, ttl: int, data: bytes) -> Edns:
    """The OPT record with this class, TTL and data.

    Unknown options and flags are ignored (RFC 6891 section 6.1.2); so are all options of a version we do not speak.
    """
    version = ttl >> 16 & 0xFF
    dnssec_ok = bool(ttl & DO_FLAG)
    try:
        found = _NO_OPTIONS if version or not data else _options(data)
    except BadOptionError:
        return Edns(payload, version, dnssec_ok, None, malformed=True)
    return Edns(payload, version, dnssec_ok, found.subnet, False, found.cookie, found.nsid, found.keepalive)


def _options(data: bytes) -> _Options:
    """The options that we know. Raises BadOptionError.

    Of several cookies the first counts (RFC 7873 section 4); what NSID and keepalive carry in a query is ignored.
    """
    subnet: ClientSubnet | None = None
    cookie: bytes | None = None
    codes: set[int] = set()
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
        elif code == OPTION_COOKIE and cookie is None:
            cookie = data[at : at + length]
        codes.add(code)
        at += length
    return _Options(subnet, cookie, OPTION_NSID in codes, OPTION_KEEPALIVE in codes)


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


def option(code: int, data: bytes) -> bytes:
    """One option of an answer."""
    return _OPTION.pack(code, len(data)) + data


def extended_error(code: int, text: str) -> bytes:
    """The option that says more than a response code can (RFC 8914)."""
    return option(OPTION_EXTENDED_ERROR, code.to_bytes(2, "big") + text.encode())


def opt_record(asked: Edns, extended_rcode: int, scope: int | None, more: bytes = b"") -> bytes:
    """The OPT record of an answer; with a `scope`, the query's client subnet comes back with it. `more`: other options.

    DO is copied (RFC 3225 section 3), all other flags are zero; the version is ours, 0.
    """
    options = more
    if scope is not None and asked.subnet is not None:
        family, source, address = asked.subnet
        options = option(OPTION_CLIENT_SUBNET, _SUBNET.pack(family, source, scope) + address) + more
    flags = DO_FLAG if asked.dnssec_ok else 0
    head = _OPT_HEAD.pack(0, RType.OPT, UDP_PAYLOAD_MAX_OCTETS, extended_rcode, 0, flags, len(options))
    return head + options
