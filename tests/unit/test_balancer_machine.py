"""A machine that is busy with other things leaves its tasks less than their own CPU says."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from gslb.balancer.explain import explain
from gslb.balancer.inputs import Inputs
from gslb.balancer.machine import LEAST_FRACTION, Guard, Seen, guarded, notes
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model.resources import CapacityMode
from tests.support.balancer import NOW_S, PLACES, planet

US, EU, *_ = PLACES
SEEN = Seen(machine_cpu=0.5, load_rps=50.0, tasks=1, cost=0.005, task_rps=100.0)


def settled(seen: Seen, guard: Guard | None = None, seconds: int = 200) -> Guard:
    for _ in range(seconds // 5):
        guard = guarded(guard, seen, 5.0)
    assert guard is not None
    return guard


def test_a_machine_with_room_limits_nobody() -> None:
    assert math.isinf(settled(SEEN).rps)
    assert math.isinf(settled(replace(SEEN, machine_cpu=0.84)).rps)


def test_near_the_limit_what_is_left_is_shared_among_the_tasks() -> None:
    # 4 % of the machine are left, half a percent a request: 8 rps more, or 4 for each of two tasks.
    assert settled(replace(SEEN, machine_cpu=0.86)).rps == pytest.approx(58, rel=0.04)
    assert settled(replace(SEEN, machine_cpu=0.86, tasks=2)).rps == pytest.approx(54, rel=0.04)


def test_beyond_the_limit_everybody_gives_up_the_same_part() -> None:
    assert settled(replace(SEEN, machine_cpu=1.0)).rps == pytest.approx(45, rel=0.04)


def test_strangers_alone_leave_the_least() -> None:
    assert settled(replace(SEEN, machine_cpu=1.0, load_rps=0.0)).rps == pytest.approx(LEAST_FRACTION * 100)


def test_it_falls_quickly_and_comes_back_slowly_until_it_is_over() -> None:
    busy = replace(SEEN, machine_cpu=1.0, load_rps=10.0)
    guard = guarded(guarded(None, busy, 0.0), busy, 5.0)
    assert guard is not None
    assert guard.rps == pytest.approx(50), "by half in a period at most"
    low = settled(busy)
    free = replace(busy, machine_cpu=0.2)
    back = [low.rps]
    guard = low
    while guard.rps < math.inf:
        guard = guarded(guard, free, 5.0) or guard
        back.append(guard.rps)
        assert len(back) < 60
    assert all(b <= a * 1.1 + 1e-9 for a, b in pairwise(back[:-1]))


def test_the_load_that_it_leaves_does_not_set_it_free_and_catch_it_again() -> None:
    """Strangers take half of the machine; load follows the limit, as plans do: it ends at one value."""
    guard: Guard | None = None
    limits = []
    load_rps = 80.0
    for _ in range(100):
        cpu = min(0.5 + 0.005 * load_rps, 1.0)
        guard = guarded(guard, replace(SEEN, machine_cpu=cpu, load_rps=load_rps), 5.0)
        assert guard is not None
        load_rps = min(90.0, 0.9 * min(guard.rps, 100.0))
        limits.append(guard.rps)
    assert max(limits[-20:]) - min(limits[-20:]) <= 0.05 * limits[-1]
    assert limits[-1] == pytest.approx(80, rel=0.1)


@pytest.mark.parametrize("cpu", [math.nan, 0.0, -1.0, 7.0, math.inf])
def test_what_is_no_cpu_changes_nothing(cpu: float) -> None:
    assert guarded(None, replace(SEEN, machine_cpu=cpu), 5.0) is None
    held = Guard(0.95, 40.0)
    assert guarded(held, replace(SEEN, machine_cpu=cpu), 5.0) is held
    assert guarded(held, replace(SEEN, load_rps=math.nan), 5.0) is held


def test_an_unknown_cost_is_read_from_the_load() -> None:
    assert settled(replace(SEEN, machine_cpu=0.88, cost=math.nan)).rps == pytest.approx(50 * 0.9 / 0.88, rel=0.04)


def test_one_line_names_the_tightest_tasks() -> None:
    assert notes({"/a": Guard(0.5)}, {}) == ()
    (line,) = notes({f"/t{i}": Guard(0.95, 10.0 + i) for i in range(5)}, {"/t0": "m0"})
    assert line.startswith("machine guard: 5 tasks")
    assert "/t0 counts for 10 rps, m0 is 95 % busy" in line
    assert line.endswith("and 2 more")


def learning_planet(busy: str, machine_cpu: float) -> Inputs:
    """Own CPU is low everywhere (a quarter of the declared capacity in use); the machines in `busy` are full."""
    inputs = planet({"north-america": 60.0, "europe": 60.0}, rps=100.0)
    service = inputs.catalog.services["backend"]
    learned = replace(
        service, backends=tuple(replace(each, mode=CapacityMode.UTILIZATION) for each in service.backends)
    )
    catalog = replace(inputs.catalog, services={"backend": learned})
    tasks = tuple(
        replace(
            task,
            ok_rps=30.0,
            cpu_utilization=0.24,
            report_age_s=1.0,
            machine_cpu=machine_cpu if task.datacenter == busy else 0.3,
            machine_part=0.25,
            machine=f"m-{task.datacenter}",
        )
        for task in inputs.tasks["backend"]
    )
    return replace(inputs, catalog=catalog, tasks={"backend": tasks})


def planned(inputs: Inputs, seconds: int = 120) -> tuple[BalancerState, Decision]:
    state, decision = BalancerState(), Decision()
    for n in range(seconds // 5):
        tasks = tuple(replace(task, report=n + 1) for task in inputs.tasks["backend"])
        state, decision = step(state, replace(inputs, tasks={"backend": tasks}), now_s=NOW_S + 5 * n)
    return state, decision


def test_a_full_machine_moves_load_away_and_says_so() -> None:
    inputs = learning_planet(US, 0.99)
    state, decision = planned(inputs)
    each = decision.services["backend"]
    capacity = {site.datacenter: site.capacity_rps for site in each.capacity.datacenters}
    assert capacity[US] < 0.4 * capacity[EU], "half of its declared capacity is not there"
    assert capacity[EU] == pytest.approx(200, rel=0.1)
    assert each.plan is not None
    assert each.plan.load_rps[US] <= capacity[US] * 1.01
    assert any(note.startswith("machine guard: 2 tasks") for note in each.notes)
    told = explain(state, inputs, "backend", "north-america", now_s=NOW_S + 120)
    assert any(note.startswith("machine guard") for note in told.notes)


def test_machines_with_room_change_nothing() -> None:
    _, decision = planned(learning_planet(US, 0.5))
    each = decision.services["backend"]
    assert {round(site.capacity_rps, -1) for site in each.capacity.datacenters} == {200.0}
    assert not any("machine guard" in note for note in each.notes)
