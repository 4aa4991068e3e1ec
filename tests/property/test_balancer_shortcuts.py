"""The balancer's short cuts give the plan that the plain program gives: guessed prices, few columns, no engine at all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gslb.balancer import optimum, prices
from gslb.balancer.assignment import Problem, assign
from gslb.balancer.congestion import curve
from gslb.balancer.filling import LEVEL_MS, Lost, fill
from gslb.balancer.solver import Columns, Program, SolverError
from gslb.balancer.transport import Transport, respond
from tests.property.test_balancer_plan import cost_of, random_problem
from tests.support.plain_program import plain_shares

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([(1, 1), (1, 7), (9, 1), (15, 4), (40, 15)])


def assert_same(problem: Problem) -> None:
    """The same cost, and the same shares: with costs drawn at random there is one optimum."""
    ours, plain = assign(problem).shares, plain_shares(problem)
    assert cost_of(problem, ours) == pytest.approx(cost_of(problem, plain), rel=1e-7)
    assert np.abs(ours - plain).max() <= 2e-6


def planned(seed: int, size: tuple[int, int]) -> tuple[Problem, np.random.Generator]:
    """A planet as its first plan left it, ready to be planned again."""
    first = random_problem(seed, *size, 0.0)
    again = replace(first, previous=assign(first).shares, stickiness_ms=22.0)
    return again, np.random.default_rng(seed)


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIZES, st.sampled_from([0.0, 3.0, 22.0]))
def test_at_random(seed: int, size: tuple[int, int], sticky: float) -> None:
    assert_same(random_problem(seed, *size, sticky))


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIZES, st.sampled_from(["noise", "growth", "smaller", "lost", "quiet localities", "huge locality"]))
def test_after_a_change(seed: int, size: tuple[int, int], change: str) -> None:
    problem, rng = planned(seed, size)
    demand, capacity = problem.demand_rps.copy(), problem.capacity_rps.copy()
    one = int(rng.integers(len(capacity)))
    match change:
        case "noise":
            demand *= rng.uniform(0.9, 1.1, len(demand))
        case "growth":
            demand *= rng.uniform(0.3, 3.0)
        case "smaller":
            capacity[one] *= rng.uniform(0.01, 1.0)
        case "lost" if len(capacity) > 1:
            capacity[one] = 0.0
        case "quiet localities":
            demand[rng.random(len(demand)) < 0.5] = 0.0
        case _:
            demand[0] = 10 * demand.sum()
    assert_same(replace(problem, demand_rps=demand, capacity_rps=capacity))


@settings(max_examples=30, deadline=None)
@given(SEEDS, SIZES, st.integers(0, 44))
def test_from_any_guess_of_the_prices(seed: int, size: tuple[int, int], worst: int) -> None:
    problem, rng = planned(seed, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimum, "first_steps", lambda transport: rng.integers(0, worst + 1, len(transport.capacity)))
        patch.setattr(optimum, "NEARLY_MS", 1.0)
        patch.setattr(optimum, "WINDOW", 0)
        assert_same(problem)


class _NoEngine:
    def __init__(self, *_: object) -> None:
        raise SolverError("the engine was called")


@settings(max_examples=25, deadline=None)
@given(SEEDS, SIZES)
def test_a_plan_that_stays_right_needs_no_engine(seed: int, size: tuple[int, int]) -> None:
    problem, _ = planned(seed, size)
    roomy = replace(
        problem, capacity_rps=problem.capacity_rps / problem.capacity_rps.sum() * problem.demand_rps.sum() / 0.9
    )
    problem = replace(roomy, previous=assign(replace(roomy, stickiness_ms=0.0)).shares)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimum, "Program", _NoEngine)
        shares = assign(problem).shares
    assert np.abs(shares - problem.previous).max() <= 1e-9
    assert np.abs(shares - plain_shares(problem)).max() <= 1e-6


def test_where_nothing_binds_everybody_goes_to_the_nearest_without_an_engine() -> None:
    problem = random_problem(7, 30, 5, 0.0)
    roomy = replace(problem, capacity_rps=np.full(5, 1000 * problem.demand_rps.sum()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimum, "Program", _NoEngine)
        # The first segments are 1 ms apart: the guess is the first one everywhere.
        patch.setattr(optimum, "first_steps", lambda transport: np.zeros(len(transport.capacity), dtype=np.intp))
        shares = assign(roomy).shares
    assert (shares.argmax(axis=1) == roomy.cost_ms.argmin(axis=1)).all()
    assert np.abs(shares - plain_shares(roomy)).max() <= 1e-6


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_a_response_is_the_best_that_each_locality_can_do_at_the_prices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    localities, datacenters = 6, 4
    shares = rng.dirichlet(np.full(datacenters, 0.3), localities) * (rng.random((localities, 1)) < 0.8)
    demand = rng.uniform(1, 100, localities)
    transport = Transport(
        demand,
        rng.uniform(1, 100, (localities, datacenters)),
        rng.uniform(50, 200, datacenters),
        shares * demand[:, None],
        22.0,
        curve(0.8),
    )
    steps = rng.integers(0, 44, datacenters)
    flow = respond(transport, steps).flow(transport)
    assert flow.sum(axis=1) == pytest.approx(demand)
    price = transport.cost + curve(0.8).price_ms[steps]

    def paid(row: np.ndarray, at: int) -> float:
        return float((row * price[at] + 22.0 * np.maximum(row - transport.held[at], 0.0)).sum())

    for at in range(localities):
        for a in range(datacenters):
            for b in range(datacenters):
                other = flow[at].copy()
                moved = other[a] * rng.uniform(0, 1)
                other[a] -= moved
                other[b] += moved
                assert paid(other, at) >= paid(flow[at], at) - 1e-6


def test_guessed_prices_are_near_the_optimum_s() -> None:
    """Else the engine would have all the work again; 10 ms are five segments of where it matters."""
    errors = []
    for seed in range(5):
        problem = random_problem(seed, 200, 20, 0.0)
        roomy = replace(problem, capacity_rps=problem.capacity_rps * problem.demand_rps.sum() / 0.8)
        roomy = replace(
            roomy, capacity_rps=roomy.capacity_rps / roomy.capacity_rps.sum() * problem.demand_rps.sum() / 0.8
        )
        seen: list[np.ndarray] = []

        def spied(transport: Transport, seen: list[np.ndarray] = seen) -> np.ndarray:
            steps = prices.first_steps(transport)
            seen.append(transport.curve.price_ms[steps])
            return steps

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(optimum, "first_steps", spied)
            shares = assign(roomy).shares
        used = roomy.demand_rps @ shares / roomy.capacity_rps
        phi = curve(0.8)
        true = phi.price_ms[np.minimum(np.searchsorted(np.cumsum(phi.width)[:-1], used - 1e-9), len(phi.width) - 2)]
        errors.append(float(np.abs(seen[0] - true).mean()))
    assert np.median(errors) <= 10.0, errors


def random_losses(seed: int, rows_a_loss: int) -> Lost:
    """Five losses, six survivors, room for all that is lost."""
    rng = np.random.default_rng(seed)
    losses, survivors = 5, 6
    loss = np.repeat(np.arange(losses), rows_a_loss)
    load = rng.uniform(0, 100, survivors)
    capacity = np.tile(load / rng.uniform(0.3, 0.95, survivors), (losses, 1))
    capacity[rng.random(capacity.shape) < 0.2] = 0.0
    capacity[:, 0] = np.maximum(capacity[:, 0], load[0] * 1.5)
    room = np.maximum(capacity - load, 0.0).sum(axis=1)
    wanted = rng.pareto(1.2, len(loss)) + 0.01
    wanted *= (room * rng.uniform(0.1, 1.0, losses))[loss] / np.bincount(loss, wanted)[loss]
    here, there = rng.uniform(0, 200, (len(loss), 1, 2)), rng.uniform(0, 200, (1, survivors, 2))
    return Lost(loss, wanted, np.hypot(*np.moveaxis(here - there, 2, 0)), np.tile(load, (losses, 1)), capacity, 0.8)


def after(lost: Lost, flows: np.ndarray) -> np.ndarray:
    load = lost.load_rps.copy()
    np.add.at(load, lost.loss, flows)
    return load


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([1, 3, 20, 100]))
def test_what_is_filled_is_all_placed_and_nobody_is_overfull(seed: int, rows_a_loss: int) -> None:
    lost = random_losses(seed, rows_a_loss)
    flows = fill(lost)
    assert (flows >= 0).all()
    assert flows.sum(axis=1) == pytest.approx(lost.rps)
    assert (flows[lost.capacity_rps[lost.loss] == 0] == 0).all()
    load = after(lost, flows)
    full = np.maximum(lost.capacity_rps, lost.load_rps)
    touched = load > lost.load_rps
    assert (load[touched] <= full[touched] * (1 + 1e-6)).all()


def cost_filled(lost: Lost, flows: np.ndarray) -> float:
    """The objective of `gslb.balancer.contingency`, from its definition."""
    phi = curve(lost.max_utilization)
    edge = np.concatenate([[0.0], np.cumsum(phi.width)])
    total = float((flows * lost.cost_ms).sum())
    load = after(lost, flows)
    for loss, capacity in enumerate(lost.capacity_rps):
        there = capacity > 0
        for rps, sign in ((load[loss], 1.0), (lost.load_rps[loss], -1.0)):
            used = np.clip((rps[there] / capacity[there])[:, None], edge[:-1], edge[1:]) - edge[:-1]
            total += sign * float((used * phi.price_ms * capacity[there][:, None]).sum())
    return total


def least_filled(lost: Lost, loss: int) -> float:
    """The same, solved by the engine for one loss."""
    rows = np.flatnonzero(lost.loss == loss)
    sinks = np.flatnonzero(lost.capacity_rps[loss] > 0)
    phi = curve(lost.max_utilization)
    edge = np.concatenate([[0.0], np.cumsum(phi.width)])
    cost, upper, index, value, start = [], [], [], [], []
    for j, k in enumerate(sinks):
        for low, high, ms in zip(edge[:-1], edge[1:], phi.price_ms, strict=True):
            begun = max(lost.capacity_rps[loss, k] * low, lost.load_rps[loss, k])
            start.append(len(index))
            cost.append(ms)
            upper.append(max(0.0, lost.capacity_rps[loss, k] * high - begun))
            index.append(len(rows) + j)
            value.append(-1.0)
    for i, row in enumerate(rows):
        for j, k in enumerate(sinks):
            start.append(len(index))
            cost.append(lost.cost_ms[row, k])
            upper.append(np.inf)
            index += [i, len(rows) + j]
            value += [1.0, 1.0]
    columns = Columns(
        np.array(cost), np.array(upper), np.array(start, np.int32), np.array(index, np.int32), np.array(value)
    )
    solved = Program(np.concatenate([lost.rps[rows], np.zeros(len(sinks))]), columns).solve().value
    return float((solved * np.array(cost)).sum())


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_a_row_by_itself_is_filled_at_least_cost(seed: int) -> None:
    lost = random_losses(seed, 1)
    least = sum(least_filled(lost, loss) for loss in range(5))
    assert least - 1e-6 <= cost_filled(lost, fill(lost)) <= least + LEVEL_MS * lost.rps.sum()


@pytest.mark.parametrize("rows_a_loss", [3, 20, 100])
def test_many_rows_are_filled_at_nearly_the_least_cost(rows_a_loss: int) -> None:
    found = least = 0.0
    for seed in range(10):
        lost = random_losses(seed, rows_a_loss)
        found += cost_filled(lost, fill(lost))
        least += sum(least_filled(lost, loss) for loss in range(5))
    assert least * (1 - 1e-9) <= found <= 1.08 * least, found / least
