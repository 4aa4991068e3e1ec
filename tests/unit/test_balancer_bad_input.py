"""Bad input never stops the loop: a valid plan or the last good one, and a line for the operator."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.balancer.demand import DemandFold, DemandReport, DemandRow
from gslb.balancer.inputs import Inputs, TaskState
from gslb.balancer.safety import plan_violations
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.control.admin.findings import service_findings
from gslb.model.resources import Backend, CapacityMode, Catalog, DemandSource
from gslb.v1 import admin_pb2
from tests.support.balancer import AREAS, NOW_S, PLACES, planet, with_health

DEMAND = {"north-america": 60.0, "europe": 40.0}
Change = Callable[[Inputs], Inputs]


def with_demand(**rates: float) -> Change:
    return lambda inputs: replace(
        inputs, demand={"backend": {name.replace("_", "-"): rps for name, rps in rates.items()}}
    )


def with_backends(change: Callable[[Backend], Backend]) -> Change:
    def changed(inputs: Inputs) -> Inputs:
        service = inputs.catalog.services["backend"]
        declared = replace(service, backends=tuple(map(change, service.backends)))
        return replace(inputs, catalog=replace(inputs.catalog, services={"backend": declared}))

    return changed


def with_tasks(**fields: object) -> Change:
    """Tasks of a service that learns, whose agents say this."""
    learns = with_backends(lambda each: replace(each, mode=CapacityMode.UTILIZATION))

    def changed(inputs: Inputs) -> Inputs:
        tasks = tuple(
            replace(task, report_age_s=1.0, report=int(fields.get("report", 1)), **values)  # type: ignore[call-overload,arg-type]
            for task in inputs.tasks["backend"]
            for values in ({name: value for name, value in fields.items() if name != "report"},)
        )
        return replace(learns(inputs), tasks={"backend": tasks})

    return changed


def no_backends(inputs: Inputs) -> Inputs:
    declared = replace(inputs.catalog.services["backend"], backends=())
    return replace(inputs, catalog=replace(inputs.catalog, services={"backend": declared}))


def no_places(inputs: Inputs) -> Inputs:
    return replace(inputs, catalog=Catalog(services=inputs.catalog.services))


def strange_tasks(inputs: Inputs) -> Inputs:
    strange = TaskState("/bns/mars/u/j/0", "mars", "/bns/mars/u/j", HealthStatus.HEALTHY)
    return replace(inputs, tasks={"backend": (*inputs.tasks["backend"], strange)})


def all_in(health: HealthStatus) -> Change:
    return lambda inputs: with_health(inputs, "backend", health)


# What is wrong, and a word of what the operator is told; empty: nothing is wrong with it.
CASES: list[tuple[str, Change, str]] = [
    ("demand NaN", with_demand(europe=math.nan), "no rate"),
    ("demand infinite", with_demand(europe=math.inf), "no rate"),
    ("demand negative", with_demand(europe=-1.0), "no rate"),
    ("demand absurd", with_demand(europe=1e30), "no rate"),
    ("demand from nowhere", with_demand(mars=10.0), "unknown localities"),
    ("no demand", with_demand(), ""),
    ("demand zero", with_demand(europe=0.0), ""),
    ("demand of a million", with_demand(europe=1e6), "overload"),
    ("capacity zero", with_backends(lambda each: replace(each, task_capacity_rps=0.0)), "task_capacity_rps"),
    ("capacity NaN", with_backends(lambda each: replace(each, task_capacity_rps=math.nan)), "task_capacity_rps"),
    ("capacity negative", with_backends(lambda each: replace(each, task_capacity_rps=-5.0)), "task_capacity_rps"),
    ("all unhealthy", all_in(HealthStatus.UNHEALTHY), "panic"),
    ("all timed out", all_in(HealthStatus.TIMEOUT), "panic"),
    ("all draining", all_in(HealthStatus.DRAINING), "panic"),
    ("all unknown", all_in(HealthStatus.UNKNOWN), "panic"),
    ("no backends", no_backends, "no task"),
    ("no tasks", lambda inputs: replace(inputs, tasks={"backend": ()}), "vanished"),
    ("no entry for its tasks", lambda inputs: replace(inputs, tasks={}), "vanished"),
    ("no places", no_places, "localities vanished"),
    ("tasks of another planet", strange_tasks, ""),
    ("reports NaN", with_tasks(ok_rps=math.nan, error_rps=math.nan), ""),
    ("reports infinite", with_tasks(ok_rps=math.inf, cpu_utilization=math.inf), ""),
    ("reports negative", with_tasks(ok_rps=-5.0, cpu_utilization=-1.0, machine_cpu=-1.0, machine_part=-1.0), ""),
    ("reports absurd", with_tasks(ok_rps=1e300, cpu_utilization=1e300, machine_cpu=1e300, machine_part=1e300), ""),
    ("reports no CPU", with_tasks(ok_rps=40.0, cpu_utilization=math.nan, machine_cpu=0.99), ""),
    ("times NaN", lambda inputs: replace(inputs, rtt_ms={("europe", "us-east1"): math.nan}), ""),
    ("times negative", lambda inputs: replace(inputs, rtt_ms={("europe", "us-east1"): -5.0}), ""),
]


def told(decision: Decision, inputs: Inputs) -> list[admin_pb2.Finding]:
    each = decision.services["backend"]
    return list(service_findings("backend", each, len(inputs.tasks.get("backend", ())) or 1, 0))


@pytest.mark.parametrize(("change", "word"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_plan_is_valid_or_the_last_good_one_and_the_check_says_why(change: Change, word: str) -> None:
    inputs = planet(DEMAND)
    state, decision = step(BalancerState(), inputs, now_s=NOW_S)
    good = decision.services["backend"].plan
    assert good is not None
    published = {"backend": good}
    bad = replace(change(inputs), previous=published)
    for n in range(4):
        state, decision = step(state, bad, now_s=NOW_S + 5 * (n + 1))
        each = decision.services["backend"]
        assert each.plan is not None
        assert plan_violations(each.plan, [*PLACES, *AREAS], set(PLACES)) == ()
        if each.held:
            assert each.plan == good
        if word:
            lines = [finding.message for finding in told(decision, bad)] + list(decision.alarms)
            assert any(word in line for line in lines), lines
    # It passes: the next good input is planned with as ever.
    for n in range(8):
        state, decision = step(state, replace(inputs, previous=published), now_s=NOW_S + 60 + 5 * n)
    each = decision.services["backend"]
    assert each.plan is not None
    assert not each.held, each.held
    assert plan_violations(each.plan, [*PLACES, *AREAS], set(PLACES)) == ()


@pytest.mark.parametrize("change", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_at_the_very_first_step_nothing_is_raised_either(change: Change) -> None:
    bad = change(planet(DEMAND))
    state, decision = step(BalancerState(), bad, now_s=NOW_S)
    each = decision.services["backend"]
    if each.plan is None:
        assert each.held, "no plan without a reason"
    else:
        localities = [*bad.catalog.datacenters, *bad.catalog.areas]
        assert plan_violations(each.plan, localities, set(PLACES)) == ()
    step(state, bad, now_s=NOW_S + 5)


@pytest.mark.parametrize("jump_s", [-1e9, -3600.0, -1.0, 0.0, 3600.0, 1e9])
def test_a_clock_that_jumps_changes_no_plan(jump_s: float) -> None:
    inputs = planet(DEMAND)
    state, decision = step(BalancerState(), inputs, now_s=NOW_S)
    good = decision.services["backend"].plan
    assert good is not None
    inputs = replace(inputs, previous={"backend": good})
    for n in range(3):
        state, decision = step(state, inputs, now_s=NOW_S + jump_s + 5 * n)
        each = decision.services["backend"]
        assert not each.held
        assert each.plan is not None
        assert each.plan.shares == good.shares


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_demand_outlives_a_clock_that_jumps(jump_s: float) -> None:
    fold, sources = DemandFold(), {"backend": DemandSource.RPC}
    now_s = 1000.0
    for seq in range(1, 4):
        row = DemandRow("backend", "europe", 200, caller="frontend")
        fold.accept(DemandReport("c", "b", seq, 2.0, DemandSource.RPC, (row,)), now_s=now_s)
        rates = fold.demand(sources, now_s=now_s).get("backend", {})
        assert all(0 <= rps < math.inf for rps in rates.values())
        parts = fold.callers(sources, now_s=now_s).get("backend", {})
        assert all(0 <= part <= 1 for part in parts.values())
        now_s += jump_s if seq == 1 else 2.0
    assert fold.demand(sources, now_s=now_s)["backend"]["europe"] == pytest.approx(100, rel=0.5)
