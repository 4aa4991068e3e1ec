"""Load reports: checked, folded by columns, replays refused; silence and witnesses over real report messages."""

import math
import random

import pytest
from google.protobuf.message import DecodeError

from bns.model import HealthStatus, Task
from gslb.control.ingest.board import HealthBoard, Probe
from gslb.control.ingest.load import LoadStore
from gslb.control.ingest.refusals import KEPT_S, REPORTERS_MAX, Refusal, Refusals
from gslb.control.ingest.replay import ReplayGuard
from gslb.control.ingest.rtt import FORGET_S
from gslb.model.errors import InvalidValueError
from gslb.v1 import report_pb2

H, X, T, U = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY, HealthStatus.TIMEOUT, HealthStatus.UNKNOWN


def task(n, dc="us-east1"):
    return f"/bns/{dc}/shakespeare/backend/{n}"


def load(seq, health, *, agent="m1", dc="us-east1", boot="b1", tasks=None, **columns):
    return report_pb2.LoadReport(
        agent=agent,
        datacenter=dc,
        boot_id=boot,
        seq=seq,
        period_s=1.0,
        task=tasks or [task(i, dc) for i in range(len(health))],
        health=[int(one) for one in health],
        **columns,
    )


def test_columns_are_kept_and_summed():
    store = LoadStore()
    folded = store.fold(
        load(
            1,
            [H, X],
            ok_critical_rps=[10, 1],
            ok_sheddable_rps=[5, 0],
            error_critical_rps=[0, 2],
            cpu_utilization=[0.5, math.nan],
        ),
        now_s=100.0,
    )
    assert folded.spoken == {task(0), task(1)}
    columns = store.columns_of(("us-east1", "m1"))
    assert columns.ok_rps.tolist() == [15, 1]
    assert columns.error_rps.tolist() == [0, 2]
    assert columns.cpu_utilization[0] == 0.5
    assert math.isnan(columns.cpu_utilization[1])
    assert columns.complete


def test_a_report_that_says_the_same_names_no_task():
    store = LoadStore()
    store.fold(load(1, [H, H]), 0.0)
    assert store.fold(load(2, [H, H]), 1.0).spoken == frozenset()
    assert store.fold(load(3, [H, X]), 2.0).spoken == {task(1)}


def test_a_partial_report_is_laid_over():
    store = LoadStore()
    store.fold(load(1, [H, H], ok_critical_rps=[7, 8]), 0.0)
    folded = store.fold(load(2, [X, H], tasks=[task(1), task(9)], partial=True), 1.0)
    assert folded.spoken == {task(1), task(9)}
    columns = store.columns_of(("us-east1", "m1"))
    assert [columns.health_of(task(n)) for n in (0, 1, 9)] == [H, X, H]
    assert columns.ok_rps.tolist()[0] == 7
    # The next whole report is all there is again.
    store.fold(load(3, [H]), 2.0)
    assert store.columns_of(("us-east1", "m1")).tasks == (task(0),)


def test_a_partial_report_first_does_not_count_as_whole():
    store = LoadStore()
    store.fold(load(1, [H], partial=True), 0.0)
    assert not store.reported(("us-east1", "m1"))
    store.fold(load(2, [H]), 0.0)
    assert store.reported(("us-east1", "m1"))


BAD = [
    {"agent": "M 1"},
    {"dc": ""},
    {"boot": ""},
    {"cpu_utilization": [math.inf, 0]},
    {"cpu_utilization": [-1.0, 0]},
    {"ok_critical_rps": [math.nan, 0]},
    {"ok_critical_rps": [-1, 0]},
    {"error_sheddable_rps": [1e12, 0]},
    {"ok_critical_rps": [1]},
    {"tasks": [task(0), task(0)]},
    {"tasks": [task(0), task(0, "asia-east1")]},
    {"tasks": [task(0), "/bns/us-east1/x"]},
    {"tasks": [task(0)]},
    {"machine_utilization": math.nan},
    {"machine_cores": -1.0},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_values_change_nothing(bad):
    store = LoadStore()
    store.fold(load(1, [H, H], ok_critical_rps=[1, 1]), 0.0)
    before = dict(store.agents)
    with pytest.raises(InvalidValueError) as refused:
        store.fold(load(2, [X, X], **bad), 1.0)
    assert "\n" not in str(refused.value)
    assert dict(store.agents) == before


def test_health_out_of_range_and_period():
    store = LoadStore()
    with pytest.raises(InvalidValueError, match="health 77"):
        store.fold(load(1, [77]), 0.0)
    report = load(1, [H])
    report.period_s = math.nan
    with pytest.raises(InvalidValueError, match="period_s"):
        store.fold(report, 0.0)


def test_replays_are_refused():
    store = LoadStore()
    old = load(5, [X])
    store.fold(old, 0.0)
    store.fold(load(6, [H]), 1.0)
    with pytest.raises(InvalidValueError, match="replay"):
        store.fold(old, 2.0)
    assert store.health_of(("us-east1", "m1"), task(0)) is H
    store.fold(load(1, [X], boot="b2"), 3.0)
    with pytest.raises(InvalidValueError, match="newer boot"):
        store.fold(load(99, [H], boot="b1"), 4.0)
    assert store.health_of(("us-east1", "m1"), task(0)) is X


def test_replay_guard_forgets_the_longest_unheard():
    guard = ReplayGuard(limit=3)
    for name in "abc":
        assert not guard.admit(name, "1", 10)
    assert not guard.admit("a", "1", 11)
    assert not guard.admit("d", "1", 1)
    assert len(guard) == 3
    assert guard.admit("a", "1", 11)
    assert not guard.admit("b", "1", 10)


class Board:
    """A board over tasks that a test may change."""

    def __init__(self, count=2):
        self.tasks = {task(n): Task(task(n), "127.0.0.1", 1000 + n, agent="m1") for n in range(count)}
        self.board = HealthBoard(lambda: self.tasks)
        self.board.registered(self.tasks, 0.0)

    def health(self, n):
        return self.board.health_of(task(n))

    def see(self, now, ok, failed, n=0):
        return self.board.observe("europe-west1", [Probe(task(n), ok, failed, 0.0)], now)


def test_health_follows_the_reports_of_the_owner_only():
    b = Board()
    assert b.board.fold(load(1, [H, H]), 0.0) == {task(0), task(1)}
    assert b.board.fold(load(1, [X, X], agent="liar", boot="z"), 0.1) == frozenset()
    assert b.health(0) is H
    # The task moves to another agent: that one's word counts now.
    b.tasks[task(0)] = Task(task(0), "127.0.0.2", 1000, agent="liar")
    assert b.board.registered([task(0)], 0.2) == {task(0)}
    assert b.health(0) is X


def test_silence_freezes_and_a_second_witness_ends_it():
    b = Board()
    b.board.loads.stream_opened(("us-east1", "m1"))
    b.board.fold(load(1, [H, H]), 0.0)
    b.see(2.0, 0, 50)
    assert b.health(0) is H, "the agent speaks"
    assert b.board.sweep(3.5) == {task(0)}, "silent for three periods, and clients fail"
    assert (b.health(0), b.health(1)) == (T, H)
    # Nobody sends there any more: no votes, still out.
    assert b.board.sweep(100.0) == frozenset()
    assert b.health(0) is T
    assert b.see(101.0, 3, 0) == {task(0)}
    assert b.health(0) is H
    assert b.see(120.0, 0, 1, n=1) == {task(1)}
    assert b.board.fold(load(2, [H, H]), 121.0) == {task(1)}


def test_one_missed_report_is_enough_where_everything_fails():
    b = Board()
    b.board.loads.stream_opened(("us-east1", "m1"))
    b.board.fold(load(1, [H, H]), 0.0)
    b.see(0.9, 0, 50)
    b.see(0.9, 0, 50, n=1)
    assert (b.health(0), b.health(1)) == (H, H), "the agent speaks"
    assert b.board.sweep(1.05) == frozenset(), "a report may be a little late"
    assert b.board.sweep(1.2) == {task(0), task(1)}
    assert b.board.sweep(2.9) == frozenset()
    assert b.board.fold(load(2, [H, H]), 2.9) == {task(0), task(1)}


def test_what_was_seen_before_the_loss_does_not_undo_it():
    b = Board()
    b.board.loads.stream_opened(("us-east1", "m1"))
    b.board.fold(load(1, [H, H]), 0.0)
    for n in (0, 1):
        for at_s in (0.1, 0.2, 0.3):
            b.see(at_s, 50, 0, n=n)
    for n in (0, 1):
        b.see(2.5, 0, 50, n=n)
    assert (b.health(0), b.health(1)) == (T, T)
    # The votes against them have run out before those from before the loss: nobody is served all the same.
    assert b.board.sweep(4.6) == frozenset()
    assert b.board.sweep(7.5) == frozenset()


def test_a_task_that_is_back_is_not_out_again_by_what_was_seen_before():
    b = Board()
    b.board.fold(load(1, [H, H]), 0.0)
    for at_s in (10.1, 11.1, 12.1):
        b.see(at_s, 0, 50)
    assert b.health(0) is T
    healths = []
    for at_s in range(15, 30):
        b.see(at_s + 0.1, 50, 0)
        b.board.sweep(at_s + 0.5)
        healths.append(b.health(0))
    assert healths == sorted(healths, key=[T, H].index), "back once, for good"
    assert healths[-1] is H


def test_one_missed_report_is_not_enough_where_some_serve():
    b = Board()
    b.board.loads.stream_opened(("us-east1", "m1"))
    b.board.fold(load(1, [H, H]), 0.0)
    b.see(0.9, 50, 0, n=1)
    for _ in range(3):
        b.see(1.2, 0, 50)
    assert b.board.sweep(1.5) == frozenset()
    # The other one begins to fail as well: the vote on it makes the agent's tasks look deserted, all of them.
    b.see(5.5, 0, 50)
    b.see(5.5, 0, 50, n=1)
    assert (b.health(0), b.health(1)) == (T, T)


def test_a_broken_stream_shortens_the_patience():
    b = Board()
    b.board.fold(load(1, [H, H]), 0.0)
    b.see(1.5, 0, 1)
    assert b.health(0) is T


def test_a_process_that_stood_still_blames_nobody():
    b = Board()
    b.board.loads.stream_opened(("us-east1", "m1"))
    b.board.fold(load(1, [H, H]), 0.0)
    b.board.loads.thaw(20.0, 19.5)
    assert b.board.sweep(20.0) == frozenset()
    b.see(20.1, 0, 1)
    assert b.health(0) is H


def test_a_restarted_replica_learns_from_clients_while_the_agent_is_dead():
    b = Board()
    assert b.health(0) is U
    assert b.see(1.0, 9, 0) == {task(0)}
    assert b.health(0) is H
    b.see(50.0, 0, 0)
    assert b.health(0) is H


def test_observations_of_unknown_tasks_leave_nothing_behind():
    b = Board()
    b.board.observe("x", [Probe("/bns/a/b/c/9", 1, 0, 1.0)], 0.0)
    assert not len(b.board._stand)
    b.board.observe("europe-west1", [Probe(task(0), 1, 0, 80.0)], 0.0)
    b.board.observe("europe-west1", [Probe(task(0), 1, 0, 100.0)], 0.0)
    assert b.board.rtt.snapshot() == {("europe-west1", "us-east1"): pytest.approx(86.0)}


def test_times_of_places_that_are_not_there_and_old_ones_make_room():
    b = Board()
    for n in range(50):
        b.board.observe(f"made-up-{n}", [Probe(task(0), 1, 0, 5.0)], 0.0)
    b.board.observe("europe-west1", [Probe(task(0), 1, 0, 80.0)], 100.0)
    b.board.rtt.tidy({"europe-west1", "us-east1"}, 110.0)
    assert b.board.rtt.snapshot() == {("europe-west1", "us-east1"): pytest.approx(80.0)}
    b.board.rtt.tidy({"europe-west1", "us-east1"}, 100.0 + FORGET_S + 1)
    assert b.board.rtt.snapshot() == {}


def test_tidy_forgets_only_what_nobody_needs():
    b = Board()
    b.board.fold(load(1, [H, H]), 0.0)
    b.board.fold(load(1, [H], agent="gone"), 0.0)
    b.board.tidy([], 60.0)
    assert set(b.board.loads.agents) == {("us-east1", "m1")}


def test_random_bytes_never_break_the_board():
    b, rng = Board(), random.Random(7)
    good = load(1, [H, H], ok_critical_rps=[1, 2], cpu_utilization=[0.1, 0.2]).SerializeToString()
    folded = refused = 0
    for seq in range(3000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            report = report_pb2.LoadReport.FromString(bytes(data))
        except DecodeError:
            continue
        report.seq = seq + 2
        try:
            b.board.fold(report, float(seq))
            folded += 1
        except InvalidValueError:
            refused += 1
    assert folded > 20
    assert refused > 100


def test_refusals_are_remembered_for_a_while_and_for_few():
    refusals = Refusals()
    refusals.note("load of a", "bad", 0.0)
    refusals.note("load of a", "worse", 1.0)
    refusals.note("load of b", "replay: seq 5 after 5", 1.0)
    assert refusals.recent(2.0) == {"load of a": Refusal("worse", 2, 1.0)}
    assert refusals.recent(KEPT_S + 2.0) == {}
    for n in range(3 * REPORTERS_MAX):
        refusals.note(f"r{n}", "bad", 0.0)
    assert len(refusals.recent(0.0)) == REPORTERS_MAX
    assert f"r{3 * REPORTERS_MAX - 1}" in refusals.recent(0.0)
