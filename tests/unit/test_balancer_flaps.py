"""Hold-down of tasks that flap: one fall costs nothing, the second waits, and what is needed is taken all the same."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.balancer.explain import explain
from gslb.balancer.flaps import HOLD_MAX_S, NO_FLAPS, Flaps, follow
from gslb.balancer.inputs import Inputs, TaskState
from tests.support.balancer import NOW_S, planet, with_health
from tests.support.steps import PERIOD_S, Run

H, X, D, T, U = (
    HealthStatus.HEALTHY,
    HealthStatus.UNHEALTHY,
    HealthStatus.DRAINING,
    HealthStatus.TIMEOUT,
    HealthStatus.UNKNOWN,
)
TASK = "/bns/europe-west1/shakespeare/backend/0"


def states(*health: HealthStatus) -> tuple[TaskState, ...]:
    return tuple(
        TaskState(f"{TASK[:-1]}{i}", "europe-west1", "/bns/europe-west1/shakespeare/backend", one)
        for i, one in enumerate(health)
    )


def after(*history: tuple[float, HealthStatus]) -> Flaps:
    """What is known of one task with this history of (seconds, health)."""
    flaps, seen = NO_FLAPS, states()
    for now_s, health in history:
        flaps, seen = follow(flaps, seen, now := states(health), NOW_S + now_s), now
    return flaps


def test_one_restart_delays_nothing() -> None:
    assert not after((0, H), (5, X), (10, H)).held
    assert not after((0, H), (5, T), (10, H), (100, X), (105, H)).held, "twice, but far apart"


def test_a_second_fall_within_a_minute_waits() -> None:
    flaps = after((0, H), (5, X), (10, H), (15, X), (20, H))
    assert flaps.held == {TASK}
    wait_s = flaps.due_s - NOW_S - 20
    assert 30 < wait_s < 60
    assert "hold-down: 1 tasks" in flaps.notes[0]
    assert TASK in flaps.notes[0]
    freed = follow(flaps, states(H), states(H), flaps.due_s)
    assert (freed.held, freed.notes) == (frozenset(), ())
    assert follow(freed, states(H), states(H), flaps.due_s + 600) is not freed


def test_each_fall_more_waits_longer_and_never_beyond_the_bound() -> None:
    waits = []
    history: list[tuple[float, HealthStatus]] = [(0, H)]
    for turn in range(40):
        history += [(4 * turn + 2, X), (4 * turn + 4, H)]
        waits.append(after(*history).due_s - NOW_S - history[-1][0])
    assert waits[1] < waits[2] < waits[5] < waits[9]
    assert max(waits[1:]) <= HOLD_MAX_S + 1
    assert waits[-1] > 0.6 * HOLD_MAX_S


@pytest.mark.parametrize("through", [D, U])
def test_what_people_and_agents_do_on_purpose_is_no_flap(through: HealthStatus) -> None:
    history = [(i * 4.0, one) for i, one in enumerate([H, through, X, H] * 6)]
    assert after(*history) is NO_FLAPS


def test_tasks_that_are_gone_are_forgotten() -> None:
    flaps = after((0, H), (5, X), (10, H), (15, X))
    assert follow(flaps, states(X), (), NOW_S + 20).tasks == {}


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.lists(st.sampled_from([H, X, D, T, U]), min_size=2, max_size=2)), max_size=30
    )
)
def test_whatever_the_clock_does_a_wait_has_an_end(history: list[tuple[float, list[HealthStatus]]]) -> None:
    flaps, seen, now_s = NO_FLAPS, states(), NOW_S
    for moved_s, health in history:
        now_s += moved_s
        flaps, seen = follow(flaps, seen, now := states(*health), now_s), now
    assert flaps.held <= {task.name for task in seen}
    later = follow(flaps, seen, seen, now_s + HOLD_MAX_S + 1)
    assert not later.held
    assert follow(later, seen, seen, now_s + 2 * HOLD_MAX_S).tasks == {}


BUSY = {"north-america": 60.0, "europe": 60.0, "asia": 30.0, "south-america": 20.0}


def half_of_europe(inputs: Inputs, health: HealthStatus) -> Inputs:
    tasks = tuple(replace(task, health=health) if task.name == TASK else task for task in inputs.tasks["backend"])
    return replace(inputs, tasks={"backend": tasks})


def test_flapping_moves_load_once() -> None:
    run = Run(planet(BUSY))
    run.step()
    loads = []
    for _ in range(30):
        run.step(half_of_europe(run.inputs, X))
        loads.append(run.step(half_of_europe(run.inputs, H)).load_rps["europe-west1"])
    assert loads[2:] == pytest.approx([loads[2]] * len(loads[2:]), abs=0.5)
    assert run.decision.services["backend"].plan is run.step(half_of_europe(run.inputs, X)), "not even solved again"
    run.step(half_of_europe(run.inputs, H))
    europe = explain(run.state, run.inputs, "backend", "europe", now_s=run.now_s).candidates[0]
    assert (europe.datacenter, europe.healthy_tasks, europe.capacity_rps) == ("europe-west1", 2, 50.0)
    assert europe.reason.endswith("1 of 2 healthy tasks are in hold-down: they fell ill too often")
    for _ in range(int(600 / PERIOD_S)):
        plan = run.step()
    assert plan.load_rps["europe-west1"] == pytest.approx(60.0, abs=0.5)
    assert not plan.notes


def test_what_is_needed_counts_all_the_same() -> None:
    run = Run(planet({name: 1.9 * rps for name, rps in BUSY.items()}))
    run.step()
    for _ in range(4):
        run.step(half_of_europe(run.inputs, X))
        plan = run.step(half_of_europe(run.inputs, H))
    assert plan.capacity_rps["europe-west1"] == pytest.approx(100.0)
    assert sum(plan.load_rps.values()) == pytest.approx(1.9 * 170.0)


@pytest.mark.parametrize("demand", [BUSY, {}])
def test_when_everybody_flaps_everybody_serves(demand: dict[str, float]) -> None:
    run = Run(planet(demand))
    run.step()
    for _ in range(6):
        run.step(with_health(run.inputs, "backend", X))
        plan = run.step(with_health(run.inputs, "backend", H))
    assert sum(plan.capacity_rps.values()) >= sum(demand.values())
    assert not any(note.startswith("panic") for note in plan.notes)
