"""What a service prefers where there is room: nearest, its region, a list; and places too ill to be sent to."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.balancer.explain import explain
from gslb.balancer.inputs import Inputs
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Policy, Service
from tests.support.balancer import PLACES, assert_well_formed, planet, tasks_of, utilizations
from tests.support.steps import Run

# From `coast` the far end of its own region is farther than the near end of the other one.
DATACENTERS = {
    "east": Datacenter(Meta("east"), "home", Coordinates(0, 0)),
    "west": Datacenter(Meta("west"), "home", Coordinates(0, -40)),
    "abroad": Datacenter(Meta("abroad"), "away", Coordinates(0, 10)),
    "remote": Datacenter(Meta("remote"), "away", Coordinates(0, 80)),
}
AREAS = {"coast": ClientArea(Meta("coast"), Coordinates(0, 1)), "far": ClientArea(Meta("far"), Coordinates(0, 79))}


def two_regions(policy: Policy, demand: Mapping[str, float], failover: tuple[str, ...] = ()) -> Inputs:
    backends = tuple(Backend(f"/bns/{name}/u/s", 50.0) for name in DATACENTERS)
    declared = Service(Meta("s"), backends, policy=policy, failover=failover)
    counts = {"east": 2, "west": 4, "abroad": 2, "remote": 2}
    return Inputs(Catalog(DATACENTERS, AREAS, {"s": declared}), {"s": tasks_of(declared, counts)}, {"s": dict(demand)})


def settled(inputs: Inputs, periods: int = 60) -> Run:
    run = Run(inputs, "s")
    for _ in range(periods):
        plan = run.step()
        assert_well_formed(plan, [*DATACENTERS, *AREAS])
        assert max(utilizations(plan).values()) <= 1.001
    return run


def shares(run: Run, locality: str = "coast") -> dict[str, float]:
    return dict(run.step().shares[locality])


def test_nearest_spills_abroad_before_it_crosses_its_region() -> None:
    assert set(shares(settled(two_regions(Policy.NEAREST, {"coast": 120.0})))) == {"east", "abroad"}


def test_waterfall_stays_in_the_region_until_it_is_full() -> None:
    assert set(shares(settled(two_regions(Policy.WATERFALL_BY_REGION, {"coast": 120.0})))) == {"east", "west"}
    run = settled(two_regions(Policy.WATERFALL_BY_REGION, {"coast": 340.0}))
    assert set(shares(run)) == {"east", "west", "abroad"}
    used = utilizations(run.step())
    assert min(used["east"], used["west"]) > 0.87


def test_waterfall_within_the_region_is_nearest_first() -> None:
    assert shares(settled(two_regions(Policy.WATERFALL_BY_REGION, {"coast": 60.0}))) == {"east": 1.0}
    assert shares(settled(two_regions(Policy.WATERFALL_BY_REGION, {"coast": 60.0})), "far") == {"remote": 1.0}


def test_spray_spreads_over_the_region_by_capacity() -> None:
    run = settled(two_regions(Policy.SPRAY_TO_REGION, {"coast": 90.0, "far": 40.0}))
    assert shares(run) == pytest.approx({"east": 1 / 3, "west": 2 / 3}, abs=1e-3)
    assert shares(run, "far") == pytest.approx({"abroad": 0.5, "remote": 0.5}, abs=1e-3)


def test_spray_of_too_much_goes_to_the_other_region_and_fills_each_alike() -> None:
    run = settled(two_regions(Policy.SPRAY_TO_REGION, {"coast": 360.0}))
    used = utilizations(run.step())
    assert used["east"] == pytest.approx(used["west"], abs=1e-3)
    assert used["abroad"] == pytest.approx(used["remote"], abs=1e-3)
    assert sum(shares(run)[name] for name in ("abroad", "remote")) > 0.1


def test_failover_uses_the_first_of_the_list_that_has_room_whatever_the_distance() -> None:
    order = ("remote", "west")
    assert shares(settled(two_regions(Policy.FAILOVER, {"coast": 60.0}, order))) == {"remote": 1.0}
    run = settled(two_regions(Policy.FAILOVER, {"coast": 150.0}, order))
    assert set(shares(run)) == {"remote", "west"}
    assert utilizations(run.step())["remote"] > 0.87
    run = settled(two_regions(Policy.FAILOVER, {"coast": 320.0}, order))
    assert set(shares(run)) >= {"remote", "west", "east"}


def test_failover_goes_on_when_the_first_is_ill() -> None:
    run = settled(two_regions(Policy.FAILOVER, {"coast": 60.0}, ("remote", "west")))
    ill = tuple(
        replace(task, health=HealthStatus.TIMEOUT) if task.datacenter == "remote" else task
        for task in run.inputs.tasks["s"]
    )
    assert run.step(replace(run.inputs, tasks={"s": ill}), after_s=0.1).shares["coast"] == {"west": 1.0}


def test_a_changed_policy_is_followed() -> None:
    run = settled(two_regions(Policy.NEAREST, {"coast": 60.0}), 2)
    services = {"s": replace(run.inputs.catalog.services["s"], policy=Policy.FAILOVER, failover=("remote",))}
    changed = replace(run.inputs, catalog=replace(run.inputs.catalog, services=services))
    for _ in range(60):
        plan = run.step(changed)
    assert plan.shares["coast"] == {"remote": 1.0}


@pytest.mark.parametrize(
    ("policy", "failover", "words"),
    [
        (Policy.FAILOVER, ("west", "east"), "first choice of policy failover"),
        (Policy.SPRAY_TO_REGION, (), "its part by capacity, policy spray-to-region"),
        (Policy.WATERFALL_BY_REGION, (), "first choice of policy waterfall-by-region"),
    ],
)
def test_explain_names_the_policy_and_goes_by_its_order(policy: Policy, failover: tuple[str, ...], words: str) -> None:
    run = settled(two_regions(policy, {"coast": 60.0}, failover), 2)
    told = explain(run.state, run.inputs, "s", "coast", now_s=run.now_s)
    assert words in told.candidates[0].reason
    assert told.candidates[-1].datacenter == "remote"
    assert f"by policy {policy.value} and takes it" in told.candidates[-1].reason


# Too few healthy tasks


def healthy(inputs: Inputs, counts: Mapping[str, int]) -> Inputs:
    """`inputs` with only so many healthy tasks in each of these datacenters."""
    seen: dict[str, int] = {}
    states = []
    for task in inputs.tasks["backend"]:
        seen[task.datacenter] = seen.get(task.datacenter, 0) + 1
        well = seen[task.datacenter] <= counts.get(task.datacenter, len(inputs.tasks["backend"]))
        states.append(replace(task, health=HealthStatus.HEALTHY if well else HealthStatus.UNHEALTHY))
    return replace(inputs, tasks={"backend": tuple(states)})


QUIET = {"north-america": 12.0, "europe": 10.0, "asia": 10.0, "south-america": 10.0}


def test_a_datacenter_with_fewer_than_a_quarter_healthy_gets_nothing_and_check_says_so() -> None:
    run = Run(planet(QUIET, rps=10.0, count=10))
    assert run.step().load_rps["us-east1"] > 0
    plan = run.step(healthy(run.inputs, {"us-east1": 2}))
    assert plan.load_rps["us-east1"] == 0
    assert any(note.startswith("auto-drain: 2 of 10 tasks in us-east1") for note in plan.notes)
    told = explain(run.state, run.inputs, "backend", "north-america", now_s=run.now_s)
    assert any("auto-drain" in each.reason for each in told.candidates if each.datacenter == "us-east1")


def test_it_comes_back_only_when_clearly_more_are_healthy() -> None:
    run = Run(planet(QUIET, rps=10.0, count=10))
    run.step()
    run.step(healthy(run.inputs, {"us-east1": 2}))
    assert run.step(healthy(run.inputs, {"us-east1": 3})).load_rps["us-east1"] == 0
    run.step(healthy(run.inputs, {"us-east1": 4}))
    for _ in range(60):
        plan = run.step()
    assert plan.load_rps["us-east1"] > 0
    assert not plan.notes


def test_a_quarter_healthy_is_enough_and_three_of_ten_too() -> None:
    run = Run(planet(QUIET, rps=10.0, count=12))
    assert run.step(healthy(run.inputs, {"us-east1": 3})).load_rps["us-east1"] > 0


def test_never_more_than_half_of_all_capacity_is_taken_away() -> None:
    ill = dict.fromkeys(PLACES, 2) | {"us-east1": 1}
    run = Run(healthy(planet({"north-america": 1.0}, rps=10.0, count=10), ill))
    run.step()
    withdrawn = [site.datacenter for site in run.decision.services["backend"].capacity.datacenters if site.withdrawn]
    assert len(withdrawn) == 2
    assert "us-east1" in withdrawn


def test_what_demand_needs_stays() -> None:
    run = Run(healthy(planet({"north-america": 310.0}, rps=10.0, count=10), {"us-east1": 2}))
    plan = run.step()
    assert plan.capacity_rps["us-east1"] == 20.0
    assert plan.load_rps["us-east1"] > 0


def test_drained_tasks_do_not_count_as_ill() -> None:
    inputs = planet(QUIET, rps=10.0, count=10)
    states = tuple(
        replace(task, drained=True, health=HealthStatus.DRAINING)
        if task.datacenter == "us-east1" and not task.name.endswith(("/0", "/1"))
        else task
        for task in inputs.tasks["backend"]
    )
    run = Run(replace(inputs, tasks={"backend": states}))
    assert run.step().load_rps["us-east1"] > 0
