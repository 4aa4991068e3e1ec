"""Learned capacity in the whole step: what it does to plans, to drains, and to a planet that feeds back."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.balancer.capacity import capacity_of
from gslb.balancer.coverage import Coverage
from gslb.balancer.drains import admission_violations, preview_drain
from gslb.balancer.inputs import Inputs
from gslb.balancer.learning import Learning
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.model.plan import Plan
from gslb.model.resources import Catalog, DrainScope
from tests.support.balancer import CLIENT_AREAS, DATACENTERS, NOW_S, drain
from tests.support.cpu_tasks import COST, STEP_S, TRUE_RPS, Fleet, changed, job, service

PLACES = ("us-east1", "europe-west1", "asia-east1")
HOMES = {"us-east1": "north-america", "europe-west1": "europe", "asia-east1": "asia"}
TASKS = 3


class Planet:
    """Three equal datacenters; what the plan places is what the tasks serve in the next period."""

    def __init__(self, demand_rps: Mapping[str, float], **fleet: object) -> None:
        self.demand = dict(demand_rps)
        self.loads: dict[str, float] = {}
        self.fleet = Fleet(service(PLACES), TASKS, load=self._load, now_s=NOW_S, **fleet)  # type: ignore[arg-type]
        self.state = BalancerState()
        self.decision = Decision()
        self.published: dict[str, Plan] = {}
        self.steps: list[dict[str, float]] = []  # load of each datacenter

    def _load(self, datacenter: str, _: float) -> float:
        return self.loads.get(datacenter, 0.0) / TASKS

    def inputs(self) -> Inputs:
        catalog = Catalog(DATACENTERS, CLIENT_AREAS, {"backend": self.fleet.service})
        return Inputs(
            catalog, {"backend": self.fleet.states()}, {"backend": dict(self.demand)}, previous=dict(self.published)
        )

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.fleet.now_s += STEP_S
            self.state, self.decision = step(self.state, self.inputs(), now_s=self.fleet.now_s)
            plan = self.plan
            self.published = {"backend": plan}
            self.loads = {
                place: math.fsum(rps * plan.shares[home].get(place, 0.0) for home, rps in self.demand.items())
                for place in PLACES
            }
            self.steps.append(self.loads)

    @property
    def plan(self) -> Plan:
        plan = self.decision.services["backend"].plan
        assert plan is not None
        return plan

    def capacity(self) -> dict[str, float]:
        return dict(self.plan.capacity_rps)


def even(rps: float) -> dict[str, float]:
    return dict.fromkeys(HOMES.values(), rps)


@pytest.mark.parametrize("seed", range(4))
def test_dressy_a_datacenter_that_answers_errors_quickly_attracts_nothing(seed: int) -> None:
    """Workbook, chapter 11: three regions at 90; one sheds, looks ten times as efficient, and got 400 of 270."""
    began_s = NOW_S + 300
    planet = Planet(
        even(170.0),
        seed=seed,
        error_cost=0.1,
        error_share=lambda place, now_s: 0.9 if place == "us-east1" and now_s >= began_s else 0.0,
    )
    planet.advance(300)
    before = planet.steps[-1]
    planet.steps.clear()
    planet.advance(600)
    for loads in planet.steps:
        for place in PLACES:
            assert loads[place] == pytest.approx(170.0, rel=0.1), loads
        assert loads["us-east1"] <= 1.001 * before["us-east1"]


def test_a_datacenter_whose_requests_cost_twice_as_much_gives_load_away() -> None:
    at_s = NOW_S + 400
    planet = Planet(even(200.0), cost=changed(at_s, 2.0))
    planet.advance(400)
    assert planet.steps[-1]["us-east1"] == pytest.approx(200.0)
    full_rps = TASKS * TRUE_RPS
    planet.advance(35)
    assert planet.steps[-1]["us-east1"] <= 0.55 * full_rps
    planet.advance(60)
    assert planet.capacity()["us-east1"] == pytest.approx(full_rps / 2, rel=0.06)
    assert planet.steps[-1]["us-east1"] <= 1.03 * full_rps / 2


def test_load_that_moved_away_does_not_move_back_and_forth() -> None:
    """Less load on the dear datacenter must not make it look better, nor more load the others worse."""
    planet = Planet(even(200.0), cost=changed(NOW_S + 400, 2.0))
    planet.advance(500)
    planet.steps.clear()
    planet.advance(600)
    moved = [
        math.fsum(abs(b[place] - a[place]) for place in PLACES) / 2 / 600
        for a, b in zip(planet.steps[:-1], planet.steps[1:], strict=True)
    ]
    assert math.fsum(moved) / len(moved) < 1e-3
    us = [loads["us-east1"] for loads in planet.steps]
    assert max(us) - min(us) < 0.2 * (sum(us) / len(us))


def test_liars_are_noted_in_the_plan_and_get_nothing_for_it() -> None:
    planet = Planet(even(170.0), lie=lambda name, _, cpu: 0.0 if name.startswith(job("us-east1")) else cpu)
    planet.advance(400)
    (note,) = (note for note in planet.plan.notes if note.startswith("reports set aside"))
    assert job("us-east1") in note
    assert planet.capacity()["us-east1"] == pytest.approx(TASKS * 100.0)


def test_a_drain_is_judged_by_what_was_learned() -> None:
    """Declared, two datacenters would do: 3 x 100 each. They serve a third less."""
    planet = Planet(even(150.0), cost=lambda _, __: 1.5 * COST)
    planet.advance(300)
    asked = drain(DrainScope.DATACENTER, "us-east1", from_s=planet.fleet.now_s)
    now_s = planet.fleet.now_s
    assert admission_violations(planet.inputs(), asked, now_s=now_s) == ()
    (refusal,) = admission_violations(planet.inputs(), asked, now_s=now_s, state=planet.state)
    assert refusal.startswith("service backend: demand 450 rps > ")
    assert preview_drain(planet.inputs(), asked, now_s=now_s, state=planet.state).violations[0][:30] == refusal[:30]


def _ramping(fleet: Fleet) -> Learning:
    fleet.advance(60)
    fleet.add("us-east1", 8)
    fleet.add("us-east1", 9)
    fleet.advance(STEP_S)
    return fleet.learning


def test_a_ramp_is_skipped_as_far_as_all_is_needed() -> None:
    fleet = Fleet(service(), load=lambda _, __: 60.0)
    learning = _ramping(fleet)
    rps = fleet.task_rps()

    def capacity(needed_rps: float) -> float:
        return capacity_of(fleet.service, fleet.states(), Coverage(), learning, needed_rps).total_rps

    assert capacity(0.0) == pytest.approx(3.6 * rps)
    assert capacity(3.6 * rps) == pytest.approx(3.6 * rps)
    assert capacity(4.2 * rps) == pytest.approx(4.2 * rps)
    assert capacity(50.0 * rps) == pytest.approx(5 * rps)
    assert capacity(math.nan) == pytest.approx(5 * rps)
    assert capacity(math.inf) == pytest.approx(5 * rps)


def test_capacity_without_learning_is_what_is_declared() -> None:
    fleet = Fleet(service())
    assert capacity_of(fleet.service, fleet.states(), Coverage()).total_rps == 300.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 1e300])
def test_no_report_stops_the_step(bad: float) -> None:
    planet = Planet(even(170.0))
    planet.advance(200)
    before = planet.capacity()
    inputs = planet.inputs()
    tasks = tuple(
        replace(state, ok_rps=bad, error_rps=bad, cpu_utilization=bad, report=state.report + 1)
        for state in inputs.tasks["backend"]
    )
    state, decision = planet.state, planet.decision
    for i in range(5):
        numbered = tuple(replace(task, report=task.report + i) for task in tasks)
        state, decision = step(
            state, replace(inputs, tasks={"backend": numbered}), now_s=planet.fleet.now_s + STEP_S * (i + 1)
        )
    plan = decision.services["backend"].plan
    assert plan is not None
    assert dict(plan.capacity_rps) == pytest.approx(before, rel=0.05)
    assert not decision.services["backend"].held


def test_all_unhealthy_serves_with_what_is_known() -> None:
    planet = Planet(even(170.0))
    planet.advance(200)
    for task in planet.fleet.tasks:
        task.health = HealthStatus.UNHEALTHY
    planet.advance(STEP_S)
    assert any(note.startswith("panic") for note in planet.plan.notes)
    assert math.fsum(planet.plan.load_rps.values()) == pytest.approx(510.0)
