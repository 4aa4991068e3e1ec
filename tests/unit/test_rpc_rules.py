"""The rules of choice, one by one."""

import math
import random
from collections import Counter

import pytest

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.choice import Report, Rule
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


# weighted_round_robin


def weighed(reports: dict[int, Report], count: int = 4) -> Counter[int]:
    """Turns of each task in 1,200 picks, after these reports held for longer than the blackout."""
    rule: Rule[Member] = make_rule("weighted_round_robin")
    tasks = members(count)
    rule.assign(tasks, 0.0)
    for now_s in (0.0, 11.0):
        for i, report in reports.items():
            rule.reported(tasks[i], report, now_s)
    rng = random.Random(1).random
    return Counter(tasks.index(rule.pick(rng, 11.0)) for _ in range(1200))


def test_weights_are_rps_over_utilization_and_the_unknown_weigh_the_mean():
    turns = weighed({0: Report(rps=100, utilization=0.5), 1: Report(rps=100, utilization=1.0)})
    # Weights 200, 100, and 150 for both others.
    assert [turns[i] for i in range(4)] == pytest.approx([400, 200, 300, 300], abs=3)


def test_a_fast_failing_task_loses_its_weight_by_the_penalty():
    turns = weighed({0: Report(rps=100, utilization=0.25, eps=75), 1: Report(rps=100, utilization=0.25)}, 2)
    assert turns[1] == pytest.approx(4 * turns[0], rel=0.05)


@pytest.mark.parametrize("lie", [Report(rps=math.inf, utilization=0.1), Report(rps=5), Report(rps=9, utilization=-4),
                                 Report(rps=math.nan, utilization=1), Report(rps=1, utilization=math.nan)])  # fmt: skip
def test_reports_that_make_no_sense_are_not_believed(lie):
    assert set(weighed({0: lie, 1: lie, 2: lie}).values()) == {300}


def test_nobody_is_believed_within_the_blackout_or_after_the_expiry():
    for now_s in (5.0, 200.0):
        rule: Rule[Member] = make_rule("weighted_round_robin")
        tasks = members(2)
        rule.assign(tasks, 0.0)
        rule.reported(tasks[0], Report(rps=100, utilization=0.1), 0.0)
        rule.reported(tasks[1], Report(rps=100, utilization=1.0), 0.0)
        rng = random.Random(1).random
        assert set(Counter(rule.pick(rng, now_s) for _ in range(100)).values()) == {50}


# prequal


def pooled(reports: list[Report]) -> tuple["Rule[Member]", list[Member]]:
    rule: Rule[Member] = make_rule("prequal")
    tasks = members(40)
    rule.assign(tasks, 0.0)
    for task, report in zip(tasks, reports, strict=False):
        rule.reported(task, report, 1.0, probe=True)
    return rule, tasks


def test_the_cold_task_with_the_least_latency_is_picked_not_the_hot_one_that_is_faster():
    reports = [Report(3, 0.05), Report(2, 0.04), Report(4, 0.06), *[Report(3, 0.09)] * 4, Report(9, 0.01)]
    rule, tasks = pooled(reports)
    assert rule.pick(random.Random(1).random, 1.0) is tasks[1]


def test_when_all_are_hot_the_fewest_in_flight_win():
    rule, tasks = pooled([Report(5, 0.01), Report(5, 0.02), Report(5, 0.03)])
    assert rule.pick(random.Random(1).random, 1.0) is tasks[0]


def test_answers_expire_and_without_them_anybody_is_picked():
    rule, _ = pooled([Report(1, 0.01), Report(1, 0.02)])
    rng = random.Random(1).random
    assert len({rule.pick(rng, 2.5) for _ in range(400)}) == 40


def test_errors_make_a_task_hot():
    rule, tasks = pooled([Report(2, 0.01), Report(3, 0.02), Report(3, 0.03), *[Report(4, 0.05)] * 3])
    tasks[0].burden = 9.0
    assert rule.pick(random.Random(1).random, 1.0) is tasks[1]


def test_three_different_tasks_are_probed_for_each_request():
    rule, _ = pooled([])
    rng = random.Random(1).random
    for _ in range(50):
        assert len(set(rule.probes(rng, 1.0))) == 3


# ring_hash


def ring(count: int) -> tuple["Rule[Member]", list[Member]]:
    rule: Rule[Member] = make_rule("ring_hash")
    tasks = members(count)
    rule.assign(tasks, 0.0)
    return rule, tasks


def test_a_key_stays_with_its_task_and_only_a_lost_tasks_keys_move():
    rule, tasks = ring(20)
    rng = random.Random(1).random
    keys = [f"user-{i}" for i in range(2000)]
    before = {key: rule.pick(rng, 0.0, key) for key in keys}
    rule.assign(tasks[:-1], 1.0)
    after = {key: rule.pick(rng, 1.0, key) for key in keys}
    assert all(after[key] is before[key] for key in keys if before[key] is not tasks[-1])
    counts = Counter(before.values())
    assert max(counts.values()) < 1.5 * 100


def test_more_keys_than_are_remembered_still_stay_with_their_tasks():
    rule, _ = ring(7)
    rng = random.Random(1).random
    first = [rule.pick(rng, 0.0, f"k{i}") for i in range(5000)]
    assert [rule.pick(rng, 0.0, f"k{i}") for i in range(5000)] == first


def test_a_key_that_everybody_wants_spreads_at_the_bound():
    rule, tasks = ring(10)
    rng = random.Random(1).random
    for _ in range(1000):
        rule.pick(rng, 0.0, "star").in_flight += 1
    assert max(task.in_flight for task in tasks) <= 126


def test_weights_give_more_of_the_ring():
    rule: Rule[Member] = make_rule("ring_hash")
    tasks = [*members(5), *members(10, weight=3.0)[5:]]
    rule.assign(tasks, 0.0)
    rng = random.Random(1).random
    counts = Counter(rule.pick(rng, 0.0, f"k{i}") for i in range(8000))
    heavy = sum(counts[task] for task in tasks[5:])
    assert heavy / 8000 == pytest.approx(0.75, abs=0.06)
