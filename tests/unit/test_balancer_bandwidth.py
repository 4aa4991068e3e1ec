"""Uplinks and limited paths: limits for everybody, and what uploads go by."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from gslb.balancer.bandwidth import slowdown
from gslb.balancer.explain import explain
from gslb.balancer.inputs import Inputs
from gslb.balancer.lanes import Lanes
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Link, Objective, Service
from gslb.model.validate import check_resource, validate
from gslb.wire.resources import resource_from_bytes, resource_to_bytes
from tests.support.balancer import assert_well_formed, tasks_of, utilizations
from tests.support.steps import Run

MBIT = 10.0
AREAS = {"coast": ClientArea(Meta("coast"), Coordinates(0, 1)), "far": ClientArea(Meta("far"), Coordinates(0, 59))}
UPLINKS = {"here": 1000.0, "there": 500.0, "beyond": 2000.0}


def uploads(
    demand: Mapping[str, float],
    objective: Objective = Objective.THROUGHPUT,
    uplinks: Mapping[str, float] = UPLINKS,
    paths: Mapping[tuple[str, str], float] | None = None,
    names: tuple[str, ...] = ("s",),
) -> Inputs:
    places = {
        name: Datacenter(
            Meta(name),
            name,
            Coordinates(0, longitude),
            uplinks.get(name, 0.0),
            links=tuple(Link(source, mbps) for (source, to), mbps in (paths or {}).items() if to == name),
        )
        for name, longitude in (("here", 0), ("there", 10), ("beyond", 60))
    }
    services = {
        name: Service(
            Meta(name),
            tuple(Backend(f"/bns/{place}/u/{name}", 50.0, request_mbit=MBIT) for place in places),
            objective=objective,
        )
        for name in names
    }
    tasks = {name: tasks_of(one, dict.fromkeys(places, 10)) for name, one in services.items()}
    return Inputs(Catalog(places, AREAS, services), tasks, {name: dict(demand) for name in names})


def settled(inputs: Inputs, periods: int = 90) -> Run:
    run = Run(inputs, "s")
    for _ in range(periods):
        plan = run.step()
        assert_well_formed(plan, [*inputs.catalog.datacenters, *AREAS])
    return run


def used(run: Run) -> dict[str, float]:
    """Of each uplink."""
    return {name: rps * MBIT / UPLINKS[name] for name, rps in run.step().load_rps.items()}


def test_latency_fills_the_nearest_and_throughput_goes_where_the_bandwidth_is() -> None:
    demand = {"coast": 90.0, "far": 5.0}
    near, wide = used(settled(uploads(demand, Objective.LATENCY))), used(settled(uploads(demand)))
    assert near["here"] > 0.7
    assert near["beyond"] < 0.05
    assert wide["beyond"] > 0.2
    assert max(wide.values()) < 0.65
    assert max(slowdown(np.array(list(wide.values())))) < 0.8 * max(slowdown(np.array(list(near.values()))))


def test_uploads_stay_near_as_long_as_the_line_is_all_but_idle() -> None:
    assert settled(uploads({"coast": 5.0, "far": 5.0})).step().shares["coast"] == {"here": 1.0}


@pytest.mark.parametrize("objective", Objective)
def test_a_path_is_never_asked_for_more_than_it_carries_while_there_is_a_way_round(objective: Objective) -> None:
    paths = {("coast", "here"): 200.0, ("coast", "there"): 150.0}
    run = settled(uploads({"coast": 80.0, "far": 20.0}, objective, paths=paths))
    plan = run.step()
    for (source, to), mbps in paths.items():
        assert plan.shares[source].get(to, 0.0) * 80.0 * MBIT <= mbps * 1.001
    assert plan.shares["coast"]["beyond"] > 0.5
    assert plan.notes == ()


def test_demand_that_outgrows_a_path_goes_round_though_the_datacenters_hardly_notice() -> None:
    paths = {("coast", "here"): 300.0}
    run = settled(uploads({"coast": 29.0, "far": 60.0}, Objective.LATENCY, paths=paths))
    assert run.step().shares["coast"] == {"here": 1.0}
    plan = run.step(replace(run.inputs, demand={"s": {"coast": 31.5, "far": 60.0}}))
    assert plan.shares["coast"]["here"] * 31.5 * MBIT <= 300.0 * 1.001


def test_without_a_way_round_the_plan_says_what_is_too_thin() -> None:
    paths = {("coast", name): 100.0 for name in UPLINKS}
    plan = settled(uploads({"coast": 60.0}, paths=paths)).step()
    assert [note for note in plan.notes if note.startswith("path overload: coast sends")]


def test_services_share_a_path_and_an_uplink() -> None:
    paths = {("coast", "here"): 400.0}
    run = settled(uploads({"coast": 40.0, "far": 10.0}, paths=paths, names=("s", "t")))
    plans = {name: one.plan for name, one in run.decision.services.items()}
    assert all(plans.values())
    on_path = sum(plan.shares["coast"].get("here", 0.0) * 40.0 * MBIT for plan in plans.values() if plan)
    assert 100.0 < on_path <= 400.0 * 1.001
    for name, mbps in UPLINKS.items():
        assert sum(plan.load_rps[name] for plan in plans.values() if plan) * MBIT <= mbps * 1.001


def test_where_no_bandwidth_is_known_distance_decides_and_the_plan_says_so() -> None:
    run = settled(uploads({"coast": 60.0}, uplinks={}), 3)
    plan = run.step()
    assert plan.shares["coast"] == {"here": 1.0}
    assert "no datacenter of the service has uplink_mbps or links" in plan.notes[0]


def test_explain_tells_the_lines_and_what_they_cost() -> None:
    run = settled(uploads({"coast": 90.0, "far": 5.0}, paths={("coast", "there"): 300.0}))
    told = explain(run.state, run.inputs, "s", "coast", now_s=run.now_s)
    reasons = {one.datacenter: one.reason for one in told.candidates}
    assert reasons["here"].startswith("objective throughput: 10 Mbit take 1.")
    assert "uplink of 1000 Mbit/s" in reasons["here"]
    assert "path of 300 Mbit/s" in reasons["there"]


def test_the_same_demand_gives_the_same_plan_and_noise_moves_nothing() -> None:
    run = settled(uploads({"coast": 90.0, "far": 5.0}))
    before = run.step().shares
    for i in range(40):
        wobble = 1 + 0.05 * (-1) ** i
        assert (
            run.step(replace(run.inputs, demand={"s": {"coast": 90.0 * wobble, "far": 5.0 / wobble}})).shares == before
        )


def test_lanes_fill_in_order_and_price_what_comes_next() -> None:
    one = np.zeros(1, dtype=np.intp)
    lanes = Lanes(one, one, np.array([[0.0, 4.0, 6.0]]), np.array([[4.0, 2.0, np.inf]]), np.array([[0.0, 5.0, 99.0]]))
    expanded = lanes.expand(np.array([0, 0]), np.array([0, 1]))
    assert expanded.within(np.full(4, 5.0)).tolist() == [5.0, 4.0, 1.0, 0.0]
    flow = np.array([[4.0, 9.0]])
    paid, offered = lanes.priced(np.zeros((1, 2)), flow)
    assert (paid.tolist(), offered.tolist()) == ([[0.0, 0.0]], [[5.0, 0.0]])
    assert not lanes.among(np.array([1]), 2, 1.0).any


def test_records_carry_objective_and_links_and_old_ones_mean_what_they_meant() -> None:
    inputs = uploads({}, paths={("coast", "here"): 100.0})
    for resource in (inputs.catalog.services["s"], inputs.catalog.datacenters["here"]):
        assert resource_from_bytes(resource_to_bytes(resource)) == resource
    plain = replace(inputs.catalog.services["s"], objective=Objective.LATENCY)
    assert len(resource_to_bytes(plain)) < len(resource_to_bytes(inputs.catalog.services["s"]))


def test_what_is_wrong_with_an_objective_and_a_link() -> None:
    service = replace(uploads({}).catalog.services["s"], backends=(Backend("/bns/here/u/s", 50.0),))
    assert "objective throughput needs to know how much" in check_resource(service)[0].line()
    catalog = uploads({}, paths={("moon", "here"): 1.0}).catalog
    assert [problem.line() for problem in validate(catalog)] == [
        (
            "datacenter here: its link comes from 'moon', which is no datacenter and no client area:"
            " correct the name or leave the link out"
        )
    ]
    twice = replace(catalog.datacenters["here"], links=(Link("coast", 1.0), Link("coast", 2.0)))
    assert "listed twice" in check_resource(twice)[0].line()


def test_nobody_is_above_capacity_when_the_widest_line_is_lost() -> None:
    run = settled(uploads({"coast": 60.0, "far": 30.0}))
    dead = {"s": tasks_of(run.inputs.catalog.services["s"], {"here": 10, "there": 10, "beyond": 0})}
    plan = run.step(replace(run.inputs, tasks=dead))
    for _ in range(30):
        plan = run.step()
    assert max(utilizations(plan).values()) <= 1.001


@pytest.mark.parametrize("rps", [float("nan"), float("inf"), -5.0, 1e30])
def test_a_rate_that_is_none_is_its_own_services_trouble_on_a_shared_path(rps: float) -> None:
    paths = {("coast", "here"): 300.0}
    inputs = uploads({"coast": 10.0}, paths=paths, names=("s", "t"))
    run = settled(replace(inputs, demand={**inputs.demand, "t": {"coast": rps}}), periods=3)
    assert not run.decision.services["s"].held
    assert "no rate" in run.decision.services["t"].held
