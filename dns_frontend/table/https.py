"""HTTPS records made for a service's names: what browsers need to know before they connect (RFC 9460). PURE.

Only services that say what they speak over TLS (`alpn`) have them: a browser that sees an HTTPS record of a name never
again asks it in the clear (section 9.5). The record is about the name itself (ServiceMode, TargetName "."). Its address
hints are the addresses that the same client would get for A and AAAA.
"""

from collections.abc import Collection, Sequence
from typing import Final

_HEAD: Final = b"\x00\x01\x00"  # SvcPriority 1, TargetName "."
_ALPN, _PORT, _IPV4HINT, _IPV6HINT = 1, 3, 4, 6  # SvcParamKeys; a record has them in this order (section 2.2)
_PORT_OF_HTTPS: Final = 443


def https_head(alpn: Sequence[str], ports: Collection[int]) -> bytes:
    """The rdata up to the hints. `ports`: those of the service's endpoints, 0 where unknown.

    A port is said where all endpoints have it and clients would not take it anyway; one record cannot say two.
    """
    ids = [protocol.encode() for protocol in alpn]
    head = _HEAD + _parameter(_ALPN, b"".join(bytes((len(one),)) + one for one in ids))
    port = next(iter(ports), 0) if len(ports) == 1 else 0
    return head + _parameter(_PORT, port.to_bytes(2, "big")) if port not in {0, _PORT_OF_HTTPS} else head


def https_rdata(head: bytes, ipv4: Sequence[bytes], ipv6: Sequence[bytes]) -> bytes:
    """The whole rdata, with the addresses of each family that has any."""
    hints = ((_IPV4HINT, ipv4), (_IPV6HINT, ipv6))
    return head + b"".join(_parameter(key, b"".join(addresses)) for key, addresses in hints if addresses)


def _parameter(key: int, value: bytes) -> bytes:
    return key.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
