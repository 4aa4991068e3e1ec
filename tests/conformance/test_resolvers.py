"""dig, kdig, delv, a resolver and a secondary server of others, each with a frontend that serves the corpus from files."""

import asyncio
import ipaddress
import shutil
import subprocess
import time

import dns.message
import dns.query
import dns.rcode
import dns.zone
import pytest

from dns_frontend.local import Files
from tests.support.corpus import ZONES, zone_files, zones
from tests.support.dns import running
from tests.support.knot import knot
from tests.support.resolver import PATH, knows_client_subnet, unbound

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(300)]

TIMEOUT_S = 20.0
STEERED = "rich.example"
CONFIG = """
datacenters:
  us-east1: {latitude: 33.2, longitude: -80.0}
  europe-west1: {latitude: 50.4, longitude: 3.8}
areas:
  america: {latitude: 40.0, longitude: -95.0, cidrs: [203.0.113.0/24]}
  europe: {latitude: 50.0, longitude: 10.0, cidrs: [198.51.100.0/24]}
services:
  geo:
    dns_names: [geo.rich.example]
    ttl_s: 300
    alpn: [h3, h2]
    addresses: {us-east1: [192.0.2.211, "2001:db8::211"], europe-west1: [192.0.2.221]}
"""
# What each client's network gets for HTTPS: the addresses of its datacenter; only one of them has IPv6.
HTTPS = '1 . alpn="h3,h2" ipv4hint={} ipv6hint=2001:db8::211'


def need(program: str) -> str:
    found = shutil.which(program, path=PATH)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@pytest.fixture
async def port(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    files = Files(tuple(zone_files().items()), config)
    allowed = (ipaddress.ip_network("127.0.0.0/8"),)
    async with running(alone=True, files=files, transfer=allowed) as frontend:
        yield int(frontend.addresses.dns[0].rpartition(":")[2])


async def say(program: str, *arguments: str) -> str:
    """What a program prints, its exit status being 0."""
    done = await asyncio.to_thread(
        subprocess.run, [need(program), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def dig(port: int, *arguments: str, program: str = "dig") -> str:
    patience = ["+tries=1", "+time=20"] if program == "dig" else ["+retry=0", "+time=20"]
    return await say(program, "@127.0.0.1", "-p", str(port), *patience, *arguments)


async def test_dig(port):
    assert (await dig(port, "+short", "+norec", "mail.rich.example")).split() == ["192.0.2.3"]
    assert "flags: qr aa rd;" in await dig(port, "mail.rich.example")
    assert "flags: qr aa;" in await dig(port, "+norec", "mail.rich.example")
    referral = await dig(port, "+norec", "www.sub.rich.example")
    assert "flags: qr;" in referral
    assert "ANSWER: 0, AUTHORITY: 3, ADDITIONAL: 4" in referral
    cut = await dig(port, "+norec", "+ignore", "+bufsize=512", "many.rich.example")
    assert "flags: qr aa tc;" in cut
    assert len((await dig(port, "+short", "many.rich.example")).split()) == 80, "the rest comes over TCP"
    assert len((await dig(port, "+short", "+tcp", "huge.rich.example", "TXT")).splitlines()) == 7
    assert "status: NOTIMP" in await dig(port, "+noedns", "+opcode=UPDATE", "rich.example")
    assert "status: BADVERS" in await dig(port, "+edns=1", "+noednsnegotiation", "rich.example", "SOA")
    assert "status: NOERROR" in await dig(port, "+ednsflags=0x4000", "+ednsopt=65001:00", "rich.example", "SOA")
    assert "status: REFUSED" in await dig(port, "-c", "CH", "version.bind", "TXT")
    assert "status: YXDOMAIN" in await dig(port, f"{'a' * 60}.{'b' * 60}.grow.moved.example")
    assert "Transfer failed" in await dig(port, STEERED, "AXFR")


async def test_kdig(port):
    assert "\\# 3 010203" in await dig(port, "+noall", "+answer", "odd.rich.example", "TYPE65280", program="kdig")
    told = await dig(port, "+subnet=198.51.100.9/32", "geo.rich.example", program="kdig")
    assert "192.0.2.221" in told
    assert "CLIENT-SUBNET: 198.51.100.9/32/24" in told
    assert "YXDOMAIN" in await dig(port, f"{'a' * 60}.{'b' * 60}.grow.moved.example", program="kdig")
    told = await dig(port, "+subnet=198.51.100.9/32", "geo.rich.example", "HTTPS", program="kdig")
    assert HTTPS.format("192.0.2.221") in told.replace("alpn=h3,h2", 'alpn="h3,h2"')  # an older kdig quotes nothing
    assert "CLIENT-SUBNET: 198.51.100.9/32/24" in told
    whole = await dig(port, "moved.example", "AXFR", program="kdig")
    assert "www.new.moved.example." in whole
    assert whole.count("SOA") == 2


async def test_delv(port):
    for anchors in (["-i"], ["+noroot"]):
        said = await say("delv", "@127.0.0.1", "-p", str(port), *anchors, "alias2.rich.example", "A")
        assert "192.0.2.3" in said
    assert "ipv6hint=2001:db8::211" in await say(
        "delv", "@127.0.0.1", "-p", str(port), "-i", "geo.rich.example", "HTTPS"
    )


async def test_a_resolver(port, tmp_path):
    """In random case, name by name (qname minimisation), over TCP where it must."""
    need("unbound")
    with unbound(tmp_path, [origin for origin in zones() if origin != "child.rich.example"], port) as resolver:

        async def ask(name: str, rtype: str) -> dns.message.Message:
            query = dns.message.make_query(name, rtype)
            answer = await asyncio.to_thread(
                dns.query.udp_with_fallback, query, "127.0.0.1", timeout=TIMEOUT_S, port=resolver
            )
            return answer[0]

        for name, rtype, last in (
            ("mail.rich.example", "AAAA", "2001:db8::3"),
            ("ALIAS3.rich.example", "A", "192.0.2.3"),
            ("www.old.moved.example", "A", "192.0.2.2"),
            ("x.y.wild.rich.example", "A", "192.0.2.5"),
            ("www.child.rich.example", "A", "192.0.2.61"),
            ("up.child.rich.example", "A", "192.0.2.3"),
            ("2.2.0.192.in-addr.arpa", "PTR", "ns2.rich.example."),
            ("odd.rich.example", "TYPE65280", "\\# 3 010203"),
            ("_x._tcp.rich.example", "SRV", "1 1 80 any.wild.rich.example."),
        ):
            message = await ask(name, rtype)
            assert message.answer, f"{name} {rtype}: {message}"
            assert str(message.answer[-1][0]).lower() == last, f"{name} {rtype}"
        assert len((await ask("huge.rich.example", "TXT")).answer[0]) == 7
        assert len((await ask("many.rich.example", "A")).answer[0]) == 80
        for name, rcode in (("nope.rich.example", "NXDOMAIN"), ("ent.rich.example", "NOERROR")):
            negative = await ask(name, "A")
            assert dns.rcode.to_text(negative.rcode()) == rcode
            assert negative.authority[0].ttl <= 300
        assert (await ask("www.rich.example", "HTTPS")).answer


async def test_a_resolver_that_tells_the_clients_subnet(port, tmp_path):
    if not knows_client_subnet():
        pytest.skip("unbound is not installed, or built without client subnet")
    with unbound(tmp_path, zones(), port) as resolver:
        for _ in range(2):  # the second time from the cache, which keeps an answer for each scope
            for client, address in (("203.0.113.7", "192.0.2.211"), ("198.51.100.7", "192.0.2.221")):
                for rtype, said in (("A", address), ("HTTPS", HTTPS.format(address))):
                    told = await dig(resolver, f"+subnet={client}/32", "geo.rich.example", rtype)
                    assert said in told
                    assert f"CLIENT-SUBNET: {client}/32/24" in told
        plain = await dig(resolver, "+subnet=203.0.113.7/32", "mail.rich.example")
        assert "CLIENT-SUBNET: 203.0.113.7/32/0" in plain


async def test_a_secondary_server_has_the_same_zones(port, tmp_path):
    need("knotd")
    copied = [origin for origin in zone_files() if origin != STEERED]

    def fetch(origin: str, server: int) -> dns.zone.Zone:
        made = dns.zone.Zone(origin)
        dns.query.inbound_xfr("127.0.0.1", made, port=server, timeout=TIMEOUT_S)
        return made

    with knot(tmp_path, dict.fromkeys(copied), primary=port) as secondary:
        for origin in copied:
            deadline_s = time.monotonic() + TIMEOUT_S
            while True:
                query = dns.message.make_query(origin, "SOA")
                said = await asyncio.to_thread(dns.query.udp, query, "127.0.0.1", TIMEOUT_S, secondary)
                if said.answer:
                    break
                assert time.monotonic() < deadline_s, (tmp_path / "knot.log").read_text()
                await asyncio.sleep(0.1)
            ours, theirs = [await asyncio.to_thread(fetch, origin, server) for server in (port, secondary)]
            written = dns.zone.from_file(str(ZONES / f"{origin}.zone"), origin, allow_include=True)
            assert ours == written
            assert theirs == written
