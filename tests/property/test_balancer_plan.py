"""What holds of every plan, whatever the places, the demand, the tasks and the drains."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.balancer import assignment
from gslb.balancer.assignment import Problem, assign
from gslb.balancer.congestion import curve
from gslb.balancer.coverage import active_drains, coverage_of
from gslb.balancer.drains import DrainEffect, admission_violations, preview_drain
from gslb.balancer.inputs import Inputs, TaskState
from gslb.balancer.safety import plan_violations
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model import limits
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Drain, DrainScope, Service
from tests.support.balancer import NOW_S, ROUNDING, assert_well_formed, drain, drained

HEALTH = (HealthStatus.HEALTHY,) * 6 + tuple(HealthStatus)
COORDINATES = st.builds(Coordinates, st.floats(-80, 80), st.floats(-180, 180))
DEMAND = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))
SEEDS = st.integers(0, 2**32 - 1)
# Beyond its capacity by less than this is rounding to the balancer, too.
FULL = 1e-3


@st.composite
def planets(draw: st.DrawFn) -> Inputs:
    """1-6 datacenters, 0-10 areas, one service with 1-2 jobs here and there, any health."""
    datacenters = {
        f"dc{i}": Datacenter(Meta(f"dc{i}"), f"r{i % 2}", where)
        for i, where in enumerate(draw(st.lists(COORDINATES, min_size=1, max_size=6)))
    }
    areas = {
        f"area{i}": ClientArea(Meta(f"area{i}"), where)
        for i, where in enumerate(draw(st.lists(COORDINATES, max_size=10)))
    }
    backends = tuple(
        Backend(f"/bns/{datacenter}/u/s{k}", draw(st.floats(0.5, 1e4)))
        for datacenter in datacenters
        for k in range(draw(st.integers(0, 2)))
    ) or (Backend("/bns/dc0/u/s0", 10.0),)
    tasks = tuple(
        TaskState(f"{each.job}/{i}", each.datacenter, each.job, draw(st.sampled_from(HEALTH)))
        for each in backends
        for i in range(draw(st.integers(0, 3)))
    )
    declared = Service(Meta("s"), backends, max_utilization=draw(st.floats(0.1, 1.0)))
    demand = {name: draw(DEMAND) for name in (*datacenters, *areas)}
    return Inputs(Catalog(datacenters, areas, {"s": declared}), {"s": tasks}, {"s": demand})


def planned(
    inputs: Inputs, state: BalancerState | None = None, now_s: float = NOW_S
) -> tuple[BalancerState, Plan | None]:
    state, decision = step(state or BalancerState(), inputs, now_s=now_s)
    each = decision.services["s"]
    assert (each.plan is None or bool(each.held)) == bool(each.held)
    return state, each.plan if not each.held else None


def total(values: object) -> float:
    return float(np.sum(list(values)))  # type: ignore[call-overload]


@settings(max_examples=150, deadline=None)
@given(planets())
def test_every_plan_is_safe_conserves_demand_and_stays_within_capacity_while_it_suffices(inputs: Inputs) -> None:
    _, plan = planned(inputs)
    if plan is None:
        assert not inputs.tasks["s"]
        return
    assert_well_formed(plan, [*inputs.catalog.datacenters, *inputs.catalog.areas])
    assert plan_violations(plan, list(plan.shares), set(inputs.catalog.datacenters)) == ()
    demand, capacity = total(inputs.demand["s"].values()), total(plan.capacity_rps.values())
    if capacity == 0:
        assert any(note.startswith("panic") for note in plan.notes)
        return
    for datacenter, rps in plan.capacity_rps.items():
        load = plan.load_rps[datacenter]
        if rps == 0:
            assert load == 0
        elif demand <= capacity * (1 - 1e-3):
            assert load <= rps * (1 + ROUNDING) + ROUNDING * demand
    if demand > capacity * 1.01:
        # A datacenter of a thousandth of the whole is too small to be told from the floor of localities without demand.
        used = [plan.load_rps[name] / rps for name, rps in plan.capacity_rps.items() if rps > 1e-3 * capacity]
        assert max(used) - min(used) <= 0.01 * max(used)
        assert any(note.startswith("overload") for note in plan.notes)


# Of all capacity: from easy to nearly full; with most of them the nearest places alone have too little room.
FULLNESS = st.floats(0.5, 0.998)
# What places ask for, in parts of the whole: as uneven as towns are.
WEIGHTS = (0.0, 1.0, 1.0, 3.0, 20.0, 100.0)


def filled(inputs: Inputs, weights: dict[str, float], fullness: float) -> Inputs | None:
    """`inputs` with as much demand, by `weights`, as fills this part of the capacity of its healthy tasks; None: of none."""
    rates = {each.job: each.task_capacity_rps for each in inputs.catalog.services["s"].backends}
    capacity = sum(rates[task.job] for task in inputs.tasks["s"] if task.health is HealthStatus.HEALTHY)
    whole = total(weights.values())
    if capacity <= 0 or whole <= 0:
        return None
    demand = {name: fullness * capacity * weight / whole for name, weight in weights.items()}
    return replace(inputs, demand={"s": demand})


def assert_nobody_is_overfull(plan: Plan) -> None:
    demand, capacity = total(plan.demand_rps.values()), total(plan.capacity_rps.values())
    assert demand <= capacity, "tasks that count less than declared make this test say nothing"
    for datacenter, rps in plan.capacity_rps.items():
        assert plan.load_rps[datacenter] <= rps * (1 + FULL) + ROUNDING * demand, datacenter


@settings(max_examples=150, deadline=None)
@given(planets(), FULLNESS, st.data())
def test_nobody_is_beyond_his_capacity_while_there_is_room_elsewhere(
    inputs: Inputs, fullness: float, data: st.DataObject
) -> None:
    """From nothing, and again when demand comes from other places than the plan in force was made for."""
    weights = {name: data.draw(st.sampled_from(WEIGHTS)) for name in inputs.demand["s"]}
    first = filled(inputs, weights, fullness)
    if first is None:
        return
    state, plan = planned(first)
    assert plan is not None
    assert_nobody_is_overfull(plan)
    # Everybody asks for what his neighbour asked for.
    turned = dict(zip(weights, [*list(weights.values())[1:], next(iter(weights.values()))], strict=True))
    then = filled(inputs, turned, data.draw(FULLNESS))
    assert then is not None
    _, plan = planned(replace(then, previous={"s": plan}), state, NOW_S + data.draw(st.floats(0, 60)))
    assert plan is not None
    assert_nobody_is_overfull(plan)


@settings(max_examples=60, deadline=None)
@given(planets())
def test_the_same_inputs_give_the_same_plan_in_whatever_order_they_come(inputs: Inputs) -> None:
    _, first = planned(inputs)
    catalog = inputs.catalog
    backwards = Inputs(
        Catalog(
            dict(reversed(catalog.datacenters.items())),
            dict(reversed(catalog.areas.items())),
            {"s": replace(catalog.services["s"], backends=tuple(reversed(catalog.services["s"].backends)))},
        ),
        inputs.tasks,
        {"s": dict(reversed(inputs.demand["s"].items()))},
    )
    assert planned(backwards)[1] == first
    assert planned(inputs)[1] == first


def drains_in(inputs: Inputs) -> st.SearchStrategy[Drain]:
    """Any drain of something that exists."""
    catalog = inputs.catalog
    service = catalog.services["s"]
    choices = [(DrainScope.DATACENTER, name) for name in catalog.datacenters]
    choices += [(DrainScope.REGION, name) for name in {each.region for each in catalog.datacenters.values()}]
    choices += [(DrainScope.SERVICE, f"s@{name}") for name in catalog.datacenters]
    choices += [(DrainScope.JOB, each.job) for each in service.backends]
    choices += [(DrainScope.TASK, task.name) for task in inputs.tasks["s"]]
    return st.sampled_from(choices).map(lambda choice: drain(*choice))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_a_drain_covers_gets_nothing_while_anything_else_is_left(data: st.DataObject) -> None:
    inputs = data.draw(planets())
    state, _ = planned(inputs)
    each = data.draw(drains_in(inputs))
    covered = coverage_of([each], inputs.catalog)
    _, plan = planned(drained(inputs, each), state, NOW_S + 1)
    tasks = inputs.tasks["s"]
    free = [task for task in tasks if not covered.drain_of("s", task)]
    if plan is None or not any(task.health is HealthStatus.HEALTHY for task in free):
        return
    serving = {task.datacenter for task in free if task.health is HealthStatus.HEALTHY}
    for shares in plan.shares.values():
        assert set(shares) <= serving


@settings(max_examples=60, deadline=None)
@given(planets(), planets(), st.lists(st.floats(0, 600), min_size=1, max_size=4))
def test_no_sequence_of_inputs_raises_or_empties_a_plan(first: Inputs, second: Inputs, pauses: list[float]) -> None:
    state, now_s, published = BalancerState(), NOW_S, {}
    for turn, pause_s in enumerate(pauses):
        now_s += pause_s
        inputs = replace((first, second)[turn % 2], previous=published)
        state, decision = step(state, inputs, now_s=now_s)
        each = decision.services["s"]
        if each.changed:
            assert each.plan is not None
            published = {"s": each.plan}
        if published:
            assert each.plan is not None
            assert all(each.plan.shares.values())


WILD = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=100, deadline=None)
@given(planets(), st.lists(WILD, min_size=1, max_size=8), WILD, WILD, st.floats(-1e9, 1e9))
def test_wild_numbers_never_raise(inputs: Inputs, demand: list[float], rps: float, rtt: float, jump_s: float) -> None:
    state, good = planned(inputs)
    service = inputs.catalog.services["s"]
    wild = replace(
        inputs,
        demand={"s": {f"area{i}": value for i, value in enumerate(demand)}},
        rtt_ms={("area0", "dc0"): rtt, ("dc0", "dc0"): -rtt},
        catalog=replace(
            inputs.catalog,
            services={
                "s": replace(service, backends=tuple(replace(each, task_capacity_rps=rps) for each in service.backends))
            },
        ),
        previous={"s": good} if good else {},
    )
    _, decision = step(state, wild, now_s=NOW_S + jump_s)
    each = decision.services["s"]
    if good:
        assert each.plan is not None
    if each.plan:
        assert_well_formed(each.plan, [*inputs.catalog.datacenters, *inputs.catalog.areas])


def random_problem(seed: int, localities: int, datacenters: int, sticky: float) -> Problem:
    rng = np.random.default_rng(seed)
    cost = rng.uniform(1, 250, (localities, datacenters))
    demand = rng.pareto(1.2, localities) + 0.1
    capacity = rng.lognormal(0, 0.6, datacenters)
    capacity *= demand.sum() / rng.uniform(0.5, 1.2) / capacity.sum()
    previous = rng.dirichlet(np.full(datacenters, 0.2), localities)
    return Problem(demand, cost, capacity, 0.8, previous if sticky else np.zeros_like(cost), sticky)


def cost_of(problem: Problem, shares: np.ndarray) -> float:
    """The objective, computed from its definition."""
    flow = shares * assignment.floored(problem.demand_rps)[:, None]
    capacity = problem.capacity_rps * max(1.0, flow.sum() / problem.capacity_rps.sum())
    phi = curve(problem.max_utilization)
    used = flow.sum(axis=0) / np.maximum(capacity, 1e-300)
    edge = np.concatenate([[0.0], np.cumsum(phi.width)[:-1]])
    filled = np.clip(used[:, None] - edge[None, :], 0.0, phi.width[None, :])
    held = problem.previous * assignment.floored(problem.demand_rps)[:, None]
    moved = problem.stickiness_ms * np.maximum(flow - held, 0).sum() if problem.stickiness_ms else 0.0
    return float((flow * problem.cost_ms).sum() + (filled * capacity[:, None] * phi.price_ms[None, :]).sum() + moved)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_no_random_exchange_of_load_makes_an_assignment_cheaper(seed: int) -> None:
    problem = random_problem(seed, 12, 5, 22.0)
    shares = assign(problem).shares
    best = cost_of(problem, shares)
    rng = np.random.default_rng(seed)
    for _ in range(100):
        other = shares.copy()
        for row in rng.integers(0, 12, rng.integers(1, 4)):
            taken = other[row] * rng.uniform(0, 0.2, 5)
            other[row] -= taken
            other[row, rng.integers(0, 5)] += taken.sum()
        assert cost_of(problem, other) >= best - 1e-5 * abs(best)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_the_gain_that_is_left_is_below_the_stickiness_and_none_is_left_without(seed: int) -> None:
    sticky = assign(random_problem(seed, 20, 6, 22.0))
    assert 0 <= sticky.gain_ms <= 22.0 + 1e-6
    assert assign(random_problem(seed, 20, 6, 0.0)).gain_ms <= 1e-6


@given(st.floats(0.01, 1.0))
def test_the_price_curve_is_convex_in_fine_steps_up_to_a_wall_at_full_capacity(max_utilization: float) -> None:
    phi = curve(max_utilization)
    assert len(phi.width) >= 20
    steps = np.diff(phi.price_ms)
    assert (steps > 0).all()
    assert steps[:-1].max() < limits.STICKINESS_MS / 2
    assert phi.width[:-1].sum() == pytest.approx(1.0)
    assert steps[-1] > limits.RTT_MAX_MS


def random_states(rng: random.Random, asked: int) -> Iterator[tuple[Inputs, Drain]]:
    """A planet with one to four services, some drains in force, and one more asked for; `asked` such states of one planet.

    Cheap: no program is solved.
    """
    datacenters = {
        f"dc{i}": Datacenter(Meta(f"dc{i}"), f"r{i % 3}", Coordinates(0, 10.0 * i)) for i in range(rng.randint(1, 6))
    }
    services, tasks, demand = {}, {}, {}
    for k in range(rng.randint(1, 4)):
        name = f"s{k}"
        jobs = {dc: f"/bns/{dc}/u/{name}" for dc in datacenters if rng.random() < 0.8}
        rates = {job: rng.choice([1.0, 7.5, 100.0]) for job in jobs.values()}
        services[name] = Service(Meta(name), tuple(Backend(job, rate) for job, rate in rates.items()))
        tasks[name] = tuple(
            TaskState(f"{job}/{i}", dc, job, rng.choice(HEALTH), machine=f"m{i}-{dc}")
            for dc, job in jobs.items()
            for i in range(rng.randint(0, 4))
        )
        room = sum(rates[task.job] for task in tasks[name] if task.health is HealthStatus.HEALTHY)
        demand[name] = {"dc0": rng.choice([0.0, rng.uniform(0, 1.2) * room])}
    scopes = [(DrainScope.DATACENTER, dc) for dc in datacenters] + [(DrainScope.REGION, f"r{i}") for i in range(3)]
    scopes += [(DrainScope.SERVICE, name) for name in services]
    scopes += [(DrainScope.SERVICE, f"{name}@{dc}") for name in services for dc in datacenters]
    for each in tasks.values():
        scopes += [(DrainScope.JOB, task.job) for task in each]
        scopes += [(DrainScope.TASK, task.name) for task in each] + [
            (DrainScope.MACHINE, task.machine) for task in each
        ]
    inputs = Inputs(Catalog(datacenters, {}, services), tasks, demand)
    for _ in range(asked):
        standing = [drain(*rng.choice(scopes), name=f"d{i}") for i in range(rng.randint(0, 3))]
        yield drained(inputs, *standing), drain(*rng.choice(scopes), name="asked")


def covers(each: Drain, service: str, task: TaskState, inputs: Inputs) -> bool:
    """The definition of the scopes, written a second time and naively."""
    region = inputs.catalog.datacenters[task.datacenter].region
    return (
        each.target
        in {
            DrainScope.DATACENTER: {task.datacenter},
            DrainScope.REGION: {region},
            DrainScope.SERVICE: {service, f"{service}@{task.datacenter}"},
            DrainScope.JOB: {task.job},
            DrainScope.TASK: {task.name},
            DrainScope.MACHINE: {task.machine},
        }[each.scope]
    )


def remaining_rps(inputs: Inputs, name: str, drains: list[Drain]) -> float:
    rates = {each.job: each.task_capacity_rps for each in inputs.catalog.services[name].backends}
    return sum(
        rates[task.job]
        for task in inputs.tasks[name]
        if task.health is HealthStatus.HEALTHY and not any(covers(each, name, task, inputs) for each in drains)
    )


PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_a_hundred_thousand_random_drain_states_never_admit_an_unsafe_one(part: int) -> None:
    """In parts of 10,000 states: each of 2,500 planets is asked for four drains, with other ones in force."""
    rng = random.Random(20240917 + part)
    admitted = refused = 0
    for _ in range(100_000 // PARTS // 4):
        for inputs, asked in random_states(rng, 4):
            violations = admission_violations(inputs, asked, now_s=NOW_S)
            check_admission(inputs, asked, violations)
            admitted += not violations
            refused += bool(violations)
    assert admitted + refused == 100_000 // PARTS
    assert admitted > 1000
    assert refused > 1000


def check_admission(inputs: Inputs, asked: Drain, violations: tuple[str, ...]) -> None:
    standing = list(active_drains(inputs.catalog, NOW_S))
    unsafe = set()
    for name in inputs.catalog.services:
        before, after = remaining_rps(inputs, name, standing), remaining_rps(inputs, name, [*standing, asked])
        short = after * (1 - limits.DRAIN_HEADROOM_FRACTION) < sum(inputs.demand[name].values())
        if after < before and (after == 0 or short):
            unsafe.add(name)
    named = {violation.split()[1].rstrip(":") for violation in violations}
    assert unsafe <= named, (asked, violations)
    for name in named - unsafe:
        # The only other reason: it would take the last task, though none of them is healthy.
        assert remaining_rps(inputs, name, standing) == 0


def calling(inputs: Inputs, rng: random.Random) -> Inputs:
    """`inputs` with services that call the next one from everywhere, and a CPU in each datacenter that all share."""
    names = list(inputs.catalog.services)
    places = {
        name: replace(place, cpu_cores=rng.choice([0.0, 5.0, 40.0]))
        for name, place in inputs.catalog.datacenters.items()
    }
    services = {
        name: replace(service, backends=tuple(replace(each, request_cpu_s=0.02) for each in service.backends))
        for name, service in inputs.catalog.services.items()
    }
    demand = {
        name: {place: total({**rates}.values()) * rng.random() / len(places) for place in places}
        for name, rates in inputs.demand.items()
    }
    callers = {callee: {(place, caller): rng.random() for place in places} for caller, callee in pairwise(names)}
    catalog = replace(inputs.catalog, datacenters=places, services=services)
    return replace(inputs, catalog=catalog, demand=demand, callers=callers)


def test_an_admitted_drain_leaves_room_for_everybody_callees_included() -> None:
    """The whole preview on random planets whose services call each other: nobody is lost, nobody is overfull by it."""
    rng = random.Random(7)
    admitted = moved = 0
    for _ in range(150):
        for plain, asked in random_states(rng, 1):
            inputs = calling(plain, rng)
            preview = preview_drain(inputs, asked, now_s=NOW_S)
            effects: dict[str, list[DrainEffect]] = {}
            for effect in preview.effects:
                effects.setdefault(effect.service, []).append(effect)
            for name, each in effects.items():
                before, after = (
                    total(getattr(one, what) for one in each) for what in ("load_before_rps", "load_after_rps")
                )
                assert after == pytest.approx(before, rel=1e-3, abs=1e-2), (name, asked)
            moved += any("called by" in effect.why for effect in preview.effects)
            if preview.violations:
                continue
            admitted += 1
            check_admission(inputs, asked, ())
    assert admitted > 30
    assert moved > 10
