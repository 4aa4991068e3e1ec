"""DNS as a slow actuator: what answers outstanding mean for demand, for moves and for what can be placed."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bns.model import HealthStatus
from gslb.balancer.inputs import Inputs
from gslb.balancer.outstanding import LATE_FACTOR, TAIL_DEFAULT, answered, committed, growth_rps, learned, mended
from gslb.model.resources import DemandSource, DrainScope
from tests.support.balancer import drain, drained, planet, with_health
from tests.support.steps import Run

TTL_S = 100.0
HERE = np.array([[1.0, 0.0], [1.0, 0.0]])
THERE = np.array([[0.0, 1.0], [1.0, 0.0]])
DEMAND = np.array([60.0, 40.0])


def moved_at(now_s: float):
    """Everything was here for long; from `now_s` on the first locality is answered the other place."""
    return answered(answered(None, (0, 1), HERE, TTL_S, 0.0), (0, 1), THERE, TTL_S, now_s)


def test_load_follows_the_answers_within_a_ttl_and_late_resolvers_in_ten() -> None:
    out = moved_at(1000.0)
    parts = [out.placement(TTL_S, 1000.0 + after)[0, 1] for after in (0.0, 50.0, 100.0, LATE_FACTOR * TTL_S)]
    assert parts == pytest.approx([0.0, 0.9 * 0.5 + 0.1 * 0.05, 0.9 + 0.1 * 0.1, 1.0])
    for after in (0.0, 33.0, 500.0):
        assert out.placement(TTL_S, 1000.0 + after).sum(axis=1) == pytest.approx([1.0, 1.0])


def test_a_second_change_begins_where_the_first_one_got_to() -> None:
    out = moved_at(1000.0)
    back = answered(out, (0, 1), HERE, TTL_S, 1050.0)
    assert back.placement(TTL_S, 1050.0) == pytest.approx(out.placement(TTL_S, 1050.0))
    assert back.placement(TTL_S, 1150.0)[0, 0] > 0.99
    assert answered(out, (0, 1), THERE, TTL_S, 1050.0) is out
    assert answered(out, (0, 2), THERE, TTL_S, 1050.0).placement(TTL_S, 1050.0) == pytest.approx(THERE)


@pytest.mark.parametrize("tail", [0.0, 0.05, 0.3])
def test_the_late_tail_is_learned_from_where_load_is_seen(tail: float) -> None:
    out = moved_at(1000.0)
    rng = np.random.default_rng(1)
    for now_s in np.arange(1005.0, 1200.0, 5.0):
        prompt, late = out.prompt_at(TTL_S, now_s), out.late_at(TTL_S, now_s)
        seen = DEMAND @ ((1 - tail) * prompt + tail * late) * rng.uniform(0.98, 1.02, 2)
        out = learned(out, DEMAND, seen, TTL_S, now_s)
    assert out.tail == pytest.approx(tail, abs=0.03)


def test_nothing_is_learned_from_nonsense_or_while_there_is_nothing_to_tell() -> None:
    settled = answered(None, (0, 1), HERE, TTL_S, 0.0)
    assert learned(settled, DEMAND, np.array([0.0, 100.0]), TTL_S, 5.0) is settled
    out = moved_at(1000.0)
    for seen in (np.array([np.nan, 1.0]), np.zeros(2)):
        assert learned(out, DEMAND, seen, TTL_S, 1100.0).tail == TAIL_DEFAULT
    assert learned(out, np.zeros(2), np.ones(2), TTL_S, 1100.0).tail == TAIL_DEFAULT


def test_who_aims_at_the_dead_is_planned_for_though_nobody_counts_him() -> None:
    out = moved_at(1000.0)
    dead = np.array([True, False])
    # After half a TTL, 45.5 % of the first locality is counted, and nothing of the second.
    seen = np.array([0.455 * 60.0, 0.0])
    assert mended(out, seen, DEMAND, dead, TTL_S, 1050.0) == pytest.approx(DEMAND)
    # What falls is believed as far as it is counted, and a rise always.
    assert mended(out, seen / 2, DEMAND, dead, TTL_S, 1050.0)[0] == pytest.approx(30.0)
    assert mended(out, 2 * DEMAND, DEMAND, dead, TTL_S, 1050.0) == pytest.approx(2 * DEMAND)
    assert mended(out, seen, DEMAND, ~dead & False, TTL_S, 1050.0) is seen


def test_what_late_resolvers_keep_is_not_to_be_placed() -> None:
    out = moved_at(1000.0)
    kept = committed(out, np.array([True, True]), TTL_S, 1100.0)
    assert kept.sum(axis=1) == pytest.approx([0.1, 0.1])
    assert committed(out, np.array([False, True]), TTL_S, 1100.0)[:, 0].sum() == 0.0


def test_answers_may_move_at_once_what_may_grow_in_a_ttl() -> None:
    used = np.array([100.0, 200.0])
    assert growth_rps(None, used, 30.0, 0.0) == pytest.approx(0.6 * used)
    assert growth_rps(moved_at(1000.0), used, TTL_S, 1001.0) == pytest.approx(0.1 * used)


def steered(demand: Mapping[str, float], source: DemandSource, ttl_s: int = 60) -> Inputs:
    inputs = planet(demand)
    name, declared = next(iter(inputs.catalog.services.items()))
    slow = replace(declared, source=source, ttl_s=ttl_s)
    return replace(inputs, catalog=replace(inputs.catalog, services={name: slow}))


EVERYWHERE = {"north-america": 60.0, "europe": 60.0, "asia": 60.0, "south-america": 40.0}


def changes(run: Run, seconds: int) -> list[float]:
    """When shares change, in seconds from now."""
    start_s, shares, at = run.now_s, run.step(after_s=1.0).shares, []
    while run.now_s - start_s < seconds:
        now = run.step(after_s=1.0).shares
        if now != shares:
            at.append(run.now_s - start_s)
        shares = now
    return at


@pytest.mark.parametrize("source", [DemandSource.EDGE, DemandSource.DNS])
def test_answers_change_at_once_for_a_drain_and_then_at_most_once_in_a_ttl(source: DemandSource) -> None:
    slow, quick = (Run(steered(EVERYWHERE, each)) for each in (source, DemandSource.RPC))
    for run in (slow, quick):
        for _ in range(3):
            run.step()
        run.step(drained(run.inputs, drain(DrainScope.DATACENTER, "us-east1")), after_s=1.0)
        assert "us-east1" not in run.step().shares["north-america"]
        for _ in range(200):
            run.step()
        run.step(drained(run.inputs), after_s=1.0)
    at = changes(slow, 900)
    assert all(later - earlier >= 60 for earlier, later in pairwise(at))
    assert len(changes(quick, 900)) + 3 >= len(at)
    assert slow.step().shares["north-america"].get("us-east1", 0.0) > 0.9


def test_a_death_moves_answers_within_the_ttl_of_the_last_move() -> None:
    run = Run(steered(EVERYWHERE, DemandSource.EDGE, 600))
    run.step()
    run.step(drained(run.inputs, drain(DrainScope.DATACENTER, "us-east1")), after_s=5.0)
    plan = run.step(with_health(run.inputs, "backend", HealthStatus.TIMEOUT, ["europe-west1"]), after_s=5.0)
    assert all("europe-west1" not in shares for shares in plan.shares.values())


def test_demand_that_vanishes_with_the_dead_moves_nothing_until_it_is_back() -> None:
    run = Run(steered(EVERYWHERE, DemandSource.EDGE, 300))
    for _ in range(3):
        run.step()
    dead = with_health(run.inputs, "backend", HealthStatus.TIMEOUT, ["europe-west1"])
    shares = run.step(dead).shares
    for second in range(5, 600, 5):
        part = min(second / 300, 1.0) * 0.9
        shares_now = run.step(replace(run.inputs, demand={"backend": {**EVERYWHERE, "europe": 60.0 * part}})).shares
        if second < 300:
            assert shares_now == shares
