"""Whole zones, message by message: who gets them, how large they are, and that nothing is missing."""

import ipaddress

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.xfr
import dns.zone
import pytest

from dns_frontend.limits import TRANSFER_MESSAGE_OCTETS, TRANSFERS_MAX
from dns_frontend.metrics import Counters
from dns_frontend.responder.respond import Responder
from dns_frontend.table.serving import Serving
from dns_frontend.zone.name import from_text
from tests.support.dns import ANYBODY, catalog, service, source, view_of

HEAD = "$TTL 300\n@ SOA ns1 host {} 3600 600 604800 60\n@ NS NS1\nNS1 A 127.0.0.1\n"
ALLOWED = (ipaddress.ip_network("10.1.2.0/24"), ipaddress.ip_network("2001:db8::/32"))


def responder(text: str, *views, allowed=ALLOWED, origins=()) -> Responder:
    made = Responder(Counters(), "", allowed)
    empty = Serving(bns_origins=tuple(from_text(origin) for origin in origins))
    made.serving = empty.advance(catalog({"z.test": text}), {view.name: view for view in views})
    return made


def query(rtype: str = "AXFR", serial: int = 1) -> bytes:
    made = dns.message.make_query("z.test", rtype, use_edns=0)
    if rtype == "IXFR":
        made.authority.append(dns.rrset.from_text("z.test.", 0, "IN", "SOA", f". . {serial} 1 1 1 1"))
    return made.to_wire()


def rcode(answers: list[bytes]) -> str:
    (answer,) = answers
    return dns.rcode.to_text(dns.message.from_wire(answer).rcode())


def test_a_large_zone_comes_in_many_messages_and_whole():
    text = HEAD.format(9) + "".join(f"h{n} TXT {'x' * 200}\n   A 127.0.{n >> 8}.{n & 255}\n" for n in range(900))
    text += "".join(f"wide TXT {str(n) * 50}\n" for n in range(300))
    answers = list(responder(text).stream(query(), ANYBODY))
    assert len(answers) > 10
    assert max(map(len, answers)) < TRANSFER_MESSAGE_OCTETS * 1.5
    zone = dns.zone.Zone("z.test")
    with dns.xfr.Inbound(zone, dns.rdatatype.AXFR) as inbound:
        done = [
            inbound.process_message(dns.message.from_wire(answer, xfr=True, origin=zone.origin)) for answer in answers
        ]
    assert done == [False] * (len(answers) - 1) + [True]
    assert zone == dns.zone.from_text(text, "z.test")
    assert b"\x03NS1" in answers[0], "names are spelled as they are written"


@pytest.mark.parametrize(
    ("serial", "theirs", "whole"),
    [(9, 8, True), (9, 9, False), (9, 10, False), (1, 2**32 - 1, True), (2**32 - 1, 1, False), (9, 9 + 2**31, True)],
)
def test_ixfr_is_the_soa_for_who_has_it(serial, theirs, whole):
    answers = list(responder(HEAD.format(serial)).stream(query("IXFR", theirs), ANYBODY))
    message = dns.message.from_wire(answers[0], one_rr_per_rrset=True)
    assert len(message.answer) == (4 if whole else 1)


@pytest.mark.parametrize(
    ("address", "expected"),
    [("10.1.2.255", 4), ("10.1.3.0", 0), ("2001:db8::9", 4), ("2001:db9::", 0), ("127.0.0.1", 0)],
)
def test_only_for_those_who_may(address, expected):
    answers = list(responder(HEAD.format(1)).stream(query(), source(address)))
    message = dns.message.from_wire(answers[0], one_rr_per_rrset=True)
    assert len(message.answer) == expected
    assert message.rcode() == (dns.rcode.NOERROR if expected else dns.rcode.REFUSED)


def test_not_what_depends_on_who_asks():
    assert rcode(list(responder(HEAD.format(1), view_of(service("www.z.test"))).stream(query(), ANYBODY))) == "REFUSED"
    assert rcode(list(responder(HEAD.format(1), origins=("z.test",)).stream(query(), ANYBODY))) == "REFUSED"
    elsewhere = dns.message.make_query("y.test", "AXFR").to_wire()
    assert rcode(list(responder(HEAD.format(1)).stream(elsewhere, ANYBODY))) == "REFUSED"
    assert rcode(list(responder(HEAD.format(1), allowed=()).stream(query(), ANYBODY))) == "REFUSED"


def test_a_few_at_a_time():
    answers = responder(HEAD.format(1))
    under_way = [answers.stream(query(), ANYBODY) for _ in range(TRANSFERS_MAX)]
    for stream in under_way:
        next(stream)
    assert rcode(list(answers.stream(query(), ANYBODY))) == "REFUSED"
    under_way.pop().close()
    assert rcode(list(answers.stream(query(), ANYBODY))) == "NOERROR"


def test_a_zone_that_changes_meanwhile_is_sent_as_it_was():
    answers = responder(HEAD.format(1) + "".join(f"h{n} TXT {'x' * 250}\n" for n in range(200)))
    stream = answers.stream(query(), ANYBODY)
    first = next(stream)
    answers.serving = responder(HEAD.format(2)).serving
    rest = list(stream)
    serials = [
        record.serial
        for answer in (first, *rest)
        for rrset in dns.message.from_wire(answer, xfr=True, one_rr_per_rrset=True).answer
        if rrset.rdtype == dns.rdatatype.SOA
        for record in rrset
    ]
    assert serials == [1, 1]
