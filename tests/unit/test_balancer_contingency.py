"""Contingencies: everybody's place is kept, the lost part fits, near the least cost, and nothing is published for noise."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gslb.balancer import contingency
from gslb.balancer.congestion import curve
from gslb.balancer.contingency import Placed, level, losses, peak_after, solve
from gslb.balancer.inputs import Inputs
from gslb.balancer.solver import Columns, Program
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model import limits
from gslb.model.plan import Plan
from gslb.wire.codec import plan_from_bytes, plan_to_bytes
from tests.support.balancer import NOW_S, PLACES, planet


def _plan(inputs: Inputs, state: BalancerState | None = None) -> Plan:
    _, decision = step(state or BalancerState(), inputs, now_s=NOW_S)
    plan = decision.services["backend"].plan
    assert plan is not None
    return plan


def _random(seed: int, localities: int = 30, datacenters: int = 8, fullness: float = 0.7) -> Placed:
    """A service whose localities are shared out at random, with `fullness` of all capacity in use."""
    rng = np.random.default_rng(seed)
    shares = rng.random((localities, datacenters)) * (rng.random((localities, datacenters)) < 0.2)
    shares[np.arange(localities), rng.integers(0, datacenters, localities)] += 1.0
    shares /= shares.sum(axis=1, keepdims=True)
    demand = rng.pareto(1.5, localities) + 0.1
    load = demand @ shares
    capacity = load * rng.uniform(0.9, 1.1, datacenters) / fullness
    names = [f"l{i:03}" for i in range(localities)], [f"d{i}" for i in range(datacenters)]
    return Placed(*names, demand, shares, rng.uniform(1, 200, (localities, datacenters)), capacity, 0.8)


def _after(placed: Placed, found: contingency.Contingencies, lost: str) -> dict[str, float]:
    """Load over capacity of every survivor when `lost` is gone."""
    column = list(placed.datacenters).index(lost)
    load = dict(zip(placed.datacenters, (placed.demand_rps @ placed.shares).tolist(), strict=True))
    del load[lost]
    for row, locality in enumerate(placed.localities):
        for heir, part in found[lost].get(locality, {}).items():
            load[heir] += float(placed.demand_rps[row] * placed.shares[row, column]) * part
    return {name: rps / placed.capacity_rps[list(placed.datacenters).index(name)] for name, rps in load.items()}


def test_where_a_lost_datacenter_is_used_and_nowhere_else() -> None:
    plan = _plan(planet({"north-america": 80.0, "europe": 60.0}))
    for lost, rows in plan.contingencies.items():
        assert set(rows) == {locality for locality, shares in plan.shares.items() if shares.get(lost)}
        for heirs in rows.values():
            assert lost not in heirs
            assert math.isclose(math.fsum(heirs.values()), 1.0, abs_tol=1e-9)
    assert set(plan.contingencies) == set(PLACES)
    assert plan.contingencies["us-east1"]["north-america"] == {"europe-west1": pytest.approx(1.0)} or (
        "europe-west1" in plan.contingencies["us-east1"]["north-america"]
    )


def test_a_plan_that_is_held_for_more_demand_still_says_where_the_lost_fit() -> None:
    """Of large places next to nothing is kept for chance: a tenth more demand, and the nearest heir would be overfull."""
    demand = {"north-america": 7000.0, "europe": 7500.0, "asia": 4500.0, "south-america": 4500.0}
    inputs = planet(demand, rps=5000.0)
    state, decision = step(BalancerState(), inputs, now_s=NOW_S)
    made = decision.services["backend"].plan
    assert made is not None
    grown = replace(inputs, demand={"backend": {place: 1.1 * rps for place, rps in demand.items()}})
    _, decision = step(state, replace(grown, previous={"backend": made}), now_s=NOW_S + 5)
    held = decision.services["backend"]
    assert held.plan is not None
    assert not held.recomputed
    assert held.changed
    assert held.plan.shares == made.shares
    today = {place: grown.demand["backend"].get(place, 0.0) for place in made.demand_rps}
    loads = {name: 1.1 * rps for name, rps in made.load_rps.items()}
    before, after = (replace(plan, demand_rps=today, load_rps=loads) for plan in (made, held.plan))
    assert max(peak_after(before, lost)[1] for lost in PLACES) > 1.05
    assert max(peak_after(after, lost)[1] for lost in PLACES) <= 1.0


def test_survivors_stay_within_capacity_while_it_suffices() -> None:
    # 400 rps in all; without one datacenter 300, for 285.
    plan = _plan(planet({"north-america": 95.0, "europe": 90.0, "asia": 80.0, "south-america": 20.0}))
    for lost in PLACES:
        assert peak_after(plan, lost)[1] <= 1.001, lost
    assert all(loss.survivable for loss in losses(plan))


@pytest.mark.parametrize("fullness", [0.5, 0.8, 0.86])
def test_at_random_no_survivor_is_overfull(fullness: float) -> None:
    for seed in range(20):
        placed = _random(seed, fullness=fullness)
        found = solve(placed, None)
        total = float(placed.demand_rps.sum())
        for k, lost in enumerate(placed.datacenters):
            remaining = float(placed.capacity_rps.sum() - placed.capacity_rps[k])
            before = placed.demand_rps @ placed.shares / placed.capacity_rps
            most = max(1.0, total / remaining, *np.delete(before, k))
            assert max(_after(placed, found, lost).values()) <= most + 5e-3


def test_too_little_capacity_is_equally_too_little() -> None:
    placed = _random(3, fullness=0.95)
    found = solve(placed, None)
    used = list(_after(placed, found, "d0").values())
    assert max(used) > 1.02
    assert max(used) - min(used) < 0.01


def test_level_leaves_alone_who_is_fuller_already() -> None:
    load, capacity = np.array([30.0, 5.0, 0.0]), np.array([10.0, 10.0, 0.0])
    assert level(load, capacity, 5.0) == 1.0
    assert level(load, capacity, 15.0) == pytest.approx(2.0)
    assert level(load, capacity, 25.0) == pytest.approx(3.0)
    assert level(load, capacity, 45.0) == pytest.approx(4.0)


def _cost(placed: Placed, flow: np.ndarray, column: int) -> float:
    """What the program's objective says of `flow`, by the plan's own fine curve."""
    price = curve(placed.max_utilization)
    edge = np.concatenate([[0.0], np.cumsum(price.width)])
    load = placed.demand_rps @ placed.shares
    total = float((flow * placed.cost_ms).sum())
    for k in range(len(load)):
        if k == column:
            continue
        for before, now in ((load[k], load[k] + flow[:, k].sum()),):
            used = np.clip(np.array([[before], [now]]) / placed.capacity_rps[k], edge[:-1], edge[1:]) - edge[:-1]
            total += float(placed.capacity_rps[k] * ((used[1] - used[0]) * price.price_ms).sum())
    return total


def _optimum(placed: Placed, column: int) -> np.ndarray:
    """The same program by the engine, in the plan's own fine steps."""
    rows = np.flatnonzero(placed.shares[:, column])
    sinks = [k for k in range(len(placed.capacity_rps)) if k != column]
    price = curve(placed.max_utilization)
    edge = np.concatenate([[0.0], np.cumsum(price.width)])
    load = placed.demand_rps @ placed.shares
    cost, upper, start, index, value = [], [], [], [], []
    for j, k in enumerate(sinks):
        for low, high, ms in zip(edge[:-1], edge[1:], price.price_ms, strict=True):
            start.append(len(index))
            cost.append(ms)
            upper.append(max(0.0, placed.capacity_rps[k] * high - max(placed.capacity_rps[k] * low, load[k])))
            index.append(len(rows) + j)
            value.append(-1.0)
    first = len(cost)
    for i, row in enumerate(rows):
        for j, k in enumerate(sinks):
            start.append(len(index))
            cost.append(placed.cost_ms[row, k])
            upper.append(np.inf)
            index += [i, len(rows) + j]
            value += [1.0, 1.0]
    columns = Columns(
        np.array(cost), np.array(upper), np.array(start, np.int32), np.array(index, np.int32), np.array(value)
    )
    right = np.concatenate([placed.demand_rps[rows] * placed.shares[rows, column], np.zeros(len(sinks))])
    solved = Program(right, columns).solve().value[first:].reshape(len(rows), len(sinks))
    flow = np.zeros_like(placed.shares)
    flow[np.ix_(rows, sinks)] = solved
    return flow


def test_near_the_least_cost() -> None:
    found_ms = least_ms = 0.0
    for seed in range(25):
        placed = _random(seed, fullness=(0.6, 0.75, 0.82)[seed % 3])
        found = solve(placed, None)
        for column, lost in enumerate(placed.datacenters):
            flow = np.zeros_like(placed.shares)
            for locality, heirs in found[lost].items():
                row = list(placed.localities).index(locality)
                for heir, part in heirs.items():
                    k = list(placed.datacenters).index(heir)
                    flow[row, k] = placed.demand_rps[row] * placed.shares[row, column] * part
            found_ms += _cost(placed, flow, column)
            least_ms += _cost(placed, _optimum(placed, column), column)
    assert least_ms <= found_ms * (1 + 1e-6)
    assert found_ms <= 1.03 * least_ms, f"{found_ms / least_ms:.4f} times the least cost"


def test_what_is_published_stays_while_it_is_good() -> None:
    placed = _random(5, fullness=0.6)
    first = solve(placed, None)
    published = Plan("s", contingencies=first)
    rng = np.random.default_rng(1)
    noisy = replace(placed, demand_rps=placed.demand_rps * rng.uniform(0.98, 1.02, len(placed.demand_rps)))
    assert solve(noisy, published) == first
    # A survivor that is gone is no heir any more, wherever it was one.
    gone = placed.capacity_rps.copy()
    gone[1] = 0.0
    other = solve(replace(placed, capacity_rps=gone), published)
    assert all("d1" not in heirs for rows in other.values() for heirs in rows.values())
    assert other != first


def test_the_only_datacenter_has_no_contingency_and_is_a_loss_that_nobody_survives() -> None:
    plan = _plan(planet({"europe": 10.0}, count={"europe-west1": 2}))
    assert plan.contingencies == {}
    (loss,) = losses(plan)
    assert not loss.survivable
    assert loss.overload == math.inf


def test_losses_have_their_numbers() -> None:
    # The canonical scenario: without the largest 2600 rps remain for 3470.
    inputs = planet(
        {"north-america": 1430.0, "europe": 1400.0, "asia": 350.0, "south-america": 290.0},
        rps=100.0,
        count={"us-east1": 17, "europe-west1": 16, "asia-east1": 6, "southamerica-east1": 4},
    )
    plan = _plan(inputs)
    found = {loss.datacenter: loss for loss in losses(plan)}
    assert {name: loss.survivable for name, loss in found.items()} == {
        "us-east1": False, "europe-west1": False, "asia-east1": True, "southamerica-east1": True,
    }  # fmt: skip
    assert found["us-east1"].remaining_rps == pytest.approx(2600.0)
    assert found["us-east1"].overload == pytest.approx(3470 / 2600)
    assert peak_after(plan, "us-east1")[1] == pytest.approx(3470 / 2600, rel=0.01)


def test_in_step_a_plan_is_published_for_its_contingency_and_for_nothing_else() -> None:
    inputs = planet({"north-america": 80.0, "europe": 60.0})
    state, decision = step(BalancerState(), inputs, now_s=NOW_S)
    plan = decision.services["backend"].plan
    assert plan is not None
    bare = replace(plan, contingencies={})
    _, again = step(BalancerState(), replace(inputs, previous={"backend": bare}), now_s=NOW_S)
    assert again.services["backend"].changed, "a plan of an older version gets its contingencies"
    published = plan_from_bytes(plan_to_bytes(plan))
    for fresh in (state, BalancerState()):
        _, after = step(fresh, replace(inputs, previous={"backend": published}), now_s=NOW_S + 1)
        assert not after.services["backend"].changed


def test_bounded() -> None:
    rows = {lost: {f"l{i}": {"x": 1.0} for i in range(limits.CONTINGENCY_ROWS_MAX)} for lost in ("a", "b")}
    kept = contingency._bounded(rows, {f"l{i}": float(i) for i in range(limits.CONTINGENCY_ROWS_MAX)})
    assert sum(len(each) for each in kept.values()) == limits.CONTINGENCY_ROWS_MAX
    assert f"l{limits.CONTINGENCY_ROWS_MAX - 1}" in kept["a"]
    assert "l0" not in kept["a"]


def test_survivors_keep_room_for_chance_while_there_is_room() -> None:
    placed = _random(3, fullness=0.6)
    used: dict[bool, float] = {}
    for scale in (1.0, 1000.0):
        # A thousand times the rate needs next to no room for chance.
        scaled = replace(placed, demand_rps=scale * placed.demand_rps, capacity_rps=scale * placed.capacity_rps)
        used[scale > 1] = _fullest(scaled)
    assert used[False] < 0.9
    assert used[True] > 0.96


def test_room_for_chance_is_given_up_before_anybody_is_overloaded() -> None:
    for seed in range(12):
        placed = _random(seed, fullness=0.6)
        demand, capacity = float(placed.demand_rps.sum()), placed.capacity_rps
        # So much is lost with the largest that 0.5 % of room is left.
        rest = capacity.sum() - capacity.max()
        tight = replace(placed, demand_rps=placed.demand_rps * (0.995 * rest / demand))
        if (tight.demand_rps @ tight.shares <= capacity).all():
            assert _fullest(tight, int(capacity.argmax())) <= 1 + 2e-3


def _fullest(placed: Placed, only: int | None = None) -> float:
    """Utilization of the fullest heir after the loss of any datacenter, or of one."""
    load = placed.demand_rps @ placed.shares
    found = solve(placed, None)
    worst = 0.0
    for column, lost in enumerate(placed.datacenters):
        if only is not None and column != only:
            continue
        then, heirs_of = load.copy(), found.get(lost, {})
        for row, locality in enumerate(placed.localities):
            for heir, part in heirs_of.get(locality, {}).items():
                k = list(placed.datacenters).index(heir)
                then[k] += placed.demand_rps[row] * placed.shares[row, column] * part
        used = then / placed.capacity_rps
        used[column] = 0.0
        worst = max(worst, float(used[then > load].max(initial=0.0)))
    return worst
