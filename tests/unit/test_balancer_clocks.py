"""A clock that jumps: what passed since something happened is never what the jump says."""

from dataclasses import replace

import numpy as np
import pytest

from gslb.balancer.outstanding import answered, not_ahead
from gslb.balancer.safety import RemovalBudget
from gslb.balancer.sharing import NOTHING_SHARED, Claim, Shared, split
from gslb.model.resources import DemandSource, DrainScope
from tests.support.balancer import NOW_S, drain, drained, planet
from tests.support.steps import Run

HOUR_S = 3600.0
EVERYWHERE = {"north-america": 60.0, "europe": 60.0, "asia": 60.0, "south-america": 40.0}
CPU = Shared("here", "CPU", 10.0, "cores")


def back_after_a_drain(source: DemandSource) -> float:
    """Share of the nearest datacenter a quarter of an hour after its drain ended and the clock was put back."""
    inputs = planet(EVERYWHERE)
    declared = replace(inputs.catalog.services["backend"], source=source, ttl_s=10)
    inputs = replace(inputs, catalog=replace(inputs.catalog, services={"backend": declared}))
    run = Run(inputs)
    run.step()
    away = drain(DrainScope.DATACENTER, "us-east1", from_s=NOW_S - 2 * HOUR_S, for_s=4 * HOUR_S)
    for _ in range(6):
        run.step(drained(run.inputs, away))
    run.step(drained(run.inputs))
    run.step(after_s=-HOUR_S)
    for _ in range(180):
        run.step()
    return run.step().shares["north-america"].get("us-east1", 0.0)


@pytest.mark.parametrize("source", list(DemandSource))
def test_load_returns_after_a_drain_though_the_clock_was_put_back(source: DemandSource) -> None:
    assert back_after_a_drain(source) > 0.95


def test_answers_given_in_the_future_are_taken_to_be_given_now() -> None:
    here, there = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    out = answered(answered(None, (0, 1), here, 30.0, 0.0), (0, 1), there, 30.0, 2 * HOUR_S)
    assert not_ahead(out, 2 * HOUR_S + 1) is out
    moved = not_ahead(out, HOUR_S)
    assert moved.prompt_at(30.0, HOUR_S + 30) == pytest.approx(there)


def test_a_budget_goes_on_growing_when_the_clock_was_put_back() -> None:
    claims = [Claim(name, "here", 100.0, 0.0, 0.0, ((CPU, 0.1),)) for name in ("a", "b")]
    sharing = split(NOTHING_SHARED, claims, {"a": 40.0, "b": 40.0}, NOW_S)
    sharing = split(sharing, claims, {"a": 20.0, "b": 44.0}, NOW_S + 5)
    at_first = sharing.budgets["b", "here"]
    for period in range(3):
        sharing = split(sharing, claims, {"a": 20.0, "b": 44.0}, NOW_S - HOUR_S + 5 * period)
    assert sharing.budgets["b", "here"] > 1.05 * at_first


@pytest.mark.parametrize("jump_s", [31.0, HOUR_S, 1e9])
def test_a_clock_put_forward_lets_no_more_names_go_than_one_window_does(jump_s: float) -> None:
    names = frozenset(f"n{i}" for i in range(100))
    budget, _ = RemovalBudget().judge(names, "tasks", now_s=NOW_S)
    few = frozenset(sorted(names)[:10])
    budget, reason = budget.judge(few, "tasks", now_s=NOW_S + 1)
    assert "removal budget" in reason
    budget, reason = budget.judge(few, "tasks", now_s=NOW_S + 1 + jump_s)
    assert "90 of 100 tasks vanished" in reason, "two windows let 75 go"
    for period in range(1, 30):
        budget, reason = budget.judge(few, "tasks", now_s=NOW_S + 1 + jump_s + 5 * period)
    assert not reason, "time that really passes opens the budget"


def test_a_clock_put_back_holds_names_no_longer_than_it_would_have() -> None:
    names = frozenset(f"n{i}" for i in range(10))
    budget, _ = RemovalBudget().judge(names, "tasks", now_s=NOW_S)
    budget, _ = budget.judge(frozenset({"n0", "n1", "n2"}), "tasks", now_s=NOW_S + 1)
    for period in range(12):
        budget, reason = budget.judge(frozenset({"n0", "n1", "n2"}), "tasks", now_s=NOW_S - HOUR_S + 5 * period)
    assert not reason


def test_stickiness_decays_though_the_clock_was_put_back() -> None:
    run = Run(planet({"north-america": 60.0}))
    assert run.step().shares["north-america"] == {"us-east1": 1.0}
    far = {("north-america", "us-east1"): 90.0, ("north-america", "europe-west1"): 80.0}
    run.step(replace(run.inputs, rtt_ms=far))
    run.step(after_s=-HOUR_S)
    for _ in range(180):
        run.step()
    assert run.step().shares["north-america"] == {"europe-west1": 1.0}
