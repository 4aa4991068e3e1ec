"""What the codec refuses, and in which words."""

from datetime import UTC, datetime

import pytest

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.errors import InvalidValueError
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import DemandSource, DrainScope
from gslb.v1 import config_pb2, discovery_pb2, plan_pb2
from gslb.wire import codec
from gslb.wire.snapshot import from_bytes, to_bytes
from tests.golden.cases import PLAN, VIEW


def _plan(**changes: object) -> plan_pb2.Plan:
    """A good plan with some fields replaced, its checksum made anew."""
    message = codec.encode_plan(PLAN)
    for name, value in changes.items():
        message.ClearField(name)  # type: ignore[arg-type]
        message.MergeFrom(plan_pb2.Plan(**{name: value}))  # type: ignore[arg-type]
    message.checksum = codec.checksum_of(message)
    return message


def _row(locality: str, *shares: float, index: tuple[int, ...] | None = None) -> plan_pb2.LocalityShares:
    columns = range(len(shares)) if index is None else index
    return plan_pb2.LocalityShares(locality=locality, share=shares, datacenter_index=columns)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (_plan(service="A"), "the plan's service 'A' is not a DNS label"),
        (_plan(localities=[]), "plan of shakespeare-backend: it has no locality"),
        (_plan(localities=[_row("a", 0.5, 0.4)]), "locality a: the shares sum to 0.9, not to 1"),
        (_plan(localities=[_row("a")]), "locality a: the shares sum to 0, not to 1"),
        (_plan(localities=[_row("a", 1.5, -0.5)]), "share of asia-east1 is 1.5: it must be finite and from 0 to 1"),
        (_plan(localities=[_row("a", float("nan"), 1.0)]), "share of asia-east1 is nan"),
        (_plan(localities=[_row("a", 1.0, index=(2,))]), "datacenter number 2, but the plan names only 2"),
        (_plan(localities=[_row("a", 1.0, index=(0, 1))]), "1 shares for 2 datacenters"),
        (_plan(localities=[_row("a", 0.5, 0.5, index=(0, 0))]), "datacenter 'asia-east1' has two shares"),
        (_plan(localities=[_row("a", 1.0), _row("a", 1.0)]), "locality 'a' is listed twice"),
        (_plan(localities=[_row("a/b", 1.0)]), "locality 'a/b' is not a DNS label"),
        (_plan(datacenters=["a", "a"]), "a datacenter is listed twice in ('a', 'a')"),
        (_plan(datacenters=["a" * 80, "b"]), "datacenter 'aaa"),
        (_plan(capacity_rps=[1.0]), "capacity_rps has 1 values for 2 datacenters"),
        (_plan(load_rps=[1.0, float("inf")]), "load_rps of us-east1 is inf"),
        (_plan(notes=["x" * 501]), "note is 'xxx"),
        (_plan(notes=["x"] * 51), "notes: 51 of them, at most 50 are read"),
        (
            _plan(contingencies=[plan_pb2.Contingency(lost="mars")]),
            "contingency for 'mars', a datacenter unknown to it",
        ),
        (
            _plan(contingencies=[plan_pb2.Contingency(lost="asia-east1", localities=[_row("a", 1.0)])]),
            "the contingency for the loss of 'asia-east1' sends load to it",
        ),
    ],
)
def test_plans_that_cannot_be_followed(message: plan_pb2.Plan, says: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        codec.decode_plan(message)
    assert says in str(caught.value)


def test_a_plan_whose_checksum_does_not_fit_is_refused() -> None:
    message = codec.encode_plan(PLAN)
    message.localities[0].demand_rps += 1
    with pytest.raises(InvalidValueError, match="does not fit its content: it was damaged on its way"):
        codec.decode_plan(message)


def test_what_no_reader_would_take_is_not_written() -> None:
    with pytest.raises(InvalidValueError, match=r"the shares sum to 0\.5, not to 1"):
        codec.plan_to_bytes(Plan("a", Stamp(1, 1, 1), {"x": {"y": 0.5}}))
    with pytest.raises(InvalidValueError, match="has no locality"):
        codec.plan_to_bytes(Plan("a", Stamp(1, 1, 1)))
    rows = {f"locality-{i:050}": {f"datacenter-{i % 9}": 1.0} for i in range(16_000)}
    with pytest.raises(InvalidValueError, match="at most 1000000 are kept in one record"):
        codec.plan_to_bytes(Plan("a", Stamp(1, 1, 1), rows))


def test_notes_are_cut_to_what_readers_take() -> None:
    plan = Plan("a", Stamp(1, 1, 1), {"x": {"y": 1.0}}, notes=tuple("n" * 600 for _ in range(60)))
    decoded = codec.plan_from_bytes(codec.plan_to_bytes(plan))
    assert [len(note) for note in decoded.notes] == [500] * 50


def test_plans_are_sparse_and_sorted() -> None:
    plan = Plan("a", Stamp(1, 1, 1), {"z": {"c": 0.0, "b": 1.0}, "a": {"b": 0.5, "a": 0.5}})
    message = codec.encode_plan(plan)
    assert list(message.datacenters) == ["a", "b", "c"]
    assert [row.locality for row in message.localities] == ["a", "z"]
    assert list(message.localities[1].datacenter_index) == [1]
    assert codec.decode_plan(message).shares == {"a": {"a": 0.5, "b": 0.5}, "z": {"b": 1.0}}


GOOD_ENDPOINT = {"task": "/bns/a/b/c/0", "address": "10.0.0.1", "port": 80, "health": 1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "/bns/a/b/c"}, "endpoint: '/bns/a/b/c' is not of the form"),
        ({"address": "localhost"}, "endpoint /bns/a/b/c/0: address 'localhost' is not an IPv4 or IPv6 address"),
        ({"address": "0.0.0.0"}, "address '0.0.0.0' is not"),
        ({"address": "fe80::1%eth0"}, "address 'fe80::1%eth0' is not"),
        ({"address": "224.0.0.1"}, "address '224.0.0.1' is not"),
        ({"port": 0}, "port 0 is not from 1 to 65535"),
        ({"port": 65_536}, "port 65536 is not from 1 to 65535"),
        ({"weight": -1.0}, "weight -1.0 is not above 0"),
        ({"weight": float("nan")}, "weight nan is not above 0"),
    ],
)
def test_endpoints_that_nobody_could_use(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        codec.decode_endpoint(discovery_pb2.ServiceEndpoint(**{**GOOD_ENDPOINT, **changes}))  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_endpoints_with_what_a_newer_or_terser_server_sends() -> None:
    message = discovery_pb2.ServiceEndpoint(task="/bns/a/b/c/0", address="2001:DB8:0::1", port=80, health=9)  # type: ignore[arg-type]
    assert codec.decode_endpoint(message) == ServiceEndpoint(
        "/bns/a/b/c/0", "2001:db8::1", 80, HealthStatus.UNKNOWN, 1.0
    )


def test_a_resource_from_the_wire_gets_defaults_for_what_is_not_set() -> None:
    message = config_pb2.Resource(
        meta=config_pb2.Meta(name="a"),
        service=config_pb2.Service(backends=[config_pb2.Backend(job="/bns/x/y/z", task_capacity_rps=5)]),
    )
    service = codec.decode_resource(message)
    assert service == codec.decode_service("a", message.service)
    assert (service.ttl_s, service.addresses_per_answer, service.max_utilization) == (30, 2, 0.8)  # type: ignore[union-attr]
    assert service.source is DemandSource.RPC  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (config_pb2.Resource(meta=config_pb2.Meta(name="a")), "resource 'a' has no kind that this version knows"),
        (
            config_pb2.Resource(meta=config_pb2.Meta(name="a"), datacenter=config_pb2.Datacenter(latitude=99)),
            (
                "datacenter 'a': spec.region: '' is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either"
                " end (and 1 more)"
            ),
        ),
        (
            config_pb2.Resource(
                meta=config_pb2.Meta(name="a"),
                service=config_pb2.Service(
                    source=7,  # type: ignore[arg-type]
                    backends=[config_pb2.Backend(job="/bns/x/y/z", task_capacity_rps=5)],
                ),
            ),
            "service 'a': spec.source: 'number 7' is not one of rpc, edge, dns",
        ),
        (
            config_pb2.Resource(
                meta=config_pb2.Meta(name="a"), drain=config_pb2.Drain(scope=1, target="x", reason="r")
            ),  # type: ignore[arg-type]
            "drain 'a': spec.starts_at: missing: give when it begins, in UTC",
        ),
    ],
)
def test_resources_that_are_refused(message: config_pb2.Resource, says: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        codec.decode_resource(message)
    assert str(caught.value).startswith(says)


def test_times_that_are_none_are_refused() -> None:
    message = codec.encode_plan(PLAN)
    message.computed_at.seconds = -1
    message.checksum = codec.checksum_of(message)
    with pytest.raises(InvalidValueError, match="computed_at is -1 s"):
        codec.decode_plan(message)
    resource = config_pb2.Resource(meta=config_pb2.Meta(name="a"), zone=config_pb2.Zone(records="x"))
    resource.meta.updated_at.nanos = -5
    with pytest.raises(InvalidValueError, match="'a': updated_at is 0 s and -5 ns"):
        codec.decode_resource(resource)
    resource.meta.updated_at.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    assert codec.decode_resource(resource).meta.updated_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_enums_of_the_admin_api() -> None:
    for scope in DrainScope:
        assert codec.decode_scope(codec.encode_scope(scope)) is scope
    for source in DemandSource:
        assert codec.decode_source(codec.encode_source(source)) is source
    assert codec.decode_source(0) is DemandSource.RPC
    for bad in (0, 7, -1):
        with pytest.raises(InvalidValueError, match=f"{bad} is not a scope of a drain: give one of datacenter"):
            codec.decode_scope(bad)


def test_records_over_the_limit_are_not_parsed() -> None:
    with pytest.raises(InvalidValueError, match="plan has 1000001 bytes: at most 1000000 are read"):
        codec.plan_from_bytes(bytes(1_000_001))
    with pytest.raises(InvalidValueError, match=r"plan: 3 bytes that are no gslb\.v1\.Plan"):
        codec.plan_from_bytes(b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: b"", "not a snapshot: it begins with b'' instead of b'GSLBVIEW'"),
        (lambda data: b"x" + data, "not a snapshot"),
        (lambda data: data[:20], "the snapshot is truncated: 20 bytes, its header alone has 50"),
        (lambda data: data[:-1], "the snapshot is truncated"),
        (lambda data: data + b"x", "the snapshot is truncated"),
        (lambda data: data[:8] + b"\0\x02" + data[10:], "the snapshot has format version 2, this program reads 1"),
        (lambda data: data[:60] + bytes([data[60] ^ 4]) + data[61:], "the snapshot is damaged"),
        (lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:], "the snapshot is damaged"),
    ],
)
def test_snapshots_that_are_refused(damage, says: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        from_bytes(damage(to_bytes(VIEW)))
    assert str(caught.value).startswith(says)
