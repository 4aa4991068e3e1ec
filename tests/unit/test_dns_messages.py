"""Packets octet by octet: headers, EDNS, client subnet, and what is wrong with them."""

import struct

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from dns_frontend.metrics import Transport
from tests.support.dns import (
    ANYBODY,
    addresses_in,
    ask,
    endpoints,
    plan,
    responder_for,
    service,
    source,
    subnet_of,
    view_of,
)

WWW = "www.shakespeare.example"
WWW_WIRE = b"\x03www\x0bshakespeare\x07example\x00"
QUESTION = WWW_WIRE + b"\x00\x01\x00\x01"


@pytest.fixture(scope="module")
def responder():
    return responder_for(view_of())


def header(ident=0x1234, flags=0x0100, counts=(1, 0, 0, 0)) -> bytes:
    return struct.pack("!HHHHHH", ident, flags, *counts)


def opt(options=b"", *, payload=1232, ttl=0, name=b"\x00") -> bytes:
    return name + struct.pack("!HHIH", 41, payload, ttl, len(options)) + options


def ecs(family=1, source_bits=24, scope=0, address=b"\x0a\x01\x02") -> bytes:
    data = struct.pack("!HBB", family, source_bits, scope) + address
    return struct.pack("!HH", 8, len(data)) + data


def send(responder, packet, transport=Transport.UDP):
    return responder.respond(packet, ANYBODY, transport)


def rcode_of(answer: bytes) -> str:
    return dns.rcode.to_text(answer[3] & 0xF)


@pytest.mark.parametrize("size", range(12))
def test_less_than_a_header_is_not_answered(responder, size):
    assert send(responder, b"\x00" * size) is None


def test_answers_are_not_answered(responder):
    assert send(responder, header(flags=0x8100) + QUESTION) is None
    assert send(responder, header(flags=0xFFFF) + QUESTION) is None


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_opcodes_are_not_implemented(responder, opcode):
    answer = send(responder, header(flags=opcode << 11 | 0x0100) + QUESTION)
    assert len(answer) == 12
    assert answer[:2] == b"\x12\x34"
    assert rcode_of(answer) == "NOTIMP"
    assert (answer[2] >> 3) & 0xF == opcode
    assert answer[2] & 0x81 == 0x81, "QR, and RD as it came"


@pytest.mark.parametrize("count", [0, 2, 65535])
def test_one_question_is_answered_at_a_time(responder, count):
    answer = send(responder, header(counts=(count, 0, 0, 0)) + QUESTION * min(count, 2))
    assert rcode_of(answer) == "FORMERR"
    assert len(answer) == 12


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\x03ww",
        WWW_WIRE[:-1],
        WWW_WIRE,
        WWW_WIRE + b"\x00\x01\x00",
        b"\xc0\x0c\x00\x01\x00\x01",  # a pointer to itself
        b"\x03www\xc0\x0c\x00\x01\x00\x01",
        b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01",  # a label of 64
        b"\x80\x00\x00\x01\x00\x01",
        (b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01",  # 257 octets
        b"\x01a" * 128 + b"\x00\x00\x01\x00\x01",
    ],
)
def test_a_malformed_question(responder, question):
    assert rcode_of(send(responder, header() + question)) == "FORMERR"


def test_any_octets_are_a_name(responder):
    for label in (b"\xff\xfe\x00", b"a.b", b" \x7f", bytes(range(63))):
        question = bytes((len(label),)) + label + WWW_WIRE[4:] + b"\x00\x01\x00\x01"
        answer = send(responder, header() + question)
        assert rcode_of(answer) == "NXDOMAIN"
        assert question in answer


def test_the_longest_name_is_answered(responder):
    name = b"\x01a" * 117 + WWW_WIRE[4:]
    assert len(name) == 255
    assert rcode_of(send(responder, header() + name + b"\x00\x01\x00\x01")) == "NXDOMAIN"


def test_reserved_flags_are_ignored(responder):
    answer = send(responder, header(flags=0x07F0) + QUESTION)
    assert rcode_of(answer) == "NOERROR"
    assert answer[2] & 0x7A == 0, "opcode 0, no TC"
    assert answer[3] & 0xF0 == 0, "RA, Z, AD and CD are ours, and zero"


def test_opt_comes_only_if_asked(responder):
    assert ask(responder, WWW).edns == -1
    message = ask(responder, WWW, edns=True)
    assert (message.edns, message.payload, list(message.options)) == (0, 1232, [])
    assert ask(responder, "nope." + WWW, edns=True).edns == 0
    assert ask(responder, "elsewhere.test", edns=True).edns == 0


def test_do_is_copied_and_other_flags_are_not(responder):
    answer = dns.message.from_wire(send(responder, header(counts=(1, 0, 0, 1)) + QUESTION + opt(ttl=0xFFFF)))
    assert answer.ednsflags == 0x8000


def test_an_unknown_version_is_badvers(responder):
    packet = header(counts=(1, 0, 0, 1)) + QUESTION + opt(b"\x00\x08\xff", ttl=1 << 16)
    answer = dns.message.from_wire(send(responder, packet))
    assert answer.rcode() == dns.rcode.BADVERS
    assert answer.edns == 0
    assert not answer.answer
    assert not answer.options


def test_unknown_options_are_ignored(responder):
    packet = header(counts=(1, 0, 0, 1)) + QUESTION + opt(struct.pack("!HH", 65001, 3) + b"abc" + ecs())
    answer = dns.message.from_wire(send(responder, packet))
    assert answer.rcode() == dns.rcode.NOERROR
    assert [option.otype for option in answer.options] == [8]


@pytest.mark.parametrize(
    "option",
    [
        b"\x00\x08\x00",  # half an option
        b"\x00\x08\x00\x09abc",  # longer than the record
        struct.pack("!HH", 8, 3) + b"\x00\x01\x18",  # no room for a scope
        ecs(family=3),
        ecs(family=0),
        ecs(source_bits=33, address=b"\x0a\x01\x02\x03\x04"),
        ecs(family=2, source_bits=129, address=b"\x00" * 17),
        ecs(address=b"\x0a\x01"),  # too few octets
        ecs(address=b"\x0a\x01\x02\x00"),  # too many
        ecs(source_bits=23, address=b"\x0a\x01\x03"),  # a bit beyond the prefix
        ecs(source_bits=0, address=b"\x00"),
        ecs(scope=24),
        ecs() + ecs(),
        struct.pack("!HH", 65001, 0) * 33,
    ],
)
def test_bad_options_are_formerr_with_opt(responder, option):
    """RFC 6891 section 6.1.1: whoever asks with OPT is answered with OPT."""
    answer = dns.message.from_wire(send(responder, header(counts=(1, 0, 0, 1)) + QUESTION + opt(option)))
    assert answer.rcode() == dns.rcode.FORMERR
    assert answer.edns == 0
    assert not answer.options
    assert not answer.answer


@pytest.mark.parametrize(
    ("counts", "records"),
    [
        ((1, 0, 0, 2), opt() + opt()),
        ((1, 0, 0, 1), opt(name=b"\x01a\x00")),
        ((1, 1, 0, 0), opt()),
        ((1, 0, 0, 1), b""),
        ((1, 0, 0, 1), opt()[:-1]),
        ((1, 0, 0, 1), opt(b"1234")[:-1]),
        ((1, 0, 0, 1), b"\x40a"),
        ((1, 0, 0, 65535), opt() * 9),
        ((1, 65535, 65535, 65535), b""),
    ],
)
def test_malformed_records_are_formerr(responder, counts, records):
    assert rcode_of(send(responder, header(counts=counts) + QUESTION + records)) == "FORMERR"


def test_other_records_are_skipped(responder):
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\x7f\x00\x00\x01"
    packet = header(counts=(1, 1, 0, 2)) + QUESTION + record + record + opt(ecs())
    answer = dns.message.from_wire(send(responder, packet))
    assert answer.rcode() == dns.rcode.NOERROR
    assert subnet_of(answer) is not None


@pytest.mark.parametrize(
    ("family", "bits", "address"),
    [(1, 24, b"\x0a\x01\x02"), (1, 32, b"\x0a\x01\x02\x03"), (1, 9, b"\x0a\x80"), (2, 48, b"\x20\x01\x0d\xb8\x00\x01")],
)
def test_client_subnet_comes_back_exactly(responder, family, bits, address):
    packet = header(counts=(1, 0, 0, 1)) + QUESTION + opt(ecs(family, bits, 0, address))
    answer = send(responder, packet)
    scope = subnet_of(dns.message.from_wire(answer)).scopelen
    assert ecs(family, bits, scope, address) in answer
    assert scope > 0


@pytest.mark.parametrize("option", [ecs(source_bits=0, address=b""), ecs(family=0, source_bits=0, address=b"")])
def test_a_client_that_wants_to_be_unknown(responder, option):
    """Source 0: the resolver's own address decides, and the answer says nothing of where it holds."""
    packet = header(counts=(1, 0, 0, 1)) + QUESTION + opt(option)
    answer = responder.respond(packet, source("11.0.0.1"), Transport.UDP)
    assert option in answer, "as it came, scope 0"
    assert addresses_in(dns.message.from_wire(answer[: -len(opt(option))] + opt())) == {"127.2.0.1", "127.2.0.2"}


@pytest.mark.parametrize(
    ("subnet", "scope"),
    [
        ("10.1.2.0/24", 9),  # 10.128/9 has another area in it
        ("10.199.0.0/16", 13),
        ("10.200.9.0/24", 16),
        ("11.1.2.3/32", 8),
        ("99.0.0.0/8", 24),  # outside all areas, over all datacenters by their /24
        ("2001:db8:1:200::/56", 48),
        ("10.0.0.0/8", 9),  # the map is finer than what was told
    ],
)
def test_the_scope_is_what_the_answer_depends_on(responder, subnet, scope):
    assert subnet_of(ask(responder, WWW, subnet=subnet)).scopelen == scope


def test_the_scope_of_split_shares_is_the_prefix_that_chooses():
    split = responder_for(
        view_of(planned=plan({"na": {"us-east1": 0.5, "asia-east1": 0.5}, "eu": {"asia-east1": 1.0}}))
    )
    assert subnet_of(ask(split, WWW, subnet="10.1.2.3/32")).scopelen == 24
    assert subnet_of(ask(split, WWW, subnet="2001:db8:1::/56")).scopelen == 56
    assert subnet_of(ask(split, WWW, subnet="11.1.2.3/32")).scopelen == 8


@pytest.mark.parametrize(
    ("name", "rtype"),
    [
        ("ns1.shakespeare.example", "A"),
        (WWW, "AAAA"),
        (WWW, "TXT"),
        ("nope.shakespeare.example", "A"),
        ("x.sub.shakespeare.example", "A"),
        ("elsewhere.test", "A"),
    ],
)
def test_the_scope_is_zero_without_geography(responder, name, rtype):
    assert subnet_of(ask(responder, name, rtype, subnet="10.1.2.0/24")).scopelen == 0


def test_the_scope_is_zero_when_everybody_gets_the_same():
    one = responder_for(view_of(members=endpoints({"us-east1": 2})))
    assert subnet_of(ask(one, WWW, subnet="11.1.2.0/24")).scopelen == 0
    # Of more addresses than an answer has, each network gets some: then its prefix decides, and nothing else.
    many = responder_for(view_of(members=endpoints({"us-east1": 9})))
    assert subnet_of(ask(many, WWW, subnet="11.1.2.0/24")).scopelen == 24


def test_an_error_of_ours_is_servfail_and_counted(caplog):
    broken = responder_for(view_of(service(WWW)))
    object.__setattr__(broken.serving, "table", None)
    for _ in range(3):
        assert rcode_of(send(broken, header() + QUESTION)) == "SERVFAIL"
    assert broken._counters.bugs == 3
    assert sum("cannot answer" in record.message for record in caplog.records) == 1
