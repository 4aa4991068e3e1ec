"""Noise moves nothing, health and drains act at once, and what nobody is forced to do is done step by step."""

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from bns.model import HealthStatus
from gslb.balancer.damping import GROWTH_PER_PERIOD, Move, growth_rps, plannable_rps, ramp
from gslb.balancer.demand import DemandFold, DemandReport, DemandRow
from gslb.model.plan import Plan
from gslb.model.resources import DemandSource, DrainScope
from tests.support.balancer import AREAS, PLACES, assert_well_formed, drain, drained, planet, with_health
from tests.support.steps import Run

SPILLING = {"north-america": 110.0, "europe": 40.0, "asia": 60.0, "south-america": 30.0}
BUSY = {"north-america": 45.0, "europe": 25.0, "asia": 30.0, "south-america": 20.0}
PERIOD_S = 5


def moved(old: Plan, new: Plan, demand: Mapping[str, float]) -> float:
    """The fraction of all traffic that goes elsewhere under the new plan."""
    rps = 0.0
    for locality, asked in demand.items():
        before, after = old.shares[locality], new.shares[locality]
        rps += asked * sum(max(0.0, share - before.get(name, 0.0)) for name, share in after.items())
    return rps / sum(demand.values())


def noisy_periods(demand: Mapping[str, float], seed: int, age_s: int, periods: int = 150) -> list[float]:
    """What moved in each period, with one reporter whose counts are off by up to 10 % and arrive `age_s` late."""
    rng = random.Random(seed)
    fold, run = DemandFold(), Run(planet(demand))
    sources = {"backend": DemandSource.RPC}
    arriving: list[tuple[int, DemandReport]] = []
    fractions: list[float] = []
    last: Plan | None = None
    for second in range(periods * PERIOD_S + age_s):
        if second % 2 == 0:
            rows = tuple(
                DemandRow("backend", locality, round(100 * 2 * rps * rng.uniform(0.9, 1.1)))
                for locality, rps in demand.items()
            )
            arriving.append((second + age_s, DemandReport("r", "b", second + 1, 2.0, DemandSource.RPC, rows)))
        while arriving and arriving[0][0] <= second:
            assert not fold.accept(arriving.pop(0)[1], now_s=second)
        seen = {place: rps / 100 for place, rps in fold.demand(sources, now_s=second).get("backend", {}).items()}
        if second < age_s or second % PERIOD_S:
            continue
        plan = run.step(replace(run.inputs, demand={"backend": seen}))
        if last is not None:
            fractions.append(moved(last, plan, demand))
        last = plan
    return fractions


@pytest.mark.parametrize("age_s", [0, 1, 5, 10, 30])
def test_noise_of_a_tenth_moves_less_than_a_thousandth_of_the_traffic_a_period(age_s: int) -> None:
    fractions = noisy_periods(SPILLING, age_s + 1, age_s)
    # The first minute brings the demand to its mean, and the decay of stickiness the plan to its optimum.
    settled = fractions[12:]
    assert float(np.mean(settled)) <= 0.001
    assert float(np.median(settled)) == 0.0
    # No limit cycle: at most a move now and then.
    assert sum(fraction > 0.001 for fraction in settled) <= 4


def test_a_real_change_of_demand_leaves_the_band_and_is_planned_for() -> None:
    run = Run(planet(SPILLING))
    run.step()
    run.step(replace(run.inputs, demand={"backend": {**SPILLING, "asia": 62.0}}))
    assert run.decision.recomputed == 0
    run.step(replace(run.inputs, demand={"backend": {**SPILLING, "asia": 75.0}}))
    assert run.decision.recomputed == 1


def test_nobody_is_held_above_capacity_however_wide_the_band() -> None:
    far = {("north-america", name): 900.0 for name in PLACES} | {("north-america", "us-east1"): 10.0}
    run = Run(replace(planet({"north-america": 85.0}), rtt_ms=far))
    assert run.step().shares["north-america"] == {"us-east1": 1.0}
    plan = run.step(replace(run.inputs, demand={"backend": {"north-america": 94.0}}))
    # Within the band, and too near to what chance may bring.
    assert plan.load_rps["us-east1"] <= 90.0


def test_large_places_need_next_to_no_room_for_chance_and_what_is_needed_is_used() -> None:
    assert plannable_rps(np.array([60.0]), 0.0)[0] == pytest.approx(51.3, abs=0.1)
    assert plannable_rps(np.array([60_000.0]), 0.0)[0] > 59_700
    assert plannable_rps(np.array([60.0, 0.0]), 60.0).tolist() == [60.0, 0.0]
    assert plannable_rps(np.array([60.0, 60.0]), 110.0).sum() > 110.0


def test_one_task_that_falls_ill_is_acted_on_at_once() -> None:
    run = Run(planet({**BUSY, "north-america": 90.0}, rps=10.0, count=10))
    run.step()
    first, *others = run.inputs.tasks["backend"]
    ill = replace(run.inputs, tasks={"backend": (replace(first, health=HealthStatus.UNHEALTHY), *others)})
    plan = run.step(ill, after_s=0.05)
    assert run.decision.recomputed == 1
    assert plan.capacity_rps["us-east1"] == 90.0


def test_a_drained_datacenter_is_empty_at_once_and_returns_in_bounded_steps() -> None:
    run = Run(planet(BUSY))
    before = run.step()
    out = drain(DrainScope.DATACENTER, "us-east1")
    assert run.step(drained(run.inputs, out), after_s=0.05).load_rps["us-east1"] == 0
    for _ in range(24):
        run.step()
    back = drained(run.inputs)
    loads = [run.step(back, after_s=0.05).load_rps["us-east1"]]
    while loads[-1] < 0.99 * before.load_rps["us-east1"]:
        loads.append(run.step().load_rps["us-east1"])
        assert len(loads) < 120
    growth = np.diff([0.0, *loads])
    assert float(growth.max()) <= 100 * GROWTH_PER_PERIOD * 1.001
    assert len(loads) >= 45 / (100 * GROWTH_PER_PERIOD)
    assert (growth >= -1e-6).all()
    assert len(loads) * PERIOD_S <= 600


def test_while_load_returns_the_plan_says_what_is_to_come_and_then_no_more() -> None:
    run = Run(drained(planet(BUSY), drain(DrainScope.DATACENTER, "us-east1")))
    run.step()
    plan = run.step(drained(run.inputs))
    assert any(note.startswith("ramp: ") and "us-east1" in note for note in plan.notes)
    for _ in range(120):
        plan = run.step()
    assert plan.notes == ()
    assert run.decision.recomputed == 0


def test_what_is_forced_moves_at_once_up_to_capacity_while_something_else_returns() -> None:
    run = Run(drained(planet({"north-america": 95.0, "europe": 95.0}), drain(DrainScope.DATACENTER, "us-east1")))
    run.step()
    ill = with_health(drained(run.inputs), "backend", HealthStatus.TIMEOUT, ["europe-west1"])
    plan = run.step(ill, after_s=0.05)
    assert plan.load_rps["europe-west1"] == 0
    assert_well_formed(plan, [*PLACES, *AREAS])
    # 190 rps on three times 100: the one that just came back has to help.
    assert max(plan.load_rps.values()) <= 100.0 * 1.001


def random_move(rng: np.random.Generator) -> Move:
    """Any two plans; the target is within capacity, the one in force may not be."""
    rows, columns = rng.integers(1, 12), rng.integers(2, 8)
    demand = rng.pareto(1.2, rows)
    target = rng.dirichlet(np.full(columns, 0.3), rows)
    previous = rng.dirichlet(np.full(columns, 0.3), rows)
    previous[rng.random(rows) < 0.1] = 0.0
    dead = int(rng.integers(columns)) if rng.random() < 0.5 else None
    if dead is not None:
        target[:, dead] = 0.0
        target = (target + 1e-3) * (np.arange(columns) != dead)
        target /= target.sum(axis=1, keepdims=True)
    room = demand @ target * rng.uniform(1.0, 2.0, columns) + 1e-9
    if dead is not None:
        room[dead] = 0.0
    return Move(previous, target, demand, room, room * 0.8, growth_rps(room, rng.uniform(0, 10)))


def test_whatever_moves_is_a_plan_and_nobody_is_above_capacity_and_the_dead_get_nothing() -> None:
    rng = np.random.default_rng(7)
    held_back = 0
    for _ in range(3_000):
        move = random_move(rng)
        ramped = ramp(move)
        assert np.allclose(ramped.shares.sum(axis=1), 1.0, atol=1e-9)
        assert (ramped.shares >= 0).all()
        load = move.demand_rps @ ramped.shares
        assert (load <= move.room_rps * 1.002 + 1e-5 * move.demand_rps.sum()).all()
        assert not ramped.shares[:, move.room_rps == 0].any()
        held_back += ramped.done < 1
    assert held_back > 300


def test_growth_of_ones_own_will_is_bounded_when_nothing_is_forced() -> None:
    rng = np.random.default_rng(11)
    bounded = 0
    for _ in range(2_000):
        move = random_move(rng)
        before = move.demand_rps @ move.previous
        calm = replace(move, room_rps=move.room_rps + 2 * before, comfort_rps=move.room_rps + 2 * before)
        if not move.previous.any(axis=1).all():
            continue
        grown = move.demand_rps @ ramp(calm).shares - before
        assert (grown <= calm.growth_rps + 2e-3 * move.demand_rps.sum()).all()
        bounded += 1
    assert bounded > 500


def test_a_long_pause_is_no_licence_for_a_leap_and_a_clock_that_jumps_back_stops_growth() -> None:
    used = np.array([100.0, 50.0])
    assert growth_rps(used, 3600.0).tolist() == [10.0, 5.0]
    assert growth_rps(used, 2.5).tolist() == [5.0, 2.5]
    assert growth_rps(used, -10.0).tolist() == [0.0, 0.0]
