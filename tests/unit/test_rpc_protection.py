"""Protection of one channel: what it is told, and what it makes of it."""

import random

import pytest

from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.rpc.client.protection import Outcome, Protection
from gslb.rpc.policy.failure import Failure, Refusal, classify
from gslb.rpc.policy.hedge import WARM_ANSWERS, Hedging
from gslb.rpc.policy.rank import rank_of

CRITICAL = Criticality.CRITICAL
TASKS = ("/bns/a/u/j/0", "/bns/a/u/j/1", "/bns/a/u/j/2", "/bns/a/u/j/3")


def never() -> float:
    raise AssertionError("nothing is drawn while nobody is held back")


def test_while_all_is_well_nothing_is_drawn() -> None:
    protection = Protection()
    for i in range(1000):
        assert protection.admit(CRITICAL, f"t{i}", never, i * 0.01)
        protection.ended(TASKS[0], Outcome(criticality=CRITICAL, sent_s=i * 0.01), i * 0.01 + 0.001)


def test_the_same_traces_are_held_back_by_every_client() -> None:
    clients = [Protection(), Protection()]
    sent: list[set[str]] = []
    for number, protection in enumerate(clients):
        rng = random.Random(number).random
        now_s = 0.0
        for i in range(4000):
            now_s = i * 0.002
            if protection.admit(CRITICAL, f"t{i}", rng, now_s):
                refusal = Refusal.FULL if rank_of(f"t{i}") > 0.5 else Refusal.NO
                refused = Outcome(Failure.SHED, refused=refusal, criticality=CRITICAL, sent_s=now_s)
                protection.ended(TASKS[0], refused, now_s + 0.0001)
        assert protection.throttle.fraction(CRITICAL) < 0.8
        last = [f"u{i}" for i in range(500)]
        sent.append({trace for trace in last if protection.admit(CRITICAL, trace, rng, now_s + 0.001)})
    low, high = sorted(sent, key=len)
    assert low <= high


@pytest.mark.parametrize(
    ("failure", "refused", "out"),
    [
        (Failure.ERRED, Refusal.NO, True),
        (Failure.REFUSED, Refusal.NO, True),
        (Failure.TIMED_OUT, Refusal.NO, True),
        (Failure.DENIED, Refusal.NO, True),
        (Failure.REFUSED, Refusal.FULL, False),  # full is not broken
        (Failure.SHED, Refusal.QUOTA, False),
        (Failure.ANSWERED, Refusal.NO, False),
        (None, Refusal.NO, False),
    ],
)
def test_what_a_task_is_left_out_for(failure: Failure | None, refused: Refusal, out: bool) -> None:
    protection = Protection()
    assert not protection.look(TASKS, 0.0)
    for i in range(400):
        task = TASKS[i % 4]
        bad = task == TASKS[2] and i % 8 == 2
        protection.ended(task, Outcome(failure if bad else None, refused=refused if bad else Refusal.NO), i * 0.01)
    assert protection.look(TASKS, limits.EJECT_WINDOW_S) is out
    assert protection.ejected == (frozenset({TASKS[2]}) if out else frozenset())
    # And back again after its time, which is no news a second time.
    later_s = limits.EJECT_WINDOW_S + limits.EJECT_BASE_S
    assert protection.look(TASKS, later_s) is out
    assert protection.ejected == frozenset()
    assert not protection.look(TASKS, later_s + limits.EJECT_WINDOW_S)


def test_second_copies_want_answers_first_and_calm_after_a_refusal() -> None:
    protection = Protection(Hedging())
    for i in range(WARM_ANSWERS):
        assert protection.hedge_in_s(None, i * 0.1) is None
        protection.admit(CRITICAL, "t", never, i * 0.1)
        protection.ended(TASKS[0], Outcome(sent_s=i * 0.1 - 0.02), i * 0.1)
    now_s = WARM_ANSWERS * 0.1
    late_s = protection.hedge_in_s(None, now_s)
    assert late_s is not None
    assert 0.01 < late_s < 0.04
    assert protection.hedge_in_s(0.001, now_s) is None  # the deadline comes first
    assert protection.take_hedge(now_s)
    assert protection.hedges == 1
    protection.ended(TASKS[0], Outcome(Failure.SHED, refused=Refusal.FULL, sent_s=now_s), now_s)
    assert protection.hedge_in_s(None, now_s + 1.0) is None


def test_without_hedging_there_are_no_second_copies() -> None:
    assert Protection().hedge_in_s(None, 0.0) is None
    assert not Protection().take_hedge(0.0)


@pytest.mark.parametrize(
    "details",
    [
        "Received message larger than max (5000000 vs. 4194304)",
        "CLIENT: Sent message larger than max (5000000 vs. 4194304)",
    ],
)
def test_a_message_beyond_the_limit_is_no_want_of_room(details: str) -> None:
    assert classify("RESOURCE_EXHAUSTED", details, "127.0.0.1:1") is Failure.ANSWERED
    assert classify("RESOURCE_EXHAUSTED", "overloaded; don't retry", "127.0.0.1:1") is Failure.SHED


def test_over_quota_a_client_goes_on_offering_twice_what_it_is_given() -> None:
    protection = Protection()
    rng = random.Random(3).random
    sent, accepted = [0] * 60, [0] * 60
    for i in range(60_000):
        now_s = i * 0.001
        second = int(now_s)
        if not protection.admit(CRITICAL, f"t{i}", rng, now_s):
            continue
        sent[second] += 1
        over = accepted[second] >= 100  # a tenth of what it would ask for
        accepted[second] += not over
        given = Outcome(Failure.SHED if over else None, refused=Refusal.QUOTA if over else Refusal.NO, sent_s=now_s)
        protection.ended(TASKS[0], given, now_s)
    assert all(count == 100 for count in accepted[10:])
    assert 120 < sum(sent[10:]) / 50 < 300
    assert protection.throttle.fraction(CRITICAL) == 1.0  # there is room
    assert protection.sent_fraction(CRITICAL) < 0.3
    assert protection.held_back(CRITICAL) > 30_000
    assert "held back by this client" in protection.why_held_back(CRITICAL)
