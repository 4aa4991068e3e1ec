"""The YAML of a frontend without a control plane: what is taken, and every mistake with its line."""

from pathlib import Path

import pytest

from dns_frontend.errors import FrontendError
from dns_frontend.standalone import parse

GOOD = b"""\
datacenters:
  us-east1: {latitude: 33.2, longitude: -80.0}
areas:
  na: {latitude: 40.0, longitude: -95.0, cidrs: [10.0.0.0/8]}
zones:
  example.com: zones/example.com.zone
services:
  www:
    dns_names: [www.example.com]
    port: 443
    addresses:
      us-east1: [192.0.2.1, "2001:DB8::1"]
"""


def test_a_file_is_read():
    made = parse(GOOD, Path("/etc/gslb/dns.yaml"))
    assert made.zone_files == {"example.com": Path("/etc/gslb/zones/example.com.zone")}
    view = made.view.services["www"]
    assert [(one.address, one.port) for one in view.endpoints.values()] == [("192.0.2.1", 443), ("2001:db8::1", 443)]
    assert view.service is not None
    assert view.service.dns_names == ("www.example.com",)
    assert set(made.view.catalog.areas) == {"na"}
    assert made.view.synced


def test_nothing_is_nothing():
    assert not parse(b"", Path("x")).view.services
    assert not parse(b"services:\n", Path("x")).view.services


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "{latitude: 33.2, longitude: -80.0}",
            "{latitude: 93.2, longitude: -80.0}",
            "2: datacenters.us-east1.latitude",
        ),
        ("cidrs: [10.0.0.0/8]", "cidrs: [10.0.0.1/8]", "4: areas.na.cidrs"),
        ("  www:", "  wWw:", "8: services.wWw"),
        ("port: 443", "port: 99999", "10: services.www.port"),
        ("port: 443", "prot: 443", "10: services.www.prot: no such field"),
        ("[192.0.2.1,", "[192.0.2,", "12: services.www.addresses.us-east1[0]: '192.0.2' is not an IPv4"),
        ("us-east1: [192", "us-east2: [192", "12: services.www.addresses.us-east2: no such datacenter"),
        ("    addresses:\n", "    address:\n", "services.www.addresses: missing"),
        ("[www.example.com]", "[www..com]", "9: services.www.dns_names"),
        ("port: 443", "alpn: [h2, 'h 3']", "10: services.www.alpn[1]: 'h 3' is not a protocol's ALPN name: write h2"),
        ("dns_names: [www.example.com]", "alpn: [h2]", "9: services.www.alpn: is for HTTPS records of"),
        ("port: 443", "alpn: [h2, h2]", "services.www.alpn[1]: 'h2' is listed twice"),
        ("zones/example.com.zone", "7", "6: zones.example.com"),
        ("services:", "service:", "7: service: no such section"),
        ("services:", "services: [", "not YAML"),
        ("services:", "services: &a\n  b: *a\n#", "aliases"),
        ("zones:", "\xff:", "not"),
    ],
)
def test_mistakes_are_told_with_their_lines(old, new, problem):
    text = GOOD.decode().replace(old, new, 1)
    assert text != GOOD.decode()
    with pytest.raises(FrontendError) as caught:
        parse(text.encode("latin-1"), Path("dns.yaml"))
    assert problem in str(caught.value), str(caught.value)
    assert str(caught.value).startswith("dns.yaml")


def test_a_list_is_no_configuration():
    with pytest.raises(FrontendError, match="not a mapping"):
        parse(b"- a\n", Path("dns.yaml"))
