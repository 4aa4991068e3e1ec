"""What the demo's checks conclude from what they saw: each rule can fail, and says its numbers."""

from dataclasses import replace

import pytest

from gslb.demo.checks import contingency, cost, expiry, ramped, refusal, rpc_client, sinkhole
from gslb.demo.checks.stolen import worst_part
from gslb.demo.checks.verdict import (
    Level,
    Rule,
    at_least,
    at_most,
    backsteps,
    conclude,
    over_growth,
    over_ramp,
    rate_rps,
    series_rps,
    since,
    steps_between,
    worst_window,
)
from gslb.demo.layout import site_of_address


def levels(*points: tuple[float, float]) -> list[Level]:
    return [Level(at_s, rps) for at_s, rps in points]


def test_a_conclusion_names_what_does_not_hold_or_else_everything() -> None:
    good, bad = Rule(True, "a 1"), Rule(False, "b 2")
    assert conclude(good, bad) == {"ok": False, "why": "b 2"}
    assert conclude(good, good) == {"ok": True, "why": "a 1; a 1"}


def test_bounds_say_both_numbers_and_never_is_not_within() -> None:
    assert at_most("took", 3.0, 5.0, "s") == Rule(True, "took 3 s (at most 5 s)")
    assert at_most("took", None, 5.0, "s") == Rule(False, "took never (at most 5 s)")
    assert not at_least("served", 4.0, 5.0).holds
    assert not at_least("served", None, 5.0).holds


def test_the_worst_window_is_found_wherever_it_is() -> None:
    history = {
        "a": [(100.0 + t, 10 * t + (40 if t >= 6 else 0)) for t in range(12)],
        "b": [(100.5 + t, 5 * t) for t in range(12)],
    }
    worst, at = worst_window(history, {"a": 20.0, "b": 10.0}, 5.0, 100.0)
    assert worst == pytest.approx((10 * 5 + 40) / 5 / 20)
    assert at == "a at +1.0 s"
    assert worst_window({"a": history["a"][:3]}, {"a": 20.0, "b": 10.0}, 5.0, 100.0) == (0.0, "")
    assert series_rps(history, 5.0) == {"a": [10.0, 18.0], "b": [5.0, 5.0]}
    assert {name: len(readings) for name, readings in since(history, 110.5).items()} == {"a": 1, "b": 2}
    assert rate_rps(history["b"][:1]) == 0.0


def test_a_window_is_as_long_as_its_readings_are_apart() -> None:
    late = {"a": [(0.0, 0), (5.5, 110), (11.0, 220)]}
    assert worst_window(late, {"a": 20.0}, 5.0, 0.0)[0] == pytest.approx(1.0)


def test_withheld_cpu_is_found_in_the_window_where_it_was() -> None:
    still = [(float(t), 0.1 * t) for t in range(10)]
    stalled = [*still, *((10.0 + t, 0.9 + 1.5 * t) for t in range(5)), *((15.0 + t, 8.4) for t in range(10))]
    assert worst_part(still, cpus=2) == pytest.approx(0.05)
    assert worst_part(stalled, cpus=2) == pytest.approx(0.75)
    assert worst_part(still[:4], cpus=2) == 0.0


def test_steps_the_wrong_way() -> None:
    down = levels((0, 30), (1, 20), (2, 20.5), (3, 10), (4, 0))
    assert backsteps(down, falling=True, tolerance_rps=1.0) == []
    assert backsteps(down, falling=False, tolerance_rps=1.0)
    assert backsteps(levels((0, 30), (1, 10), (2, 15)), falling=True, tolerance_rps=1.0) == ["+2.0 s: 10.0 -> 15.0 rps"]
    # Little by little is the wrong way too.
    creeping = levels((0, 10), (1, 10.8), (2, 11.6), (3, 12.4))
    assert backsteps(creeping, falling=True, tolerance_rps=1.0)


def test_levels_in_between_are_counted_once_each() -> None:
    assert steps_between(levels((0, 30), (1, 20), (2, 20.2), (3, 10), (4, 0)), 1.0, 29.0, apart_rps=1.0) == 2


def test_a_ramp_bounds_load_by_what_was_left_of_capacity() -> None:
    assert over_ramp(levels((0, 35), (3, 60), (13, 30), (23, 0)), 60.0, 20.0, 3.0) == []
    assert over_ramp(levels((13, 31)), 60.0, 20.0, 3.0) == ["+13.0 s: 31.0 rps of 30.0"]
    assert over_ramp(levels((23, 0.5)), 60.0, 20.0, 3.0)


def test_growth_is_bounded_from_the_first_moment_on() -> None:
    assert over_growth(levels((-1, 0), (0, 6), (5, 12)), 1.2, 6.0) == []
    assert over_growth(levels((0, 7)), 1.2, 6.0)
    assert over_growth(levels((5, 12.1)), 1.2, 6.0)


COST = cost.Seen(5.0, 10.0, 39.0, 28.0, 60.0, 30.0, 12.0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"failures": 1}, "failed requests 1"),
        ({"moved_s": None}, "never"),
        ({"moved_s": 31.0}, "31 s (at most 30 s)"),
        ({"load_after_rps": 36.0}, "of the load left 7.692 %"),
        ({"load_after_rps": 31.0}, "103.3 %"),
        ({"cost_after_ms": 6.0}, "factor of 1.2"),
        ({"capacity_after_rps": 50.0}, "83.33 % (at most 80 %)"),
    ],
)
def test_cost(change: dict[str, float | None], says: str) -> None:
    assert cost.verdict(COST)["ok"] is True
    told = cost.verdict(replace(COST, **change))  # type: ignore[arg-type]
    assert told["ok"] is False
    assert says in str(told["why"])


SINKHOLE = sinkhole.Seen(0.5, 0.04, 20, 60.0, 60.0, 0.9, 30.0, 30.2, 0, 5.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"share_during": 0.51}, "its share of attempts 51 % (at most 50 %)"),
        ({"errors": 0}, "errors answered 0"),
        ({"capacity_during_rps": 63.5}, "capacity learned meanwhile 63.5 rps"),
        ({"capacity_during_rps": 70.0, "twins_grew": 1.1}, "capacity learned meanwhile 70 rps (at most 69.3 rps)"),
        ({"placed_during_rps": 31.0}, "load placed there meanwhile 31 rps (at most 30.5 rps)"),
        ({"failures": 3}, "failed requests 3"),
        ({"share_returned_s": None}, "never"),
    ],
)
def test_sinkhole(change: dict[str, float | None], says: str) -> None:
    assert sinkhole.verdict(SINKHOLE)["ok"] is True
    told = sinkhole.verdict(replace(SINKHOLE, **change))  # type: ignore[arg-type]
    assert told["ok"] is False
    assert says in str(told["why"])


SAID = (
    "gslb: draining datacenter europe-west1 is refused; with --override it is done all the same\n"
    "service shakespeare-backend: demand 105.2 rps > 57 rps that remain (120 - 60 drained, 5 % headroom)\n"
)
REFUSED = refusal.Try("europe-west1", 104.0, 57.5, 1, SAID)
REFUSAL = refusal.Seen([refusal.Try("asia-east1", 105.0, 114.0, 0, ""), REFUSED], True, True, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tries": []}, "exit code -"),
        ({"tries": [replace(REFUSED, code=0)]}, "exit code 0 (1 wanted)"),
        ({"tries": [replace(REFUSED, said="no")]}, "message: no"),
        ({"tries": [replace(REFUSED, demand_rps=80.0)]}, "by status 80 > 57.5 rps"),
        ({"tries": [replace(REFUSED, remaining_rps=100.0)]}, "by status 104 > 100 rps"),
        ({"unchanged": False}, "changed by a refused drain"),
        ({"serves_on": False}, "serves no more"),
        ({"failures": 1}, "failed requests 1"),
    ],
)
def test_refusal(change: dict[str, object], says: str) -> None:
    assert refusal.verdict(REFUSAL)["ok"] is True
    told = refusal.verdict(replace(REFUSAL, **change))  # type: ignore[arg-type]
    assert told["ok"] is False
    assert says in str(told["why"])


DOWN = levels((0, 35), (4, 35), (8, 30), (12, 20), (16, 10), (20, 4), (23, 0), (27, 0))
RAMPED = ramped.Seen(DOWN, DOWN, 35.0, 60.0, 0, 22.0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kept": levels((0, 35), (4, 0), (27, 0))}, "steps between all of its load and nothing 0"),
        ({"kept": [*DOWN, Level(28, 5)]}, "steps up: +28.0 s: 0.0 -> 5.0 rps"),
        ({"levels": levels((0, 35), (18, 30), (19, 20), (20, 10), (23, 0))}, "above what the ramp left"),
        ({"kept": DOWN[:-2]}, "planned at the end 4 rps"),
        ({"last_rpc_s": 26.0}, "last RPC after 26 s"),
        ({"code": 1}, "exit code 1"),
        ({"failures": 2}, "failed requests 2"),
    ],
)
def test_ramped(change: dict[str, object], says: str) -> None:
    assert ramped.verdict(RAMPED)["ok"] is True
    told = ramped.verdict(replace(RAMPED, **change))  # type: ignore[arg-type]
    assert told["ok"] is False
    assert says in str(told["why"])


UP = levels((0, 0), (1, 2), (5, 8), (10, 14), (16, 20), (18, 22))
EXPIRY = expiry.Seen(22.0, 60.0, 0.0, UP, UP, 1.5, 18.0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"levels": levels((0, 0), (1, 14), (3, 16), (5, 18), (7, 21), (8, 22))}, "faster than"),
        ({"load_drained_rps": 3.0}, "load while drained 3 rps"),
        ({"gone_s": None}, "no drain listed after never"),
        ({"returned_s": None}, "back after never"),
        ({"levels": levels((0, 0), (1, 22))}, "steps on the way 0"),
        ({"levels": levels((0, 0), (1, 12), (2, 15), (3, 18), (4, 22))}, "faster than 1.38 rps a second"),
        ({"kept": [*UP, Level(20, 15)]}, "steps back: +20.0 s: 22.0 -> 15.0 rps"),
        ({"failures": 1}, "failed requests 1"),
    ],
)
def test_expiry(change: dict[str, object], says: str) -> None:
    assert expiry.verdict(EXPIRY)["ok"] is True
    told = expiry.verdict(replace(EXPIRY, **change))  # type: ignore[arg-type]
    assert told["ok"] is False
    assert says in str(told["why"])


CONTINGENCY = contingency.Seen(
    lost="us-east1", asked=140, rpc_failed_s=0.0, rpc_left=True, browser_failed_s=0.7, dns_s=0.8,
    heirs=["europe-west1"], worst_window=0.9, worst_at="europe-west1 at +2.0 s", demand_rps=120.0, remaining_rps=180.0,
    healthy_s=6.0, first_back_s=4.0, whole_back_s=20.0, rpc_early=0.2, failures_on_return=0, used={"europe-west1": 0.9},
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"asked": 3}, "requests of the RPC client 3"),
        ({"rpc_failed_s": 1.4}, "its last failure 1.4 s (at most 1 s)"),
        ({"rpc_left": False}, "did not leave us-east1"),
        ({"browser_failed_s": 2.0}, "last failure of a browser 2 s"),
        ({"dns_s": None}, "DNS answered otherwise after never"),
        ({"heirs": []}, "nobody: room missing"),
        ({"used": {"europe-west1": 1.1}}, "room missing"),
        ({"worst_window": 1.02}, "102 % (at most 100 %)"),
        ({"remaining_rps": 100.0}, "survivors' capacity 100 rps"),
        ({"healthy_s": None}, "all healthy again after never"),
        ({"whole_back_s": 6.0}, "time that the return took 2 s"),
        ({"whole_back_s": None}, "back after never"),
        ({"rpc_early": 0.9}, "RPC client's part there in 2 s 0.9"),
        ({"rpc_early": None}, "RPC client's part there in 2 s never"),
        ({"failures_on_return": 4}, "failed requests on return 4"),
    ],
)
def test_contingency(change: dict[str, object], says: str) -> None:
    assert contingency.verdict(CONTINGENCY)["ok"] is True
    told = contingency.verdict(replace(CONTINGENCY, **change))  # type: ignore[arg-type]
    assert told["ok"] is False
    assert says in str(told["why"])


def test_the_client_s_lines_are_read_and_a_half_one_is_left() -> None:
    text = "1.5000 us-east1 \n2.0000 - UNAVAILABLE: gone away\n3.0"
    assert rpc_client.answers_of(text) == [
        rpc_client.Answer(1.5, "us-east1", ""),
        rpc_client.Answer(2.0, "-", "UNAVAILABLE: gone away"),
    ]


def test_dns_has_changed_when_no_frontend_leads_there_any_more() -> None:
    before = "9.0 127.2.4.1 127.2.4.1\n10.2 127.1.4.1 127.1.4.1\n10.4 127.1.4.1 127.2.4.1\n"
    lines = before + "10.625 127.2.4.1 127.4.4.1\n10.7 127.2.4."
    assert contingency.dns_changed(lines, "us-east1", 10.0) == (
        0.62,
        [site_of_address("127.2.4.1"), site_of_address("127.4.4.1")],
    )
    # What was answered before the kill is no answer to it, and a line that is not whole none at all.
    assert contingency.dns_changed("9.0 127.2.4.1 127.2.4.1\n10.7 127.2.4.1", "us-east1", 10.0) == (None, [])


def test_a_return_is_whole_when_the_rate_is_there() -> None:
    slow = [(0.5 * i, max(0, round(0.5 * (0.5 * i - 4) ** 2))) for i in range(60) if 0.5 * i >= 0]
    flat = [(at_s, 0 if at_s < 4 else count) for at_s, count in slow]
    first, whole = contingency.returned(flat, 10.0)
    assert first is not None
    assert whole is not None
    assert whole - first > 5
    assert contingency.returned([(0.0, 0), (1.0, 0)], 1.0) == (None, None)


def test_the_early_part_is_counted_from_the_first_answer_on() -> None:
    answers = [rpc_client.Answer(0.1 * i, "us" if i in {10, 20} else "eu", "") for i in range(100)]
    assert contingency.early(answers, "us") == pytest.approx(2 / 21, abs=0.01)
    assert contingency.early(answers, "asia") is None
