"""Lines of `gslb check` that need no running planet."""

import pytest

from gslb.balancer.quota import Row, Standing
from gslb.balancer.sharing import Shared, Use
from gslb.balancer.state import Decision, ServiceDecision, ServiceMemory
from gslb.control.admin.findings import (
    ERROR,
    OK,
    WARNING,
    alarm_findings,
    frontend_findings,
    quota_findings,
    service_findings,
    shared_findings,
)
from gslb.control.ingest.frontends import FRONTENDS_MAX, KEPT_S, Frontends
from gslb.model.quota import Unit
from gslb.v1 import admin_pb2
from tests.support.balancer import service

CPU = Shared("us-east1", "CPU", 16.0, "cores")


@pytest.mark.parametrize(
    ("used", "severity", "words"),
    [(8.0, OK, "8 of 16 cores, 50%"), (15.9, WARNING, "goes elsewhere"), (17.0, ERROR, "it is not enough for all")],
)
def test_what_services_share_is_told_with_its_numbers(
    used: float, severity: admin_pb2.Severity.ValueType, words: str
) -> None:
    (finding,) = shared_findings([Use(CPU, used)])
    assert (finding.severity, finding.subject) == (severity, "CPU of us-east1")
    assert words in finding.message


def test_clients_over_their_quota_are_told_and_quotas_that_nobody_keeps() -> None:
    def row(caller: str, standing: Standing) -> Row:
        return Row("search", caller, Unit.RPS, 100.0, 250.0, 100.0, standing, 3)

    near = [row("web", Standing.WITHIN), row("mail", Standing.NEAR)]
    (kept,) = quota_findings(near, [])
    assert (kept.severity, kept.message) == (OK, "all 2 are kept")
    unkept, over = quota_findings([*near, row("batch", Standing.OVER)], ["ads"])
    assert (unkept.severity, unkept.subject) == (WARNING, "service ads")
    assert (over.severity, over.subject) == (WARNING, "service search")
    assert over.message.startswith("caller 'batch' asks for 250 rps and its quota is 100: what is beyond is refused")
    assert list(quota_findings([], [])) == []


def test_each_dns_frontend_is_told_with_what_answers_there_or_its_silence() -> None:
    frontends = Frontends()
    frontends.note("dns-1", "the Python responder\n", 100.0)
    frontends.note("dns-0", "the data plane (Rust)", 130.0)
    frontends.note("dns-0", "the data plane (Rust), " + 500 * "x", 131.0)
    first, second = frontend_findings(frontends.recent(132.0), 132.0)
    assert (first.severity, first.subject) == (OK, "DNS frontend dns-0")
    assert first.message.startswith("UDP is answered by the data plane (Rust)")
    assert len(first.message) < 300
    assert (second.severity, second.message[:33]) == (WARNING, "it has not reported for 32 s: loo")
    assert list(frontends.recent(131.0 + KEPT_S)) == ["dns-0"]


def test_of_too_many_dns_frontends_the_longest_silent_is_forgotten() -> None:
    frontends = Frontends()
    for i in range(FRONTENDS_MAX + 5):
        frontends.note(f"dns-{i}", "Python", float(i))
        frontends.note("dns-0", "Python", float(i))
    known = frontends.recent(0.0)
    assert len(known) == FRONTENDS_MAX
    assert "dns-0" in known
    assert "dns-1" not in known


def test_a_plan_that_is_held_is_told_once() -> None:
    held = ServiceMemory(service()).holding("2 of 3 tasks vanished", None).decision
    (finding,) = service_findings("web", held, tasks=3, unknown=0)
    assert (finding.severity, finding.message) == (ERROR, "its plan is held: 2 of 3 tasks vanished")
    whole = Decision({"web": held}, alarms=("web: 2 of 3 tasks vanished", "3 of 4 services vanished"))
    assert [finding.message for finding in alarm_findings(whole)] == ["3 of 4 services vanished"]


def test_notes_of_a_plan_that_is_not_held_are_told() -> None:
    decision = ServiceDecision(None, notes=("ramp: 3 rps of 9 are on their way",))
    assert [finding.message for finding in service_findings("web", decision, tasks=3, unknown=0)] == list(
        decision.notes
    )
