"""Names and zone text: what is taken, what is refused and with which words."""

import pytest

from dns_frontend.zone import name
from dns_frontend.zone.master import BadZoneError, parse_zone
from dns_frontend.zone.records import soa_serial, synthetic_zone
from dns_frontend.zone.rtype import RType
from tests.support.dns import ZONE_TEXT

HEAD = "$TTL 300\n@ IN SOA ns1 host 7 3600 600 604800 60\n@ NS ns1\n"


@pytest.mark.parametrize(
    ("text", "wire", "printed"),
    [
        ("www.Example", b"\x03www\x07Example\x00", "www.Example."),
        ("www.example.", b"\x03www\x07example\x00", "www.example."),
        (".", b"\x00", "."),
        (r"a\.b.c", b"\x03a.b\x01c\x00", r"a\.b.c."),
        (r"\000\255.c", b"\x02\x00\xff\x01c\x00", r"\000\255.c."),
        (r"\@.c", b"\x01@\x01c\x00", r"\@.c."),
    ],
)
def test_names_from_text_and_back(text, wire, printed):
    assert name.from_text(text) == wire
    assert name.to_text(wire) == printed


@pytest.mark.parametrize(
    "text", ["a..b", ".a", "a" * 64, ".".join(["a" * 60] * 5), r"a\2", r"a\999", "a\\", "bücher.example"]
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(name.BadNameError):
        name.from_text(text)


def test_the_longest_name_is_taken():
    text = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(name.from_text(text)) == name.NAME_MAX_OCTETS


def test_a_zone_text_becomes_records():
    zone = parse_zone("Shakespeare.example", ZONE_TEXT)
    assert zone.origin == name.from_text("shakespeare.example")
    assert soa_serial(zone.soa) == 2026112101
    assert (zone.soa.ttl_s, zone.negative_soa.ttl_s) == (300, 60)
    odd = zone.nodes[name.from_text("odd.shakespeare.example")]
    assert odd[65280].rdatas == (b"\x01\x02\x03",)
    assert len(zone.nodes[zone.origin][RType.NS].rdatas) == 2
    # The same record twice is one record.
    again = parse_zone("shakespeare.example", ZONE_TEXT + "ns1 A 127.0.0.1\n")
    assert again.nodes[name.from_text("ns1.shakespeare.example")][RType.A].rdatas == (b"\x7f\x00\x00\x01",)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x.other. A 1.2.3.4", "outside the zone"),
        ("x CNAME a\nx CNAME b", "two different CNAME"),
        ("x CNAME a\nx A 1.2.3.4", "CNAME"),
        ("@ SOA a b 1 2 3 4 5", "two different SOA"),
        ("x A 999.1.1.1", "malformed"),
        ("x FOO bar", "unknown rdatatype"),
        ("x OPT foo", "not a record"),
        ('x TXT "open', "newline in quoted string"),
        ("$INCLUDE /etc/passwd", "not allowed"),
        ("$GENERATE 1-100000000 h$ A 1.2.3.4", "not allowed"),
        ("x CH A 1.2.3.4", "class"),
        ("x TYPE65280 \\# 3 0102", "not a record|end|length|hex"),
        (("a." * 200) + " A 1.2.3.4", "255"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line, reason):
    with pytest.raises(BadZoneError, match=reason) as caught:
        parse_zone("zone.example", HEAD + line + "\n")
    number = 3 + len(line.splitlines())
    assert str(caught.value).startswith(f"zone.example:{number}: ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no SOA"),
        ("$TTL 1\n@ SOA a b 1 2 3 4 5\n", "no NS"),
        ("$TTL 1\n@ NS a\n", "no SOA"),
        (HEAD + "x SOA a b 1 2 3 4 5\n", "belongs to the top"),
        (HEAD + "x 4294967295 A 1.2.3.4\n", "above 2147483647"),
        (HEAD + "".join(f"x A 1.{n >> 16}.{n >> 8 & 255}.{n & 255}\n" for n in range(5000)), "one answer"),
        ("\x00\x01\x02", "zone.example"),
    ],
)
def test_what_is_no_zone_is_refused(text, reason):
    with pytest.raises(BadZoneError, match=reason):
        parse_zone("zone.example", text)


def test_a_bad_zone_name_is_refused():
    with pytest.raises(BadZoneError, match=r"a\.\.b"):
        parse_zone("a..b", HEAD)


def test_a_zone_made_up_for_a_service_has_an_soa():
    zone = synthetic_zone(name.from_text("www.example"))
    assert set(zone.nodes) == {zone.origin}
    assert zone.negative_soa.ttl_s == 30
