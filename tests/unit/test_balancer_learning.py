"""What a task serves, learned from CPU: stories in virtual time."""

import itertools
import math
from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.balancer.inputs import TaskState
from gslb.balancer.learning import (
    COLD_START,
    DECLARED_FACTOR_MAX,
    GROWTH_MAX,
    OPENING_S,
    RAMP_S,
    RAMP_START,
    SAMPLES_MAX,
    UNLEARNED,
    learn,
)
from gslb.model.resources import CapacityMode
from tests.support.cpu_tasks import COST, IDLE, STEP_S, TRUE_RPS, Fleet, changed, day, job, service

JOB = job()


# The goal


@pytest.mark.parametrize("period_s", [2.0, 5.0])
@pytest.mark.parametrize("seed", range(8))
def test_a_request_that_costs_twice_as_much_is_known_within_a_minute(period_s: float, seed: int) -> None:
    at_s = 1360.0
    fleet = Fleet(service(), period_s=period_s, seed=seed, load=day(40), cost=changed(at_s, 2.0))
    fleet.advance(at_s - fleet.now_s)
    assert fleet.task_rps() == pytest.approx(TRUE_RPS, rel=0.05)
    fleet.advance(60)
    doubled_rps = TRUE_RPS / 2
    for _ in range(12):
        assert fleet.task_rps() == pytest.approx(doubled_rps, rel=0.05)
        fleet.advance(STEP_S)


@pytest.mark.parametrize("period_s", [2.0, 5.0])
@pytest.mark.parametrize("seed", range(8))
def test_a_request_that_costs_half_is_known_within_a_minute(period_s: float, seed: int) -> None:
    at_s = 1360.0
    fleet = Fleet(service(), period_s=period_s, seed=seed, load=day(80, 0.2), cost=changed(at_s, 0.5))
    fleet.advance(at_s - fleet.now_s)
    assert fleet.task_rps() == pytest.approx(TRUE_RPS, rel=0.05)
    fleet.advance(60)
    halved_rps = TRUE_RPS * 2
    assert fleet.task_rps() == pytest.approx(halved_rps, rel=0.05)


def test_half_the_capacity_is_gone_within_twenty_seconds() -> None:
    """What falls falls quickly: others must take the load before queues grow."""
    at_s = 1360.0
    fleet = Fleet(service(), load=day(40), cost=changed(at_s, 2.0))
    fleet.advance(at_s + 20 - fleet.now_s)
    assert fleet.task_rps() < 0.65 * TRUE_RPS


# Too little to learn from


@pytest.mark.parametrize("declared_rps", [20.0, 100.0])
def test_without_load_a_task_serves_what_is_declared(declared_rps: float) -> None:
    fleet = Fleet(service(declared_rps=declared_rps), load=lambda _, __: 0.0)
    fleet.advance(300)
    assert fleet.task_rps() == declared_rps


def test_next_to_no_load_says_next_to_nothing() -> None:
    """At a fifteenth of the target idle CPU could be anything, so the declared value weighs more than the fit."""
    fleet = Fleet(service(declared_rps=20.0), idle=0.04, load=lambda _, __: 1.5)
    fleet.advance(120)
    assert fleet.task_rps() < 30.0


@pytest.mark.parametrize("load_rps", [2.0, 6.0, 12.0, 16.0, 24.0])
@pytest.mark.parametrize("declared_rps", [300.0, 600.0])
def test_little_load_under_a_declaration_that_is_far_too_high(declared_rps: float, load_rps: float) -> None:
    """What a low load costs is not taken for idle CPU, which would make capacity endless."""
    fleet = Fleet(service(declared_rps=declared_rps), load=lambda _, now_s: load_rps if now_s > 1020 else 0.0)
    fleet.advance(300)
    assert fleet.learning.jobs[JOB].idle.cpu < 0.07
    assert fleet.task_rps() <= declared_rps
    if load_rps > 10:
        assert fleet.task_rps() == pytest.approx(TRUE_RPS, rel=0.4)


def test_a_quiet_night_does_not_unlearn_the_day() -> None:
    fleet = Fleet(service(declared_rps=200.0), load=lambda _, now_s: 50.0 if now_s < 1300 else 2.0)
    fleet.advance(290)
    day_rps = fleet.task_rps()
    fleet.advance(600)
    assert day_rps == pytest.approx(TRUE_RPS, rel=0.12)
    assert fleet.task_rps() == pytest.approx(day_rps, rel=0.25)


@pytest.mark.parametrize("declared_rps", [40.0, 200.0])
def test_a_wrong_declaration_is_left_as_the_signal_grows(declared_rps: float) -> None:
    fleet = Fleet(service(declared_rps=declared_rps), load=day(50))
    fleet.advance(30)
    assert fleet.task_rps() == declared_rps
    errors = []
    for _ in range(4):
        fleet.advance(30)
        errors.append(abs(math.log(fleet.task_rps() / TRUE_RPS)))
    assert errors[0] < abs(math.log(declared_rps / TRUE_RPS))
    assert errors[-1] < 0.06


def test_the_owner_is_never_contradicted_by_more_than_tenfold() -> None:
    fleet = Fleet(service(declared_rps=5.0), load=day(50))
    fleet.advance(600)
    assert fleet.task_rps() == pytest.approx(5.0 * DECLARED_FACTOR_MAX, rel=0.03)


def test_mode_rate_learns_nothing() -> None:
    declared = service()
    rate = replace(declared, backends=tuple(replace(each, mode=CapacityMode.RATE) for each in declared.backends))
    fleet = Fleet(rate, load=day(50))
    fleet.advance(120)
    assert fleet.learning is UNLEARNED


# One report is one sample


def test_a_report_that_is_seen_again_counts_once() -> None:
    fleet = Fleet(service(), load=day(50))
    fleet.advance(60)
    states = fleet.states()
    learning = learn(fleet.learning, fleet.service, states, fleet.now_s, {})
    samples = learning.jobs[JOB].samples
    for i in range(20):
        # An agent that reconnects sends the same numbers under a new report's name.
        again = tuple(replace(state, report=state.report + (i % 2)) for state in states)
        learning = learn(learning, fleet.service, again, fleet.now_s + i, {})
    assert learning.jobs[JOB].samples == samples


def test_unnumbered_reports_count_when_their_values_change() -> None:
    fleet = Fleet(service(), load=day(50))
    learning = UNLEARNED
    for i in range(40):
        fleet.now_s += STEP_S
        states = tuple(replace(state, report=0) for state in fleet.states())
        learning = learn(learning, fleet.service, states, 1000.0 + STEP_S * i, {})
    assert len(learning.jobs[JOB].samples) > 25


def test_the_window_is_bounded() -> None:
    fleet = Fleet(service(), load=day(50), period_s=1.0)
    fleet.advance(300, step_s=1.0)
    assert len(fleet.learning.jobs[JOB].samples) == SAMPLES_MAX


# Quiet, and bounded


@pytest.mark.parametrize("period_s", [2.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_noise_moves_next_to_nothing(seed: int, period_s: float) -> None:
    fleet = Fleet(service(), period_s=period_s, seed=seed, load=day(50, 0.0))
    fleet.advance(300)
    before = [models[JOB].task_rps for _, models in fleet.history][-1]
    fleet.history.clear()
    fleet.advance(600)
    values = [before, *(models[JOB].task_rps for _, models in fleet.history)]
    moved = sum(abs(b / a - 1) for a, b in itertools.pairwise(values))
    assert max(abs(value / before - 1) for value in values) < 0.1
    # On average: most steps change nothing at all.
    assert moved / len(fleet.history) < 0.003
    assert sum(a == b for a, b in itertools.pairwise(values)) > 0.85 * len(fleet.history)


def test_capacity_rises_slowly_and_falls_quickly() -> None:
    fleet = Fleet(service(declared_rps=20.0), load=day(50))
    fleet.advance(300)
    values = [20.0, *(models[JOB].task_rps for _, models in fleet.history)]
    rises = [b / a for a, b in itertools.pairwise(values)]
    assert max(rises) <= GROWTH_MAX + 1e-9
    assert values[-1] == pytest.approx(TRUE_RPS, rel=0.06)
    fleet = Fleet(service(declared_rps=400.0), load=day(50))
    fleet.advance(60)
    assert fleet.task_rps() < 1.2 * TRUE_RPS


# Errors


@pytest.mark.parametrize("error_cost", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_cheap_errors_never_gain_capacity(error_cost: float, share: float) -> None:
    """Dressy: a datacenter that sheds looks ten times as efficient."""
    at_s = 1360.0
    errors = {"error_cost": error_cost, "error_share": lambda _, now_s: share if now_s >= at_s else 0.0}
    fleet = Fleet(service(), load=day(60), **errors)  # type: ignore[arg-type]
    fleet.advance(at_s - fleet.now_s)
    healthy_rps = fleet.task_rps()
    fleet.history.clear()
    fleet.advance(600)
    assert max(models[JOB].task_rps for _, models in fleet.history) <= 1.03 * healthy_rps
    assert min(models[JOB].task_rps for _, models in fleet.history) >= 0.8 * healthy_rps


@pytest.mark.parametrize("error_rps", [0.3, 2.0])
def test_a_task_that_only_fails_is_no_example_of_what_a_request_costs(error_rps: float) -> None:
    """Clients avoid it: its few errors drown among its twin's requests, and its CPU is next to none."""
    backends, learning = service(), UNLEARNED

    def said(number: int, ok: float, error: float, cpu: float) -> TaskState:
        healthy = HealthStatus.HEALTHY
        return TaskState(f"{JOB}/{number}", "us-east1", JOB, healthy, ok, error, cpu, 0.0, report=report)

    for report in range(1, 40):
        at_s = 1000.0 + STEP_S * report
        tasks = (said(0, 50.0 + report % 2, 0.0, 0.5), said(1, 0.0, error_rps + report % 2 / 10, 0.001))
        learning = learn(learning, backends, tasks, at_s, {"us-east1": 100.0})
    model = learning.jobs[JOB]
    assert {sample.tasks for sample in model.samples} == {1}
    assert all(sample.load_rps >= 50.0 for sample in model.samples)


@pytest.mark.parametrize("seed", range(4))
def test_what_the_first_tasks_use_to_start_is_not_their_idle_cpu(seed: int) -> None:
    load = {"load": lambda _, at_s: 0.0 if at_s < 1008.0 else 20.0}
    fleet = Fleet(service(), seed=seed, **load, lie=lambda _, at_s, cpu: 0.6 if at_s < 1008.0 else cpu)
    fleet.advance(20)
    assert fleet.learning.jobs[JOB].idle.cpu < 2 * IDLE


def test_a_job_that_only_ever_answered_errors_serves_what_is_declared() -> None:
    fleet = Fleet(service(declared_rps=70.0), load=day(60), error_share=lambda _, __: 1.0)
    fleet.advance(300)
    assert fleet.task_rps() <= 70.0


def test_errors_that_cost_more_than_requests_take_capacity() -> None:
    at_s = 1360.0
    fleet = Fleet(service(), load=day(40), error_cost=3.0, error_share=lambda _, now_s: 0.5 if now_s >= at_s else 0.0)
    fleet.advance(at_s - fleet.now_s)
    fleet.advance(200)
    # Half of the requests cost three times as much: a request costs twice as much on average.
    assert fleet.task_rps() == pytest.approx(TRUE_RPS / 2, rel=0.15)
    assert fleet.learning.jobs[JOB].error_cost_used > 2.0


# Liars


def _lying(what: float, tasks: tuple[int, ...], until_s: float = math.inf, **more: object) -> Fleet:
    names = {f"{JOB}/{i}" for i in tasks}
    lie = {"lie": lambda name, at_s, cpu: what if name in names and 1200.0 <= at_s < until_s else cpu}
    return Fleet(service(), load=day(50), **lie, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", [math.nan, 0.0, 1e-9, -1.0, math.inf, 500.0, 6.0, 0.02])
def test_a_task_that_lies_is_set_aside_and_shown(what: float) -> None:
    fleet = _lying(what, (1,))
    fleet.advance(400)
    assert fleet.task_rps() == pytest.approx(TRUE_RPS, rel=0.06)
    (note,) = fleet.learning.notes
    assert note.startswith("reports set aside: 1 tasks")
    assert f"{JOB}/1" in note


@pytest.mark.parametrize("what", [math.nan, 0.0, math.inf, 500.0])
def test_a_whole_job_that_lies_keeps_what_was_known(what: float) -> None:
    fleet = _lying(what, (0, 1, 2))
    fleet.advance(600)
    assert fleet.task_rps() == pytest.approx(TRUE_RPS, rel=0.06)
    assert "3 tasks" in fleet.learning.notes[0]


def test_one_strange_report_is_passed_over_and_a_repaired_agent_is_believed_again() -> None:
    fleet = _lying(math.nan, (1,), until_s=1205.0)
    fleet.advance(215)
    assert fleet.learning.notes == ()
    fleet = _lying(math.nan, (1,), until_s=1300.0)
    fleet.advance(290)
    assert fleet.learning.notes
    fleet.advance(60)
    assert fleet.learning.notes == ()


def test_a_datacenter_whose_agents_say_that_requests_cost_next_to_nothing_is_doubted() -> None:
    """Cheap is doubted against other datacenters; dear is believed, for it only loses load."""
    places = ("asia-east1", "europe-west1", "us-east1")
    cheap = Fleet(service(places), load=day(50), tasks_per_job=2, cost=changed(1300.0, 0.1))
    cheap.advance(600)
    assert cheap.task_rps() == pytest.approx(TRUE_RPS, rel=0.06)
    assert "far less than other datacenters" in cheap.learning.notes[0]
    dear = Fleet(service(places), load=day(20), tasks_per_job=2, cost=changed(1300.0, 4.0))
    dear.advance(600)
    assert dear.task_rps() == pytest.approx(TRUE_RPS / 4, rel=0.08)
    assert dear.learning.notes == ()


def _beside(places: tuple[str, ...], extra_cpu: float, later_rps: float) -> Fleet:
    """At 1360 s us-east1 is drained and something uses `extra_cpu` there; at 1480 s it ends and `later_rps` come."""

    def load(datacenter: str, at_s: float) -> float:
        if datacenter != "us-east1" or at_s < 1360.0:
            return day(50)(datacenter, at_s)
        return 0.0 if at_s < 1480.0 else later_rps

    def beside(task: str, at_s: float, cpu: float) -> float:
        return cpu + extra_cpu if "us-east1" in task and 1360.0 <= at_s < 1480.0 else cpu

    fleet = Fleet(service(places), load=load, tasks_per_job=2, lie=beside)
    fleet.advance(360)
    assert fleet.task_rps() == pytest.approx(TRUE_RPS, rel=0.1)
    return fleet


def test_what_ran_beside_the_requests_for_a_while_is_forgotten_when_it_ends() -> None:
    """Half of the CPU for two minutes without any load looks like idle CPU, when nobody else knows better."""
    fleet = _beside(("us-east1",), 0.5, 20.0)
    fleet.advance(120)
    assert fleet.learning.jobs[JOB].idle.cpu > 3 * IDLE
    # As fast as capacity may rise at all, from half of it or less.
    fleet.advance(60)
    assert fleet.learning.jobs[JOB].idle.cpu < 2 * IDLE
    assert fleet.learning.notes == ()
    fleet.advance(60)
    # A load that stands still does not tell idle CPU from that of requests: it is on the safe side.
    assert fleet.task_rps() == pytest.approx(TRUE_RPS, rel=0.25)


@pytest.mark.parametrize("extra_cpu", [0.1, 0.15, 0.5])
@pytest.mark.parametrize("later_rps", [5.0, 25.0, 35.0])
def test_what_runs_beside_a_job_is_no_idle_cpu_where_others_know_theirs(extra_cpu: float, later_rps: float) -> None:
    """Taken for idle CPU it makes requests look cheap afterwards, and a drained datacenter larger than it is."""
    fleet = _beside(("asia-east1", "europe-west1", "us-east1"), extra_cpu, later_rps)
    for _ in range(round(300 / STEP_S)):
        fleet.advance(STEP_S)
        assert fleet.learning.jobs[JOB].idle.cpu < 2 * IDLE
        assert fleet.task_rps() == pytest.approx(TRUE_RPS, rel=0.12)
    assert fleet.learning.notes == ()


def test_a_datacenter_that_uses_more_idle_cpu_than_others_is_known_by_its_load() -> None:
    """Looks without load are not taken where others know of less; how CPU follows the load is."""
    places = ("asia-east1", "europe-west1", "us-east1")
    fleet = Fleet(
        service(places), load=day(50), tasks_per_job=2, lie=lambda task, _, cpu: cpu + 0.12 * ("us-east1" in task)
    )
    fleet.advance(900)
    assert fleet.learning.jobs[JOB].idle.cpu == pytest.approx(IDLE + 0.12, abs=0.03)
    assert fleet.task_rps() == pytest.approx(TRUE_RPS - 0.12 / COST, rel=0.06)


# Ramps


def _warmth(fleet: Fleet, task: str) -> float:
    return fleet.learning.warmth_of(next(state for state in fleet.states() if state.name == task))


def test_a_new_task_begins_with_a_part_and_has_all_after_the_ramp() -> None:
    fleet = Fleet(service(), load=day(50))
    fleet.advance(60)
    new = fleet.add("us-east1", 9)
    fleet.advance(STEP_S)
    parts = [_warmth(fleet, new.name)]
    for _ in range(round(RAMP_S / STEP_S)):
        fleet.advance(STEP_S)
        parts.append(_warmth(fleet, new.name))
    assert parts[0] == RAMP_START
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert _warmth(fleet, f"{JOB}/0") == 1.0


@pytest.mark.parametrize(
    ("was", "ramps"),
    [
        (HealthStatus.TIMEOUT, True),
        (HealthStatus.UNHEALTHY, True),
        (HealthStatus.UNKNOWN, True),
        (HealthStatus.DRAINING, False),
    ],
)
def test_a_task_that_comes_back_ramps_up_unless_it_was_only_drained(was: HealthStatus, ramps: bool) -> None:
    fleet = Fleet(service(), load=day(50))
    fleet.advance(60)
    fleet.tasks[0].health = was
    fleet.advance(20)
    fleet.tasks[0].health = HealthStatus.HEALTHY
    fleet.advance(STEP_S)
    assert (_warmth(fleet, fleet.tasks[0].name) < 1) is ramps


def test_the_first_tasks_of_a_service_do_not_register_at_the_same_moment() -> None:
    fleet = Fleet(service(), 1)
    fleet.advance(5)
    for number in range(1, 4):
        fleet.add("us-east1", number, HealthStatus.UNKNOWN)
        fleet.advance(5)
        fleet.tasks[number].health = HealthStatus.HEALTHY
        fleet.advance(5)
        assert [fleet.learning.warmth_of(state) for state in fleet.states()] == [1.0] * (number + 1)
    fleet.advance(OPENING_S)
    fleet.add("us-east1", 9)
    fleet.advance(5)
    assert fleet.learning.warmth_of(fleet.states()[-1]) == RAMP_START, "the service is no longer new"


def test_a_service_that_was_served_before_the_learner_began_is_not_new() -> None:
    fleet = Fleet(service(), 1)
    learning = learn(UNLEARNED, fleet.service, fleet.states(), 1000.0, {"us-east1": 90.0})
    fleet.add("us-east1", 1)
    learning = learn(learning, fleet.service, fleet.states(), 1005.0, {"us-east1": 90.0})
    assert learning.warmth_of(fleet.states()[1]) == RAMP_START


def test_when_all_are_new_none_is_held_back() -> None:
    fleet = Fleet(service(), load=day(50))
    fleet.advance(60)
    for task in fleet.tasks:
        task.health = HealthStatus.TIMEOUT
    fleet.advance(20)
    for task in fleet.tasks:
        task.health = HealthStatus.HEALTHY
    fleet.advance(STEP_S)
    assert {_warmth(fleet, task.name) for task in fleet.tasks} == {1.0}


def test_a_replica_that_has_not_heard_the_agents_yet_holds_nobody_back() -> None:
    fleet = Fleet(service(), load=day(50))
    for task in fleet.tasks:
        task.health = HealthStatus.UNKNOWN
    fleet.advance(STEP_S)
    fleet.tasks[0].health = HealthStatus.HEALTHY
    fleet.advance(60)
    fleet.tasks[1].health = HealthStatus.HEALTHY
    fleet.advance(STEP_S)
    assert _warmth(fleet, fleet.tasks[1].name) == 1.0


def test_a_job_that_was_idle_for_long_warms_up_by_serving() -> None:
    fleet = Fleet(service(), load=lambda _, now_s: 60.0 if not 1100 <= now_s < 1500 else 0.0)
    fleet.advance(90)
    assert _warmth(fleet, f"{JOB}/0") == 1.0
    fleet.advance(395)
    assert _warmth(fleet, f"{JOB}/0") == COLD_START
    known_rps = fleet.task_rps()
    fleet.advance(60)
    assert _warmth(fleet, f"{JOB}/0") == 1.0
    # What was learned outlives the idleness.
    assert known_rps == pytest.approx(TRUE_RPS, rel=0.1)


# A new leader


def test_a_new_leader_goes_on_from_the_published_plan() -> None:
    fleet = Fleet(service(), load=day(50))
    learning = learn(UNLEARNED, fleet.service, fleet.states(), 1000.0, {"us-east1": 3 * 90.0})
    assert learning.jobs[JOB].task_rps == pytest.approx(90.0)
    for nonsense in (math.nan, math.inf, -5.0, 0.0):
        learning = learn(UNLEARNED, fleet.service, fleet.states(), 1000.0, {"us-east1": nonsense})
        assert learning.jobs[JOB].task_rps == 100.0


def test_an_owner_who_declares_something_else_is_heard() -> None:
    fleet = Fleet(service(declared_rps=50.0), load=lambda _, __: 0.0)
    fleet.advance(60)
    fleet.service = service(declared_rps=80.0)
    fleet.advance(STEP_S)
    assert fleet.task_rps() == 80.0


# Bad input


@pytest.mark.parametrize("now_s", [-1e12, 0.0, 1e18, math.nan, math.inf])
def test_clocks_that_jump_change_nothing(now_s: float) -> None:
    fleet = Fleet(service(), load=day(50))
    fleet.advance(200)
    before_rps = fleet.task_rps()
    learning = learn(fleet.learning, fleet.service, fleet.states(), now_s, {})
    for i in range(12):
        learning = learn(learning, fleet.service, fleet.states(), fleet.now_s + i, {})
    assert learning.jobs[JOB].task_rps == pytest.approx(before_rps, rel=0.05)
    assert math.isfinite(learning.clock_s)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, 1e300])
@pytest.mark.parametrize("column", ["ok_rps", "error_rps", "cpu_utilization", "report_age_s"])
def test_numbers_that_cannot_be_do_no_harm(column: str, bad: float) -> None:
    fleet = Fleet(service(), load=day(50))
    fleet.advance(200)
    learning = fleet.learning
    before_rps = fleet.task_rps()
    for i in range(40):
        fleet.now_s += STEP_S
        states = tuple(replace(state, **{column: bad}) for state in fleet.states())  # type: ignore[arg-type]
        learning = learn(learning, fleet.service, states, fleet.now_s + i, {})
    assert learning.jobs[JOB].task_rps == pytest.approx(before_rps, rel=0.06)


def test_no_tasks_and_a_service_that_vanishes_and_returns() -> None:
    fleet = Fleet(service(), load=day(50))
    fleet.advance(100)
    learning = learn(fleet.learning, fleet.service, (), fleet.now_s + 5, {})
    assert learning.tasks == {}
    assert learning.jobs[JOB].task_rps == fleet.task_rps()


def test_a_task_of_another_job_is_none_of_ours() -> None:
    stranger = TaskState("/bns/us-east1/x/y/0", "us-east1", "/bns/us-east1/x/y", HealthStatus.HEALTHY, 1, 0, COST, 1.0)
    learning = learn(UNLEARNED, service(), (stranger,), 0.0, {})
    assert learning.tasks == {}
