"""One client's account at one server: the bucket, deposits for CPU time, shares that change."""

import pytest

from gslb.model.quota import Share, Unit
from gslb.rpc.policy.quota import DEBT_MOST_S, DEPTH_S, DEPTH_WITHIN_S, Account


def rps(rate: float, quota: float = 100.0, *, over: bool = True) -> Share:
    return Share(Unit.RPS, rate, quota, over)


def cpu(rate: float, quota: float = 4.0, *, over: bool = True) -> Share:
    return Share(Unit.CPU, rate, quota, over)


def admitted(account: Account, begin_s: float, asked_rps: int, lasts_s: float = 1.0) -> int:
    """Of requests that come evenly, how many are let in."""
    got = 0
    for i in range(int(asked_rps * lasts_s)):
        now_s = begin_s + i / asked_rps
        bill = account.admit(now_s)
        if bill is not None:
            got += 1
            account.close(bill, now_s)
    return got


class TestRequests:
    def test_it_lets_in_its_share_and_no_more(self) -> None:
        account = Account(rps(20.0), 0.0)
        assert admitted(account, 0.0, 200, 10.0) == pytest.approx(200, abs=1)

    def test_within_the_quota_a_burst_of_a_second_passes(self) -> None:
        account = Account(rps(100.0, over=False), 0.0)
        assert sum(account.admit(0.0) is not None for _ in range(1000)) == int(100 * DEPTH_WITHIN_S)

    def test_who_turns_out_to_be_over_has_saved_nothing(self) -> None:
        account = Account(rps(100.0, over=False), 0.0)
        account.grant(rps(10.0), 5.0)
        assert account.admit(5.0) is None
        assert account.admit(5.11) is not None

    def test_over_it_saves_a_quarter_of_a_second(self) -> None:
        account = Account(rps(40.0), 0.0)
        assert sum(account.admit(60.0) is not None for _ in range(100)) == int(40 * DEPTH_S)

    def test_near_the_quota_little_is_kept_and_more_may_be_saved(self) -> None:
        account = Account(rps(100.0, over=False), 0.0)
        account.grant(rps(20.0, over=False), 5.0)
        assert sum(account.admit(5.0) is not None for _ in range(100)) == int(20 * DEPTH_S)
        assert sum(account.admit(60.0) is not None for _ in range(100)) == int(20 * DEPTH_WITHIN_S)

    def test_a_tiny_share_is_one_request_now_and_then(self) -> None:
        account = Account(rps(0.1), 0.0)
        assert admitted(account, 0.0, 10, 100.0) == pytest.approx(10, abs=1)

    def test_without_a_share_nothing(self) -> None:
        assert admitted(Account(rps(0.0), 0.0), 0.0, 10, 100.0) == 0

    def test_a_clock_that_goes_back_gives_nothing(self) -> None:
        account = Account(rps(10.0), 100.0)
        account.admit(101.0)
        before = account.tokens
        account.admit(50.0)
        assert account.tokens <= before
        assert account.at_s == 101.0

    def test_it_tells_what_was_asked(self) -> None:
        account = Account(rps(10.0), 0.0)
        got = admitted(account, 0.0, 50)
        usage = account.take("web")
        assert (usage.asked, usage.used, usage.requests) == (50.0, got, 50)
        assert account.take("web").requests == 0
        assert (account.requests, account.refused, account.used) == (50, 50 - got, got)


class TestCpu:
    def test_what_requests_take_is_known_afterwards_and_owed(self) -> None:
        account = Account(cpu(0.5), 0.0)
        bill = account.admit(1.0)
        assert bill is not None
        account.charge(bill, 2.0, 3.0)
        account.close(bill, 3.0)
        # 0.125 were there.
        assert account.admit(3.0) is None
        assert account.admit(6.7) is None
        assert account.admit(6.8) is not None

    def test_requests_under_way_have_left_a_deposit(self) -> None:
        account = Account(cpu(1.0), 0.0)
        first = account.admit(10.0)
        assert first is not None
        account.charge(first, 0.1, 10.1)
        account.close(first, 10.1)
        assert account.request_cpu_s == pytest.approx(0.1)
        bills = [account.admit(20.0) for _ in range(100)]
        # What is saved is a quarter of a second: three requests' worth.
        assert sum(bill is not None for bill in bills) == 3

    def test_a_deposit_is_given_back(self) -> None:
        account = Account(cpu(1.0, over=False), 0.0)
        for _ in range(3):
            bill = account.admit(0.0)
            assert bill is not None
            account.charge(bill, 0.01, 0.0)
            account.close(bill, 0.0)
        assert account.tokens == pytest.approx(DEPTH_WITHIN_S - 0.03)
        assert account.used == pytest.approx(0.03)

    def test_refused_requests_are_asked_at_what_one_takes(self) -> None:
        account = Account(cpu(0.1), 0.0)
        bill = account.admit(10.0)
        assert bill is not None
        account.charge(bill, 0.2, 10.0)
        account.close(bill, 10.0)
        for _ in range(5):
            assert account.admit(10.0) is None
        usage = account.take("web")
        assert usage.used == pytest.approx(0.2)
        assert usage.asked == pytest.approx(1.2)

    def test_the_greatest_debt_is_paid_in_five_minutes(self) -> None:
        account = Account(cpu(0.1), 0.0)
        bill = account.admit(10.0)
        assert bill is not None
        account.charge(bill, 86_400.0, 10.0)
        account.close(bill, 10.0)
        assert account.admit(10.0 + DEBT_MOST_S - 1.0) is None
        assert account.admit(10.0 + DEBT_MOST_S + 1.0) is not None

    def test_another_unit_begins_anew(self) -> None:
        account = Account(cpu(0.1), 0.0)
        bill = account.admit(10.0)
        assert bill is not None
        account.charge(bill, 50.0, 10.0)
        account.grant(rps(100.0, over=False), 10.0)
        assert account.admit(10.0) is not None
        assert account.take("web").used == 1.0
