"""Longest-prefix match from an address to a locality, and the exact prefix that the answer holds for. PURE.

Prefixes nest or are disjoint, so a map of them is a list of disjoint intervals, each with one locality: a lookup is
one bisection. Neighbouring intervals of one locality are merged. The scope of an address is the largest aligned block
around it inside its interval: no address of that block would get another locality, and a block one bit larger has one
that would (RFC 7871 section 7.2.1: as short as is right). Scopes of two addresses are equal or disjoint, never nested:
the largest block of each point of a block is that block.
"""

import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

from gslb.geo.places import Base
from gslb.model.resources import ClientArea

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

BITS: Final[Mapping[int, int]] = {4: 32, 6: 128}  # by IP version
UNMATCHED: Final = ""  # the locality of an address that no prefix covers


class Match(NamedTuple):
    """`scope`: length of the prefix of the address in which every address has this locality."""

    locality: str
    scope: int


class _Entry(NamedTuple):
    first: int
    length: int
    locality: str


@dataclass(frozen=True, slots=True)
class _Family:
    """One IP version: interval i covers starts[i] up to starts[i + 1] - 1. starts[0] is 0."""

    bits: int
    starts: Sequence[int] = (0,)
    localities: Sequence[str] = (UNMATCHED,)
    lengths: Sequence[int] = ()  # the prefix lengths in use, longest first
    prefixes: Mapping[tuple[int, int], str] = field(default_factory=dict)  # (first address, length) -> locality

    def find(self, value: int) -> Match:
        index = bisect_right(self.starts, value) - 1
        scope = 0
        if index > 0:  # one bit more than what `value` has in common with the address before the interval
            scope = self.bits - ((self.starts[index] - 1) ^ value).bit_length() + 1
        if index + 1 < len(self.starts):
            scope = max(scope, self.bits - (self.starts[index + 1] ^ value).bit_length() + 1)
        return Match(self.localities[index], scope)

    def longest(self, value: int) -> tuple[int, int] | None:
        """First address and length of the longest prefix that covers `value`."""
        for length in self.lengths:
            shift = self.bits - length
            key = (value >> shift << shift, length)
            if key in self.prefixes:
                return key
        return None


@dataclass(frozen=True, slots=True)
class CidrMap:
    """An immutable map of prefixes. `problems` says what was left out and why."""

    families: Mapping[int, _Family] = field(default_factory=lambda: {v: _Family(bits) for v, bits in BITS.items()})
    problems: tuple[str, ...] = ()

    @classmethod
    def build(cls, areas: Iterable[ClientArea], base: Mapping[int, Base] | None = None) -> "CidrMap":
        """The map of these client areas' networks; of two areas with the same network the first by name has it.

        Where no area has an address, `base` (by IP version) says its locality.
        """
        found: dict[Network, str] = {}
        problems: list[str] = []
        for area in sorted(areas, key=lambda area: area.name):
            for network in area.cidrs:
                owner = found.setdefault(network, area.name)
                if owner != area.name:
                    problems.append(
                        f"client area {area.name!r}: network {network} is {owner!r}'s already;"
                        " remove it from one of them"
                    )
        families = {version: _family(version, found, (base or {}).get(version)) for version in BITS}
        return cls(families, tuple(problems))

    def find(self, version: int, value: int) -> Match:
        """The match of an address given as its IP version and its number; O(log #prefixes)."""
        return self.families[version].find(value)

    def lookup(self, address: Address) -> Match:
        """The match of an address; locality UNMATCHED when no prefix covers it."""
        return self.find(address.version, int(address))

    def prefix_of(self, address: Address) -> Network | None:
        """The longest prefix of the map that covers the address: what decided, for an operator's eyes."""
        key = self.families[address.version].longest(int(address))
        if key is None:
            return None
        return ipaddress.ip_network((type(address)(key[0]), key[1]))


def _family(version: int, networks: Mapping[Network, str], base: Base | None) -> _Family:
    bits = BITS[version]
    entries = [
        _Entry(int(network.network_address), network.prefixlen, locality)
        for network, locality in networks.items()
        if network.version == version
    ]
    starts, localities = _flatten(sorted(entries), bits)
    if base is not None:
        starts, localities = _laid_over(starts, localities, base, 1 << bits)
    return _Family(
        bits,
        starts,
        localities,
        tuple(sorted({entry.length for entry in entries}, reverse=True)),
        {(entry.first, entry.length): entry.locality for entry in entries},
    )


def _flatten(entries: Sequence[_Entry], bits: int) -> tuple[list[int], list[str]]:
    """Nested prefixes, sorted by first address and then length, as disjoint intervals with the innermost's locality."""
    starts, localities = [0], [UNMATCHED]
    open_: list[tuple[int, str]] = []  # (address after the end, locality) of the prefixes around this point

    def begin(at: int, locality: str) -> None:
        if starts[-1] == at:  # an empty interval: the later one replaces it
            starts.pop()
            localities.pop()
        if not localities or localities[-1] != locality:
            starts.append(at)
            localities.append(locality)

    def close_until(at: int) -> None:
        while open_ and open_[-1][0] <= at:
            end, _ = open_.pop()
            begin(end, open_[-1][1] if open_ else UNMATCHED)

    for entry in entries:
        close_until(entry.first)
        begin(entry.first, entry.locality)
        open_.append((entry.first + (1 << (bits - entry.length)), entry.locality))
    close_until(1 << bits)
    if starts[-1] == 1 << bits:
        starts.pop()
        localities.pop()
    return starts, localities


def _laid_over(starts: Sequence[int], localities: Sequence[str], base: Base, whole: int) -> tuple[list[int], list[str]]:
    """The intervals, and those of `base` where they have no locality; O(both), and fast where `base` is long."""
    made: list[int] = []
    names: list[str] = []

    def begin(at: int, locality: str) -> None:
        if not names or names[-1] != locality:
            made.append(at)
            names.append(locality)

    for index, (first, locality) in enumerate(zip(starts, localities, strict=True)):
        if locality != UNMATCHED:
            begin(first, locality)
            continue
        end = starts[index + 1] if index + 1 < len(starts) else whole
        low = bisect_right(base.starts, first)
        high = bisect_left(base.starts, end)
        begin(first, base.localities[low - 1])
        made.extend(base.starts[low:high])
        names.extend(base.localities[low:high])
    return made, names
