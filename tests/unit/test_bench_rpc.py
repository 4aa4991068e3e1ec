"""What the benchmark `rpc` makes of its calls: failures before and after the moment of notice, picks, paired ratios."""

from collections import Counter

import pytest

from bench.rpc.added import Cost, _rows, middle
from bench.rpc.callers import Call
from bench.rpc.failures import Outcome, Sample, outcome_of, scene_rows
from bench.rpc.scenes import scenes

FAULT_S = 100.0
KILLED, FLAPPING = (next(s for s in scenes(4) if s.name.startswith(name)) for name in ("kill -9", "flapping"))


def test_calls_are_told_by_when_they_began():
    calls = [
        Call(99.9, 0.5, "UNAVAILABLE"),  # before the fault: it counts nowhere
        Call(100.0, 0.1),
        Call(100.5, 2.0, "DEADLINE_EXCEEDED"),
        Call(101.0, 0.1, "UNAVAILABLE"),
        Call(101.1, 0.1, "UNAVAILABLE"),
        Call(102.0, 0.1),
    ]
    found = outcome_of(calls, [Sample(99.99, 5, 10)], FAULT_S)
    assert (found.calls, found.late) == (2, Counter({"UNAVAILABLE": 1}))
    assert (found.early_calls, found.early) == (3, 2)


def test_the_last_pick_and_the_part_of_the_picks_after_the_notice():
    samples = [
        Sample(99.9, 5, 20),
        Sample(100.4, 7, 30),
        Sample(101.1, 8, 40),
        Sample(103.0, 9, 50),
        Sample(104, 9, 60),
    ]
    found = outcome_of([], samples, FAULT_S)
    assert found.last_s == pytest.approx(3.0)
    assert found.part == pytest.approx(1 / 20)


def test_nobody_asked_the_faulty_task():
    found = outcome_of([], [Sample(99.9, 5, 20), Sample(104.0, 5, 20)], FAULT_S)
    assert (found.last_s, found.part) == (0.0, 0.0)


def outcome(calls: int, late: dict[str, int], last_s: float = 0.5, part: float = 0.1) -> Outcome:
    return Outcome(calls, Counter(late), 20, 3, last_s, part)


def test_a_scene_s_rows_name_the_statuses_and_miss_their_goal_by_one_call():
    outcomes = [outcome(100, {}), outcome(90, {"INTERNAL": 1, "UNAVAILABLE": 2}, last_s=1.5)]
    failed, last = scene_rows(KILLED, ", hedging", outcomes)
    assert failed.name == "failures: kill -9, hedging: failed, begun after 1 s"
    assert (failed.value, failed.goal, failed.ok) == (3, "<= 0", False)
    assert failed.spread == "of 190, INTERNAL 1, UNAVAILABLE 2; before 6 of 40; n=2"
    assert (last.value, last.spread) == (1.0, "0.5-1.5, n=2")
    assert scene_rows(KILLED, "", outcomes[:1])[0].ok


def test_a_task_that_may_be_asked_has_a_part_and_no_last_pick():
    _, part = scene_rows(FLAPPING, "", [outcome(100, {})])
    assert (part.value, part.unit, part.spread) == (10.0, "%", "10-10, n=1; fair 25")


def test_a_scene_in_which_nobody_called_is_no_success():
    failed, _ = scene_rows(KILLED, "", [outcome(0, {})])
    assert failed.value is None
    assert not failed.ok


def test_what_is_added_is_told_by_pairs():
    pairs = [(Cost(100e-6, 50e-6), Cost(110e-6, 75e-6)), (Cost(200e-6, 50e-6), Cost(204e-6, 75e-6))] * 2
    ratio, added, cpu, _ = _rows("a call", pairs)
    assert ratio.value == pytest.approx(1.06)
    assert (ratio.goal, ratio.ok) == ("<= 1.05", False)
    assert added.value == pytest.approx(7.0)
    assert added.spread.endswith("stock 150")
    assert (cpu.value, cpu.goal) == (pytest.approx(1.5), None)
    assert middle([1.0, 2.0, 3.0, 4.0]) == "1-3 (middle half), n=4"
