"""What all clients ask of all servers, and the shares that follow."""

import pytest

from gslb.balancer.quota import HOLD_S, ROOM, QuotaFold, Standing
from gslb.model import limits
from gslb.model.quota import ANYBODY, Quota, Share, Unit, Usage

QUOTAS = {"batch": Quota("batch", rps=100.0), "web": Quota("web", rps=1000.0), "ml": Quota("ml", cpu_cores=2.0)}


def asked(caller: str, amount: float, unit: Unit = Unit.RPS, requests: int = 1000) -> Usage:
    return Usage(caller, unit, amount, amount, requests)


def fold_of(**rps: float) -> QuotaFold:
    """`batch` asks each server so much, in one period of a second."""
    fold = QuotaFold()
    for server, rate in rps.items():
        assert fold.report("search", server, [asked("batch", rate)], 1.0, QUOTAS, now_s=10.0) == ""
    return fold


def rate(fold: QuotaFold, server: str, caller: str = "batch") -> float:
    return fold.shares("search", server, QUOTAS)[caller].rate


class TestShares:
    def test_before_anything_is_known_every_server_may_let_in_the_whole(self) -> None:
        shares = QuotaFold().shares("search", "a", QUOTAS)
        assert shares["batch"] == Share(Unit.RPS, 100.0, 100.0)
        assert shares["ml"] == Share(Unit.CPU, 2.0, 2.0)

    def test_within_its_quota_a_client_is_not_bound_to_places(self) -> None:
        fold = fold_of(a=50.0, b=10.0, c=0.0)
        assert [rate(fold, server) for server in "abc"] == [100.0, 100.0, 100.0]

    def test_over_it_the_quota_is_shared_out_by_what_is_asked(self) -> None:
        fold = fold_of(a=300.0, b=100.0, c=0.0)
        shares = [fold.shares("search", server, QUOTAS)["batch"] for server in "abc"]
        assert [share.over for share in shares] == [True] * 3
        assert sum(share.rate for share in shares) == pytest.approx(100.0)
        room = 100 * ROOM / 3
        assert [share.rate for share in shares] == pytest.approx([75 * (1 - ROOM) + room, 25 * (1 - ROOM) + room, room])

    def test_others_have_nothing_to_do_with_it(self) -> None:
        fold = fold_of(a=300.0, b=100.0)
        assert rate(fold, "a", "web") == 1000.0
        assert rate(fold, "a", "ml") == 2.0

    def test_near_it_the_quota_is_shared_out_too(self) -> None:
        fold = fold_of(a=60.0, b=39.0)
        share = fold.shares("search", "a", QUOTAS)["batch"]
        assert not share.over
        assert share.shared
        assert rate(fold, "a") + rate(fold, "b") == pytest.approx(100.0)

    def test_a_server_newly_asked_has_room_at_once_and_its_part_after_a_report(self) -> None:
        fold = fold_of(a=300.0, b=0.0)
        assert rate(fold, "b") == pytest.approx(100 * ROOM / 2)
        fold.report("search", "a", [], 1.0, QUOTAS, now_s=11.0)
        fold.report("search", "b", [asked("batch", 300.0)], 1.0, QUOTAS, now_s=11.0)
        assert rate(fold, "b") > 50.0
        assert rate(fold, "a") + rate(fold, "b") == pytest.approx(100.0)

    def test_a_server_nobody_has_heard_of_gets_the_room_only(self) -> None:
        assert rate(fold_of(a=300.0), "new") == pytest.approx(100 * ROOM)

    def test_cpu_and_everybody_else_are_quotas_like_others(self) -> None:
        quotas = {ANYBODY: Quota(ANYBODY, cpu_cores=1.0)}
        fold = QuotaFold()
        for server in "ab":
            fold.report("search", server, [asked(ANYBODY, 2.0, Unit.CPU)], 1.0, quotas, now_s=0.0)
        shares = [fold.shares("search", server, quotas)[ANYBODY] for server in "ab"]
        assert [share.rate for share in shares] == pytest.approx([0.5, 0.5])


class TestStanding:
    def test_it_is_left_step_by_step_after_a_calm_time(self) -> None:
        fold, now_s = fold_of(a=300.0), 10.0
        seen = []
        for _ in range(40):
            now_s += 0.5
            fold.report("search", "a", [asked("batch", 10.0)], 0.5, QUOTAS, now_s=now_s)
            seen.append((now_s - 10.0, next(row for row in fold.rows({"search": QUOTAS})).standing))
        left_s = next(at_s for at_s, standing in seen if standing is not Standing.OVER)
        assert HOLD_S <= left_s <= HOLD_S + 3.0
        assert seen[-1][1] is Standing.WITHIN
        assert rate(fold, "a") == 100.0

    def test_chance_makes_nobody_be_over(self) -> None:
        fold = QuotaFold()
        for server in "abcd":
            # 12 requests in half a second where 11 would be the whole of the quota.
            fold.report("search", server, [asked("batch", 14.0, requests=14)], 0.5, QUOTAS, now_s=0.0)
        assert next(iter(fold.rows({"search": QUOTAS}))).standing is Standing.NEAR

    def test_a_quota_that_is_raised_lets_go(self) -> None:
        fold = fold_of(a=300.0)
        raised = {"batch": Quota("batch", rps=500.0)}
        for i in range(30):
            fold.report("search", "a", [asked("batch", 150.0)], 0.5, raised, now_s=11.0 + i)
        assert fold.shares("search", "a", raised)["batch"] == Share(Unit.RPS, 500.0, 500.0)


class TestMemory:
    def test_silent_servers_are_forgotten_with_what_they_said(self) -> None:
        fold = fold_of(a=300.0, b=300.0)
        fold.report("search", "a", [asked("batch", 300.0)], 1.0, QUOTAS, now_s=13.0)
        fold.sweep({"search": QUOTAS}, 13.5)
        assert fold.servers == 1
        assert rate(fold, "a") == pytest.approx(100.0)
        fold.sweep({"search": QUOTAS}, 60.0)
        assert fold.servers == 0
        assert rate(fold, "a") == 100.0

    def test_who_was_not_listened_to_is_not_silent(self) -> None:
        fold = fold_of(a=300.0)
        fold.thaw(100.0)
        fold.sweep({"search": QUOTAS}, 111.0)
        assert fold.servers == 1

    def test_clients_that_went_away_leave_nothing(self) -> None:
        fold = fold_of(a=300.0)
        for i in range(60):
            fold.report("search", "a", [], 0.5, QUOTAS, now_s=11.0 + i / 2)
            fold.sweep({"search": QUOTAS}, 11.0 + i / 2)
        (row,) = [row for row in fold.rows({"search": QUOTAS}) if row.caller == "batch"]
        assert (row.asked, row.used, row.servers, row.standing) == (0.0, 0.0, 0, Standing.WITHIN)

    def test_callers_without_a_quota_are_not_remembered(self) -> None:
        fold = QuotaFold()
        for i in range(1000):
            fold.report("search", "a", [asked(f"c{i}", 1.0)], 1.0, QUOTAS, now_s=float(i))
        assert {row.caller for row in fold.rows({"search": QUOTAS})} == set(QUOTAS)
        assert sum(row.servers for row in fold.rows({"search": QUOTAS})) == 0

    def test_another_unit_is_not_added_up(self) -> None:
        fold = fold_of(a=300.0)
        cpu = {"batch": Quota("batch", cpu_cores=2.0)}
        fold.report("search", "a", [asked("batch", 300.0)], 1.0, cpu, now_s=11.0)
        assert fold.shares("search", "a", cpu)["batch"] == Share(Unit.CPU, 2.0, 2.0)
        fold.report("search", "a", [asked("batch", 4.0, Unit.CPU)], 1.0, cpu, now_s=12.0)
        assert fold.shares("search", "a", cpu)["batch"].over

    def test_too_many_servers_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "QUOTA_SERVERS_MAX", 2)
        fold = fold_of(a=1.0, b=1.0)
        assert fold.greet("search", "c", 10.0) == "2 servers report their usage already"
        assert fold.greet("search", "a", 10.0) == ""

    def test_many_servers_report_less_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fold = fold_of(a=1.0, b=1.0)
        assert fold.every_s(QUOTAS) == limits.QUOTA_REPORT_PERIOD_S
        assert fold.every_s({}) == limits.QUOTA_REPORT_IDLE_S
        monkeypatch.setattr(limits, "QUOTA_REPORTS_MAX_PER_S", 1.0)
        assert fold.every_s(QUOTAS) == 2.0
