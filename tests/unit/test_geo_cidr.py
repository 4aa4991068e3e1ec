"""Longest prefix and exact scope, each against the definition."""

import ipaddress
import random

import pytest

from gslb.geo.cidr import UNMATCHED, CidrMap
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import ClientArea


def build(**areas: tuple[str, ...]) -> CidrMap:
    return CidrMap.build(
        ClientArea(Meta(name), Coordinates(0, 0), tuple(ipaddress.ip_network(cidr) for cidr in cidrs))
        for name, cidrs in areas.items()
    )


@pytest.mark.parametrize(
    ("address", "locality", "scope", "prefix"),
    [
        ("10.1.2.3", "na", 9, "10.0.0.0/8"),  # 10.128/9 has other areas in it
        ("10.200.1.1", "asia", 22, "10.200.0.0/16"),  # 10.200.4/22 has eu in it
        ("10.200.7.1", "eu", 24, "10.200.7.0/24"),
        ("10.200.6.1", "asia", 24, "10.200.0.0/16"),  # the other half of 10.200.6/23 is eu's
        ("10.255.0.1", "na", 11, "10.0.0.0/8"),
        ("11.0.0.1", UNMATCHED, 8, None),
        ("200.0.0.1", UNMATCHED, 1, None),
        ("2001:db8:1:2::3", "na", 48, "2001:db8:1::/48"),
        ("::1", UNMATCHED, 3, None),
    ],
)
def test_longest_prefix_wins_and_scope_is_exact(address, locality, scope, prefix):
    found = build(
        na=("10.0.0.0/8", "2001:db8:1::/48"), asia=("10.200.0.0/16", "2001:db8:2::/48"), eu=("10.200.7.0/24",)
    )
    parsed = ipaddress.ip_address(address)
    assert found.lookup(parsed) == (locality, scope)
    assert found.prefix_of(parsed) == (ipaddress.ip_network(prefix) if prefix else None)


def test_a_nested_prefix_of_the_same_area_does_not_narrow_the_scope():
    assert build(na=("10.0.0.0/8", "10.7.0.0/16")).lookup(ipaddress.ip_address("10.7.1.1")) == ("na", 8)


def test_two_halves_of_one_area_are_one_block():
    found = build(na=("10.0.0.0/9", "10.128.0.0/9"))
    assert found.lookup(ipaddress.ip_address("10.200.0.1")) == ("na", 8)


def test_an_empty_map_and_a_map_of_everything_have_scope_0():
    assert CidrMap().lookup(ipaddress.ip_address("1.2.3.4")) == (UNMATCHED, 0)
    assert build(all=("0.0.0.0/0", "::/0")).lookup(ipaddress.ip_address("ffff::")) == ("all", 0)
    assert build(all=("0.0.0.0/0",)).lookup(ipaddress.ip_address("255.255.255.255")) == ("all", 0)


def test_the_ends_of_the_address_space():
    found = build(low=("0.0.0.0/32",), high=("255.255.255.255/32",))
    assert found.lookup(ipaddress.ip_address("0.0.0.0")) == ("low", 32)
    assert found.lookup(ipaddress.ip_address("255.255.255.255")) == ("high", 32)
    assert found.lookup(ipaddress.ip_address("255.255.255.254")) == (UNMATCHED, 32)


def test_a_network_of_two_areas_is_the_first_ones_and_is_reported():
    found = build(b=("10.0.0.0/8",), a=("10.0.0.0/8",))
    assert found.lookup(ipaddress.ip_address("10.0.0.1")).locality == "a"
    assert len(found.problems) == 1
    assert "10.0.0.0/8" in found.problems[0]
    assert "'b'" in found.problems[0]


def test_against_brute_force_on_a_small_space():
    """In a /120 of IPv6 every address is tried: match, scope, minimal scope, disjoint scopes."""
    base = int(ipaddress.ip_address("2001:db8::"))
    for seed in range(40):
        rng = random.Random(seed)
        areas: dict[str, set[str]] = {}
        for _ in range(rng.randint(1, 12)):
            length = rng.randint(120, 128)
            first = base + (rng.randrange(256) >> (128 - length) << (128 - length))
            areas.setdefault(rng.choice("abc"), set()).add(f"{ipaddress.IPv6Address(first)}/{length}")
        found = build(**{name: tuple(sorted(cidrs)) for name, cidrs in areas.items()})
        owner: dict[str, str] = {}
        for name in sorted(areas):
            for cidr in areas[name]:
                owner.setdefault(cidr, name)
        expected = []
        for value in range(base, base + 256):
            covering = [
                (ipaddress.ip_network(cidr).prefixlen, name)
                for cidr, name in owner.items()
                if ipaddress.IPv6Address(value) in ipaddress.ip_network(cidr)
            ]
            expected.append(max(covering)[1] if covering else UNMATCHED)
        for offset in range(256):
            match = found.find(6, base + offset)
            assert match.locality == expected[offset]
            if match.scope >= 120:
                size = 1 << (128 - match.scope)
                begin = offset // size * size
                assert set(expected[begin : begin + size]) == {match.locality}, "the scope holds another locality"
            if match.scope > 120:
                size = 1 << (129 - match.scope)
                begin = offset // size * size
                assert len(set(expected[begin : begin + size])) > 1, "a shorter scope would do"


def test_a_big_map_is_fast_enough_to_load():
    rng = random.Random(1)
    cidrs = {f"{rng.randrange(1, 224)}.{rng.randrange(256)}.{rng.randrange(256)}.0/24" for _ in range(20_000)}
    found = build(**{f"area{index}": tuple(sorted(cidrs))[index::50] for index in range(50)})
    assert not found.problems
    cidr = sorted(cidrs)[777]
    assert found.lookup(ipaddress.ip_network(cidr)[9]).locality == "area27"
