"""The rules of choice, one by one."""

import random
from collections import Counter

import pytest

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.rules import NAMES, make_rule


def members(count: int, weight: float = 1.0) -> list[Member]:
    return [
        Member(ServiceEndpoint(f"/bns/dc/u/j/{i}", "127.0.0.1", 1000 + i, HealthStatus.HEALTHY, weight))
        for i in range(count)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_uses_every_task_and_only_those_assigned(name):
    rng = random.Random(1).random
    rule = make_rule(name)
    tasks = members(10)
    rule.assign(tasks[:7], 0.0)
    first = {rule.pick(rng, i / 100, str(i)) for i in range(500)}
    rule.assign(tasks[4:], 5.0)
    second = {rule.pick(rng, 5.0 + i / 100, str(i)) for i in range(500)}
    assert first == set(tasks[:7])
    assert second == set(tasks[4:])


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_serves_from_a_single_task(name):
    rule = make_rule(name)
    (task,) = members(1)
    rule.assign([task], 0.0)
    assert all(rule.pick(random.Random(1).random, i / 10) is task for i in range(50))


def test_an_unknown_rule_is_refused_by_name():
    with pytest.raises(ValueError, match="'fastest': use one of round_robin"):
        make_rule("fastest")


def test_round_robin_is_even_and_starts_anywhere():
    tasks = members(5)
    firsts = set()
    for seed in range(30):
        rng = random.Random(seed).random
        rule = make_rule("round_robin")
        rule.assign(tasks, 0.0)
        picked = [rule.pick(rng, 0.0) for _ in range(20)]
        assert set(Counter(picked).values()) == {4}
        firsts.add(picked[0])
    assert firsts == set(tasks)


def test_least_request_prefers_the_one_with_fewer_in_flight_and_counts_errors_as_load():
    tasks = members(2)
    rule = make_rule("least_request")
    rule.assign(tasks, 0.0)
    rng = random.Random(1).random
    tasks[0].in_flight = 1
    assert {rule.pick(rng, 0.0) for _ in range(50)} == {tasks[1]}
    tasks[1].burden = 2.0
    assert {rule.pick(rng, 0.0) for _ in range(50)} == {tasks[0]}
