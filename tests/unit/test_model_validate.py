"""Checks of a resource by itself and of the whole catalog: cases."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest

from gslb.model.errors import InvalidValueError
from gslb.model.geography import Coordinates, distance_km, floor_rtt_ms
from gslb.model.meta import Meta
from gslb.model.resources import (
    Backend,
    Catalog,
    ClientArea,
    Datacenter,
    Drain,
    DrainScope,
    Policy,
    Resource,
    Service,
    Zone,
)
from gslb.model.validate import Problem, check_resource, require, target_problem, validate

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
US = Datacenter(Meta("us-east1"), "na", Coordinates(33.0, -80.0))
EU = Datacenter(Meta("europe-west1"), "eu", Coordinates(50.0, 4.0))
AREA = ClientArea(Meta("north-america"), Coordinates(39.0, -98.0), (ip_network("10.1.0.0/16"),))


def service(name: str, *jobs: str, dns_names: tuple[str, ...] = ()) -> Service:
    return Service(Meta(name), tuple(Backend(job, 10.0) for job in jobs), dns_names=dns_names)


def drain(scope: DrainScope, target: str) -> Drain:
    return Drain(Meta("d"), scope, target, "why", "ann", NOON, NOON + timedelta(hours=1))


GOOD = Catalog(
    datacenters={"us-east1": US, "europe-west1": EU},
    areas={"north-america": AREA},
    services={
        "frontend": service("frontend", "/bns/us-east1/u/fe", "/bns/europe-west1/u/fe", dns_names=("www.example.com",)),
        "backend": service("backend", "/bns/us-east1/u/be"),
    },
    drains={"d": drain(DrainScope.SERVICE, "frontend@us-east1")},
    zones={"example.com": Zone(Meta("example.com"), "@ SOA a b 1 2 3 4 5\n")},
)


def test_a_good_catalog_has_no_problems() -> None:
    assert validate(GOOD) == []
    assert validate(Catalog()) == []


@pytest.mark.parametrize(
    ("bad", "subject", "message"),
    [
        (
            replace(GOOD, areas={"us-east1": ClientArea(Meta("us-east1"), Coordinates(0, 0))}),
            "area us-east1",
            "a datacenter has the same name",
        ),
        (
            replace(GOOD, areas={"a": AREA, "b": replace(AREA, meta=Meta("b"))}),
            "area b",
            "10.1.0.0/16 belongs to area 'a' already",
        ),
        (
            replace(GOOD, services={"x": service("x", "/bns/mars/u/x")}, drains={}),
            "service x",
            (
                "job '/bns/mars/u/x' is in datacenter 'mars', which is not known: apply a Datacenter of that name or correct"
                " the job (known: europe-west1, us-east1)"
            ),
        ),
        (
            replace(GOOD, services={**GOOD.services, "zz": service("zz", "/bns/us-east1/u/fe")}),
            "service zz",
            "job '/bns/us-east1/u/fe' serves 'frontend' already",
        ),
        (
            replace(
                GOOD,
                services={
                    **GOOD.services,
                    "zz": service("zz", "/bns/us-east1/u/zz", dns_names=("www.example.com",)),
                },
            ),
            "service zz",
            "DNS name 'www.example.com' belongs to service 'frontend' already",
        ),
        (
            replace(GOOD, drains={"d": drain(DrainScope.DATACENTER, "mars")}),
            "drain d",
            "there is no datacenter 'mars'",
        ),
        (replace(GOOD, drains={"d": drain(DrainScope.REGION, "asia")}), "drain d", "there is no region 'asia'"),
        (
            replace(GOOD, drains={"d": drain(DrainScope.SERVICE, "frontend@mars")}),
            "drain d",
            "there is no service 'frontend@mars'",
        ),
    ],
)
def test_what_is_wrong_between_resources(bad: Catalog, subject: str, message: str) -> None:
    problems = validate(bad)
    assert [problem.subject for problem in problems] == [subject]
    assert problems[0].message.startswith(message)
    assert problems[0].line() == f"{subject}: {problems[0].message}"


def test_nested_networks_and_drains_of_jobs_that_come_and_go_are_fine() -> None:
    nested = replace(AREA, meta=Meta("b"), cidrs=(ip_network("10.1.2.0/24"),))
    catalog = replace(
        GOOD,
        areas={"a": AREA, "b": nested},
        drains={"d": drain(DrainScope.JOB, "/bns/mars/u/x"), "e": drain(DrainScope.MACHINE, "m-1")},
    )
    assert validate(catalog) == []


def test_new_problems_can_be_told_from_old_ones() -> None:
    before = replace(GOOD, drains={"d": drain(DrainScope.REGION, "asia")})
    after = replace(before, areas={"us-east1": ClientArea(Meta("us-east1"), Coordinates(0, 0))})
    new = set(validate(after)) - set(validate(before))
    assert [problem.subject for problem in new] == ["area us-east1"]
    assert Problem("a", "b") == Problem("a", "b")


@pytest.mark.parametrize(
    ("resource", "line"),
    [
        (replace(US, coordinates=Coordinates(math.nan, 0)), "spec.latitude: nan is out of range"),
        (replace(US, coordinates=Coordinates(0, -180.5)), "spec.longitude: -180.5 is out of range"),
        (replace(US, uplink_mbps=-1.0), "spec.uplink_mbps: -1.0 is out of range"),
        (replace(US, region=""), "spec.region: '' is not a DNS label"),
        (replace(US, meta=Meta("x" * 64)), "name: 'xxx"),
        (replace(US, meta=Meta("x", owner="A")), "owner: 'A' is not a DNS label"),
        (replace(US, meta=Meta("x", generation=-1)), "generation: -1 is out of range"),
        (replace(US, meta=Meta("x", updated_at=datetime(2026, 1, 1))), "updated_at: datetime"),  # noqa: DTZ001
        (replace(AREA, cidrs=AREA.cidrs * 2), "spec.cidrs[1]: '10.1.0.0/16' is listed twice"),
        (service("a"), "spec.backends: has 0 items"),
        (service("a", "/bns/x/y/z", "/bns/x/y/z"), "spec.backends[1].job: '/bns/x/y/z' is listed twice: keep one"),
        (replace(service("a", "/bns/x/y/z"), addresses_per_answer=17), "spec.addresses_per_answer: 17 is out of range"),
        (replace(service("a", "/bns/x/y/z"), port_name="A"), "spec.port_name: 'A' is not a DNS label"),
        (Zone(Meta("example.com"), "a\0b"), "spec.records: the records have the control character '\\x00'"),
        (Zone(Meta("example.com"), "x" * 900_001), "spec.records: the records have 900001 bytes: at most 900000"),
        (Zone(Meta("a..b"), ""), "name: 'a..b' is not the name of a zone"),
        (replace(drain(DrainScope.JOB, "x"), expires_at=NOON), "spec.target: 'x' is not of the form /bns/"),
    ],
)
def test_what_is_wrong_with_one_resource(resource: Resource, line: str) -> None:
    problems = check_resource(resource)
    assert problems[0].line().startswith(line)
    with pytest.raises(InvalidValueError, match=f"{resource.meta.name[:20]}"):
        require(resource)


def test_a_good_resource_passes_through() -> None:
    assert require(US) is US


@pytest.mark.parametrize(
    ("scope", "target", "good"),
    [
        (DrainScope.DATACENTER, "us-east1", True),
        (DrainScope.DATACENTER, "us-east1@x", False),
        (DrainScope.SERVICE, "a", True),
        (DrainScope.SERVICE, "a@b", True),
        (DrainScope.SERVICE, "a@", False),
        (DrainScope.SERVICE, "@b", False),
        (DrainScope.JOB, "/bns/a/b/c", True),
        (DrainScope.TASK, "/bns/a/b/c/0", True),
        (DrainScope.TASK, "/bns/a/b/c", False),
        (DrainScope.MACHINE, "4f2c:1.x_y-z", True),
        (DrainScope.MACHINE, "", False),
    ],
)
def test_targets_of_drains(scope: DrainScope, target: str, good: bool) -> None:
    assert (target_problem(scope, target) is None) is good


def test_distance_and_the_time_it_costs() -> None:
    london, paris = Coordinates(51.5074, -0.1278), Coordinates(48.8566, 2.3522)
    assert distance_km(london, paris) == pytest.approx(343.5, abs=1)
    assert floor_rtt_ms(london, paris) == pytest.approx(3.435, abs=0.01)
    assert distance_km(Coordinates(0, 0), Coordinates(0, 180)) == pytest.approx(20_015, abs=1)
    assert distance_km(london, london) == 0


@pytest.mark.parametrize(
    ("policy", "failover", "problem"),
    [
        (Policy.FAILOVER, (), "spec.failover: policy failover needs a list"),
        (Policy.NEAREST, ("us-east1",), "spec.failover: policy nearest uses no list"),
        (Policy.FAILOVER, ("us-east1", "us-east1"), "spec.failover[1]: 'us-east1' is listed twice"),
        (Policy.FAILOVER, ("mars-1",), "spec.failover[0]: 'mars-1' has no backend of this service"),
        (Policy.FAILOVER, ("us-east1",), ""),
        (Policy.SPRAY_TO_REGION, (), ""),
    ],
)
def test_a_list_of_failover_belongs_to_its_policy(policy: Policy, failover: tuple[str, ...], problem: str) -> None:
    declared = Service(Meta("web"), (Backend("/bns/us-east1/web/server", 1.0),), policy=policy, failover=failover)
    assert [line.line().startswith(problem) for line in check_resource(declared)] == [True] * bool(problem)


def test_a_ramp_is_no_longer_than_its_drain() -> None:
    start = datetime(2026, 11, 21, tzinfo=UTC)
    drain = Drain(
        Meta("d"), DrainScope.DATACENTER, "us-east1", "r", "a", start, start + timedelta(seconds=60), ramp_s=61
    )
    (problem,) = check_resource(drain)
    assert problem.line().startswith("spec.ramp_s: 61 s is longer than the drain itself")
    assert not check_resource(replace(drain, ramp_s=60))
