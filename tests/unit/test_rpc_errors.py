"""Errors as load: a task that fails fast attracts nothing, one that fails now and then loses next to nothing."""

import heapq
import random
from collections import Counter

import pytest

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.errors import HALF_LIFE_S, LOOK_S, ErrorLoad
from gslb.rpc.policy.failure import Failure
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.p2c import group_of

GOOD_S, BAD_S = 0.010, 0.0005


def member(name: str) -> Member:
    return Member(ServiceEndpoint(f"/bns/{name}", "127.0.0.1", 1000, HealthStatus.HEALTHY, 1.0))


def play(
    rate_rps: float,
    error_parts: list[float],
    seconds: float = 30.0,
    failure: Failure = Failure.ERRED,
    seed: int = 1,
    *,
    refused: bool = False,
) -> tuple[Counter[int], int]:
    """A client of these tasks for a while, its first third left out: (requests by task, errors). Errors are 20 x faster."""
    rng = random.Random(seed)
    members = [member(f"a/u/j/{i}") for i in range(len(error_parts))]
    group = group_of("a", members)
    ending: list[tuple[float, int, bool]] = []
    sent: Counter[int] = Counter()
    errors, now_s, look_s = 0, 0.0, 0.0
    while now_s < seconds:
        now_s += rng.expovariate(rate_rps)
        while ending and ending[0][0] <= now_s:
            at_s, i, error = heapq.heappop(ending)
            members[i].in_flight -= 1
            members[i].charge(failure if error else None, at_s, refused=refused and error)
        if now_s >= look_s + LOOK_S:
            look_s = now_s
            for one in members:
                one.relieve(now_s)
        picked = members.index(group.pick(rng.random))
        error = rng.random() < error_parts[picked]
        members[picked].in_flight += 1
        heapq.heappush(ending, (now_s + (BAD_S if error else GOOD_S), picked, error))
        if now_s > seconds / 3:
            sent[picked] += 1
            errors += error
    return sent, errors


def test_a_sinkhole_beside_busy_tasks() -> None:
    """The good ones have many requests in flight; the bad one never has any."""
    sent, _ = play(4000.0, [1.0, 0.0, 0.0])
    assert share(sent, 0) < 0.02


def share(sent: Counter[int], of: int) -> float:
    return sent[of] / sent.total()


@pytest.mark.parametrize("failure", [Failure.ERRED, Failure.REFUSED, Failure.DENIED])
@pytest.mark.parametrize("rate_rps", [5.0, 20.0, 1000.0])
def test_a_sinkhole_attracts_nothing_at_any_rate(rate_rps: float, failure: Failure) -> None:
    sent, errors = play(rate_rps, [1.0, 0.0], failure=failure)
    assert share(sent, 0) < 0.1
    # Within a retry budget of a tenth.
    assert errors < 0.1 * sent.total()


@pytest.mark.parametrize("failure", [Failure.SHED, Failure.REFUSED])
@pytest.mark.parametrize("rate_rps", [20.0, 1000.0])
def test_one_that_refuses_everything_for_want_of_room_attracts_little(rate_rps: float, failure: Failure) -> None:
    sent, _ = play(rate_rps, [1.0, 0.0, 0.0, 0.0], failure=failure, refused=True)
    assert share(sent, 0) < 0.1


def test_whoever_refuses_a_little_more_by_chance_is_shunned_less_than_for_errors() -> None:
    def part(*, refused: bool) -> float:
        runs = [
            play(1000.0, [0.12, 0.08, 0.08, 0.08], failure=Failure.SHED, seed=seed, refused=refused)
            for seed in range(4)
        ]
        return sum(share(sent, 0) for sent, _ in runs)

    assert part(refused=True) > 1.15 * part(refused=False)


def test_without_the_charge_it_attracts_most() -> None:
    """What the rule is against: the same play when errors are taken for answers."""
    sent, _ = play(1000.0, [1.0, 0.0], failure=Failure.ANSWERED)
    assert share(sent, 0) > 0.8


def test_half_of_a_task_s_requests_failing_is_enough() -> None:
    sent, _ = play(200.0, [0.5, 0.0, 0.0, 0.0])
    assert share(sent, 0) < 0.1


def test_an_error_in_a_thousand_costs_a_busy_task_little() -> None:
    sent, _ = play(2000.0, [0.001, 0.0, 0.0, 0.0])
    assert share(sent, 0) > 0.2


def test_when_all_fail_alike_nothing_moves() -> None:
    sent, _ = play(200.0, [0.3] * 4)
    assert all(share(sent, i) == pytest.approx(0.25, abs=0.03) for i in range(4))


def test_a_task_that_is_well_again_has_its_share_again() -> None:
    load = ErrorLoad()
    for i in range(100):
        load.add(1.0, 0.01 * i)
    charged = load.look(1.0)
    assert charged > 500
    assert 0 < load.look(1.0 + HALF_LIFE_S) < 0.51 * charged
    assert load.look(1.0 + 20 * HALF_LIFE_S) == 0.0


def test_one_error_among_many_answers_is_forgotten_at_once() -> None:
    load = ErrorLoad()
    for i in range(1000):
        load.add(0.0, 0.001 * i)
    assert load.add(1.0, 1.0) == 0.0


def test_a_member_is_watched_once_until_its_burden_is_gone() -> None:
    one = member("a/u/j/0")
    assert not one.charge(None, 1.0)
    assert one.charge(Failure.ERRED, 1.1)
    assert not one.charge(Failure.ERRED, 1.2)
    assert one.relieve(1.7)
    assert not one.charge(Failure.ERRED, 1.8)
    assert not one.relieve(60.0)
    assert one.burden == 0.0
    assert one.charge(Failure.ERRED, 61.0)


def test_connections_that_fail_are_no_burden() -> None:
    one = member("a/u/j/0")
    for failure in (Failure.NEVER_SENT, Failure.BROKEN, Failure.TIMED_OUT, Failure.ANSWERED, None):
        assert not one.charge(failure, 1.0)
    assert one.burden == 0.0


def test_a_clock_that_steps_back_forgets_nothing() -> None:
    load = ErrorLoad()
    assert load.add(1.0, 100.0) == load.look(50.0)
