"""Rules of choice in the simulator: what each is known for, small enough to run in seconds."""

from dataclasses import replace

import pytest

from bench.rpc import ramp, stale, subsets
from bench.rpc.confidence import half_width, interval
from gslb.rpc.policy.adaptive import Adaptive
from gslb.rpc.policy.choice import RoundRobin
from gslb.rpc.policy.interpret import LoadInterpretation, poured
from gslb.sim.replicas.board import Blind, BoardScene, mean_sojourn
from gslb.sim.replicas.fleet import Fleet, Outcome, Scene
from gslb.sim.replicas.oracles import IdealPowerOfTwo, Omniscient
from gslb.sim.replicas.server import Server

SMALL = Scene(1.27, 1, clients=20, servers=20, warm_s=2.0, measured_s=3.0)


def test_a_run_is_the_same_for_the_same_seed_and_another_for_another():
    first, again = (Fleet(SMALL, lambda _: Adaptive()).run() for _ in range(2))
    other = Fleet(replace(SMALL, seed=2), lambda _: Adaptive()).run()
    assert first.latencies_s == again.latencies_s != other.latencies_s


def test_requests_share_the_cores_and_none_has_more_than_one():
    server = Server(cores=2.0, allotted=2.0)
    for number in range(4):
        server.arrive(number, 1.0, client=number)
    assert server.next_departure_s() == 2.0
    server.advance(1.0)
    server.cores = 8.0
    assert server.next_departure_s() == 1.5
    server.advance(1.5)
    assert [server.depart() for _ in range(4)] == [(0.0, number) for number in range(4)]
    assert server.cpu_s == pytest.approx(4.0)


def test_all_that_was_asked_is_counted_once_and_what_is_not_done_by_the_deadline_is_an_error():
    crushed = replace(SMALL, load=8.0, warm_s=0.5, measured_s=1.0, deadline_s=0.3)
    found = Fleet(crushed, lambda _: RoundRobin()).run()
    easy = Fleet(replace(SMALL, load=0.3), Omniscient).run()
    assert found.error_fraction > 0.5
    assert max(found.latencies_s) == 0.3
    assert (easy.errors, easy.probes) == (0, 0)
    # 20 servers, 4 cores, 30 %, over 3 s, of 86.7 ms of work each.
    assert len(easy.latencies_s) == pytest.approx(0.3 * 4 * 20 * 3 / 0.08667, rel=0.15)


def p999(outcome: Outcome) -> float:
    return outcome.quantile_ms(0.999)


def test_our_rule_has_no_errors_and_a_tail_below_ideal_power_of_two_with_three_probes_a_request():
    ours = Fleet(replace(SMALL, load=1.74, latency=False), lambda _: Adaptive()).run()
    two = Fleet(replace(SMALL, load=1.74), IdealPowerOfTwo).run()
    assert ours.errors == 0
    assert ours.probes == 3 * ours.picks
    assert p999(ours) < p999(two)


def test_every_row_of_a_quick_ramp_is_measured_and_nobody_beats_the_omniscient_by_much():
    rows = {row.name: row for row in ramp.rows(quick=True)}
    assert rows["ramp: errors of ours (adaptive), 4 steps together"].value == 0.0
    assert rows["ramp: p99.9 at 1.27, ours over omniscient"].value == pytest.approx(1.1, abs=0.2)
    assert rows["ramp: p99.9 at 1.27, WRR over ours"].value > 2
    assert len([name for name in rows if "lower than Prequal" in name]) == 6
    assert all(row.value is not None and "n=2" in row.spread for row in rows.values())


def test_pouring_fills_the_lowest_first_and_evens_out_what_is_poured_enough():
    assert poured([3.0, 1.0, 2.0], 0.5) == [0.0, 0.5, 0.0]
    assert poured([3.0, 1.0, 2.0], 3.0) == pytest.approx([0.0, 2.0, 1.0])
    assert poured([3.0, 1.0, 2.0], 9.0) == pytest.approx([2.0, 4.0, 3.0])
    assert poured([5.0], 1.0) == [1.0]


def test_old_reports_do_not_make_a_herd():
    scene = BoardScene(10.0, 1, arrivals=15_000)
    assert mean_sojourn(scene, LoadInterpretation()) < mean_sojourn(scene, Blind())


def test_the_quick_rows_of_old_reports_and_of_subsets_have_their_goals():
    goals = {row.goal for row in stale.rows(quick=True)}
    assert goals == {None, "<= 1.1", "<= 1"}
    found = subsets.rows(quick=True)
    assert [row.goal for row in found] == ["<= 1.05", *["<= 1.5"] * 9]
    assert all(row.value is not None for row in found)


def test_intervals_are_students():
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(2.484, abs=0.001)
    assert interval([1.0, 3.0]) == "-10.7-14.7 (95 %), n=2"
