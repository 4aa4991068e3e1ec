"""Demand reports: what counts, what is refused, how rates are smoothed and fade."""

import itertools
import math
import random
import statistics
from collections.abc import Iterable, Iterator

import pytest

from gslb.balancer.demand import RISING, STEADY, DemandFold, DemandReport, DemandRow, smooth, trend_after
from gslb.model import limits
from gslb.model.resources import DemandSource

RPC = {"backend": DemandSource.RPC}


def report(seq: int = 1, attempts: int = 200, **fields: object) -> DemandReport:
    values: dict[str, object] = {
        "reporter": "client-1",
        "boot_id": "b1",
        "seq": seq,
        "period_s": 2.0,
        "source": DemandSource.RPC,
        "rows": (DemandRow("backend", "europe", attempts),),
    }
    return DemandReport(**{**values, **fields})  # type: ignore[arg-type]


def europe(fold: DemandFold, now_s: float) -> float:
    return fold.demand(RPC, now_s=now_s).get("backend", {}).get("europe", 0.0)


def test_attempts_over_the_period_are_a_rate_and_reporters_add_up() -> None:
    fold = DemandFold()
    assert fold.accept(report(), now_s=0) == ""
    assert fold.accept(report(reporter="client-2", attempts=100), now_s=0) == ""
    assert europe(fold, 0) == pytest.approx(150)


def test_rows_of_different_callers_and_criticalities_add_up() -> None:
    fold = DemandFold()
    rows = (DemandRow("backend", "europe", 20, caller="a"), DemandRow("backend", "europe", 40, caller="b"))
    fold.accept(report(rows=rows), now_s=0)
    assert europe(fold, 0) == pytest.approx(30)


def test_a_report_is_counted_once_and_replays_are_refused() -> None:
    fold = DemandFold()
    fold.accept(report(5), now_s=0)
    assert "replay: seq 5" in fold.accept(report(5, attempts=9000), now_s=1)
    assert "replay: seq 4" in fold.accept(report(4, attempts=9000), now_s=1)
    assert europe(fold, 1) == pytest.approx(100)
    assert fold.accept(report(6), now_s=2) == ""


def test_a_restarted_reporter_begins_anew_and_its_old_life_stays_over() -> None:
    fold = DemandFold()
    fold.accept(report(500), now_s=0)
    assert fold.accept(report(1, boot_id="b2", attempts=20), now_s=1) == ""
    assert "boot b1 of client-1 is over" in fold.accept(report(501), now_s=2)
    assert europe(fold, 2) == pytest.approx(10)


def test_only_the_service_s_own_source_counts() -> None:
    fold = DemandFold()
    fold.accept(report(), now_s=0)
    fold.accept(report(reporter="gfe", source=DemandSource.EDGE, attempts=600), now_s=0)
    assert europe(fold, 0) == pytest.approx(100)
    assert fold.demand({"backend": DemandSource.DNS}, now_s=0)["backend"]["europe"] == pytest.approx(100)
    assert fold.demand({"backend": DemandSource.DNS}, now_s=4)["backend"]["europe"] < 70
    assert fold.demand({"backend": DemandSource.EDGE}, now_s=5)["backend"]["europe"] > 150


def test_one_process_may_report_two_sources_in_turn() -> None:
    fold = DemandFold()
    fold.accept(report(1), now_s=0)
    fold.accept(report(2, source=DemandSource.EDGE, rows=(DemandRow("gfe", "europe", 40),)), now_s=0)
    both = fold.demand({"backend": DemandSource.RPC, "gfe": DemandSource.EDGE}, now_s=0)
    assert both["backend"]["europe"] == pytest.approx(100)
    assert both["gfe"]["europe"] == pytest.approx(20)


def test_services_that_are_not_there_are_left_out() -> None:
    fold = DemandFold()
    fold.accept(report(rows=(DemandRow("ghost", "europe", 10),)), now_s=0)
    assert fold.demand(RPC, now_s=0) == {}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"period_s": 0.0}, "period_s is 0.0"),
        ({"period_s": math.nan}, "period_s is nan"),
        ({"period_s": math.inf}, "period_s is inf"),
        ({"period_s": -2.0}, "period_s is -2.0"),
        ({"rows": (DemandRow("backend", "europe", -1),)}, "attempts of service backend is -1"),
        ({"rows": (DemandRow("backend", "europe", 10**30),)}, "no count"),
        ({"rows": (DemandRow("backend", "europe", 1),) * (limits.DEMAND_ROWS_MAX + 1)}, "at most"),
    ],
)
def test_nonsense_is_refused_by_value_and_changes_nothing(fields: dict[str, object], named: str) -> None:
    fold = DemandFold()
    fold.accept(report(), now_s=0)
    assert named in fold.accept(report(2, **fields), now_s=1)
    assert europe(fold, 1) == pytest.approx(100)
    assert fold.accept(report(2), now_s=2) == ""


def test_a_very_short_period_is_no_burst() -> None:
    fold = DemandFold()
    fold.accept(report(attempts=1, period_s=1e-6), now_s=0)
    assert europe(fold, 0) <= 2


def test_a_silent_reporter_fades_by_half_each_half_life_and_is_forgotten() -> None:
    fold = DemandFold()
    fold.accept(report(), now_s=0)
    silent_s = 3 * 2.0
    seen = [europe(fold, silent_s + step * limits.DEMAND_HALF_LIFE_S) for step in range(4)]
    assert seen[0] == pytest.approx(100)
    for before, after in itertools.pairwise(seen):
        assert after == pytest.approx(before / 2, rel=0.05)
    assert europe(fold, 2000) < 0.2
    assert fold.reporters == 0
    assert europe(fold, 4000) == 0


def test_a_sudden_rise_is_believed_within_two_plans() -> None:
    fold = DemandFold()
    fold.accept(report(1, attempts=120), now_s=0)
    assert europe(fold, 0) == pytest.approx(60)
    for seq in range(2, 8):
        fold.accept(report(seq, attempts=280), now_s=2.0 * (seq - 1))
    assert europe(fold, 5) > 120
    assert europe(fold, 10) > 135


def test_noise_and_falls_are_smoothed() -> None:
    assert smooth(100.0, 110.0, 2.0, STEADY.gain) == pytest.approx(102)
    assert smooth(100.0, 0.0, 2.0, STEADY.gain) == pytest.approx(80)
    assert smooth(100.0, 200.0, 2.0, RISING.gain) == pytest.approx(160)
    assert smooth(None, 7.0, 0.0, STEADY.gain) == 7.0
    assert smooth(100.0, 200.0, 0.0, RISING.gain) == 100.0


@pytest.mark.parametrize(
    ("old", "new", "was_rising", "rises"),
    [
        (100.0, 110.0, False, False),  # noise
        (100.0, 128.0, False, False),  # within four deviations (28) of a 2 s count
        (100.0, 129.0, False, True),
        (100.0, 109.0, True, True),  # what is left of a rise
        (100.0, 104.0, True, False),  # within 0.7 of a deviation: arrived
        (100.0, 50.0, True, False),
        (0.0, 1.0, False, True),
    ],
)
def test_a_rise_is_told_from_noise_and_followed_to_its_end(
    old: float, new: float, was_rising: bool, rises: bool
) -> None:
    assert trend_after(RISING if was_rising else STEADY, old, new, 2.0).rises is rises


def _reported(rates_rps: Iterable[float]) -> Iterator[float]:
    """The smoothed rate after each report."""
    fold = DemandFold()
    for seq, rps in enumerate(rates_rps, start=1):
        assert fold.accept(report(seq, attempts=round(2 * rps)), now_s=2.0 * seq) == ""
        yield europe(fold, 2.0 * seq)


def test_a_rise_that_no_single_report_shows_is_seen_when_it_lasts() -> None:
    """From 9 to 15 rps: no count of 2 s is four deviations (8.5 rps) above, but all are above."""
    seen = list(_reported([9.0] * 30 + [15.0] * 10))
    assert seen[29] == pytest.approx(9)
    assert next(n for n, rps in enumerate(seen[30:]) if rps > 0.95 * 15) <= 6
    # Slowly it takes ten: with each 0.8 of what is left.
    assert 6 * 0.8**9 > 0.05 * 15


def test_after_a_rise_smoothing_returns_little_by_little() -> None:
    trend, gains = RISING, []
    for _ in range(6):
        trend = trend_after(trend, 100.0, 100.0, 2.0)
        gains.append(trend.gain)
    assert gains == pytest.approx([0.4, 0.8 / 3, 0.2, 0.2, 0.2, 0.2])
    assert trend is STEADY


@pytest.mark.parametrize("rps", [5.0, 15.0, 200.0])
def test_noise_seldom_looks_like_a_rise_and_hardly_moves_the_mean(rps: float) -> None:
    rng = random.Random(7)
    counts = [sum(rng.random() < 0.01 for _ in range(round(200 * rps))) / 2 for _ in range(1000)]
    seen = list(_reported(counts))[20:]
    assert statistics.fmean(seen) == pytest.approx(statistics.fmean(counts[20:]), rel=0.01)
    # The deviation of a mean with these weights: sqrt(a / (2 - a)) of a single count's.
    assert statistics.pstdev(seen) < 1.15 * math.sqrt(0.2 / 1.8 * rps / 2)


def test_a_rise_by_a_factor_of_two_is_followed_within_four_periods() -> None:
    fold = DemandFold()
    source = {"web": DemandSource.RPC}
    for seq in range(1, 20):
        rps = 30 if seq <= 10 else 65
        rows = (DemandRow("web", "eu", attempts=2 * rps),)
        assert fold.accept(DemandReport("a", "b", seq, 2.0, DemandSource.RPC, rows), now_s=2.0 * seq) == ""
        demand = fold.demand(source, now_s=2.0 * seq)["web"]["eu"]
        if seq == 10:
            assert demand == pytest.approx(30)
        if seq == 14:
            assert demand > 0.93 * 65
    assert 0.98 * 65 < demand <= 65


def test_asking_twice_at_once_changes_nothing_and_gives_the_same_objects() -> None:
    fold = DemandFold()
    fold.accept(report(), now_s=0)
    first = fold.demand(RPC, now_s=1)
    second = fold.demand(RPC, now_s=1)
    assert second["backend"] is first["backend"]


def test_a_clock_that_jumps_back_does_no_harm() -> None:
    fold = DemandFold()
    fold.accept(report(), now_s=1000)
    assert europe(fold, 1000) == pytest.approx(100)
    assert europe(fold, 10) == pytest.approx(100)
    fold.accept(report(2, attempts=0), now_s=10)
    assert europe(fold, 12) < 100


def test_memory_is_bounded_in_reporters_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gslb.balancer.demand.REPORTERS_MAX", 2)
    monkeypatch.setattr("gslb.balancer.demand.ROWS_TOTAL_MAX", 3)
    fold = DemandFold()
    assert fold.accept(report(reporter="a"), now_s=0) == ""
    assert fold.accept(report(reporter="b"), now_s=0) == ""
    assert "more than 2 reporters" in fold.accept(report(reporter="c"), now_s=0)
    many = tuple(DemandRow("backend", f"area{i}", 1) for i in range(3))
    assert "more than 3 rows" in fold.accept(report(2, reporter="a", rows=many), now_s=0)
    for seq in range(2, 20):
        assert fold.accept(report(seq, reporter="a"), now_s=seq) == ""


def test_those_who_are_known_go_on_reporting_when_no_room_is_left_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gslb.balancer.demand.ROWS_TOTAL_MAX", 3)
    fold = DemandFold()
    rows = tuple(DemandRow("backend", f"area{i}", 1) for i in range(3))
    assert fold.accept(report(reporter="a", rows=rows), now_s=0) == ""
    assert "more than 3 rows" in fold.accept(report(reporter="b"), now_s=0)
    assert fold.accept(report(2, reporter="a", rows=rows), now_s=2) == "", "it takes the place of its last report"
    assert fold.accept(report(1, reporter="a", boot_id="b2", rows=rows), now_s=4) == "", "or of the boot before"
