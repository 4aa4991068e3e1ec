"""Stories of the reaper: who is away for how long, what may go, what stays."""

import pytest

from bns.model import Task
from bns.reaping import (
    OBSERVED_STEP_MAX_S,
    ReaperState,
    ReapPolicy,
    decide,
    note_removed,
    observe,
)
from bns.view import AgentKey, TaskIndex

POLICY = ReapPolicy(after_s=600.0, budget_fraction=0.5, window_s=30.0)
DEAD: AgentKey = ("dc", "dead")


def index(**jobs: dict[str, str]) -> TaskIndex:
    """index(web={"0": "dead"}) -> /bns/dc/user/web/0 held by agent dead."""
    tasks = {
        f"/bns/dc/user/{job}/{number}": Task(f"/bns/dc/user/{job}/{number}", "127.0.0.1", 1, agent=agent)
        for job, held in jobs.items()
        for number, agent in held.items()
    }
    return TaskIndex().with_changes(tasks)


def watched(seconds: float, agents: set[AgentKey], step_s: float = 5.0) -> tuple[ReaperState, float]:
    """A state after looking every `step_s` at agents that were away all the time, and the time then."""
    state, now_s = ReaperState(), 0.0
    state = observe(state, agents, now_s)
    while now_s < seconds:
        now_s += step_s
        state = observe(state, agents, now_s)
    return state, now_s


def test_nothing_goes_before_its_time_and_then_half() -> None:
    tasks = index(web={"0": "dead", "1": "dead", "2": "alive", "3": "alive"})
    state, now_s = watched(595, {DEAD})
    assert decide(state, tasks, now_s, POLICY).remove == ()
    state = observe(state, {DEAD}, now_s + 5)
    assert decide(state, tasks, now_s + 5, POLICY).remove == ("/bns/dc/user/web/0", "/bns/dc/user/web/1")


def test_time_counts_only_while_etcd_was_seen() -> None:
    state, now_s = watched(300, {DEAD})
    state = observe(state, None, now_s + 5)
    state = observe(state, {DEAD}, now_s + 1000)
    assert state.absent_s[DEAD] == 300
    state = observe(state, {DEAD}, now_s + 1005)
    assert state.absent_s[DEAD] == 305


def test_a_process_that_was_stopped_has_not_watched() -> None:
    state = observe(ReaperState(), {DEAD}, 0.0)
    state = observe(state, {DEAD}, 86_400.0)
    assert state.absent_s[DEAD] == OBSERVED_STEP_MAX_S
    assert observe(state, {DEAD}, 10.0).absent_s[DEAD] == OBSERVED_STEP_MAX_S, "a clock never goes back, and if it did"


def test_whoever_comes_back_starts_anew() -> None:
    state, now_s = watched(595, {DEAD})
    state = observe(state, set(), now_s + 1)
    state = observe(state, {DEAD}, now_s + 2)
    assert state.absent_s == {DEAD: 0.0}


def test_a_new_leader_starts_from_nothing() -> None:
    assert decide(ReaperState(), index(web={"0": "dead", "1": "alive"}), 1e9, POLICY).remove == ()


@pytest.mark.parametrize(("names", "removed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (100, 50)])
def test_at_most_half_of_a_job_and_never_the_last(names: int, removed: int) -> None:
    tasks = index(web={str(number): "dead" for number in range(names)})
    state, now_s = watched(600, {DEAD})
    decision = decide(state, tasks, now_s, POLICY)
    assert len(decision.remove) == removed
    assert sum(decision.held.values()) == names - removed


def test_the_last_name_stays_whatever_the_budget() -> None:
    tasks = index(web={"0": "dead", "1": "dead"})
    state, now_s = watched(600, {DEAD})
    decision = decide(state, tasks, now_s, ReapPolicy(after_s=600.0, budget_fraction=1.0))
    assert (decision.remove, decision.held) == (("/bns/dc/user/web/0",), {"/bns/dc/user/web": 1})


def test_the_budget_covers_the_whole_window_and_then_opens_again() -> None:
    tasks = index(web={f"{number:03}": "dead" for number in range(100)})
    state, now_s = watched(600, {DEAD})
    gone = 0
    sizes = []
    for _ in range(40):
        decision = decide(state, tasks, now_s, POLICY)
        state = note_removed(state, decision.remove, now_s, POLICY)
        tasks = tasks.with_changes(dict.fromkeys(decision.remove))
        gone += len(decision.remove)
        sizes.append(len(tasks))
        now_s += 10.0
        state = observe(state, {DEAD}, now_s)
    assert sizes[:4] == [50, 50, 50, 25]
    assert sizes[-1] == 1, "the last name of a job never goes"
    assert gone == 99


def test_the_longest_abandoned_goes_first() -> None:
    tasks = index(web={"0": "late", "1": "early", "2": "alive"})
    state = observe(ReaperState(), {("dc", "early")}, 0.0)
    for second in range(5, 1300, 5):
        away = {("dc", "early"), ("dc", "late")} if second > 100 else {("dc", "early")}
        state = observe(state, away, float(second))
    assert decide(state, tasks, 1300.0, POLICY).remove == ("/bns/dc/user/web/1",)


def test_jobs_do_not_share_a_budget() -> None:
    tasks = index(web={"0": "dead", "1": "alive"}, db={"0": "dead", "1": "alive"})
    state, now_s = watched(600, {DEAD})
    assert len(decide(state, tasks, now_s, POLICY).remove) == 2
