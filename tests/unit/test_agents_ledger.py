"""What is sent to BNS, as a difference that survives any loss of sessions."""

import random

import pytest

from agents import limits
from agents.backoff import Backoff
from agents.registration.ledger import Deregister, Ledger, Register
from bns.model import Task


def task(index: int, port: int = 80) -> Task:
    return Task(f"/bns/a/b/c/{index}", "10.0.0.1", port, agent="x", machine="m")


def test_what_bns_holds_already_is_not_sent_again() -> None:
    ledger = Ledger()
    ledger.want(task(0), 0.0)
    ledger.want(task(1, port=81), 0.0)
    held = Task("/bns/a/b/c/0", "10.0.0.1", 80, agent="x", machine="m", generation=9, principal="agent-x")
    assert ledger.connected([held, task(1)], 0.0) == []
    (request,) = ledger.take(0.0)
    assert isinstance(request, Register)
    assert request.task == task(1, port=81)
    assert ledger.is_settled("/bns/a/b/c/0")
    assert not ledger.is_settled("/bns/a/b/c/1")


def test_what_nobody_here_knows_is_adopted() -> None:
    ledger = Ledger()
    ledger.want(task(0), 0.0)
    assert ledger.connected([task(0), task(7)], 0.0) == [task(7)]
    ledger.want(task(7), 0.0)
    assert ledger.take(0.0) == []


def test_what_was_let_go_of_while_no_session_was_there_is_not_adopted_but_removed() -> None:
    ledger = Ledger()
    ledger.want(task(0), 0.0)
    ledger.unwant(task(0).name, 0.0)
    assert ledger.connected([task(0)], 0.0) == []
    (request,) = ledger.take(0.0)
    assert isinstance(request, Deregister)
    outcome = ledger.acked(request.request_id, 0, "", 0.0)
    assert outcome is not None
    assert outcome.removed
    assert ledger.is_settled(task(0).name)
    assert ledger.unsettled() == 0


def test_a_session_that_breaks_before_the_ack_leads_to_another_request() -> None:
    ledger = Ledger()
    ledger.want(task(0), 0.0)
    ledger.connected([], 0.0)
    (first,) = ledger.take(0.0)
    ledger.disconnected()
    ledger.connected([], 1.0)
    (second,) = ledger.take(1.0)
    assert ledger.acked(first.request_id, 0, "", 1.0) is None  # an answer of the session before
    assert ledger.acked(second.request_id, 0, "", 1.0) is not None
    assert ledger.unsettled() == 0


def test_a_change_during_a_request_is_sent_after_it() -> None:
    ledger = Ledger()
    ledger.connected([], 0.0)
    ledger.want(task(0), 0.0)
    (first,) = ledger.take(0.0)
    ledger.want(task(0, port=81), 0.0)
    assert ledger.take(0.0) == []
    ledger.acked(first.request_id, 0, "", 0.0)
    (second,) = ledger.take(0.0)
    assert isinstance(second, Register)
    assert second.task.port == 81


@pytest.mark.parametrize(
    ("code", "transient", "delay_s"), [(14, True, limits.TRANSIENT_RETRY_S), (6, False, limits.REFUSED_RETRY_S)]
)
def test_a_refusal_is_tried_again_later(code: int, transient: bool, delay_s: float) -> None:
    ledger = Ledger()
    ledger.connected([], 0.0)
    ledger.want(task(0), 0.0)
    (request,) = ledger.take(0.0)
    outcome = ledger.acked(request.request_id, code, "no", 0.0)
    assert outcome is not None
    assert (outcome.code, outcome.transient) == (code, transient)
    assert ledger.take(delay_s - 0.01) == []
    assert ledger.next_due() == delay_s
    assert len(ledger.take(delay_s)) == 1


def test_to_be_out_already_is_to_be_out() -> None:
    ledger = Ledger()
    ledger.want(task(0), 0.0)
    ledger.connected([task(0)], 0.0)
    ledger.unwant(task(0).name, 0.0)
    (request,) = ledger.take(0.0)
    outcome = ledger.acked(request.request_id, 5, "not found", 0.0)
    assert outcome is not None
    assert outcome.code == 0
    assert ledger.unsettled() == 0


def test_what_bns_never_held_or_will_not_remove_is_not_asked_for_again() -> None:
    ledger = Ledger()
    ledger.want(task(0), 0.0)
    ledger.connected([task(0)], 0.0)
    ledger.unwant(task(1).name, 0.0)
    assert ledger.take(0.0) == []
    assert ledger.is_settled(task(1).name)
    ledger.unwant(task(0).name, 0.0)
    (request,) = ledger.take(0.0)
    outcome = ledger.acked(request.request_id, 9, "task is held by agent 'b': deregister it there", 0.0)
    assert outcome is not None
    assert (outcome.code, outcome.removed) == (9, True)
    assert ledger.take(1e9) == []
    assert ledger.unsettled() == 0


def test_the_window_bounds_what_is_unanswered() -> None:
    ledger = Ledger()
    ledger.connected([], 0.0)
    for index in range(1000):
        ledger.want(task(index), 0.0)
    first = ledger.take(5.0)
    assert len(first) == limits.REGISTER_WINDOW
    assert ledger.take(5.0) == []
    assert ledger.next_due() is None
    assert ledger.oldest_unanswered_s() == 5.0
    ledger.acked(first[0].request_id, 0, "", 6.0)
    assert len(ledger.take(6.0)) == 1


def test_any_history_ends_in_what_is_wanted() -> None:
    """BNS as a dictionary, sessions and answers lost at random: at the end it holds exactly what is wanted."""
    for seed in range(300):
        rng = random.Random(seed)
        ledger, bns, wanted = Ledger(), {}, {}
        connected, now = False, 0.0
        for step in range(200):
            now += rng.random()
            last = step > 150
            match rng.choice(["talk"] if last else ["want", "unwant", "break", "talk", "talk"]):
                case "want":
                    chosen = task(rng.randrange(5), rng.randrange(80, 83))
                    wanted[chosen.name] = chosen
                    ledger.want(chosen, now)
                case "unwant":
                    name = task(rng.randrange(5)).name
                    wanted.pop(name, None)
                    ledger.unwant(name, now)
                case "break":
                    connected = False
                    ledger.disconnected()
                case "talk":
                    if not connected:
                        assert ledger.connected(list(bns.values()), now) == []
                        connected = True
                    for request in ledger.take(now):
                        lost = not last and rng.random() < 0.3
                        code = 14 if not last and rng.random() < 0.2 else 0
                        if code == 0 and isinstance(request, Register):
                            bns[request.task.name] = request.task
                        elif code == 0:
                            bns.pop(request.name, None)
                        if lost:
                            connected = False
                            ledger.disconnected()
                            break
                        ledger.acked(request.request_id, code, "", now)
        assert bns == wanted, seed
        assert ledger.unsettled() == 0


def test_delays_grow_are_spread_and_bounded() -> None:
    backoff = Backoff(random.Random(3), 0.1, 3.0)
    delays = [backoff.next_s() for _ in range(100)]
    assert delays[0] <= 0.1
    assert max(delays) <= 3.0
    assert min(delays[10:]) >= 0.75
    assert len(set(delays)) == 100
    backoff.reset()
    assert backoff.next_s() <= 0.1
