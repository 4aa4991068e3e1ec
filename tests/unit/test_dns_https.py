"""HTTPS records made from plans, for services that say what they speak (RFC 9460). dnspython reads what we write."""

import ipaddress
from dataclasses import replace

import dns.flags
import dns.message
import pytest
from dns.rdtypes.svcbbase import ParamKey

from bns.model import HealthStatus
from dns_frontend.explain import explain
from dns_frontend.metrics import Transport
from dns_frontend.responder.edns import extended_error
from dns_frontend.responder.guard import PANIC_TEXT, Clock, Guard, Hardening
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
WWW = f"www.{ORIGIN}"
BOTH = {
    **endpoints({"us-east1": 3, "europe-west1": 2}),
    **endpoints({"us-east1": 2, "asia-east1": 1}, ipv6=True),
}


def world(members=BOTH, *, alpn=("h3", "h2"), addresses=2, shares=None, zone=ZONE_TEXT):
    served = service(WWW, alpn=alpn, addresses=addresses)
    planned = plan(shares) if shares else plan()
    return responder_for(view_of(served, planned, members), known=catalog({ORIGIN: zone}))


def ported(*ports):
    members = endpoints({"us-east1": len(ports)})
    return {name: replace(one, port=port) for (name, one), port in zip(members.items(), ports, strict=True)}


def record(message):
    (rrset,) = message.answer
    assert rrset.name.to_text() == f"{WWW}."
    (rdata,) = rrset
    assert (rdata.priority, rdata.target.to_text()) == (1, ".")
    return rdata


def params(message) -> dict[str, object]:
    found = record(message).params
    said: dict[str, object] = {}
    if ParamKey.ALPN in found:
        said["alpn"] = [one.decode() for one in found[ParamKey.ALPN].ids]
    if ParamKey.PORT in found:
        said["port"] = found[ParamKey.PORT].port
    for name, key in (("ipv4", ParamKey.IPV4HINT), ("ipv6", ParamKey.IPV6HINT)):
        if key in found:
            said[name] = [str(ipaddress.ip_address(address)) for address in found[key].addresses]
    assert len(found) == len(said), "nothing else is said"
    return said


def test_the_hints_are_the_addresses_that_the_same_client_gets():
    responder = world()
    for client in ("10.1.2.3", "11.1.2.3", "12.1.2.3", "192.0.2.1", "10.7.7.7"):
        said = params(ask(responder, WWW, "HTTPS", client=client))
        ipv4 = addresses_in(ask(responder, WWW, "A", client=client))
        ipv6 = addresses_in(ask(responder, WWW, "AAAA", client=client))
        assert set(said["ipv4"]) == ipv4
        assert set(said["ipv6"]) == ipv6
        assert said["alpn"] == ["h3", "h2"]
        assert said["port"] == 80


def test_a_family_without_an_address_gives_no_hint():
    assert "ipv6" not in params(ask(world(endpoints({"us-east1": 1})), WWW, "HTTPS"))
    assert "ipv4" not in params(ask(world(endpoints({"us-east1": 1}, ipv6=True)), WWW, "HTTPS"))


@pytest.mark.parametrize(
    ("ports", "said"), [((8443, 8443), 8443), ((443, 443), None), ((443, 8443), None), ((0, 0), None)]
)
def test_a_port_is_said_where_all_have_it_and_nobody_would_guess_it(ports, said):
    assert params(ask(world(ported(*ports)), WWW, "HTTPS")).get("port") == said


def test_without_alpn_there_is_no_record_and_the_zone_s_own_stays():
    message = ask(world(alpn=()), WWW, "HTTPS")
    assert not message.answer
    assert message.authority
    static = ask(world(alpn=(), zone=ZONE_TEXT + "www HTTPS 1 . alpn=h2\n"), WWW, "HTTPS")
    assert params(static) == {"alpn": ["h2"]}


def test_the_zone_s_own_record_is_not_served_where_the_plan_gives_one():
    zone = ZONE_TEXT + 'www HTTPS 1 . alpn=dot\nwww TXT "stays"\naway2 HTTPS 0 www\n'
    responder = world(zone=zone)
    assert params(ask(responder, WWW, "HTTPS"))["alpn"] == ["h3", "h2"]
    assert ask(responder, WWW, "TXT").answer
    assert any("HTTPS at www." in problem for problem in responder.serving.problems)
    # An alias brings no record along that depends on who asks.
    alias = ask(responder, f"away2.{ORIGIN}", "HTTPS", edns=True)
    assert alias.answer
    assert not alias.additional


def test_the_order_turns_with_the_query():
    responder = world(BOTH, addresses=3)
    seen = set()
    for number in range(6):
        query = dns.message.make_query(WWW, "HTTPS", id=number)
        answer = dns.message.from_wire(responder.respond(query.to_wire(), ANYBODY, Transport.UDP))
        said = params(answer)
        seen.add((said["ipv4"][0], said["ipv6"][0]))
    assert {first for first, _ in seen} == {"127.1.0.1", "127.1.0.2", "127.1.0.3"}
    assert {first for _, first in seen} == {"2001:db8:1::1", "2001:db8:1::2"}


def test_the_scope_is_what_either_family_depends_on():
    alone = endpoints({"us-east1": 1})
    many = endpoints({"us-east1": 5}, ipv6=True)

    def scope(members):
        return subnet_of(ask(world(members), WWW, "HTTPS", subnet="10.1.2.0/24")).scopelen

    assert scope(alone) == 0
    assert scope({**alone, **many}) == 24, "of five addresses each network gets its own two"
    assert scope({**alone, **endpoints({"asia-east1": 1})}) == 9, "10/8 less 10.200/16, which is in asia"
    chain = ask(world(), f"alias.{ORIGIN}", "HTTPS", subnet="10.1.2.0/24")
    assert [rrset.rdtype.name for rrset in chain.answer] == ["CNAME"], "the target has a scope of its own"
    assert [rrset.rdtype.name for rrset in ask(world(), f"alias.{ORIGIN}", "HTTPS").answer] == ["CNAME", "HTTPS"]


def test_it_is_no_demand():
    responder = world()
    ask(responder, WWW, "HTTPS")
    assert not responder._counters.demand
    assert not responder._counters.destinations
    ask(responder, WWW, "AAAA")
    assert responder._counters.take_demand() == {("gfe", "na"): 1}


def test_without_any_endpoint_it_is_servfail_and_in_panic_it_says_so():
    assert ask(world({}), WWW, "HTTPS").rcode() == 2
    sick = endpoints({"us-east1": 1}, ipv6=True, health=HealthStatus.UNHEALTHY)
    responder = world({**endpoints({"us-east1": 1}), **sick})
    clock = Clock(lambda: 1.8e9, lambda: 0)
    responder._guard = Guard(responder._counters, Hardening(), clock)
    query = dns.message.make_query(WWW, "HTTPS", use_edns=0)
    answer = responder.respond(query.to_wire(), ANYBODY, Transport.TCP)
    assert extended_error(0, PANIC_TEXT) in answer
    assert params(dns.message.from_wire(answer))["ipv6"] == ["2001:db8:1::1"], "better than nothing"


def test_many_hints_are_whole_or_not_there():
    members = {**endpoints({"us-east1": 40}), **endpoints({"us-east1": 40}, ipv6=True)}
    responder = world(members, addresses=16, alpn=tuple(f"{'x' * 30}{index}" for index in range(8)))
    small = ask(responder, WWW, "HTTPS", transport=Transport.UDP)
    assert small.flags & dns.flags.TC
    assert not small.answer
    said = params(ask(responder, WWW, "HTTPS", transport=Transport.UDP, edns=True))
    assert (len(said["ipv4"]), len(said["ipv6"])) == (16, 16)


def test_explain_shows_the_record_as_a_zone_file_would():
    responder = world(endpoints({"us-east1": 1}), alpn=("h2",))
    found = explain(responder.serving, WWW, "HTTPS", "10.1.2.3")
    assert found.answers == ('HTTPS 1 . alpn="h2" port="80" ipv4hint="127.1.0.1"',)
    assert (found.service, found.chosen, found.locality) == ("gfe", "us-east1", "na")
    assert found.usable == {"us-east1": 1.0}
