"""Questions and answers, section by section, as the RFCs say. dnspython reads what we write."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from bns.model import HealthStatus
from dns_frontend.metrics import Counters, Transport
from dns_frontend.responder.respond import Responder
from tests.support.dns import (
    ANYBODY,
    ZONE_TEXT,
    addresses_in,
    ask,
    catalog,
    endpoints,
    plan,
    responder_for,
    service,
    subnet_of,
    view_of,
)

ORIGIN = "shakespeare.example"


@pytest.fixture(scope="module")
def responder():
    return responder_for(view_of())


def lines(section) -> list[str]:
    return [line for rrset in section for line in rrset.to_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "rtype", "rcode", "answer"),
    [
        ("ns1", "A", "NOERROR", ["ns1 300 IN A 127.0.0.1"]),
        ("ns1", "AAAA", "NOERROR", []),
        ("@", "MX", "NOERROR", ["@ 300 IN MX 10 mail"]),
        ("@", "TXT", "NOERROR", ['@ 300 IN TXT "v=spf1 -all"']),
        ("_sip._tcp", "SRV", "NOERROR", ["_sip._tcp 300 IN SRV 1 2 5060 mail"]),
        ("odd", "TYPE65280", "NOERROR", ["odd 300 IN TYPE65280 \\# 3 010203"]),
        # CNAMEs inside the zone
        ("away", "A", "NOERROR", ["away 300 IN CNAME www.elsewhere.test."]),
        ("alias", "CNAME", "NOERROR", ["alias 300 IN CNAME www"]),
        ("broken", "A", "NXDOMAIN", ["broken 300 IN CNAME nothing.here"]),
        ("loop1", "A", "NOERROR", ["loop1 300 IN CNAME loop2", "loop2 300 IN CNAME loop1"]),
        # DNAME (RFC 6672): itself, below, at a name that is not there
        ("x.d", "A", "NOERROR", ["d 300 IN DNAME data", "x.d 300 IN CNAME x.data", "x.data 300 IN A 127.0.0.4"]),
        ("d", "DNAME", "NOERROR", ["d 300 IN DNAME data"]),
        ("d", "A", "NOERROR", []),
        ("y.d", "A", "NXDOMAIN", ["d 300 IN DNAME data", "y.d 300 IN CNAME y.data"]),
        # wildcards (RFC 4592)
        ("q.wild", "TXT", "NOERROR", ['q.wild 300 IN TXT "wild"']),
        ("p.q.wild", "A", "NOERROR", ["p.q.wild 300 IN A 127.0.0.5"]),
        ("q.wild", "MX", "NOERROR", []),
        ("wild", "A", "NOERROR", []),
        ("*.wild", "A", "NOERROR", ["*.wild 300 IN A 127.0.0.5"]),
        ("b.wild", "A", "NOERROR", []),  # an empty non-terminal blocks the wildcard
        ("c.b.wild", "A", "NXDOMAIN", []),
        # negatives
        ("nope", "A", "NXDOMAIN", []),
        ("a.nope", "MX", "NXDOMAIN", []),
        ("er.ent", "A", "NOERROR", []),
        ("ent", "A", "NOERROR", []),
        ("www", "MX", "NOERROR", []),
        ("www", "AAAA", "NOERROR", []),
        ("under.www", "A", "NXDOMAIN", []),
    ],
)
def test_answers(responder, name, rtype, rcode, answer):
    message = ask(responder, f"{name}.{ORIGIN}".removeprefix("@."), rtype)
    relative = [line.replace(f".{ORIGIN}.", "").replace(f"{ORIGIN}.", "@") for line in lines(message.answer)]
    assert dns.rcode.to_text(message.rcode()) == rcode
    assert sorted(relative) == sorted(answer)
    assert message.flags & dns.flags.AA
    assert not message.flags & (dns.flags.RA | dns.flags.TC | dns.flags.AD)
    follows = bool(answer) and rcode == "NOERROR"
    soa = [] if follows else [f"{ORIGIN}. 60 IN SOA ns1.{ORIGIN}. hostmaster.{ORIGIN}. 2026112101 3600 600 604800 60"]
    assert lines(message.authority) == soa, "every negative has the SOA with TTL = min(its own, MINIMUM), nothing else"


def test_the_case_of_the_question_comes_back(responder):
    message = ask(responder, "WwW.ShakeSpeare.EXAMPLE")
    assert str(message.question[0].name) == "WwW.ShakeSpeare.EXAMPLE."
    assert {str(rrset.name) for rrset in message.answer} == {"WwW.ShakeSpeare.EXAMPLE."}
    negative = ask(responder, "nO.ShakeSpeare.EXAMPLE")
    assert str(negative.authority[0].name) == "ShakeSpeare.EXAMPLE."


def test_outside_our_zones_is_refused(responder):
    for name in ("example", "example.com", "notshakespeare.example", "."):
        message = ask(responder, name)
        assert message.rcode() == dns.rcode.REFUSED
        assert not message.flags & dns.flags.AA
        assert not message.authority


def test_a_delegation_is_a_referral_with_glue(responder):
    for name in ("sub", "x.sub", "a.b.sub", "ns.sub"):
        message = ask(responder, f"{name}.{ORIGIN}")
        assert message.rcode() == dns.rcode.NOERROR
        assert not message.flags & dns.flags.AA
        assert not message.answer
        assert [rrset.rdtype for rrset in message.authority] == [dns.rdatatype.NS]
        glue = set(lines(message.additional))
        assert f"ns.sub.{ORIGIN}. 300 IN A 127.0.0.8" in glue
        assert f"ns2.{ORIGIN}. 300 IN AAAA ::2" in glue


def test_ds_at_a_delegation_is_the_parents(responder):
    message = ask(responder, f"sub.{ORIGIN}", "DS")
    assert message.flags & dns.flags.AA
    assert [rrset.rdtype for rrset in message.answer] == [dns.rdatatype.DS]


def test_any_is_short(responder):
    message = ask(responder, ORIGIN, "ANY")
    assert lines(message.answer) == [f'{ORIGIN}. 3600 IN HINFO "RFC8482" ""']
    assert [rrset.rdtype for rrset in ask(responder, f"alias.{ORIGIN}", "ANY").answer] == [dns.rdatatype.CNAME]
    assert not ask(responder, f"ent.{ORIGIN}", "ANY").answer
    assert ask(responder, f"none.{ORIGIN}", "ANY").rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(("rtype", "rcode"), [("AXFR", "REFUSED"), ("MAILA", "NOTIMP"), ("OPT", "FORMERR")])
def test_questions_that_are_no_questions(responder, rtype, rcode):
    query = dns.message.make_query(ORIGIN, "A")
    wire = bytearray(query.to_wire())
    wire[-4:-2] = int(dns.rdatatype.from_text(rtype)).to_bytes(2, "big")
    answer = dns.message.from_wire(responder.respond(bytes(wire), ANYBODY, Transport.TCP))
    assert dns.rcode.to_text(answer.rcode()) == rcode


def test_other_classes_are_refused(responder):
    query = dns.message.make_query("version.bind", "TXT", rdclass="CH")
    answer = dns.message.from_wire(responder.respond(query.to_wire(), ANYBODY, Transport.UDP))
    assert answer.rcode() == dns.rcode.REFUSED


def test_steered_names_give_the_nearest_datacenter(responder):
    for client, octet in (("10.1.2.3", 1), ("11.1.2.3", 2), ("12.1.2.3", 3), ("10.200.1.1", 3)):
        message = ask(responder, f"www.{ORIGIN}", client=client)
        assert addresses_in(message) == {f"127.{octet}.0.1", f"127.{octet}.0.2"}
        assert message.answer[0].ttl == 30
        assert subnet_of(message) is None
        by_subnet = ask(responder, f"www.{ORIGIN}", client="11.0.0.1", subnet=f"{client}/32")
        assert addresses_in(by_subnet) == addresses_in(message)


def test_a_chain_to_a_steered_name(responder):
    message = ask(responder, f"chain.{ORIGIN}")
    assert [rrset.rdtype for rrset in message.answer] == [5, 5, 1]
    # With a client subnet the chain ends before the steered name: each part is cached with its own scope.
    scoped = ask(responder, f"chain.{ORIGIN}", subnet="10.1.2.0/24")
    assert [rrset.rdtype for rrset in scoped.answer] == [5, 5]
    assert subnet_of(scoped).scopelen == 0


def test_addresses_rotate_with_the_question(responder):
    firsts = {ask(responder, f"www.{ORIGIN}").answer[0][0].address for _ in range(64)}
    assert firsts == {"127.1.0.1", "127.1.0.2"}


def test_ipv6_answers_and_clients():
    members = {**endpoints({"us-east1": 1, "europe-west1": 1}), **endpoints({"europe-west1": 2}, ipv6=True)}
    both = responder_for(view_of(members=members))
    www = f"www.{ORIGIN}"
    assert addresses_in(ask(both, www, "AAAA", client="2001:db8:2::1")) == {"2001:db8:2::1", "2001:db8:2::2"}
    assert addresses_in(ask(both, www, "A", client="2001:db8:1::1")) == {"127.1.0.1"}
    # A datacenter without IPv6 does not make AAAA empty while another has it.
    assert addresses_in(ask(both, www, "AAAA", client="10.0.0.1")) == {"2001:db8:2::1", "2001:db8:2::2"}


@pytest.mark.parametrize(
    ("ill", "expected"),
    [
        ({}, "127.1"),
        ({"us-east1": HealthStatus.UNHEALTHY}, "127.2"),
        ({"us-east1": HealthStatus.DRAINING}, "127.2"),
        ({"us-east1": HealthStatus.TIMEOUT, "europe-west1": HealthStatus.UNKNOWN}, "127.3"),
        # Panic: nothing is healthy, all but the draining are given, where the plan says.
        (dict.fromkeys(("us-east1", "europe-west1", "asia-east1"), HealthStatus.UNHEALTHY), "127.1"),
        (
            {
                "us-east1": HealthStatus.DRAINING,
                "europe-west1": HealthStatus.UNHEALTHY,
                "asia-east1": HealthStatus.DRAINING,
            },
            "127.2",
        ),
        (dict.fromkeys(("us-east1", "europe-west1", "asia-east1"), HealthStatus.DRAINING), "127.1"),
    ],
)
def test_ill_health_moves_clients_and_never_empties_an_answer(ill, expected):
    members = {}
    for datacenter in ("us-east1", "europe-west1", "asia-east1"):
        members |= endpoints({datacenter: 2}, health=ill.get(datacenter, HealthStatus.HEALTHY))
    shares = {"na": {"us-east1": 1.0}, "eu": {"europe-west1": 1.0}, "asia": {"asia-east1": 1.0}}
    found = addresses_in(ask(responder_for(view_of(planned=plan(shares), members=members)), f"www.{ORIGIN}"))
    assert found
    assert {address[:5] for address in found} == {expected}


def test_a_service_without_endpoints_fails_for_now_only():
    empty = responder_for(view_of(members={}))
    message = ask(empty, f"www.{ORIGIN}")
    assert message.rcode() == dns.rcode.SERVFAIL
    assert not message.authority, "nothing that a resolver would cache"
    assert ask(empty, f"ns1.{ORIGIN}").rcode() == dns.rcode.NOERROR


def test_before_anything_is_known_every_answer_is_servfail():
    assert ask(Responder(Counters()), "www.example").rcode() == dns.rcode.SERVFAIL


def test_a_service_outside_all_zones_is_served():
    found = responder_for(view_of(service("www.lonely.example")))
    assert addresses_in(ask(found, "www.lonely.example")) == {"127.1.0.1", "127.1.0.2"}
    negative = ask(found, "www.lonely.example", "AAAA")
    assert negative.rcode() == dns.rcode.NOERROR
    assert negative.authority[0].rdtype == dns.rdatatype.SOA
    assert ask(found, "www.lonely.example", "SOA").answer
    assert ask(found, "x.www.lonely.example").rcode() == dns.rcode.NXDOMAIN
    assert ask(found, "lonely.example").rcode() == dns.rcode.REFUSED


def test_clients_outside_all_areas():
    shares = {"na": {"us-east1": 1.0}, "eu": {"europe-west1": 1.0}}
    everywhere = responder_for(view_of(planned=plan(shares)))
    found = set()
    for index in range(200):
        found |= addresses_in(ask(everywhere, f"www.{ORIGIN}", client=f"99.0.{index}.1"))
    assert {address[:5] for address in found} == {"127.1", "127.2"}, "all localities together"
    near = responder_for(view_of(planned=plan(shares)), default_locality="eu")
    assert addresses_in(ask(near, f"www.{ORIGIN}", client="99.0.0.1")) == {"127.2.0.1", "127.2.0.2"}


def test_a_long_answer_is_truncated_over_udp_and_whole_over_tcp(responder):
    short = ask(responder, f"huge.{ORIGIN}", "TXT", transport=Transport.UDP, edns=True, payload=4096)
    assert short.flags & dns.flags.TC
    assert not short.answer
    assert short.edns == 0
    assert short.payload == 1232
    whole = ask(responder, f"huge.{ORIGIN}", "TXT")
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 7


@pytest.mark.parametrize(("edns", "payload", "truncated"), [(False, 0, True), (True, 512, True), (True, 1232, False)])
def test_the_limit_is_what_the_client_takes(responder, edns, payload, truncated):
    message = ask(responder, f"big.{ORIGIN}", "TXT", transport=Transport.UDP, edns=edns, payload=payload)
    assert bool(message.flags & dns.flags.TC) is truncated


def test_a_payload_below_512_is_512(responder):
    message = ask(responder, f"www.{ORIGIN}", transport=Transport.UDP, edns=True, payload=10)
    assert not message.flags & dns.flags.TC


def test_many_records_use_compression_beyond_the_reach_of_pointers():
    text = ZONE_TEXT + "".join(f"many MX {n} a-rather-long-label-{n // 2}.some.where.else\n" for n in range(700))
    message = ask(responder_for(view_of(), known=catalog({ORIGIN: text})), f"many.{ORIGIN}", "MX")
    assert len(message.answer[0]) == 700
    # Each name twice: one first written beyond 16 kB must not be pointed at.
    assert {str(rdata.exchange) for rdata in message.answer[0]} == {
        f"a-rather-long-label-{n}.some.where.else.{ORIGIN}." for n in range(350)
    }
    wire = message.to_wire(max_size=65535)
    assert len(wire) > 0x4000


def test_what_is_counted(responder):
    fresh = responder_for(view_of())
    counters = fresh._counters
    ask(fresh, f"www.{ORIGIN}", client="11.0.0.1")
    ask(fresh, f"www.{ORIGIN}", client="11.0.0.1", transport=Transport.UDP)
    ask(fresh, f"nope.{ORIGIN}", transport=Transport.UDP)
    assert counters.answers == {(Transport.TCP, 0): 1, (Transport.UDP, 0): 1, (Transport.UDP, 3): 1}
    assert counters.destinations == {("eu", "europe-west1"): 2}
    assert counters.take_demand() == {("gfe", "eu"): 2}
    assert counters.take_demand() == {}
