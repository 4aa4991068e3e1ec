"""The two witnesses: what a task's health follows from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.balancer.verdict import Evidence, Votes, Witness, deserted, judge

U, H, X, D, T = (
    HealthStatus.UNKNOWN,
    HealthStatus.HEALTHY,
    HealthStatus.UNHEALTHY,
    HealthStatus.DRAINING,
    HealthStatus.TIMEOUT,
)
NONE, SERVING, FAILING = Witness.NONE, Witness.SERVING, Witness.FAILING

# (previous, reported, silent, witness) -> verdict
CASES = [
    # An agent that speaks is believed, whatever others saw.
    (U, H, False, NONE, H),
    (H, X, False, SERVING, X),
    (H, H, False, FAILING, H),
    (H, D, False, NONE, D),
    (T, H, False, FAILING, H),
    # Silence alone freezes.
    (H, H, True, NONE, H),
    (X, X, True, NONE, X),
    (D, D, True, NONE, D),
    # Silence and a second witness.
    (H, H, True, FAILING, T),
    (D, D, True, FAILING, T),
    (H, H, True, SERVING, H),
    (X, X, True, SERVING, X),
    # A timeout lasts until somebody is served or the agent speaks.
    (T, H, True, NONE, T),
    (T, H, True, SERVING, H),
    # Never heard of since this replica started.
    (U, None, True, NONE, U),
    (U, None, True, SERVING, H),
    (U, None, True, FAILING, T),
    (H, None, True, NONE, H),
    # The agent speaks, but not (any more) of this task.
    (H, None, False, NONE, H),
    (U, None, False, NONE, U),
    (H, None, False, FAILING, T),
]


@pytest.mark.parametrize(("previous", "reported", "silent", "witness", "verdict"), CASES)
def test_table(previous, reported, silent, witness, verdict):
    assert judge(previous, Evidence(reported, silent, witness)) is verdict


# (previous, reported, witness, deserted) -> verdict, of an agent that has just missed a report
LATE_CASES = [
    # One missed report is none.
    (H, H, NONE, False, H),
    (H, H, SERVING, False, H),
    # A single task that fails waits for the agent's next word.
    (H, H, FAILING, False, H),
    # With nearly all of its tasks failing the agent is gone: those that nobody looked at are gone too.
    (H, H, FAILING, True, T),
    (H, H, NONE, True, T),
    (D, D, NONE, True, T),
    (H, H, SERVING, True, H),
    # Votes that run out undo nothing.
    (T, H, NONE, False, T),
    (T, H, FAILING, False, T),
    (T, H, SERVING, False, H),
]


@pytest.mark.parametrize(("previous", "reported", "witness", "deserted", "verdict"), LATE_CASES)
def test_table_of_one_missed_report(previous, reported, witness, deserted, verdict):
    assert judge(previous, Evidence(reported, False, witness, late=True, deserted=deserted)) is verdict
    if previous is not T:
        spoke = Evidence(reported, False, witness, late=False, deserted=deserted)
        assert judge(previous, spoke) is reported, "an agent that speaks is not overruled"


GOOD, BAD, UNSEEN = Votes(serving=2.0), Votes(failing=1.0), Votes()


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([BAD] * 10, True),
        ([BAD] * 9 + [GOOD], True),
        ([BAD] * 8 + [GOOD] * 2, False),
        ([BAD] * 5 + [UNSEEN] * 5, True),
        ([BAD] * 4 + [UNSEEN] * 6, False),
        ([BAD], False),
        ([Votes(failing=2.0)], True),
        ([UNSEEN] * 3, False),
        ([], False),
    ],
)
def test_nearly_all_of_an_agents_tasks(votes, expected):
    assert deserted(votes) is expected


statuses = st.sampled_from(list(HealthStatus))


@given(st.lists(st.sampled_from([NONE, SERVING])))
def test_silence_alone_never_takes_a_healthy_task_out(witnesses):
    verdict = H
    for witness in witnesses:
        verdict = judge(verdict, Evidence(H, silent=True, witness=witness))
    assert verdict is H


@given(st.lists(st.tuples(statuses | st.none(), st.booleans(), st.sampled_from(list(Witness)))))
def test_timeout_needs_a_failing_witness(steps):
    verdict, seen_failing = U, False
    for reported, silent, witness in steps:
        seen_failing = seen_failing or witness is FAILING or reported is T
        verdict = judge(verdict, Evidence(reported, silent, witness))
        assert verdict is not T or seen_failing


def test_votes_are_bounded_by_report():
    # One client that failed a million times is one vote; ten that were served outvote it.
    votes = Votes().add(0, 1_000_000)
    assert votes.witness is FAILING
    for _ in range(10):
        votes = votes.add(1, 0)
    assert votes.witness is SERVING


def test_no_observation_is_no_vote():
    assert Votes().add(0, 0).witness is NONE
    # A task that serves half of what it gets has no failing witness: it may be overloaded, which is not dead.
    assert Votes().add(5, 5).witness is SERVING
