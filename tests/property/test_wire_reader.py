"""Whatever updates arrive, a reader's view never gets worse (design, invariants 2, 5 and 8)."""

import math

from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.plan import Stamp
from gslb.steer.choice import choose
from gslb.steer.view import ServiceView
from gslb.v1 import config_pb2, discovery_pb2, plan_pb2
from gslb.wire import codec
from gslb.wire.reader import ReaderView, fold
from gslb.wire.snapshot import from_bytes, to_bytes
from tests.golden.cases import CASES
from tests.property.test_wire_codec import EDITS, _edit, check_plan
from tests.support.resources import ENDPOINTS, RESOURCES, plans

SERVICES = ("backend", "frontend")
STAMPS = st.builds(Stamp, st.integers(0, 2), st.integers(0, 3), st.integers(0, 4))
TASKS = ENDPOINTS.map(lambda endpoint: endpoint.task)
HOSTILE_FLOATS = st.sampled_from((math.nan, math.inf, -1.0, 0.0, 1.0, 0.5, 1e308))
HOSTILE_NAMES = st.sampled_from(("backend", "frontend", "", "A", "../x", "x" * 300, "\0", "us-east1"))
GOOD_ENDPOINTS = ENDPOINTS.map(codec.encode_endpoint)
BAD_ENDPOINTS = st.builds(
    discovery_pb2.ServiceEndpoint,
    task=TASKS | HOSTILE_NAMES,
    address=st.sampled_from(("127.0.0.1", "", "localhost", "0.0.0.0", "999.1.1.1", "fe80::1%eth0")),
    port=st.sampled_from((0, 1, 65_536, 2**32 - 1)),
    health=st.sampled_from((0, 1, 99)),
    weight=HOSTILE_FLOATS,
)


@st.composite
def hostile_plans(draw: st.DrawFn) -> plan_pb2.Plan:
    """Plans of any content, most with the checksum that fits it."""
    count = draw(st.integers(0, 3))
    plan = plan_pb2.Plan(
        service=draw(HOSTILE_NAMES),
        stamp=codec.encode_stamp(draw(STAMPS)),
        datacenters=draw(st.lists(HOSTILE_NAMES, max_size=3)),
        localities=[
            plan_pb2.LocalityShares(
                locality=draw(HOSTILE_NAMES),
                datacenter_index=draw(st.lists(st.integers(0, 4), max_size=3)),
                share=draw(st.lists(HOSTILE_FLOATS, max_size=3)),
                demand_rps=draw(HOSTILE_FLOATS),
            )
            for _ in range(count)
        ],
        capacity_rps=draw(st.lists(HOSTILE_FLOATS, max_size=3)),
        checksum=draw(st.integers(0, 2**64 - 1)),
    )
    if draw(st.integers(0, 3)):
        plan.checksum = codec.checksum_of(plan)
    return plan


@st.composite
def changes(draw: st.DrawFn) -> discovery_pb2.ServiceUpdate:
    name = draw(st.sampled_from(SERVICES) | HOSTILE_NAMES)
    change = discovery_pb2.ServiceUpdate(
        service=name,
        deleted=draw(st.integers(0, 9)) == 0,
        endpoints_snapshot=draw(st.booleans()),
        upserted=draw(st.lists(GOOD_ENDPOINTS | BAD_ENDPOINTS, max_size=4)),
        removed=draw(st.lists(TASKS | HOSTILE_NAMES, max_size=12)),
    )
    if draw(st.booleans()):
        change.plan.CopyFrom(draw(plans(name, STAMPS).map(codec.encode_plan) | hostile_plans()))
    if draw(st.booleans()):
        backend = config_pb2.Backend(job="/bns/us-east1/u/backend", task_capacity_rps=draw(HOSTILE_FLOATS))
        change.config.CopyFrom(config_pb2.Service(backends=[backend]))
    return change


UPDATES = st.builds(
    discovery_pb2.Update,
    services=st.lists(changes(), max_size=3),
    catalog=st.none()
    | st.builds(discovery_pb2.Catalog, resources=st.lists(RESOURCES.map(codec.encode_resource), max_size=3)),
    synced=st.booleans(),
    unknown_services=st.lists(HOSTILE_NAMES, max_size=2),
)


def _check_step(before: ReaderView, after: ReaderView, deleted: set[str]) -> None:
    assert set(before.services) - set(after.services) <= deleted
    for name, service in after.services.items():
        held = before.services.get(name)
        if held and name not in deleted:
            assert service.endpoints or not held.endpoints
            assert not held.plan or (service.plan and service.plan.stamp >= held.plan.stamp)
            assert not held.service or service.service
    assert after.synced >= before.synced
    assert after.catalog.datacenters or not before.catalog.datacenters


def _check_view(view: ReaderView) -> None:
    for name, service in view.services.items():
        assert service.name == name
        if service.plan:
            check_plan(service.plan)
            assert service.plan.service == name
        for endpoint in service.endpoints.values():
            assert 0 < endpoint.port < 65_536
            assert 0 < endpoint.weight < math.inf
            assert isinstance(endpoint.health, HealthStatus)
        assert (choose(service, "us-east1", 0.5) is None) == (not service.endpoints)
        # What was derived step by step is what would be derived at once.
        again = ServiceView.build(name, service.service, service.plan, service.endpoints)
        assert service.with_endpoints(service.endpoints) == again


@given(st.lists(UPDATES, min_size=1, max_size=8))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_no_sequence_of_updates_makes_a_view_worse(updates: list[discovery_pb2.Update]) -> None:
    view = ReaderView()
    for update in updates:
        after, problems = fold(view, update)
        assert all(isinstance(problem, str) and problem for problem in problems)
        _check_step(view, after, {change.service for change in update.services if change.deleted})
        _check_view(after)
        view = after
    restored, refused = from_bytes(to_bytes(view))
    assert refused == []
    assert {name: service.with_endpoints(service.endpoints) for name, service in view.services.items()} == (
        restored.services
    )
    assert restored.catalog == view.catalog


@given(st.lists(EDITS, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_damaged_updates_never_make_a_view_worse(damages: list[list[tuple[float, int, bytes]]]) -> None:
    snapshot = next(case for case in CASES if case.name == "reader_snapshot")
    good = snapshot.recorded()[50:]
    view = snapshot.decode(snapshot.recorded())
    assert isinstance(view, ReaderView)
    for edits in damages:
        try:
            update = discovery_pb2.Update.FromString(_edit(good, edits))
        except DecodeError:
            continue
        after, _ = fold(view, update)
        _check_step(view, after, {change.service for change in update.services if change.deleted})
        _check_view(after)
        view = after


@given(st.dictionaries(TASKS, st.booleans(), max_size=6), st.lists(GOOD_ENDPOINTS, min_size=1, max_size=4))
def test_what_stayed_only_because_nothing_else_was_left_goes_when_there_is(
    removed: dict[str, bool], fresh: list[discovery_pb2.ServiceEndpoint]
) -> None:
    first = discovery_pb2.ServiceUpdate(service="backend", upserted=fresh)
    view, _ = fold(ReaderView(), discovery_pb2.Update(services=[first]))
    tasks = [endpoint.task for endpoint in fresh]
    gone = discovery_pb2.ServiceUpdate(service="backend", removed=[*tasks, *removed])
    kept, problems = fold(view, discovery_pb2.Update(services=[gone]))
    assert kept.services["backend"].endpoints == view.services["backend"].endpoints
    assert len(problems) == 1
    other = ServiceEndpoint("/bns/eu/u/backend/9", "10.0.0.9", 9, HealthStatus.HEALTHY)
    better = discovery_pb2.ServiceUpdate(service="backend", upserted=[codec.encode_endpoint(other)])
    last, problems = fold(kept, discovery_pb2.Update(services=[better]))
    assert problems == []
    assert last.services["backend"].endpoints == {other.task: other}
