"""Contingencies of callees fit the demand that the loss itself moves: callers call from where they went."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gslb.balancer.callees import after_loss
from gslb.balancer.explain import explain, load_of
from gslb.balancer.following import callers_first, moved_by, rerouted, shift
from gslb.balancer.inputs import Inputs
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Service
from tests.support.balancer import NOW_S, tasks_of

TOLERANCE = 5e-3
CALLS = (("frontend", "backend"), ("backend", "tablet"))


def chain(seed: int, fullness: float) -> Inputs:
    """Browsers ask frontends, these ask backends, these ask tablets, each so full that many places need their neighbours."""
    rng = np.random.default_rng(seed)

    def place() -> Coordinates:
        return Coordinates(float(rng.uniform(-50, 60)), float(rng.uniform(-180, 180)))

    places = {f"dc{i}": Datacenter(Meta(f"dc{i}"), "r", place()) for i in range(5)}
    areas = {f"area{i}": ClientArea(Meta(f"area{i}"), place()) for i in range(10)}
    rates = {name: rng.uniform(500, 3000, len(places)) for name in ("frontend", "backend", "tablet")}
    services = {
        name: Service(
            Meta(name),
            tuple(Backend(f"/bns/{dc}/u/{name}", float(rps)) for dc, rps in zip(places, rates[name], strict=True)),
        )
        for name in rates
    }
    asked = rng.pareto(1.5, len(areas)) + 0.2
    asked *= fullness * rates["frontend"].sum() / asked.sum()
    demand = {"frontend": dict(zip(areas, asked.tolist(), strict=True))}
    inputs = Inputs(
        Catalog(places, areas, services), {name: tasks_of(one, 1) for name, one in services.items()}, demand
    )
    for caller, callee in CALLS:
        load = load_of(plans_of(step(BalancerState(), inputs, now_s=NOW_S)[1])[caller], inputs.demand[caller])
        ratio = fullness * rates[callee].sum() / sum(load.values())
        of_callee = {name: ratio * rps for name, rps in load.items()}
        callers = {**inputs.callers, callee: {(name, caller): 1.0 for name in load}}
        inputs = replace(inputs, demand={**inputs.demand, callee: of_callee}, callers=callers)
    return inputs


def plans_of(decision: Decision) -> dict[str, Plan]:
    return {name: one.plan for name, one in decision.services.items() if one.plan is not None}


def overfull(inputs: Inputs, plans: dict[str, Plan]) -> tuple[int, list[tuple[str, str, str]]]:
    """How many losses of a callee find room for all that is lost, and of those the ones that overfill somebody all the same."""
    judged, found = 0, []
    for lost in inputs.catalog.datacenters:
        # What stays, and what is lost: the same plans without contingencies, everything lost sent to nobody.
        carried = after_loss(plans, inputs.callers, lost)
        before = {name: load_of(plan, plan.demand_rps) for name, plan in plans.items()}
        for caller, callee in CALLS:
            plan = plans[callee]
            asked = moved(plan, before[caller], carried[caller])
            kept = load_of(plan, asked)
            gone = kept.pop(lost, 0.0)
            rooms = {name: rps - kept.get(name, 0.0) for name, rps in plan.capacity_rps.items() if name != lost}
            if sum(max(room, 0.0) for room in rooms.values()) < gone * (1 + TOLERANCE):
                continue
            judged += 1
            found += [
                (lost, callee, name)
                for name, rps in carried[callee].items()
                if rps > max(plan.capacity_rps[name], kept.get(name, 0.0)) * (1 + TOLERANCE)
            ]
    return judged, found


def moved(plan: Plan, before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Demand when all of it goes along with its only caller: each datacenter's in proportion to what the caller has there."""
    asked = {name: rps for name, rps in plan.demand_rps.items() if rps > 0}
    left = {name: rps * min(1.0, after.get(name, 0.0) / before[name]) for name, rps in asked.items() if before[name]}
    gains = {name: max(0.0, rps - before.get(name, 0.0)) for name, rps in after.items()}
    free = sum(asked.values()) - sum(left.values())
    share = free / sum(gains.values()) if free > 1e-6 else 0.0
    return {name: left.get(name, 0.0) + share * gains.get(name, 0.0) for name in {*left, *gains}}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.75))
def test_no_survivor_is_overfull_after_a_loss_that_moves_the_callers_too(seed: int, fullness: float) -> None:
    inputs = chain(seed, fullness)
    _, decision = step(BalancerState(), inputs, now_s=NOW_S)
    _, found = overfull(inputs, plans_of(decision))
    assert found == []


def test_contingencies_that_know_nothing_of_callers_would_overfill_somebody() -> None:
    """So that the test above says something: the same planets, planned as if callers stayed where they are."""
    judged = bad = 0
    for seed in range(15):
        inputs = chain(seed, 0.7)
        _, decision = step(BalancerState(), replace(inputs, callers={}), now_s=NOW_S)
        counted, found = overfull(inputs, plans_of(decision))
        judged, bad = judged + counted, bad + len(found)
    assert judged > 40
    assert bad > 3


def test_when_only_what_callers_do_has_changed_the_contingencies_follow_and_nothing_else() -> None:
    inputs = chain(3, 0.7)
    state, alone = step(BalancerState(), replace(inputs, callers={}), now_s=NOW_S)
    published = plans_of(alone)
    state, decision = step(state, replace(inputs, previous=published), now_s=NOW_S + 5)
    after = plans_of(decision)
    assert decision.recomputed == 0
    assert {name: plan.shares for name, plan in after.items()} == {
        name: plan.shares for name, plan in published.items()
    }
    assert overfull(inputs, after)[1] == []
    changed = {name for name, one in decision.services.items() if one.changed}
    assert changed <= {"frontend", "backend", "tablet"}
    # And then there is rest, noise in the demand or not: now and then what a held plan did not foresee is made good.
    renewed = 0
    for turn in range(1, 21):
        published = {**published, **{name: after[name] for name in changed}}
        rng = np.random.default_rng(turn)
        noisy = {
            name: {locality: rps * rng.uniform(0.97, 1.03) for locality, rps in rates.items()}
            for name, rates in inputs.demand.items()
        }
        state, decision = step(state, replace(inputs, previous=published, demand=noisy), now_s=NOW_S + 5 + 5 * turn)
        after = plans_of(decision)
        changed = {name for name, one in decision.services.items() if one.changed}
        assert all(after[name].shares == plan.shares for name, plan in published.items())
        renewed += len(changed)
    assert renewed <= 3


def test_a_loss_fills_no_front_door_whose_house_is_full() -> None:
    """Frontends have room for three times what is behind them: how often a callee is overfull, though its fellows have room."""
    judged = blind = seeing = 0
    worst = 0.0
    for seed in range(12):
        inputs = wide(chain(seed, 0.5), 3.0)
        state, decision = step(BalancerState(), inputs, now_s=NOW_S)
        first = plans_of(decision)
        for turn in range(1, 4):
            state, decision = step(state, replace(inputs, previous=plans_of(decision)), now_s=NOW_S + 5 * turn)
        assert not any(one.changed for one in decision.services.values()), seed
        before, after = filled(inputs, first), filled(inputs, plans_of(decision))
        judged, blind = judged + len(before), blind + sum(used > 1.02 for used in before)
        seeing += sum(used > 1.02 for used in after)
        worst = max(worst, *after)
        assert max(after) <= max(before) + 1e-6
    assert judged > 100
    assert blind > 40
    # Not never: neighbours that share a callee each count its room, and who arrives is spread as those who were there.
    assert seeing < blind / 3
    assert worst < 2.0


def test_explain_says_where_callees_have_less_room_than_the_service() -> None:
    inputs = wide(chain(3, 0.5), 3.0)
    state, decision = step(BalancerState(), inputs, now_s=NOW_S)
    assert explain(state, inputs, "frontend", "area0", now_s=NOW_S).notes == ()
    state, _ = step(state, replace(inputs, previous=plans_of(decision)), now_s=NOW_S + 5)
    (note,) = explain(state, inputs, "frontend", "area0", now_s=NOW_S + 5).notes
    assert note.startswith("after a loss places count for what those they call can take from there: dc")
    assert explain(state, inputs, "tablet", "dc0", now_s=NOW_S + 5).notes == ()


def wide(inputs: Inputs, factor: float) -> Inputs:
    """The planet with `factor` as many frontends."""
    services = dict(inputs.catalog.services)
    frontend = services["frontend"]
    backends = tuple(replace(one, task_capacity_rps=factor * one.task_capacity_rps) for one in frontend.backends)
    services["frontend"] = replace(frontend, backends=backends)
    return replace(inputs, catalog=replace(inputs.catalog, services=services))


def filled(inputs: Inputs, plans: dict[str, Plan]) -> list[float]:
    """How full the fullest callee is after each loss that leaves a tenth of its service's capacity free."""
    found = []
    for lost in inputs.catalog.datacenters:
        carried = after_loss(plans, inputs.callers, lost)
        for _, callee in CALLS:
            capacity = {name: rps for name, rps in plans[callee].capacity_rps.items() if name != lost}
            if sum(carried[callee].values()) <= 0.9 * sum(capacity.values()):
                found.append(max(rps / capacity[name] for name, rps in carried[callee].items()))
    return found


def test_explain_shows_the_fullest_survivor_with_callers_moved() -> None:
    inputs = chain(3, 0.7)
    state, decision = step(BalancerState(), inputs, now_s=NOW_S)
    plans = plans_of(decision)
    shown = 0
    for lost in inputs.catalog.datacenters:
        carried = after_loss(plans, inputs.callers, lost)["backend"]
        used = max(rps / plans["backend"].capacity_rps[name] for name, rps in carried.items())
        for locality in plans["backend"].contingencies.get(lost, {}):
            candidates = explain(state, inputs, "backend", locality, now_s=NOW_S).candidates
            (here,) = [each for each in candidates if each.datacenter == lost]
            assert here.fullest_utilization == pytest.approx(used, rel=1e-2)
            shown += 1
    assert shown > 5


def test_a_move_takes_along_the_part_that_moves() -> None:
    asked, old = np.array([100.0, 10.0, 0.0]), np.array([50.0, 5.0, 0.0])
    new = np.array([[0.0, 30.0, 25.0], [50.0, 0.0, 5.0], [50.0, 5.0, 0.0]])
    assert shift(asked, old, new) == pytest.approx(np.array([[-100.0, 50.0, 50.0], [0.0, -10.0, 10.0], [0.0] * 3]))


def test_callers_come_first_and_circles_end() -> None:
    calls = {"b": {("x", "a"): 1.0}, "c": {("x", "b"): 1.0, ("y", "gone"): 1.0}, "a": {("x", "z"): 1.0}}
    assert callers_first(calls, ["a", "b", "c", "z"]) == ["z", "a", "b", "c"]
    circle = {"a": {("x", "c"): 1.0}, "b": {("x", "a"): 1.0}, "c": {("x", "b"): 1.0}, "d": {("x", "d"): 1.0}}
    assert sorted(callers_first(circle, "abcd")) == list("abcd")
    assert len(callers_first({str(i + 1): {("x", str(i)): 1.0} for i in range(5000)}, map(str, range(5000)))) == 5000


def test_rates_after_each_loss_are_those_that_readers_make() -> None:
    inputs = chain(5, 0.6)
    state, decision = step(BalancerState(), inputs, now_s=NOW_S)
    plans = plans_of(decision)
    moves = state.services["backend"].moves
    told = rerouted(plans["backend"], moves, state.network)
    for lost, column in state.network.column.items():
        carried = after_loss(plans, inputs.callers, lost)["backend"]
        for name, rps in carried.items():
            assert told.then_rps[column, state.network.column[name]] == pytest.approx(rps, rel=1e-6, abs=1e-3)
        assert sum(moved_by(moves, lost, state.network).values()) == pytest.approx(0.0, abs=1e-6)
