"""What goes along with an answer, and what of an answer fits."""

import dns.flags
import dns.rcode
import pytest

from dns_frontend.limits import EXTRAS_MAX
from dns_frontend.metrics import Transport
from tests.support.dns import ZONE_TEXT, ask, catalog, responder_for, service, view_of

ORIGIN = "shakespeare.example"
ZONE = ZONE_TEXT + "".join(
    f"{line}\n"
    for line in (
        "svc HTTPS 1 . alpn=h2",
        "svc A 127.0.0.20",
        "*.wsvc HTTPS 1 . alpn=h2",
        "*.wsvc A 127.0.0.21",
        "hop1 SVCB 0 hop2",
        "hop2 SVCB 0 hop3",
        "hop3 SVCB 1 svc alpn=h2",
        "round1 SVCB 0 round2",
        "round2 SVCB 0 round1",
        "toplan SRV 1 1 80 www",
        "hinted HTTPS 1 www alpn=h2",
        *(f"many SRV {n} 0 80 m{n}\nm{n} A 127.0.1.{n}" for n in range(60)),
    )
)


@pytest.fixture(scope="module")
def responder():
    return responder_for(view_of(service(f"www.{ORIGIN}")), known=catalog({ORIGIN: ZONE}))


def extras(message) -> set[str]:
    return {
        f"{str(rrset.name).removesuffix(f'.{ORIGIN}.')} {rdata}".replace(f".{ORIGIN}.", "")
        for rrset in message.additional
        for rdata in rrset
    }


@pytest.mark.parametrize(
    ("name", "rtype", "expected"),
    [
        ("", "NS", {"ns1 127.0.0.1", "ns2 127.0.0.2", "ns2 ::2"}),
        ("", "MX", {"mail 127.0.0.3"}),
        ("_sip._tcp", "SRV", {"mail 127.0.0.3"}),
        ("svc", "HTTPS", {"svc 127.0.0.20"}),
        ("x.wsvc", "HTTPS", set()),
        ("hop1", "SVCB", {"hop2 0 hop3", 'hop3 1 svc alpn="h2"', "svc 127.0.0.20"}),
        ("round1", "SVCB", {"round2 0 round1", "round1 0 round2"}),
        # An address that depends on the client is not given along: the answer's scope is the question's.
        ("toplan", "SRV", set()),
        ("hinted", "HTTPS", set()),
        ("", "SOA", set()),
        ("", "ANY", set()),
    ],
)
def test_what_comes_along(responder, name, rtype, expected):
    assert extras(ask(responder, f"{name}.{ORIGIN}".lstrip("."), rtype)) == expected


def test_its_number_is_bounded(responder):
    message = ask(responder, f"many.{ORIGIN}", "SRV")
    assert len(message.answer[0]) == 60
    assert len(extras(message)) == EXTRAS_MAX


def test_extras_are_left_out_without_a_word_and_answers_with_one(responder):
    full = ask(responder, ORIGIN, "NS", transport=Transport.UDP)
    assert len(extras(full)) == 3
    cut = ask(responder, f"many.{ORIGIN}", "SRV", transport=Transport.UDP, edns=True)
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    # Records of the answer are all there, so that nobody has to come back for the rest.
    text = ZONE_TEXT + "".join(f"some SRV {n} 0 80 m{n}\nm{n} A 127.0.1.{n}\n" for n in range(10))
    some = ask(responder_for(known=catalog({ORIGIN: text})), f"some.{ORIGIN}", "SRV", transport=Transport.UDP)
    assert not some.flags & dns.flags.TC
    assert len(some.answer[0]) == 10
    assert 0 < len(extras(some)) < 10


def test_a_chain_is_cut_between_sets():
    text = ZONE_TEXT + "tobig CNAME verybig\n" + "".join(f'verybig TXT "{str(n) * 200}"\n' for n in range(9))
    message = ask(
        responder_for(known=catalog({ORIGIN: text})), f"tobig.{ORIGIN}", "TXT", transport=Transport.UDP, edns=True
    )
    assert message.flags & dns.flags.TC
    assert [rrset.rdtype for rrset in message.answer] == [5], "whole sets, as many as fit"


def test_glue_that_does_not_fit_is_told():
    text = ZONE_TEXT + "".join(f"far NS ns{n}.far\nns{n}.far A 127.0.2.{n}\n" for n in range(30))
    responder = responder_for(known=catalog({ORIGIN: text}))
    short = ask(responder, f"x.far.{ORIGIN}", transport=Transport.UDP)
    assert short.flags & dns.flags.TC, "RFC 9471: a referral without its glue is useless"
    whole = ask(responder, f"x.far.{ORIGIN}", transport=Transport.TCP)
    assert len(extras(whole)) == 30


def test_ds_of_a_child_that_its_parent_forgot():
    child = "$TTL 9\n@ SOA a b 1 2 3 4 5\n@ NS a\na A 127.0.0.1\n"
    both = responder_for(known=catalog({ORIGIN: ZONE_TEXT, f"forgotten.{ORIGIN}": child}))
    message = ask(both, f"forgotten.{ORIGIN}", "DS")
    assert message.rcode() == dns.rcode.NOERROR
    assert str(message.authority[0].name) == f"{ORIGIN}."
