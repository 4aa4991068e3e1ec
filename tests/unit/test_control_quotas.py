"""A replica's part in quotas: what it answers to servers, good and bad."""

import math
import re

import pytest

from gslb.control.quotas import QuotaDesk, Told
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.meta import Meta
from gslb.model.quota import Quota
from gslb.model.resources import Backend, Service
from gslb.v1 import quota_pb2

RPS, CPU = quota_pb2.QUOTA_UNIT_RPS, quota_pb2.QUOTA_UNIT_CPU
LATER_S = limits.QUOTA_SETTLE_S + 1.0


def service(*quotas: Quota) -> Service:
    return Service(Meta("search"), (Backend("/bns/us-east1/u/search", 10.0),), quotas=quotas)


def desk_of(*quotas: Quota) -> QuotaDesk:
    desk = QuotaDesk(0.0)
    desk.set_services({"search": service(*quotas)})
    return desk


def report(seq: int, *rows: quota_pb2.UsageRow, **more) -> quota_pb2.UsageReport:
    given = {"reporter": "a", "boot_id": "1", "period_s": 0.5, "service": "search", **more}
    return quota_pb2.UsageReport(seq=seq, rows=rows, **given)


def row(caller: str, amount: float, unit: int = RPS, **more) -> quota_pb2.UsageRow:
    return quota_pb2.UsageRow(caller=caller, unit=unit, **{"asked": amount, "used": amount, "requests": 99, **more})


BATCH, WEB = Quota("batch", rps=100.0), Quota("web", cpu_cores=2.0)


def test_a_new_stream_is_told_all_and_then_what_changes() -> None:
    desk, told = desk_of(BATCH, WEB), Told()
    first = desk.take(report(1, period_s=0.0), told, LATER_S)
    assert (first.settled, first.complete) == (True, True)
    assert [(share.caller, share.unit, share.rate, share.quota) for share in first.shares] == [
        ("batch", RPS, 100.0, 100.0),
        ("web", CPU, 2.0, 2.0),
    ]
    assert first.report_every_s == limits.QUOTA_REPORT_PERIOD_S
    calm = desk.take(report(2, row("batch", 5.0)), told, LATER_S + 0.5)
    assert (calm.complete, list(calm.shares)) == (False, [])
    over = desk.take(report(3, row("batch", 500.0)), told, LATER_S + 1.0)
    assert [(share.caller, share.over) for share in over.shares] == [("batch", True)]
    other = desk.take(report(1, reporter="b", period_s=0.0), Told(), LATER_S + 1.0)
    assert [(share.caller, share.rate < 5.0) for share in other.shares] == [("batch", True), ("web", True)]


def test_a_change_of_quotas_is_told_whole() -> None:
    desk, told = desk_of(BATCH), Told()
    desk.take(report(1), told, LATER_S)
    desk.set_services({"search": service(WEB)})
    answer = desk.take(report(2), told, LATER_S)
    assert (answer.complete, [share.caller for share in answer.shares]) == (True, ["web"])
    desk.set_services({"search": service()})
    answer = desk.take(report(3), told, LATER_S)
    assert (answer.complete, list(answer.shares)) == (True, [])
    assert answer.report_every_s == limits.QUOTA_REPORT_IDLE_S


def test_before_it_has_settled_it_listens_and_gives_no_shares() -> None:
    desk, told = desk_of(BATCH), Told()
    early = desk.take(report(1, row("batch", 500.0)), told, 1.0)
    assert (early.accepted, early.settled, list(early.shares)) == (True, False, [])
    assert next(iter(desk.rows())).asked > 0


def test_a_replica_that_does_not_know_what_is_configured_refuses_nobody() -> None:
    answer = QuotaDesk(0.0).take(report(1), Told(), LATER_S)
    assert (answer.accepted, answer.settled) == (True, False)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (report(1, reporter=""), "reporter is empty"),
        (report(1, boot_id="\n"), "boot_id is"),
        (report(1, period_s=-1.0), "period_s is -1"),
        (report(1, period_s=math.nan), "period_s is nan"),
        (report(1, service="x" * 64), "service is"),
        (report(1, service="other"), "service 'other' is not configured"),
        (report(1, row("batch", math.inf)), "caller 'batch': asked is inf"),
        (report(1, row("batch", 1.0, used=-1.0)), "caller 'batch': used is -1"),
        (report(1, row("batch", 1.0, unit=0)), "unit 0 is not known"),
        (report(1, *[row("batch", 1.0)] * 1001), "rows of usage: 1001 of them"),
    ],
)
def test_bad_reports_are_refused_by_name(bad: quota_pb2.UsageReport, message: str) -> None:
    desk = desk_of(BATCH)
    with pytest.raises(InvalidValueError, match=re.escape(message)):
        desk.take(bad, Told(), LATER_S)
    assert next(iter(desk.rows())).asked == 0


def test_replays_are_refused_and_silent_servers_forgotten() -> None:
    desk = desk_of(BATCH)
    desk.take(report(5), Told(), LATER_S)
    with pytest.raises(InvalidValueError, match="replay: seq 5 of a is not above 5"):
        desk.take(report(5), Told(), LATER_S)
    assert desk.servers == 1
    desk.thaw(100.0)
    desk.tick(LATER_S + 100.0)
    assert desk.servers == 1
    desk.tick(LATER_S + 200.0)
    assert desk.servers == 0


def test_quotas_that_no_server_looks_at_are_named() -> None:
    desk = desk_of(BATCH)
    assert desk.unenforced(LATER_S) == []
    assert desk.unenforced(LATER_S + 60.0) == ["search"]
    desk.take(report(1), Told(), LATER_S + 60.0)
    assert desk.unenforced(LATER_S + 60.0) == []
