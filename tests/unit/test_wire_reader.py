"""How updates change what a reader holds: stories."""

from dataclasses import replace
from datetime import UTC, datetime

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Resource, Zone
from gslb.v1 import config_pb2, discovery_pb2
from gslb.wire import codec, reader
from gslb.wire.reader import ReaderView, catalog_of, fold
from tests.golden.cases import AREA, DATACENTER, DRAIN, SERVICE, ZONE

DELETED_AT = datetime(2026, 5, 1, tzinfo=UTC)
BACKEND = config_pb2.Service(backends=[config_pb2.Backend(job="/bns/us/u/be", task_capacity_rps=5)])


def endpoint(index: int, health: HealthStatus = HealthStatus.HEALTHY, address: str = "10.0.0.1") -> ServiceEndpoint:
    return ServiceEndpoint(f"/bns/us/u/be/{index}", address, 80, health)


def plan(*stamp: int, to: str = "us", localities: tuple[str, ...] = ("us",)) -> Plan:
    return Plan("be", Stamp(*stamp), {locality: {to: 1.0} for locality in localities}, dict.fromkeys(localities, 3.0))


def change(
    *endpoints: ServiceEndpoint,
    snapshot: bool = False,
    removed: tuple[int, ...] = (),
    plan: Plan | None = None,
    config: config_pb2.Service | None = None,
    deleted: bool = False,
) -> discovery_pb2.Update:
    one = discovery_pb2.ServiceUpdate(
        service="be",
        deleted=deleted,
        config=config,
        plan=codec.encode_plan(plan) if plan else None,
        endpoints_snapshot=snapshot,
        upserted=[codec.encode_endpoint(item) for item in endpoints],
        removed=[f"/bns/us/u/be/{index}" for index in removed],
    )
    return discovery_pb2.Update(services=[one])


def tasks(view: ReaderView) -> str:
    return "".join(sorted(task[-1] for task in view.services["be"].endpoints))


def after(*updates: discovery_pb2.Update) -> tuple[ReaderView, list[list[str]]]:
    """The view after all updates, and the problems of each."""
    view, said = ReaderView(), []
    for update in updates:
        view, problems = fold(view, update)
        said.append(problems)
    return view, said


def test_deltas_add_change_and_remove() -> None:
    view, said = after(
        change(endpoint(0), endpoint(1), snapshot=True, config=BACKEND, plan=plan(1, 1, 1)),
        change(endpoint(1, HealthStatus.DRAINING), endpoint(2)),
        change(removed=(0,)),
    )
    assert said == [[], [], []]
    assert tasks(view) == "12"
    held = view.services["be"]
    assert held.endpoints["/bns/us/u/be/1"].health is HealthStatus.DRAINING
    assert held.service == codec.decode_service("be", BACKEND)
    assert held.plan == plan(1, 1, 1)


def test_a_snapshot_forgets_what_it_does_not_list() -> None:
    view, _ = after(change(endpoint(0), endpoint(1)), change(endpoint(2), snapshot=True))
    assert tasks(view) == "2"


def test_plans_only_advance() -> None:
    newer, older = plan(1, 5, 7), plan(1, 5, 6, to="eu")
    view, said = after(change(plan=newer), change(plan=older), change(plan=plan(1, 4, 99, to="eu")))
    assert view.services["be"].plan == newer
    assert said[1] == ["service be: refused plan (1, 5, 6), older than (1, 5, 7), which is held"]
    assert said[2] == ["service be: refused plan (1, 4, 99), older than (1, 5, 7), which is held"]
    # The same once more, from another replica: nothing new, nothing wrong.
    again, problems = fold(view, change(plan=newer))
    assert problems == []
    assert again.services["be"] is not None
    assert again.services["be"].plan is view.services["be"].plan
    # After a restore of etcd epochs begin anew, under a larger incarnation.
    restored, problems = fold(view, change(plan=plan(2, 1, 1, to="eu")))
    assert problems == []
    assert restored.services["be"].plan == plan(2, 1, 1, to="eu")


def test_a_plan_without_stamp_or_for_another_service_is_refused() -> None:
    view, said = after(change(endpoint(0), plan=plan(0, 0, 0)))
    assert view.services["be"].plan is None
    assert said == [["service be: refused a plan without a stamp"]]
    other = change(endpoint(0))
    other.services[0].plan.CopyFrom(codec.encode_plan(Plan("fe", Stamp(1, 1, 1), {"us": {"us": 1.0}})))
    assert fold(view, other)[1] == ["service be: refused a plan that is for 'fe'"]


def test_a_damaged_plan_leaves_the_last_good_one_and_the_rest_goes_on() -> None:
    damaged = change(endpoint(1), plan=plan(1, 1, 2))
    damaged.services[0].plan.checksum ^= 1
    view, said = after(change(endpoint(0), plan=plan(1, 1, 1)), damaged)
    assert view.services["be"].plan == plan(1, 1, 1)
    assert tasks(view) == "01"
    assert said[1][0].startswith("the last good plan stays: plan of be: checksum")


def test_endpoints_never_become_empty_by_an_update() -> None:
    first = change(endpoint(0), endpoint(1))
    for emptying in (change(removed=(0, 1)), change(snapshot=True)):
        view, said = after(first, emptying)
        assert tasks(view) == "01"
        assert said[1] == ["service be: an update that would leave no endpoint was refused: 2 stay"]
        # They go when there is something better, and only then.
        assert tasks(fold(view, change(plan=plan(1, 1, 1)))[0]) == "01"
        assert tasks(fold(view, change(endpoint(7)))[0]) == "7"
        # One that comes back stays.
        assert tasks(fold(view, change(endpoint(1)))[0]) == "1"


def test_only_deletion_takes_a_name_away() -> None:
    view, said = after(change(endpoint(0), plan=plan(3, 3, 3)), change(deleted=True), change(plan=plan(1, 1, 1)))
    assert said == [[], [], []]
    assert view.services["be"].plan == plan(1, 1, 1)
    gone, _ = fold(view, change(deleted=True))
    assert gone.services == {}
    assert "be" in view.services


def test_a_bad_endpoint_is_dropped_alone_and_its_last_good_value_stays() -> None:
    view, said = after(
        change(endpoint(0), endpoint(1)),
        change(endpoint(0, address="nowhere"), endpoint(2), endpoint(3, address="nowhere"), snapshot=True),
    )
    assert tasks(view) == "02"
    assert view.services["be"].endpoints["/bns/us/u/be/0"] == endpoint(0)
    assert [problem[:40] for problem in said[1]] == [
        "service be: endpoint /bns/us/u/be/0: add",
        "service be: endpoint /bns/us/u/be/3: add",
    ]


def test_a_bad_configuration_leaves_the_last_good_one() -> None:
    bad = config_pb2.Service(backends=[config_pb2.Backend(job="/bns/us/u/be", task_capacity_rps=-5)])
    view, said = after(change(endpoint(0), config=BACKEND), change(config=bad))
    assert view.services["be"].service == codec.decode_service("be", BACKEND)
    assert said[1][0].startswith("the last good configuration stays: service 'be': spec.backends[0].task_capacity_rps")


def test_too_many_endpoints_or_services_leave_the_last_good(monkeypatch) -> None:
    monkeypatch.setattr(reader.limits, "ENDPOINTS_PER_SERVICE_MAX", 3)
    monkeypatch.setattr(reader.limits, "SERVICES_MAX", 1)
    view, said = after(
        change(endpoint(0), endpoint(1)),
        change(*(endpoint(i) for i in range(4))),
        change(endpoint(2), endpoint(3)),
        discovery_pb2.Update(services=[discovery_pb2.ServiceUpdate(service="fe", upserted=[], config=BACKEND)]),
        discovery_pb2.Update(services=[discovery_pb2.ServiceUpdate(service="be")] * 2),
    )
    assert tasks(view) == "01"
    assert set(view.services) == {"be"}
    assert [problems[0] for problems in said[1:]] == [
        "service be: an update of 4 endpoints was refused: the last good ones stay",
        "service be: 4 endpoints would be held: the last good ones stay",
        "service fe: dropped, 1 services are held already",
        "an update of 2 services: the first 1 were read",
    ]


def test_bad_names_are_dropped() -> None:
    update = discovery_pb2.Update(services=[discovery_pb2.ServiceUpdate(service="../etc", config=BACKEND)])
    view, said = after(update)
    assert view.services == {}
    assert said[0][0].startswith("service '../etc' is not a DNS label")


def _catalog(*resources: config_pb2.Resource) -> discovery_pb2.Update:
    return discovery_pb2.Update(catalog=discovery_pb2.Catalog(resources=resources))


def _gone(resource: Resource) -> config_pb2.Resource:
    """The tombstone of a resource."""
    return codec.encode_resource(replace(resource, meta=replace(resource.meta, deleted_at=DELETED_AT)))


def _zones(*origins: str) -> list[config_pb2.Resource]:
    return [codec.encode_resource(Zone(Meta(origin), "@ IN NS ns1")) for origin in origins]


def test_the_catalog_is_replaced_and_bad_resources_keep_their_last_good_value() -> None:
    datacenter, area = codec.encode_resource(DATACENTER), codec.encode_resource(AREA)
    moved = codec.encode_resource(DATACENTER)
    moved.datacenter.latitude = 999
    view, said = after(_catalog(datacenter, area), _catalog(moved, _gone(AREA)))
    assert view.catalog.datacenters == {"us-east1": DATACENTER}
    assert view.catalog.areas == {}
    assert said[1][0].startswith("the last good value stays: datacenter 'us-east1': spec.latitude: 999.0")


def test_an_empty_catalog_is_refused() -> None:
    view, said = after(_catalog(codec.encode_resource(DATACENTER)), _catalog(), discovery_pb2.Update())
    assert view.catalog.datacenters == {"us-east1": DATACENTER}
    assert said[1] == ["a catalog without datacenters was refused: 1 are held, such as 'us-east1'"]
    assert said[2] == []


def test_what_nobody_deleted_does_not_vanish_with_the_better_part_of_the_catalog() -> None:
    datacenter, zones = codec.encode_resource(DATACENTER), _zones("a.example", "b.example", "c.example")
    view, said = after(
        _catalog(datacenter, *zones),
        _catalog(datacenter, *zones[:2]),  # one of three may
        _catalog(datacenter),
        _catalog(datacenter, *zones),
    )
    assert sorted(view.catalog.zones) == ["a.example", "b.example", "c.example"]
    assert said[1] == []
    assert said[2] == [
        "a catalog that lacks 2 of 2 zones, such as 'a.example', which nobody deleted: they are served as before"
    ]
    deleted = [_gone(zone) for zone in view.catalog.zones.values()]
    gone, problems = fold(view, _catalog(datacenter, *deleted))
    assert (gone.catalog.zones, problems) == ({}, [])


def test_a_plan_for_a_part_of_the_localities_is_refused_until_the_others_are_deleted() -> None:
    places = [replace(AREA, meta=replace(AREA.meta, name=name)) for name in ("north", "east", "south", "west")]
    everybody = tuple(place.name for place in places)
    whole, most, few = (
        plan(1, 1, 1, localities=everybody),
        *(plan(1, 1, 2 + n, localities=everybody[:part]) for n, part in enumerate((2, 1))),
    )
    datacenter = codec.encode_resource(DATACENTER)
    known = _catalog(datacenter, *map(codec.encode_resource, places))
    view, said = after(known, change(plan=whole), change(plan=most))
    assert (view.services["be"].plan, said[2]) == (most, [])  # a half may go
    view, said = after(known, change(plan=whole), change(plan=few))
    assert view.services["be"].plan == whole
    (problem,) = said[2]
    assert problem.startswith("service be: refused plan (1, 1, 3), without 3 of the 4 localities that (1, 1, 1) serves")
    # The operator's word may come after the plan.
    gone = _catalog(datacenter, codec.encode_resource(places[0]), *map(_gone, places[1:]))
    released, problems = fold(view, gone)
    assert (released.services["be"].plan, problems, released.withheld) == (few, [], {})
    # What is refused is forgotten with its service, and when something better has come.
    assert fold(view, change(deleted=True))[0].withheld == {}
    assert fold(replace(view, services={}), gone)[0].withheld == {}
    better, _ = fold(view, change(plan=plan(1, 1, 4, localities=everybody)))
    assert better.withheld == {}
    assert fold(better, gone)[0].services["be"].plan == better.services["be"].plan


def test_the_catalog_of_readers_has_places_and_zones_that_are_not_deleted() -> None:
    catalog = catalog_of([DATACENTER, AREA, SERVICE, DRAIN, ZONE])
    assert set(catalog.datacenters) == {"us-east1"}
    assert set(catalog.areas) == {"north-america"}
    assert (catalog.services, catalog.drains, catalog.zones) == ({}, {}, {})
    assert ZONE.meta.deleted_at is not None


def test_synced_stays_and_unknown_services_are_remembered_until_they_arrive() -> None:
    view, _ = after(
        discovery_pb2.Update(replica="r0", synced=True, unknown_services=["be", "fe"]),
        discovery_pb2.Update(replica="r1"),
    )
    assert (view.synced, view.unknown, view.replica) == (True, frozenset({"be", "fe"}), "r1")
    arrived, _ = fold(view, change(endpoint(0)))
    assert arrived.unknown == frozenset({"fe"})


def test_folding_changes_nothing_that_was_there() -> None:
    view, _ = after(change(endpoint(0), plan=plan(1, 1, 1)))
    before = view.services["be"]
    fold(view, change(endpoint(1), removed=(0,), plan=plan(1, 1, 2)))
    fold(view, change(deleted=True))
    assert view.services == {"be": before}
    assert tasks(view) == "0"
