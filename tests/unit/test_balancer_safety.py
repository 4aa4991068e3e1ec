"""The rules that a plan must pass, and how fast registered names may vanish."""

import math
from dataclasses import replace

import pytest

from gslb.balancer.safety import RemovalBudget, plan_violations
from gslb.model.plan import Plan

GOOD = Plan(
    "backend",
    shares={"europe": {"a": 0.25, "b": 0.75}, "asia": {"b": 1.0}},
    demand_rps={"europe": 4.0, "asia": 0.0},
    capacity_rps={"a": 10.0, "b": 0.0},
    load_rps={"a": 1.0, "b": 3.0},
)


def violations(plan: Plan) -> tuple[str, ...]:
    return plan_violations(plan, ["asia", "europe"], {"a", "b"})


def test_a_good_plan_passes() -> None:
    assert violations(GOOD) == ()


@pytest.mark.parametrize(
    ("plan", "rule"),
    [
        (replace(GOOD, shares={}), "never empty: the plan of backend has no shares"),
        (replace(GOOD, shares={"europe": {"a": 1.0}}), "lost localities: 1 of 2 have no shares, among them asia"),
        (replace(GOOD, shares={**GOOD.shares, "asia": {}}), "never empty: no datacenter has a share"),
        (replace(GOOD, shares={**GOOD.shares, "asia": {"c": 1.0}}), "known datacenters: a share goes to c"),
        (replace(GOOD, shares={**GOOD.shares, "asia": {"a": 0.4, "b": 0.5}}), "shares sum to 1: they sum to 0.9"),
        (replace(GOOD, shares={**GOOD.shares, "asia": {"a": math.nan}}), "shares in 0..1: one is nan"),
        (replace(GOOD, shares={**GOOD.shares, "asia": {"a": 1.5, "b": -0.5}}), "shares in 0..1: one is 1.5"),
        (replace(GOOD, load_rps={"a": math.nan}), "finite numbers: the plan of backend carries a rate of nan"),
        (replace(GOOD, capacity_rps={"a": math.inf}), "finite numbers"),
        (replace(GOOD, demand_rps={"europe": -1.0}), "finite numbers"),
    ],
)
def test_a_bad_plan_is_told_which_rule_it_breaks_with_the_numbers(plan: Plan, rule: str) -> None:
    assert any(rule in violation for violation in violations(plan))


def names(count: int) -> frozenset[str]:
    return frozenset(f"n{i}" for i in range(count))


def judged(budget: RemovalBudget, count: int, now_s: float) -> tuple[RemovalBudget, bool]:
    after, reason = budget.judge(names(count), "tasks", now_s=now_s)
    return after, not reason


def test_half_of_the_names_may_go_in_a_window_and_not_one_more() -> None:
    start, fine = judged(RemovalBudget(), 10, 0)
    assert fine
    assert judged(start, 5, 1)[1]
    assert not judged(start, 4, 1)[1]
    assert start.judge(names(4), "tasks", now_s=1)[1] == ("removal budget: 6 of 10 tasks vanished within 30 s, 5 may")


def test_removals_in_small_steps_share_one_window() -> None:
    budget, _ = judged(RemovalBudget(), 10, 0)
    for now_s, left in enumerate((9, 8, 7, 6, 5), start=1):
        budget, fine = judged(budget, left, now_s)
        assert fine
    assert not judged(budget, 4, 6)[1]


def test_a_real_shrinking_is_let_through_a_window_later() -> None:
    budget, _ = judged(RemovalBudget(), 10, 0)
    for now_s in range(1, 30):
        budget, fine = judged(budget, 3, now_s)
        assert not fine
    assert judged(budget, 3, 32)[1]


def test_the_loss_of_everything_is_never_let_through() -> None:
    budget, _ = judged(RemovalBudget(), 10, 0)
    for now_s in range(1, 100_000, 97):
        budget, fine = judged(budget, 0, now_s)
        assert not fine


def test_names_that_come_back_end_the_window() -> None:
    budget, _ = judged(RemovalBudget(), 10, 0)
    budget, fine = judged(budget, 1, 5)
    assert not fine
    budget, fine = judged(budget, 10, 10)
    assert fine
    assert not judged(budget, 1, 500)[1]
    assert judged(budget, 5, 500)[1]


def test_a_loss_long_after_an_accepted_one_has_a_window_of_its_own() -> None:
    budget, _ = judged(RemovalBudget(), 10, 0)
    budget, fine = judged(budget, 6, 1)
    assert fine
    assert not judged(budget, 2, 3600)[1]
    assert judged(budget, 3, 3600)[1]


def test_a_clock_that_jumps_back_keeps_the_budget() -> None:
    budget, _ = judged(RemovalBudget(), 10, 1000)
    budget, fine = judged(budget, 2, 1001)
    assert not fine
    assert not judged(budget, 2, -1e6)[1]
