"""Names of tasks in DNS: addresses, ports, weights, and what is not there."""

from dataclasses import replace

import dns.flags
import dns.rcode
import dns.rdatatype
import pytest

from bns.model import HealthStatus
from dns_frontend.explain import explain
from dns_frontend.metrics import Counters
from dns_frontend.responder.respond import Responder
from dns_frontend.table.bns import SRV_RECORDS_MAX
from dns_frontend.table.serving import Serving
from dns_frontend.zone.name import from_text
from gslb.model.meta import Meta
from gslb.model.resources import Service
from gslb.steer.view import ServiceView
from tests.support.dns import (
    DATACENTERS,
    ZONE_TEXT,
    addresses_in,
    ask,
    catalog,
    endpoints,
    plan,
    service,
    subnet_of,
    view_of,
)

ORIGIN = "shakespeare.example"
BNS = f"bns.{ORIGIN}"
JOB = f"gfe.test.us-east1.{BNS}"
SRV = f"_main._tcp.{JOB}"


def serving(*views: ServiceView, known=None, origins=(ORIGIN,)) -> Serving:
    empty = Serving(bns_origins=tuple(from_text(origin) for origin in origins))
    return empty.advance(known or catalog(), {view.name: view for view in views})


def responder(*views: ServiceView, **more) -> Responder:
    made = Responder(Counters())
    made.serving = serving(*views, **more)
    return made


def srv(message) -> dict[str, tuple[int, int, int]]:
    return {
        str(record.target).removesuffix(f".{JOB}."): (record.priority, record.weight, record.port)
        for rrset in message.answer
        for record in rrset
    }


def test_a_task_has_its_address():
    answers = responder(view_of())
    message = ask(answers, f"1.{JOB}")
    assert addresses_in(message) == {"127.1.0.2"}
    assert message.answer[0].ttl == 30
    assert message.flags & dns.flags.AA
    assert addresses_in(ask(answers, f"0.GFE.test.Asia-East1.{BNS}".upper())) == {"127.3.0.1"}
    empty = ask(answers, f"1.{JOB}", "AAAA")
    assert (empty.rcode(), bool(empty.answer), empty.authority[0].rdtype) == (dns.rcode.NOERROR, False, 6)


def test_a_task_with_ipv6():
    members = endpoints({"us-east1": 1}, ipv6=True)
    assert addresses_in(ask(responder(view_of(members=members)), f"0.gfe6.test.us-east1.{BNS}", "AAAA")) == {
        "2001:db8:1::1"
    }


@pytest.mark.parametrize("name", [BNS, f"us-east1.{BNS}", f"test.us-east1.{BNS}", JOB, f"_tcp.{JOB}"])
def test_names_above_tasks_exist_and_are_empty(name):
    message = ask(responder(view_of()), name)
    assert message.rcode() == dns.rcode.NOERROR
    assert not message.answer
    assert message.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(
    "name",
    [
        f"7.{JOB}",
        f"x.0.{JOB}",
        f"0.other.test.us-east1.{BNS}",
        f"_http._tcp.{JOB}",
        f"_main._udp.{JOB}",
        f"x._main._tcp.{JOB}",
        f"_tcp._main.{JOB}",
        f"nowhere.{BNS}",
        f"a.b.c.d.e.f.{BNS}",
    ],
)
def test_other_names_do_not_exist(name):
    message = ask(responder(view_of()), name, "SRV")
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert message.authority[0].rdtype == dns.rdatatype.SOA


def test_a_port_has_every_healthy_task_with_its_address():
    message = ask(responder(view_of()), SRV, "SRV")
    assert srv(message) == {"0": (0, 1000, 80), "1": (0, 1000, 80)}
    assert {str(rrset.name): rrset[0].address for rrset in message.additional} == {
        f"0.{JOB}.": "127.1.0.1",
        f"1.{JOB}.": "127.1.0.2",
    }


def test_weights_are_capacity_and_the_ill_are_left_out():
    members = endpoints({"us-east1": 4})
    tasks = sorted(members)
    members[tasks[1]] = replace(members[tasks[1]], weight=0.5)
    members[tasks[2]] = replace(members[tasks[2]], health=HealthStatus.UNHEALTHY)
    members[tasks[3]] = replace(members[tasks[3]], health=HealthStatus.DRAINING)
    answers = responder(view_of(members=members))
    assert srv(ask(answers, SRV, "SRV")) == {"0": (0, 1000, 80), "1": (0, 500, 80)}
    assert addresses_in(ask(answers, f"2.{JOB}")) == {"127.1.0.3"}, "a task's own name says where it is, however it is"


def test_a_job_that_is_ill_as_a_whole_keeps_its_port():
    ill = endpoints({"us-east1": 2}, health=HealthStatus.UNHEALTHY) | endpoints({"europe-west1": 1})
    assert len(srv(ask(responder(view_of(members=ill)), SRV, "SRV"))) == 2


def test_a_named_port():
    named = replace(service(), port_name="http")
    answers = responder(ServiceView.build("gfe", named, plan(), endpoints({"us-east1": 1})))
    assert srv(ask(answers, f"_http._tcp.{JOB}", "SRV"))
    assert ask(answers, SRV, "SRV").rcode() == dns.rcode.NXDOMAIN


def test_two_services_of_one_job():
    members = endpoints({"us-east1": 1})
    admin = Service(Meta("admin"), service().backends, port_name="admin")
    ported = {task: replace(endpoint, port=9000) for task, endpoint in members.items()}
    answers = responder(view_of(members=members), ServiceView.build("admin", admin, None, ported))
    assert srv(ask(answers, SRV, "SRV")) == {"0": (0, 1000, 80)}
    assert srv(ask(answers, f"_admin._tcp.{JOB}", "SRV")) == {"0": (0, 1000, 9000)}


def test_a_large_job_gives_each_client_some_and_always_the_same():
    answers = responder(view_of(members=endpoints({"us-east1": 200})))
    seen: set[str] = set()
    for client in range(100):
        first = srv(ask(answers, SRV, "SRV", client=f"10.0.{client}.1"))
        assert first == srv(ask(answers, SRV, "SRV", client=f"10.0.{client}.200"))
        assert len(first) == SRV_RECORDS_MAX
        seen |= set(first)
    assert len(seen) > 150
    assert subnet_of(ask(answers, SRV, "SRV", subnet="10.1.2.0/24")).scopelen == 24
    assert subnet_of(ask(answers, f"1.{JOB}", subnet="10.1.2.0/24")).scopelen == 0


def test_only_where_it_is_wanted_and_possible():
    plain = responder(view_of(), origins=())
    assert ask(plain, f"0.{JOB}").rcode() == dns.rcode.NXDOMAIN
    elsewhere = serving(view_of(), origins=("elsewhere.test",))
    assert any("no zone elsewhere.test." in problem for problem in elsewhere.problems)
    for line in ("bns NS ns1", "bns DNAME data"):
        cut = serving(view_of(), known=catalog({ORIGIN: ZONE_TEXT + f"{line}\n"}))
        assert any("delegated or redirected" in problem for problem in cut.problems), cut.problems
    beside = responder(view_of(), known=catalog({ORIGIN: ZONE_TEXT + "bns TXT here\nx.bns A 127.0.0.99\n"}))
    assert ask(beside, BNS, "TXT").answer
    assert addresses_in(ask(beside, f"x.{BNS}")) == {"127.0.0.99"}
    assert addresses_in(ask(beside, f"0.{JOB}")) == {"127.1.0.1"}


def test_the_index_is_kept_while_no_job_comes_or_goes():
    first = serving(view_of())
    more = view_of(members=endpoints(dict.fromkeys(DATACENTERS, 3)))
    second = first.advance(catalog(), {"gfe": more})
    assert second.bns is first.bns
    assert second.services["gfe"] is not first.services["gfe"]
    third = second.advance(catalog(), {})
    assert third.bns.services == {}


def test_an_answer_says_that_it_is_from_bns():
    found = explain(serving(view_of()), f"1.{JOB}", "A", "10.1.2.3")
    assert found.answers == ("127.1.0.2",)
    assert "BNS" in found.reason
    assert "NXDOMAIN" in explain(serving(view_of()), f"9.{JOB}", "A", "10.1.2.3").reason
