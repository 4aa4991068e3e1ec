"""No packet, however hostile, gets an exception, a wrong form or a large answer out of the responder."""

import random
import struct

import dns.message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dns_frontend.metrics import Transport
from dns_frontend.responder.respond import Responder
from tests.support.dns import ANYBODY, plan, responder_for, service, view_of

NAMES = [
    "www.shakespeare.example",
    "shakespeare.example",
    "x.wild.shakespeare.example",
    "chain.shakespeare.example",
    "q.d.shakespeare.example",
    "a.sub.shakespeare.example",
    "huge.shakespeare.example",
    "nope.nope.nope.shakespeare.example",
    "loop1.shakespeare.example",
    "elsewhere.test",
]


def make() -> Responder:
    shares = {"na": {"us-east1": 0.5, "asia-east1": 0.5}, "eu": {"europe-west1": 1.0}}
    return responder_for(
        view_of(planned=plan(shares)), view_of(service("www.lonely.example", name="b"), plan(shares, name="b"))
    )


RESPONDER = make()


def check(packet: bytes, transport: Transport, responder: Responder = RESPONDER) -> None:
    """What holds for every packet."""
    answer = responder.respond(packet, ANYBODY, transport)
    assert responder._counters.bugs == 0
    if len(packet) < 12 or packet[2] & 0x80:
        assert answer is None
        return
    assert answer is not None
    assert len(answer) <= (1232 if transport is Transport.UDP else 65535)
    assert answer[:2] == packet[:2]
    assert answer[2] & 0x80, "QR"
    assert answer[2] & 0x79 == packet[2] & 0x79, "opcode and RD as they came"
    assert not answer[3] & 0xF0, "RA, Z, AD, CD"
    assert answer[3] & 0xF in {0, 1, 3, 4, 5, 6}, "never SERVFAIL: something is served"
    # Another implementation reads what we wrote.
    dns.message.from_wire(answer, one_rr_per_rrset=True)


transports = st.sampled_from(Transport)


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=300), transports)
@example(b"\x00" * 12, Transport.UDP)
def test_random_octets(packet, transport):
    check(packet, transport)


labels = st.lists(st.binary(min_size=1, max_size=63), max_size=6)
options = st.lists(st.tuples(st.sampled_from([0, 3, 8, 10, 12, 65001]), st.binary(max_size=24)), max_size=4)


@settings(max_examples=1500, deadline=None)
@given(
    labels,
    st.sampled_from([b"\x00", b"\x0bshakespeare\x07example\x00", b"\x03www\x0bshakespeare\x07example\x00"]),
    st.integers(0, 65535),
    st.sampled_from([1, 3, 255, 7]),
    st.integers(0, 0x7FF),
    options,
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    transports,
)
def test_well_formed_questions_of_every_kind(parts, tail, rtype, rclass, flags, opts, payload, ttl, transport):
    name = b"".join(bytes((len(part),)) + part for part in parts) + tail
    data = b"".join(struct.pack("!HH", code, len(value)) + value for code, value in opts)
    packet = (
        struct.pack("!HHHHHH", 7, flags, 1, 0, 0, 1)
        + name
        + struct.pack("!HH", rtype, rclass)
        + b"\x00"
        + struct.pack("!HHIH", 41, payload, ttl, len(data))
        + data
    )
    check(packet, transport)


def mutated(rng: random.Random, packet: bytes) -> bytes:
    """A few of the things that go wrong with packets, or are made to."""
    octets = bytearray(packet)
    for _ in range(rng.randint(1, 6)):
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


def test_mutated_queries():
    """20,000 packets that were queries before something happened to them."""
    rng = random.Random(20261121)
    responder = make()
    seeds = []
    for name in NAMES:
        for rtype in ("A", "AAAA", "TXT", "ANY", "SOA", "DS"):
            seeds.append(dns.message.make_query(name, rtype).to_wire())
            subnet = dns.edns.ECSOption("10.1.2.0", 24)
            seeds.append(dns.message.make_query(name, rtype, use_edns=0, options=[subnet]).to_wire())
    for _ in range(20_000):
        check(mutated(rng, rng.choice(seeds)), rng.choice(list(Transport)), responder)
    assert sum(responder._counters.answers.values()) > 10_000
