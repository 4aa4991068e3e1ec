"""Reads `.mmdb` files (MaxMind DB format 2.0): the whole tree as intervals, and what one address has. PURE.

Own code and not the maxminddb package, which answers one address at a time: a frontend lays the whole map out once, so that
a query costs a bisection and its exact scope is known. And a file may be hostile: every offset is checked, the tree is
walked at most once, records are bounded in depth and number of values. (docs/adr/0010-geo-database-reader.md)
"""

import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

_MARKER: Final = b"\xab\xcd\xefMaxMind.com"
_METADATA_MAX_OCTETS: Final = 128 << 10
_SEPARATOR_OCTETS: Final = 16
_RECORD_BITS: Final = frozenset({24, 28, 32})
_DEPTH_MAX: Final = 16
_VALUES_MAX: Final = 4096  # of one record, those behind pointers too
_BITS: Final = {4: 32, 6: 128}
_IPV4_PREFIX_BITS: Final = 96
_POINTER, _TEXT, _DOUBLE, _BYTES, _MAP = 1, 2, 3, 4, 7
_ARRAY, _BOOL, _FLOAT = 11, 14, 15
_INT32: Final = 8
_UNSIGNED: Final = {5: 2, 6: 4, 9: 8, 10: 16}  # type -> octets at most
_POINTER_BASE: Final = (0, 2048, 526_336, 0)

Value = str | float | int | bool | bytes | Mapping[str, "Value"] | Sequence["Value"]


class BadMmdbError(ValueError):
    """The octets are no geo database that we take; the message says what is wrong with them."""


class Intervals(NamedTuple):
    """Interval i covers starts[i] up to starts[i + 1] - 1; starts[0] is 0. records[i]: where its data is, -1: none."""

    starts: Sequence[int]
    records: Sequence[int]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of itself."""

    node_count: int
    record_bits: int
    ip_version: int
    kind: str  # its database_type
    built_s: int  # seconds since the epoch


class Mmdb:
    """One database in memory. Raises BadMmdbError when it cannot be one."""

    def __init__(self, octets: bytes) -> None:
        at = octets.rfind(_MARKER, max(0, len(octets) - _METADATA_MAX_OCTETS))
        if at < 0:
            raise BadMmdbError("not an .mmdb file: it has no metadata (is it compressed?)")
        self.metadata = _metadata(octets[at + len(_MARKER) :])
        count, bits = self.metadata.node_count, self.metadata.record_bits
        tree_octets = count * bits // 4
        if tree_octets + _SEPARATOR_OCTETS > at:
            raise BadMmdbError(f"cut short: a tree of {count} nodes has {tree_octets} octets, {at} are there")
        self._left, self._right = _children(octets[:tree_octets], bits)
        self._data = octets[tree_octets + _SEPARATOR_OCTETS : at]

    def intervals(self, version: int) -> Intervals:
        """All of one IP version, neighbours with the same record as one. O(nodes). Raises BadMmdbError.

        In a tree of IPv6, ::/96 has IPv4; other networks that lead to the same nodes are its aliases, and count as empty.
        """
        left, right, count = self._left, self._right, self.metadata.node_count
        root, alias = self._root(version)
        starts: list[int] = []
        records: list[int] = []
        stack = [(root, 0, _BITS[version] - 1)]
        visited, last = 0, -2
        while stack:
            node, first, bit = stack.pop()
            if node == alias or node >= count:
                record = -1 if node <= count else self._offset(node)
                if record != last:
                    starts.append(first)
                    records.append(record)
                    last = record
                continue
            visited += 1
            if visited > count or bit < 0:
                raise BadMmdbError("its tree has a loop, or is deeper than an address is long")
            stack.append((right[node], first | 1 << bit, bit - 1))
            stack.append((left[node], first, bit - 1))
        return Intervals(starts, records)

    def find(self, version: int, value: int) -> tuple[int, int]:
        """(record of the address or -1, length of the prefix that has it). Raises BadMmdbError."""
        node, alias = self._root(version)
        bits = _BITS[version]
        for depth in range(bits + 1):
            if node == alias or node >= self.metadata.node_count:
                return (-1 if node <= self.metadata.node_count else self._offset(node)), depth
            if depth < bits:
                node = (self._right if value >> bits - 1 - depth & 1 else self._left)[node]
        raise BadMmdbError("its tree is deeper than an address is long")

    def record(self, offset: int) -> Value:
        """What is at a record's place. Raises BadMmdbError."""
        return _Decoder(self._data).whole(offset)

    def _root(self, version: int) -> tuple[int, int]:
        """Where an IP version begins, and the node that is not to be entered from there (-1: none).

        A file of IPv4 alone has one empty record for all of IPv6.
        """
        if self.metadata.ip_version == 4:
            return (0, -1) if version == 4 else (self.metadata.node_count, -1)
        node = 0
        for _ in range(_IPV4_PREFIX_BITS):
            if node >= self.metadata.node_count:
                break
            node = self._left[node]
        if version == 4:
            return node, -1
        return 0, (node if 0 < node < self.metadata.node_count else -1)

    def _offset(self, record: int) -> int:
        offset = record - self.metadata.node_count - _SEPARATOR_OCTETS
        if not 0 <= offset < len(self._data):
            raise BadMmdbError(f"a record is said to be at {offset}, where {len(self._data)} octets of data are")
        return offset


def _children(tree: bytes, bits: int) -> tuple["array[int]", "array[int]"]:
    """The two records of each node, as arrays of 32-bit numbers; by strides of octets, which is fast in any interpreter."""
    size = bits // 4
    count = len(tree) // size
    sides: list[array[int]] = []
    for side in (0, 1):
        wide = bytearray(4 * count)
        if bits == 28:  # the middle octet has the upper four bits of both
            upper = bytes(octet >> 4 if side == 0 else octet & 15 for octet in range(256))
            wide[0::4] = tree[3::size].translate(upper)
            begin = 4 * side
        else:
            begin = side * bits // 8
            if bits == 32:
                wide[0::4] = tree[begin::size]
                begin += 1
        for octet in range(3):
            wide[octet + 1 :: 4] = tree[begin + octet :: size]
        numbers = array("I", bytes(wide))
        if numbers.itemsize != 4:
            raise BadMmdbError("this machine's numbers of type I have not 32 bits")
        if struct.pack("=H", 1) == b"\x01\x00":
            numbers.byteswap()
        sides.append(numbers)
    return sides[0], sides[1]


def _metadata(octets: bytes) -> Metadata:
    found = _Decoder(octets).whole(0)
    if not isinstance(found, Mapping):
        raise BadMmdbError("its metadata is no map")
    numbers = {}
    for name in ("node_count", "record_size", "ip_version", "binary_format_major_version"):
        number = found.get(name)
        if not isinstance(number, int):
            raise BadMmdbError(f"its metadata has no {name}")
        numbers[name] = number
    major, count, version = (
        numbers["binary_format_major_version"],
        numbers["node_count"],
        numbers["ip_version"],
    )
    if major != 2:
        raise BadMmdbError(f"it is of format {major}: format 2 is read")
    if numbers["record_size"] not in _RECORD_BITS:
        raise BadMmdbError(f"records of {numbers['record_size']} bits: 24, 28 and 32 are read")
    if version not in _BITS:
        raise BadMmdbError(f"IP version {version}: 4 and 6 are read")
    if not 0 < count < 1 << 31:
        raise BadMmdbError(f"{count} nodes")
    kind, built = found.get("database_type"), found.get("build_epoch")
    return Metadata(
        count,
        numbers["record_size"],
        version,
        kind[:80] if isinstance(kind, str) else "",
        built if isinstance(built, int) and 0 <= built < 1 << 40 else 0,
    )


class _Decoder:
    """One record out of a data section; bounded by `_VALUES_MAX`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = _VALUES_MAX

    def whole(self, offset: int) -> Value:
        """The value at an offset. Raises BadMmdbError."""
        return self._value(offset, _DEPTH_MAX)[0]

    def _take(self, at: int, size: int) -> bytes:
        found = self._data[at : at + size]
        if len(found) != size:
            raise BadMmdbError(f"a record is cut short at {at}")
        return found

    def _control(self, at: int) -> tuple[int, int, int]:
        """(type, size, where the value itself begins)."""
        control = self._take(at, 1)[0]
        at += 1
        kind = control >> 5
        if kind == _POINTER:
            return kind, control & 31, at
        if kind == 0:
            kind = 7 + self._take(at, 1)[0]
            at += 1
        size = control & 31
        if size >= 29:
            more = size - 28
            size = (29, 285, 65_821)[more - 1] + int.from_bytes(self._take(at, more), "big")
            at += more
        return kind, size, at

    def _value(self, at: int, depth: int, *, pointed: bool = False) -> tuple[Value, int]:
        """The value at an offset, and where the next one begins."""
        self._left -= 1
        if self._left < 0 or depth < 0:
            raise BadMmdbError(f"a record is too deep, or has more than {_VALUES_MAX} values")
        kind, size, at = self._control(at)
        if kind == _POINTER:
            if pointed:
                raise BadMmdbError("a pointer leads to a pointer")
            width = (size >> 3) + 1
            upper = 0 if width == 4 else (size & 7) << 8 * width
            target = _POINTER_BASE[width - 1] + upper + int.from_bytes(self._take(at, width), "big")
            return self._value(target, depth - 1, pointed=True)[0], at + width
        if kind == _MAP:
            return self._map(at, size, depth)
        if kind == _ARRAY:
            return self._array(at, size, depth)
        if kind == _BOOL:
            return bool(size), at
        return _scalar(kind, self._take(at, size)), at + size

    def _map(self, at: int, size: int, depth: int) -> tuple[Value, int]:
        made: dict[str, Value] = {}
        for _ in range(size):
            key, at = self._value(at, depth - 1)
            if not isinstance(key, str):
                raise BadMmdbError("a map has a key that is no text")
            made[key], at = self._value(at, depth - 1)
        return made, at

    def _array(self, at: int, size: int, depth: int) -> tuple[Value, int]:
        found: list[Value] = []
        for _ in range(size):
            value, at = self._value(at, depth - 1)
            found.append(value)
        return found, at


def _scalar(kind: int, octets: bytes) -> Value:
    if kind == _TEXT:
        return octets.decode("utf-8", "replace")
    if kind == _DOUBLE and len(octets) == 8:
        return float(struct.unpack(">d", octets)[0])
    if kind == _FLOAT and len(octets) == 4:
        return float(struct.unpack(">f", octets)[0])
    if kind == _BYTES:
        return octets
    if kind == _INT32 and len(octets) <= 4:
        number = int.from_bytes(octets, "big")
        return number - (1 << 32) if len(octets) == 4 and number >> 31 else number
    if len(octets) <= _UNSIGNED.get(kind, -1):
        return int.from_bytes(octets, "big")
    raise BadMmdbError(f"a value of type {kind} has {len(octets)} octets")
