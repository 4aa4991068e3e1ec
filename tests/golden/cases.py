"""Every stored record and every message between versions, with the bytes that it had when it was first written.

The bytes are in `NAME.hex` beside this file and never change: etcd holds such records for years, and readers of one
version talk to servers of another. `python -m tests.golden.cases` writes the files that are missing, for a new case,
but never one that is there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

from google.protobuf.message import Message

from bns.codec import encode_agent, encode_task, parse_agent_bytes, parse_task_bytes
from bns.model import Agent, HealthStatus, ProbeKind, ProbeSpec, Task
from bns.v1 import bns_pb2
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.quota import Quota
from gslb.model.resources import (
    Backend,
    CapacityMode,
    Catalog,
    ClientArea,
    Datacenter,
    DemandSource,
    Drain,
    DrainScope,
    Service,
    Zone,
)
from gslb.steer.view import ServiceView
from gslb.v1 import config_pb2, plan_pb2, quota_pb2, report_pb2
from gslb.wire import codec, snapshot
from gslb.wire.reader import ReaderView

DIRECTORY = Path(__file__).parent
WROTE = datetime(2026, 11, 21, 12, 30, 15, 250_000, tzinfo=UTC)
DELETED = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """`decode(bytes)` must give `value`, and `encode(value)` the bytes. `message`: what the bytes are, if a message."""

    name: str
    value: object
    encode: Callable[[object], bytes]
    decode: Callable[[bytes], object]
    message: type[Message] | None = None

    @property
    def path(self) -> Path:
        return DIRECTORY / f"{self.name}.hex"

    def recorded(self) -> bytes:
        return bytes.fromhex(self.path.read_text())


def _meta(name: str, deleted_at: datetime | None = None) -> Meta:
    return Meta(name, "shakespeare", 7, WROTE, deleted_at, "spiffe://example/sre/ann")


DATACENTER = Datacenter(_meta("us-east1"), "na", Coordinates(33.196, -80.0131), 40_000.0)
AREA = ClientArea(
    _meta("north-america"), Coordinates(39.0, -98.0), (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32"))
)
SERVICE = Service(
    _meta("shakespeare-gfe"),
    (
        Backend("/bns/us-east1/shakespeare/gfe", 30.0),
        Backend("/bns/asia-east1/shakespeare/gfe", 12.5, CapacityMode.UTILIZATION, 0.65),
    ),
    DemandSource.EDGE,
    0.75,
    ("www.shakespeare.example",),
    20,
    3,
    "http",
)
LIMITED = Service(
    _meta("search"),
    (Backend("/bns/us-east1/search/index", 30.0),),
    quotas=(Quota("batch", rps=100.0), Quota("web", cpu_cores=2.5), Quota("*", rps=7.0)),
)
SECURE = Service(
    _meta("www"),
    (Backend("/bns/us-east1/shop/www", 30.0),),
    dns_names=("www.shop.example",),
    alpn=("h3", "h2"),
)
DRAIN = Drain(
    _meta("drain-us-east1"),
    DrainScope.DATACENTER,
    "us-east1",
    "power maintenance",
    "ann",
    WROTE,
    DELETED,
    overridden=True,
)
ZONE = Zone(_meta("shakespeare.example", DELETED), "$TTL 300\n@ SOA ns1 hostmaster 1 7200 900 1209600 60\n")
TASK = Task(
    "/bns/us-east1/shakespeare/backend/0",
    "127.1.0.10",
    9000,
    agent="agent-us-east1",
    named_ports={"http": 9001},
    metadata={"version": "1.2"},
    start_time=WROTE,
    cpu_cores=0.5,
    probe=ProbeSpec(ProbeKind.GRPC, "shakespeare.Backend", "", 2.0, 0.5, 3, 4),
    pid=4711,
    generation=2,
    principal="anonymous",
    machine="machine-1",
)
AGENT = Agent(
    "agent-us-east1",
    "us-east1",
    "machine-1",
    "boot-1",
    "session-1",
    lease_id=123456789,
    replica="replica-0",
    principal="anonymous",
    started_at=WROTE,
)
STAMP = Stamp(1, 4242, 17)
PLAN = Plan(
    "shakespeare-backend",
    STAMP,
    shares={"asia-east1": {"asia-east1": 1.0}, "us-east1": {"asia-east1": 0.125, "us-east1": 0.875}},
    demand_rps={"asia-east1": 40.0, "us-east1": 80.5},
    capacity_rps={"asia-east1": 60.0, "us-east1": 100.0},
    load_rps={"asia-east1": 50.0625, "us-east1": 70.4375},
    contingencies={"us-east1": {"us-east1": {"asia-east1": 1.0}}},
    computed_at_s=1_795_264_215.25,
    notes=("us-east1 spills to asia-east1",),
)
LOAD = report_pb2.LoadReport(
    agent="agent-us-east1",
    datacenter="us-east1",
    boot_id="boot-1",
    seq=99,
    period_s=5.0,
    partial=True,
    machine_utilization=0.5,
    machine_cores=2.0,
    task=["/bns/us-east1/shakespeare/backend/0"],
    health=[bns_pb2.HEALTH_STATUS_HEALTHY],
    cpu_utilization=[0.25],
    ok_critical_plus_rps=[1.0],
    ok_critical_rps=[20.0],
    ok_sheddable_plus_rps=[3.0],
    ok_sheddable_rps=[4.0],
    error_critical_plus_rps=[0.5],
    error_critical_rps=[0.25],
    error_sheddable_plus_rps=[0.125],
    error_sheddable_rps=[0.0625],
    in_flight=[6],
    remote=[report_pb2.RemoteProbe(task="/bns/asia-east1/shakespeare/backend/0", ok=True, rtt_ms=118.5)],
)
DEMAND = report_pb2.DemandReport(
    reporter="frontend-0",
    boot_id="5e8f",
    seq=12,
    period_s=2.0,
    datacenter="us-east1",
    rows=[
        report_pb2.DemandRow(
            service="shakespeare-backend",
            locality="us-east1",
            caller="shakespeare-frontend",
            criticality=report_pb2.CRITICALITY_SHEDDABLE_PLUS,
            attempts=160,
        )
    ],
    observations=[
        report_pb2.TaskObservation(task="/bns/us-east1/shakespeare/backend/0", ok=158, failed=2, rtt_ms=0.75)
    ],
    source=config_pb2.DEMAND_SOURCE_RPC,
)
USAGE = quota_pb2.UsageReport(
    reporter="host/4711/quotas/1",
    boot_id="5e8f",
    seq=12,
    period_s=0.5,
    service="search",
    rows=[quota_pb2.UsageRow(caller="web", unit=quota_pb2.QUOTA_UNIT_CPU, asked=1.5, used=1.25, requests=160)],
)
SHARES = quota_pb2.QuotaAnswer(
    seq=12,
    accepted=True,
    settled=True,
    complete=True,
    shares=[quota_pb2.QuotaShare(caller="batch", unit=quota_pb2.QUOTA_UNIT_RPS, rate=12.5, quota=100.0, over=True)],
    report_every_s=0.5,
)
VIEW = ReaderView(
    services={
        "shakespeare-backend": ServiceView.build(
            "shakespeare-backend",
            Service(Meta("shakespeare-backend"), (Backend("/bns/us-east1/shakespeare/backend", 30.0),)),
            PLAN,
            {
                TASK.name: ServiceEndpoint(TASK.name, "127.1.0.10", 9000, HealthStatus.HEALTHY, 2.0),
                "/bns/asia-east1/shakespeare/backend/1": ServiceEndpoint(
                    "/bns/asia-east1/shakespeare/backend/1", "::1", 9000, HealthStatus.DRAINING
                ),
            },
        )
    },
    catalog=Catalog({"us-east1": DATACENTER}, {"north-america": AREA}),
    synced=True,
    replica="replica-0",
    unknown=frozenset({"shakespeare-tablet"}),
)


def _resource(name: str, value: object) -> Case:
    return Case(name, value, codec.resource_to_bytes, codec.resource_from_bytes, config_pb2.Resource)


def _message(name: str, value: Message) -> Case:
    return Case(name, value, lambda it: it.SerializeToString(deterministic=True), type(value).FromString, type(value))


def _restore(data: bytes) -> ReaderView:
    view, problems = snapshot.from_bytes(data)
    assert problems == []
    return view


CASES = (
    _resource("resource_datacenter", DATACENTER),
    _resource("resource_area", AREA),
    _resource("resource_service", SERVICE),
    _resource("resource_service_quotas", LIMITED),
    _resource("resource_service_alpn", SECURE),
    _resource("resource_drain", DRAIN),
    _resource("resource_zone_deleted", ZONE),
    Case(
        "task_record",
        TASK,
        lambda task: encode_task(task).SerializeToString(deterministic=True),
        parse_task_bytes,
        bns_pb2.TaskRecord,
    ),
    Case(
        "agent_record",
        AGENT,
        lambda agent: encode_agent(agent).SerializeToString(deterministic=True),
        parse_agent_bytes,
        bns_pb2.AgentRecord,
    ),
    Case(
        "stamp",
        STAMP,
        lambda stamp: codec.encode_stamp(stamp).SerializeToString(deterministic=True),
        lambda data: codec.decode_stamp(plan_pb2.Stamp.FromString(data)),
        plan_pb2.Stamp,
    ),
    Case("plan", PLAN, codec.plan_to_bytes, codec.plan_from_bytes, plan_pb2.Plan),
    _message("load_report", LOAD),
    _message("demand_report", DEMAND),
    _message("usage_report", USAGE),
    _message("quota_answer", SHARES),
    Case("reader_snapshot", VIEW, snapshot.to_bytes, _restore),
)


def write_missing() -> None:
    """Record the bytes of cases that have none yet."""
    for case in CASES:
        if not case.path.exists():
            text = case.encode(case.value).hex()
            case.path.write_text("".join(f"{text[at : at + 96]}\n" for at in range(0, len(text), 96)))


if __name__ == "__main__":
    write_missing()
