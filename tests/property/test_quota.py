"""What must hold of quotas whatever is asked: no bucket gives more than its share, no shares sum up to more than the quota."""

import math

from hypothesis import given
from hypothesis import strategies as st

from gslb.balancer.quota import QuotaFold
from gslb.model.quota import Quota, Share, Unit, Usage
from gslb.rpc.policy.quota import Account

AMOUNTS = st.floats(0, 1e6)
RATES = st.floats(0, 1e4)


@given(RATES, st.lists(st.tuples(st.floats(0, 2), st.integers(1, 20)), max_size=100))
def test_a_bucket_gives_its_share_and_what_it_holds(rate: float, arrivals: list[tuple[float, int]]) -> None:
    account = Account(Share(Unit.RPS, rate, 1e4, over=True), 0.0)
    now_s, got = 0.0, 0
    for gap_s, count in arrivals:
        now_s += gap_s
        got += sum(account.admit(now_s) is not None for _ in range(count))
        assert got <= rate * now_s + 1e-6 * got + 1e-6
        assert got <= account.requests - account.refused


@given(st.floats(0.01, 10), st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3), st.floats(0.01, 10)), max_size=60))
def test_cpu_that_is_owed_is_paid(first: float, steps: list[tuple[float, float, float]]) -> None:
    """What was used is at most what the shares came to, and what one request took beyond."""
    account = Account(Share(Unit.CPU, first, 100.0, over=True), 0.0)
    now_s, granted, rate = 0.0, 0.0, first
    dearest = 0.0
    for gap_s, takes, share in steps:
        now_s += gap_s
        granted += rate * gap_s
        bill = account.admit(now_s)
        if bill is not None:
            account.charge(bill, takes, now_s)
            account.close(bill, now_s)
            dearest = max(dearest, takes)
        assert account.used <= granted + dearest + 1e-6
        rate = share
        account.grant(Share(Unit.CPU, share, 100.0, over=True), now_s)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, float, float]]:
    servers = st.sampled_from("abcdef")
    return draw(st.lists(st.tuples(servers, AMOUNTS, st.floats(0, 3)), min_size=1, max_size=60))


@given(histories(), st.floats(0.1, 1e5))
def test_shares_that_are_parts_sum_up_to_the_quota(history: list[tuple[str, float, float]], quota: float) -> None:
    fold, quotas = QuotaFold(), {"batch": Quota("batch", rps=quota)}
    now_s, known = 0.0, set()
    for server, asked, gap_s in history:
        now_s += gap_s
        known.add(server)
        usage = Usage("batch", Unit.RPS, asked, min(asked, quota), int(asked))
        fold.report("search", server, [usage], 0.5, quotas, now_s=now_s)
        shares = [fold.shares("search", each, quotas)["batch"] for each in known]
        if any(share.shared for share in shares):
            assert math.fsum(share.rate for share in shares) <= quota * (1 + 1e-6)
        else:
            assert [share.rate for share in shares] == [quota] * len(known)
        assert all(0.0 <= share.rate <= quota for share in shares)


@given(histories())
def test_sums_do_not_drift(history: list[tuple[str, float, float]]) -> None:
    fold, quotas = QuotaFold(), {"batch": Quota("batch", rps=1000.0)}
    for server, asked, _ in history:
        fold.report("search", server, [Usage("batch", Unit.RPS, asked, asked, int(asked))], 0.5, quotas, now_s=1.0)
    (before,) = fold.rows({"search": quotas})
    fold.sweep({"search": quotas}, 1.0)
    (after,) = fold.rows({"search": quotas})
    assert math.isclose(before.asked, after.asked, rel_tol=1e-6, abs_tol=1e-3)
    assert before.servers == after.servers
