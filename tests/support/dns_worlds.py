"""Random worlds for DNS, and random messages to ask them: what the two responders are held against each other with.

Everything comes from a `random.Random`, so that a seed says all of a failure.
"""

import ipaddress
import random
import struct
from collections.abc import Sequence

from bns.model import HealthStatus
from dns_frontend.metrics import Counters
from dns_frontend.responder.cookies import Cookies, Shown
from dns_frontend.responder.edns import extended_error
from dns_frontend.responder.guard import Clock, Guard, Hardening
from dns_frontend.responder.locate import Source
from dns_frontend.responder.rrl import Rule
from dns_frontend.zone.name import from_text
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.resources import Catalog
from gslb.steer.view import ServiceView
from tests.support.dns import DATACENTERS, ZONE_TEXT, catalog, plan, service, view_of

ZONES = {
    "shakespeare.example": ZONE_TEXT,
    "child.shakespeare.example": '$TTL 60\n@ IN SOA NS.child Host.Master 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\nx TXT "x"\n',
    "UPPER.example": "$TTL 9\n@ IN SOA Ns.Upper.Example. hostmaster.elsewhere.test. 7 7 7 7 99\n@ NS Ns\n"
    "@ NS far.elsewhere.test.\n@ MX 5 a.b.c\n@ MX 7 b.c\n*.star MX 1 Mail.Upper.example.\np PTR q\nNs A 10.1.1.1\n"
    "@ HTTPS 1 . alpn=h2 port=1\nq HTTPS 0 @\nNs HTTPS 1 Ns ipv4hint=10.1.1.1\n",
}
OWNERS = [
    "shakespeare.example", "ns1.shakespeare.example", "alias.shakespeare.example", "chain.shakespeare.example",
    "d.shakespeare.example", "x.d.shakespeare.example", "data.shakespeare.example", "wild.shakespeare.example",
    "x.wild.shakespeare.example", "a.x.wild.shakespeare.example", "b.wild.shakespeare.example", "er.ent.shakespeare.example",
    "_sip._tcp.shakespeare.example", "odd.shakespeare.example", "sub.shakespeare.example", "a.sub.shakespeare.example",
    "ns.sub.shakespeare.example", "big.shakespeare.example", "huge.shakespeare.example", "nope.shakespeare.example",
    "child.shakespeare.example", "nope.child.shakespeare.example", "x.child.shakespeare.example", "upper.example",
    "a.b.star.upper.example", "nope.upper.example", "p.upper.example", "q.upper.example",
    "ns.upper.example", "elsewhere.test", "example", ".",
]  # fmt: skip
SERVED = [
    "www.shakespeare.example", "ent.shakespeare.example", "*.any.shakespeare.example", "lonely.test", "upper.example",
    "mail.shakespeare.example", "alias.shakespeare.example", "x.sub.shakespeare.example", "a.b.c.d.e.test", "*.test",
    "ns1.shakespeare.example",
]  # fmt: skip
TYPES = [1, 1, 1, 28, 28, 65, 65, 2, 5, 6, 12, 15, 16, 33, 39, 41, 43, 64, 250, 251, 252, 255, 257, 65280, 0]
LOCALITIES = ["na", "eu", "asia"]
HEALTHS = [*[HealthStatus.HEALTHY] * 6, HealthStatus.UNHEALTHY, HealthStatus.DRAINING, HealthStatus.UNKNOWN]


def world(rng: random.Random) -> Catalog:
    """Three datacenters, three areas with networks that nest, some of the zones."""
    areas: dict[str, list[str]] = {name: [] for name in LOCALITIES}
    seen: set[object] = set()
    for _ in range(rng.choice([0, 3, 12, 150])):
        network = prefix(rng)
        if network not in seen:
            seen.add(network)
            areas[rng.choice(LOCALITIES)].append(str(network))
    zones = {name: text for name, text in ZONES.items() if rng.random() < 0.8}
    return catalog(zones, areas)


def prefix(rng: random.Random) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Of any length, in a part of the address space that is small enough for prefixes to meet."""
    if rng.random() < 0.5:
        value = 0x0A000000 | rng.getrandbits(24) & rng.choice([0xFFFFFF, 0x0700C0, 0x030000])
        return ipaddress.ip_network((value, rng.randint(0, 32)), strict=False)
    value = 0x20010DB8 << 96 | rng.getrandbits(96) & rng.choice([(1 << 96) - 1, 0xFF << 72, 0x7 << 80])
    return ipaddress.ip_network((value, rng.randint(0, 128)), strict=False)


def shares(rng: random.Random) -> dict[str, float]:
    used = rng.sample(sorted(DATACENTERS), rng.randint(1, 3))
    weights = [rng.random() + 1e-3 for _ in used]
    return {name: weight / sum(weights) for name, weight in zip(used, weights, strict=True)}


def steered(rng: random.Random, name: str, version: int = 1) -> ServiceView:
    """A service with a random plan, random endpoints of both families, and one to three names."""
    members: dict[str, ServiceEndpoint] = {}
    ports = rng.choice([[80], [443], [8443], [443, 8443], [0]])
    for datacenter in DATACENTERS:
        for index in range(rng.choice([0, 1, 2, 3, 9, 60])):
            task = f"/bns/{datacenter}/test/{name}/{index}"
            address = str(ipaddress.ip_address(rng.getrandbits(32) if rng.random() < 0.7 else rng.getrandbits(128)))
            members[task] = ServiceEndpoint(task, address, rng.choice(ports), rng.choice(HEALTHS))
    names = rng.sample(SERVED, rng.randint(1, 3))
    localities = [*LOCALITIES, *DATACENTERS]
    rows = {locality: shares(rng) for locality in rng.sample(localities, rng.randint(0, len(localities)))}
    alpn = rng.choice([(), ("h2",), ("h3", "h2", "http/1.1"), tuple(f"protocol-{index:020}" for index in range(8))])
    served = service(
        *names, name=name, ttl_s=rng.choice([1, 30, 3600]), addresses=rng.choice([1, 2, 3, 4, 5, 16]), alpn=alpn
    )
    return view_of(served, plan(rows, name=name, version=version), members)


def source(rng: random.Random) -> Source:
    network = prefix(rng)
    return Source(network.version, int(network.network_address))


def guard(rng: random.Random, clock: Clock) -> Guard:
    """Cookies with one to three secrets, required or not; a rate limit that is soon reached, or none."""
    rule = Rule(rng.choice([0, 3, 50]), rng.choice([0, 1, 2, 3]))
    exempt = tuple(prefix(rng) for _ in range(rng.choice([0, 0, 2])))
    nsid = rng.choice([b"", b"ns1.test"])
    chosen = Hardening(cookies_required=rng.random() < 0.3, rule=rule, exempt=exempt, nsid=nsid)
    made = Guard(Counters(), chosen, clock)
    if rng.random() < 0.8:
        made.cookies = Cookies(tuple(rng.randbytes(16) for _ in range(rng.randint(1, 3))))
    made.stale = extended_error(3, "no control plane since then") if rng.random() < 0.3 else b""
    return made


def with_cookie(rng: random.Random, made: Guard, asker: Source, now_s: int) -> bytes:
    """A query with a cookie: for this address or another, fresh or old, by any of the secrets, or damaged."""
    cookies = made.cookies
    option_data = rng.randbytes(8)
    if cookies is not None and rng.random() < 0.9:
        address = asker.value.to_bytes(4 if asker.version == 4 else 16, "big")
        when = now_s - rng.choice([0, 10, 1799, 1801, 3600, 3601, -299, -301])
        one = Cookies((rng.choice(cookies.secrets),))
        option_data = one.answer(option_data, Shown.CLIENT, address, when)
    if rng.random() < 0.15:
        option_data = rng.choice([option_data[:-1], option_data + b"x", option_data[:8], b"", rng.randbytes(24)])
    data = _option(10, option_data) + (_option(3, b"") if rng.random() < 0.3 else b"")
    if rng.random() < 0.5:
        data = _option(8, subnet(rng)) + data
    record = b"\x00" + struct.pack("!HHIH", 41, 1232, 0, len(data)) + data
    question = _name(rng) + struct.pack("!HH", rng.choice(TYPES), 1)
    count = 0 if rng.random() < 0.05 else 1
    head = struct.pack("!HHHHHH", rng.getrandbits(16), 0x0100, count, 0, 0, 1)
    return head + (question if count else b"") + record


def message(rng: random.Random) -> bytes:
    """A query, in one of ten something that was one, in one of fifty noise."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.choice([0, 1, 11, 12, 13, 40, 300]))
    made = _query(rng)
    return _damaged(rng, made) if rng.random() < 0.1 else made


def _query(rng: random.Random) -> bytes:
    flags = rng.choice([0, 0x0100, 0x0100, 0x0120, 0x0110])
    if rng.random() < 0.05:
        flags = rng.getrandbits(16)
    counts = [1, 0, 0, 0]
    body = _name(rng) + struct.pack("!HH", rng.choice(TYPES), 1 if rng.random() < 0.95 else rng.choice([0, 3, 4, 255]))
    if rng.random() < 0.7:
        body += opt(rng)
        counts[3] += 1
    if rng.random() < 0.05:
        body += _record(rng)
        counts[rng.randint(1, 3)] += 1
    if rng.random() < 0.03:
        counts[rng.randrange(4)] = rng.choice([0, 1, 2, 7, 8, 9, 65535])
    return struct.pack("!HHHHHH", rng.getrandbits(16), flags, *counts) + body


def _name(rng: random.Random) -> bytes:
    name = from_text(rng.choice(OWNERS if rng.random() < 0.5 else SERVED))
    kind = rng.random()
    if kind < 0.1:
        label = rng.randbytes(rng.randint(1, 63))
        name = bytes((len(label),)) + label + name
    elif kind < 0.14:
        name = b"\x01a" * rng.choice([3, 60, 120, 127]) + name
    elif kind < 0.3:
        name = bytes(octet ^ 0x20 if 65 <= octet & 0xDF <= 90 and rng.random() < 0.5 else octet for octet in name)
    return name


def opt(rng: random.Random) -> bytes:
    """An OPT record, mostly well-formed, with whatever options."""
    data = b""
    if rng.random() < 0.6:
        data += _option(8, subnet(rng))
    for _ in range(rng.choice([0, 0, 0, 1, 3, 40])):
        code = rng.choice([0, 3, 8, 10, 11, 12, 15, 65001])
        data += _option(code, rng.randbytes(rng.choice([0, 1, 4, 8, 16, 24])))
    payload = rng.choice([0, 511, 512, 513, 600, 1231, 1232, 1233, 4096, 65535])
    ttl = rng.choice([0, 0, 0, 0x8000, 0x8000, 0x10000, rng.getrandbits(32)])
    owner = b"\x00" if rng.random() < 0.98 else b"\x01a\x00"
    return owner + struct.pack("!HHIH", 41, payload, ttl, len(data)) + data


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def subnet(rng: random.Random) -> bytes:
    """Client subnet: of every length of prefix, in one of ten malformed."""
    network = prefix(rng)
    family = {4: 1, 6: 2}[network.version]
    octets = network.network_address.packed[: (network.prefixlen + 7) // 8]
    source_bits, scope = network.prefixlen, 0
    match rng.randrange(60):
        case 0:
            family = rng.choice([0, 3, 65535])
        case 1:
            source_bits = rng.randrange(256)
        case 2:
            scope = rng.randrange(256)
        case 3:
            octets += b"\x00"
        case 4:
            octets = octets[:-1]
        case 5:
            octets = octets[:-1] + b"\xff"
        case 6:
            family, source_bits, octets = 0, 0, b""
    return struct.pack("!HBB", family, source_bits, scope) + octets


def _record(rng: random.Random) -> bytes:
    owner = rng.choice([b"\x00", b"\xc0\x0c", b"\x01x\xc0\x0c", b"\x40", b"\x03www\x00", b"\x01a" * 128 + b"\x00"])
    data = rng.randbytes(rng.choice([0, 4, 20]))
    return owner + struct.pack("!HHIH", rng.choice([1, 41, 250]), 1, 0, len(data)) + data


def _damaged(rng: random.Random, packet: bytes) -> bytes:
    """A few of the things that go wrong with packets, or are made to."""
    octets = bytearray(packet)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(octets)) if octets else 0
        match rng.randrange(6):
            case 0 if octets:
                octets[at] = rng.randrange(256)
            case 1 if octets:
                octets[at] ^= 1 << rng.randrange(8)
            case 2:
                del octets[at : at + rng.randint(1, 8)]
            case 3:
                octets[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                octets[at:at] = octets[rng.randrange(len(octets) + 1) :][:20]
            case 5:
                octets[at:at] = bytes((0xC0, rng.randrange(64)))
    return bytes(octets)


def changed(rng: random.Random, views: Sequence[ServiceView], version: int) -> list[ServiceView]:
    """The same services but for one of them: another, gone, or one more."""
    made = list(views)
    at = rng.randrange(len(made)) if made else 0
    match rng.randrange(4):
        case 0 if len(made) > 1:
            del made[at]
        case 1 if len(made) < 8:
            made.append(steered(rng, f"new{version}", version))
        case _ if made:
            made[at] = steered(rng, made[at].name, version)
    return made
