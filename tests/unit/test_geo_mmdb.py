"""Geo databases: both schemas, every width of record, and files that lie."""

import ipaddress
import random

import pytest

from gslb.geo.mmdb import BadMmdbError, Mmdb
from gslb.geo.places import GeoDatabase, Nearest, place_of
from gslb.model.geography import Coordinates, distance_km
from tests.support.mmdb import assembled, dbip, encoded, head, maxmind, mmdb, pointer

DATACENTERS = {"us": Coordinates(33.2, -80.0), "eu": Coordinates(50.4, 3.8), "asia": Coordinates(24.0, 120.5)}
NETWORKS = {
    "1.0.0.0/8": maxmind("CN", 35.0, 105.0),
    "1.2.0.0/16": maxmind("DE", 52.5, 13.4),
    "1.2.3.4/32": maxmind("FR"),
    "200.0.0.0/6": dbip("US", 40.7, -74.0),
    "2001:db8::/32": dbip("JP"),
    "2001:db8:1::/48": dbip("US", 40.7, -74.0),
}


@pytest.mark.parametrize("bits", [24, 28, 32])
def test_every_width_of_record(bits):
    geo = GeoDatabase.read("t.mmdb", mmdb(NETWORKS, bits=bits))
    for text, prefix, country in (
        ("1.9.9.9", "1.8.0.0/13", "CN"),
        ("1.2.3.5", "1.2.3.5/32", "DE"),
        ("1.2.3.4", "1.2.3.4/32", "FR"),
        ("203.0.0.0", "200.0.0.0/6", "US"),
        ("2001:db8:1:2::", "2001:db8:1::/48", "US"),
        ("2001:db8:2::", "2001:db8:2::/47", "JP"),
    ):
        found = geo.find(ipaddress.ip_address(text))
        assert found.place.country == country
        assert ipaddress.ip_address(text) in found.prefix
        assert str(found.prefix) == prefix
    assert geo.find(ipaddress.ip_address("9.9.9.9")).place is None
    assert geo.find(ipaddress.ip_address("::1")).place is None


def test_intervals_say_what_a_lookup_says():
    rng = random.Random(5)
    networks = []
    for _ in range(300):
        version = rng.choice([4, 6])
        length = rng.randint(1, 32 if version == 4 else 64)
        whole = {4: 32, 6: 128}[version]
        value = rng.getrandbits(length) << whole - length
        if version == 6:
            value |= 1 << 127  # outside ::/96
        address = ipaddress.ip_address(value) if version == 4 else ipaddress.IPv6Address(value)
        text = f"{ipaddress.IPv4Address(value) if version == 4 else address}/{length}"
        networks.append((text, maxmind(rng.choice(["DE", "US", "JP"]))))
    geo = GeoDatabase.read("t.mmdb", mmdb(sorted(networks, key=lambda pair: int(pair[0].rpartition("/")[2]))))
    for version, bits in ((4, 32), (6, 128)):
        starts, records = geo.intervals[version]
        assert starts[0] == 0
        assert list(starts) == sorted(set(starts))
        for _ in range(1000):
            value = rng.choice([rng.getrandbits(bits), max(0, rng.choice(starts) - rng.randint(0, 1))])
            index = max(i for i, start in enumerate(starts) if start <= value)
            assert geo.database.find(version, value)[0] == records[index]


def test_a_database_of_ipv4_alone():
    geo = GeoDatabase.read("t.mmdb", mmdb({"1.0.0.0/8": maxmind("DE")}, ip_version=4))
    assert geo.find(ipaddress.ip_address("1.2.3.4")).place.country == "DE"
    assert geo.find(ipaddress.ip_address("2001:db8::1")).place is None
    assert list(geo.intervals[6].records) == [-1]


def test_aliases_of_ipv4_are_not_walked_again():
    octets = mmdb({"1.0.0.0/8": maxmind("DE")}, aliases=["2002::/16", "::ffff:0:0/96"])
    geo = GeoDatabase.read("t.mmdb", octets)
    assert list(geo.intervals[6].records) == [-1]
    assert geo.find(ipaddress.ip_address("1.0.0.1")).place.country == "DE"


@pytest.mark.parametrize(
    ("record", "country", "where"),
    [
        (maxmind("DE", 52.5, 13.4), "DE", Coordinates(52.5, 13.4)),
        (maxmind("DE"), "DE", Coordinates(51.0, 10.0)),
        ({"registered_country": {"iso_code": "DE"}}, "DE", Coordinates(51.0, 10.0)),
        (dbip("de", 52.5, 13.4), "DE", Coordinates(52.5, 13.4)),
        ({"country_code": "DE", "latitude": "52.5", "longitude": "13.4"}, "DE", Coordinates(52.5, 13.4)),
        ({"country": "DE"}, "DE", Coordinates(51.0, 10.0)),
        (maxmind("DE", 91.0, 0.0), "DE", Coordinates(51.0, 10.0)),
        (maxmind("DE", float("nan"), 0.0), "DE", Coordinates(51.0, 10.0)),
        ({"location": {"latitude": True, "longitude": 1.0}}, "", None),
        (maxmind("ZZ"), "", None),
        ([], "", None),
        ("DE", "", None),
    ],
)
def test_places(record, country, where):
    place = place_of(record)
    assert (place.country, place.coordinates) == (country, where)


def test_the_nearest_is_the_nearest():
    rng = random.Random(1)
    nearest = Nearest(DATACENTERS)
    for _ in range(300):
        place = Coordinates(rng.uniform(-90, 90), rng.uniform(-180, 180))
        assert nearest.to(place) == min(DATACENTERS, key=lambda name: distance_km(place, DATACENTERS[name]))
    assert nearest.to(None) == ""
    assert Nearest({}).to(Coordinates(0, 0)) == ""


GOOD = mmdb(NETWORKS)
LEAF = encoded(maxmind("DE"))


def tree(left, right, data=LEAF, **more):
    return assembled([[left, right]], data, 24, 4, more)


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (b"", "no metadata"),
        (b"PK\x03\x04" + bytes(1000), "no metadata"),
        (GOOD[: len(GOOD) // 2], "no metadata"),
        (GOOD[1000:], "cut short"),
        (mmdb(NETWORKS, metadata={"record_size": 48}), "48 bits"),
        (mmdb(NETWORKS, metadata={"ip_version": 5}), "IP version 5"),
        (mmdb(NETWORKS, metadata={"binary_format_major_version": 3}), "format 3"),
        (mmdb(NETWORKS, metadata={"node_count": 0}), "0 nodes"),
        (mmdb(NETWORKS, metadata={"node_count": 1 << 30}), "cut short"),
        (mmdb(NETWORKS, metadata={"node_count": "many"}), "node_count"),
        (tree(0, 0), "loop"),
        (assembled([[1, 1], [0, ("data", 0)]], LEAF, 24, 4), "loop"),
        (assembled([[i + 1, i + 1] for i in range(60)] + [[None, None]], LEAF, 24, 4), "loop"),
        (tree(("data", 5000), None), "where"),
        (tree(("data", 0), None, b"\x20\x00"), "pointer"),
        (tree(("data", 0), None, pointer(2) + pointer(0)), "pointer"),
        (tree(("data", 0), None, encoded({"a": 1})[:-1]), "cut short"),
        (tree(("data", 0), None, head(7, 16_000_000)), "cut short"),
        (tree(("data", 0), None, b"\xe1" * 50), "no text|too deep"),
        (tree(("data", 0), None, head(11, 1) * 50), "too deep"),
        (tree(("data", 0), None, head(11, 5000) + encoded(1) * 5000), "4096 values"),
        (tree(("data", 0), None, head(3, 4) + bytes(4)), "type 3"),
        (tree(("data", 0), None, head(13, 0)), "type 13"),
        (tree(("data", 0), None, encoded({"x": 1})), "no network in it"),
        (tree(None, None), "no network in it"),
    ],
)
def test_a_file_that_lies_is_refused(octets, says):
    with pytest.raises(BadMmdbError, match=says):
        GeoDatabase.read("t.mmdb", octets)


def test_a_bomb_of_pointers_is_bounded():
    """Each array has the one before it twice: 2^40 values, if somebody counts them all."""
    data = bytearray(encoded("x"))
    before = 0
    for _ in range(12):
        here = len(data)
        data += head(11, 2) + pointer(before) * 2
        before = here
    with pytest.raises(BadMmdbError, match="4096 values"):
        GeoDatabase.read("t.mmdb", tree(("data", before), None, bytes(data)))


def test_damage_is_refused_or_harmless():
    rng = random.Random(9)
    for _ in range(400):
        damaged = bytearray(GOOD)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            geo = GeoDatabase.read("t.mmdb", bytes(damaged))
        except BadMmdbError:
            continue
        geo.nearest(DATACENTERS)


def test_pointers_of_every_size():
    for filler in (0, 3000, 600_000):
        data = bytes(filler) + encoded("DE") + encoded({"country_code": pointer(filler)})
        octets = tree(("data", filler + 3), None, data)
        assert GeoDatabase.read("t", octets).find(ipaddress.ip_address("1.1.1.1")).place.country == "DE"
    assert Mmdb(GOOD).metadata.kind == "Test-City"
