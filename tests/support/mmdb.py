"""Writes `.mmdb` files, for tests: small, honest ones, and those that no honest writer makes."""

import ipaddress
import struct
from collections.abc import Iterable, Mapping

MARKER = b"\xab\xcd\xefMaxMind.com"


def maxmind(country: str, latitude: float | None = None, longitude: float | None = None) -> dict:
    """A record as MaxMind writes them."""
    made: dict = {"country": {"iso_code": country, "names": {"en": f"Land {country}"}}, "continent": {"code": "XX"}}
    if latitude is not None:
        made["location"] = {"latitude": latitude, "longitude": longitude, "accuracy_radius": 100}
    return made


def dbip(country: str, latitude: float | None = None, longitude: float | None = None) -> dict:
    """A record as the packages of DB-IP's data have them."""
    made: dict = {"country_code": country}
    if latitude is not None:
        made |= {"city": "Town", "latitude": latitude, "longitude": longitude}
    return made


def mmdb(
    networks: Mapping[str, dict] | Iterable[tuple[str, dict]],
    *,
    bits: int = 24,
    ip_version: int = 6,
    metadata: Mapping[str, object] | None = None,
    aliases: Iterable[str] = (),
) -> bytes:
    """A database of these networks; later ones inside earlier ones win. `aliases`: IPv6 networks that lead to IPv4's tree."""
    pairs = networks.items() if isinstance(networks, Mapping) else networks
    nodes: list[list] = [[None, None]]
    data, offsets = bytearray(), {}

    def put(value: int, length: int, whole: int, leaf: object) -> None:
        node = 0
        for depth in range(length - 1):
            side = value >> whole - 1 - depth & 1
            child = nodes[node][side]
            if not isinstance(child, int):
                nodes.append([child, child])
                child = nodes[node][side] = len(nodes) - 1
            node = child
        nodes[node][value >> whole - length & 1] = leaf

    for text, record in pairs:
        network = ipaddress.ip_network(text)
        key = repr(record)
        if key not in offsets:
            offsets[key] = len(data)
            data += encoded(record)
        value, length, whole = int(network.network_address), network.prefixlen, network.max_prefixlen
        if ip_version == 6 and network.version == 4:
            length, whole = length + 96, 128
        put(value, length, whole, ("data", offsets[key]))
    for text in aliases:
        network = ipaddress.ip_network(text)
        root = 0
        for _ in range(96):
            root = nodes[root][0]
        put(int(network.network_address), network.prefixlen, 128, root)
    return assembled(nodes, bytes(data), bits, ip_version, metadata)


def assembled(nodes, data: bytes, bits: int, ip_version: int, metadata: Mapping[str, object] | None = None) -> bytes:
    """The file of a tree whose children are nodes' numbers, None or ("data", offset)."""
    count = len(nodes)

    def number(child: object) -> int:
        if child is None:
            return count
        return child if isinstance(child, int) else count + 16 + child[1]

    tree = b"".join(_node(number(left), number(right), bits) for left, right in nodes)
    about = {
        "node_count": count,
        "record_size": bits,
        "ip_version": ip_version,
        "database_type": "Test-City",
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1_700_000_000,
        "description": {"en": "made by a test"},
    }
    return tree + bytes(16) + data + MARKER + encoded(about | dict(metadata or {}))


def _node(left: int, right: int, bits: int) -> bytes:
    if bits == 24:
        return left.to_bytes(3, "big") + right.to_bytes(3, "big")
    if bits == 32:
        return left.to_bytes(4, "big") + right.to_bytes(4, "big")
    middle = (left >> 24) << 4 | right >> 24
    return (left & 0xFFFFFF).to_bytes(3, "big") + bytes((middle,)) + (right & 0xFFFFFF).to_bytes(3, "big")


def head(kind: int, size: int) -> bytes:
    """The control octets of a value."""
    if size < 29:
        low, more = size, b""
    elif size < 285:
        low, more = 29, (size - 29).to_bytes(1, "big")
    elif size < 65_821:
        low, more = 30, (size - 285).to_bytes(2, "big")
    else:
        low, more = 31, (size - 65_821).to_bytes(3, "big")
    return bytes((kind << 5 | low,)) + more if kind < 8 else bytes((low, kind - 7)) + more


def pointer(offset: int) -> bytes:
    """A pointer of the smallest form."""
    if offset < 2048:
        return struct.pack(">H", 0x2000 | offset)
    if offset < 526_336:
        return bytes((0x28 | offset - 2048 >> 16,)) + (offset - 2048 & 0xFFFF).to_bytes(2, "big")
    if offset < 134_744_064:
        return bytes((0x30 | offset - 526_336 >> 24,)) + (offset - 526_336 & 0xFFFFFF).to_bytes(3, "big")
    return b"\x38" + offset.to_bytes(4, "big")


def encoded(value: object) -> bytes:
    """A value as the format has it; bytes stand for themselves, already encoded."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return head(14, int(value))
    if isinstance(value, str):
        return head(2, len(value.encode())) + value.encode()
    if isinstance(value, float):
        return head(3, 8) + struct.pack(">d", value)
    if isinstance(value, int):
        octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
        return head(6 if len(octets) <= 4 else 9, len(octets)) + octets
    if isinstance(value, dict):
        return head(7, len(value)) + b"".join(encoded(key) + encoded(inner) for key, inner in value.items())
    assert isinstance(value, list), value
    return head(11, len(value)) + b"".join(encoded(inner) for inner in value)
