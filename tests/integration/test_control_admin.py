"""The admin API of a real replica on a real etcd: what is granted, what is refused, and that a refusal changes nothing."""

import asyncio
import math
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import pytest_asyncio

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd, free_port
from bns.etcd.ops import prefix_end
from gslb.control import keys
from gslb.control.server import serve
from gslb.control.settings import EtcdSettings, Settings
from gslb.v1 import admin_pb2, config_pb2, report_pb2, report_pb2_grpc
from tests.support.control import PLACES, FakeAgent, Operator, Reader, area, datacenter, eventually, planet, service
from tests.support.etcd import TEST_OPTIONS

US, EU, ASIA = PLACES
INVALID, MISSING, REFUSED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
)


@pytest_asyncio.fixture
async def replica(etcd):
    """The address of a warm replica."""
    address = f"127.0.0.1:{free_port()}"
    stop = asyncio.Event()
    settings = Settings(
        EtcdSettings((etcd.address,)), listen=address, replica="r", plan_period_s=1.0, report_period_s=1.0
    )
    serving = asyncio.create_task(serve(settings, stop))
    async with Operator(address) as operator:

        async def warm():
            try:
                return (await operator.status()).leading
            except grpc.aio.AioRpcError:
                return False

        await eventually(warm, "the replica leads")
        yield address
    stop.set()
    await serving


@pytest_asyncio.fixture
async def operator(replica):
    async with Operator(replica) as made:
        await made.apply(*planet())
        yield made


async def everything(operator):
    exported = await operator.admin.Export(admin_pb2.ExportRequest())
    return sorted(one.SerializeToString(deterministic=True) for one in exported.resources)


async def test_apply_says_what_it_did(operator):
    again = await operator.apply(*planet())
    assert {(one.action, one.generation) for one in again.applied} == {("unchanged", 1)}
    changed = await operator.apply(service("backend", rps=50), service("new"), dry_run=True)
    assert [(one.kind, one.name, one.action) for one in changed.applied] == [
        ("service", "backend", "changed"),
        ("service", "new", "created"),
    ]
    got = (await operator.admin.Get(admin_pb2.GetRequest(kind="service"))).resources
    assert [one.meta.name for one in got] == ["backend"], "a dry run writes nothing"
    await operator.apply(service("backend", rps=50))
    got = (await operator.admin.Get(admin_pb2.GetRequest(kind="service", name="backend"))).resources[0]
    assert got.meta.generation == 2
    assert got.meta.principal.identity == "anonymous"
    assert got.meta.updated_at.seconds > 1_600_000_000
    assert got.service.backends[0].task_capacity_rps == 50


def named(resource, name):
    resource.meta.name = name
    return resource


def drain(target=US, reason="why", starts=0, ends=3600, **more):
    resource = config_pb2.Resource(
        drain=config_pb2.Drain(scope=more.pop("scope", 1), target=target, reason=reason, author="me", **more)
    )
    resource.meta.name = "d"
    resource.drain.starts_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=starts))
    resource.drain.expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=ends))
    return resource


TWO_OF_ONE_NAME = [
    service("s", user="o", dns_names=["www.x.example"]),
    service("t", user="p", dns_names=["www.x.example"]),
]
APPLIES = [
    ([named(datacenter(US), "Us East")], INVALID, "Us East"),
    ([named(datacenter(US), "")], INVALID, "name"),
    ([config_pb2.Resource()], INVALID, "kind"),
    ([datacenter("x", ("na", 91, 0))], INVALID, "91"),
    ([datacenter("x", ("na", math.nan, 0))], INVALID, "nan"),
    ([service("s", rps=0, user="o")], INVALID, "task_capacity_rps"),
    ([service("s", rps=-1, user="o")], INVALID, "-1"),
    ([service("s", rps=math.inf, user="o")], INVALID, "inf"),
    ([service("s", user="o", max_utilization=7)], INVALID, "7"),
    ([service("s", user="o", places=["mars"])], REFUSED, "mars"),
    ([service("s", user="o"), service("s", user="p")], INVALID, "twice"),
    ([service("clone", user="test"), service("clone2", user="test", places=[])], INVALID, "clone2"),
    ([area(US, 1, 2)], REFUSED, US),
    ([area("a", 1, 2, "10.0.0.0/33")], INVALID, "10.0.0.0/33"),
    ([area("a", 1, 2, "10.0.0.0/8"), area("b", 1, 2, "10.0.0.0/8")], REFUSED, "10.0.0.0/8"),
    (TWO_OF_ONE_NAME, REFUSED, "www.x.example"),
    ([drain(ends=-5, starts=-50)], INVALID, "over"),
    ([drain(ends=-5)], INVALID, "starts_at"),
    ([drain(reason="")], INVALID, "reason"),
    ([drain(target="mars")], REFUSED, "mars"),
    ([drain(ends=80 * 3600)], INVALID, "72 hours"),
]  # fmt: skip


@pytest.mark.parametrize(("resources", "code", "says"), APPLIES, ids=[str(n) for n in range(len(APPLIES))])
async def test_a_bad_apply_is_refused_as_a_whole(operator, resources, code, says):
    before = await everything(operator)
    refused, details = await operator.refused(
        "Apply", admin_pb2.ApplyRequest(resources=[datacenter("good", ("x", 1, 2)), *resources])
    )
    assert refused is code, details
    assert says in details
    assert "Traceback" not in details
    assert await everything(operator) == before


async def test_several_violations_come_in_several_lines(operator):
    _, details = await operator.refused(
        "Apply",
        admin_pb2.ApplyRequest(
            resources=[service("s", rps=0, user="o"), datacenter("x", ("na", 91, 0)), config_pb2.Resource()]
        ),
    )
    assert len(details.splitlines()) == 3
    bad = [named(service("s", rps=0, user="o"), f"s{n}") for n in range(500)]
    _, details = await operator.refused("Apply", admin_pb2.ApplyRequest(resources=bad))
    assert "more lines" in details
    assert len(details) < 8000


async def test_owners_keep_their_names(operator):
    mine = datacenter("mine", ("na", 1, 2))
    mine.meta.owner = "team-a"
    await operator.apply(mine)
    theirs = datacenter("mine", ("eu", 1, 2))
    theirs.meta.owner = "team-b"
    code, details = await operator.refused("Apply", admin_pb2.ApplyRequest(resources=[theirs]))
    assert code is REFUSED
    assert "team-a" in details
    nobodys = datacenter("mine", ("sa", 1, 2))
    assert (await operator.apply(nobodys)).applied[0].action == "changed"
    got = (await operator.admin.Get(admin_pb2.GetRequest(name="mine"))).resources[0]
    assert (got.meta.owner, got.datacenter.region) == ("team-a", "sa")


DELETES = [
    ("datacenter", US, REFUSED, "backend"),
    ("datacenter", "mars", MISSING, "mars"),
    ("planet", "x", INVALID, "planet"),
    ("service", "", INVALID, "name"),
]


@pytest.mark.parametrize(("kind", "name", "code", "says"), DELETES)
async def test_what_is_needed_is_not_deleted(operator, kind, name, code, says):
    refused, details = await operator.refused("Delete", admin_pb2.DeleteRequest(kind=kind, name=name))
    assert refused is code
    assert says in details
    assert len((await operator.admin.Get(admin_pb2.GetRequest())).resources) == 4


async def test_deleting_most_services_is_no_alarm(operator):
    doomed = [f"s{n}" for n in range(4)]
    await operator.apply(*(service(name, user="o") for name in doomed))

    async def planned():
        return {one.service for one in (await operator.status()).services} >= set(doomed)

    await eventually(planned, "they are planned for")
    for name in doomed:
        await operator.admin.Delete(admin_pb2.DeleteRequest(kind="service", name=name))
    for _ in range(6):
        await asyncio.sleep(0.5)
        assert not [message for _, _, message in await operator.check() if "removal budget" in message]
    assert {one.service for one in (await operator.status()).services} == {"backend"}


async def test_a_datacenter_with_tasks_is_not_deleted(operator, replica):
    await operator.apply(datacenter("mars", ("x", 1, 2)))
    agent = await FakeAgent("mars", [replica]).start()
    try:

        async def registered():
            return len((await operator.status()).tasks) == 2

        await eventually(registered, "tasks are registered")
        code, details = await operator.refused("Delete", admin_pb2.DeleteRequest(kind="datacenter", name="mars"))
        assert code is REFUSED
        assert "2 tasks" in details
    finally:
        await agent.kill()


SCOPE = config_pb2
DRAINS = [
    ({"scope": 0, "target": US, "reason": "x"}, INVALID, "scope"),
    ({"scope": 99, "target": US, "reason": "x"}, INVALID, "99"),
    ({"scope": 1, "target": "mars", "reason": "x"}, MISSING, "mars"),
    ({"scope": 1, "target": "No Label", "reason": "x"}, INVALID, "No Label"),
    ({"scope": 1, "target": US, "reason": "  "}, INVALID, "reason"),
    ({"scope": 1, "target": US, "reason": "x", "override": True, "dry_run": False, "duration_s": -1}, INVALID, "-1"),
    ({"scope": 1, "target": US, "reason": "", "override": True}, INVALID, "reason"),
    ({"scope": 1, "target": US, "reason": "x" * 600}, INVALID, "600"),
    ({"scope": 1, "target": US, "reason": "x", "duration_s": 73 * 3600}, INVALID, "72 h"),
    ({"scope": 1, "target": US, "reason": "x", "duration_s": math.nan}, INVALID, "nan"),
    ({"scope": 2, "target": "nonesuch", "reason": "x"}, MISSING, "nonesuch"),
    ({"scope": 2, "target": "backend@mars", "reason": "x"}, MISSING, "mars"),
    ({"scope": 3, "target": "backend", "reason": "x"}, INVALID, "/bns/"),
    ({"scope": 3, "target": "/bns/mars/u/j", "reason": "x"}, MISSING, "/bns/mars/u/j"),
    ({"scope": 4, "target": f"/bns/{US}/test/backend/0", "reason": "x"}, MISSING, "bns ls"),
    ({"scope": 5, "target": "moon", "reason": "x"}, MISSING, "moon"),
]  # fmt: skip


@pytest.mark.parametrize(("wish", "code", "says"), DRAINS, ids=[str(n) for n in range(len(DRAINS))])
async def test_bad_drains_change_nothing(operator, wish, code, says):
    refused, details = await operator.refused("Drain", admin_pb2.DrainRequest(**wish))
    assert refused is code, details
    assert says in details
    assert "\n" not in details
    assert not (await operator.admin.Get(admin_pb2.GetRequest(kind="drain"))).resources


async def test_drains_are_named_by_what_they_drain_and_replaced_by_the_next(operator):
    first = await operator.admin.Drain(admin_pb2.DrainRequest(scope=1, target=US, reason="one", author="ann"))
    second = await operator.admin.Drain(admin_pb2.DrainRequest(scope=1, target=US, reason="two", duration_s=60))
    assert first.name == second.name == f"datacenter-{US}"
    (got,) = (await operator.admin.Get(admin_pb2.GetRequest(kind="drain"))).resources
    assert (got.drain.reason, got.meta.generation) == ("two", 2)
    assert got.drain.expires_at.seconds - got.drain.starts_at.seconds == 60
    narrow = await operator.admin.Drain(admin_pb2.DrainRequest(scope=2, target=f"backend@{EU}", reason="x"))
    assert narrow.name == f"service-backend-{EU}"
    code, details = await operator.refused("Undrain", admin_pb2.UndrainRequest(name="nope"))
    assert code is MISSING
    assert f"datacenter-{US}" in details, "the ones that there are"
    gone = await operator.admin.Undrain(admin_pb2.UndrainRequest(name=first.name))
    assert list(gone.removed) == [first.name]
    code, _ = await operator.refused("Delete", admin_pb2.DeleteRequest(kind="service", name="backend"))
    assert code is REFUSED, "its drain would drain nothing"
    again = await operator.admin.Drain(admin_pb2.DrainRequest(scope=1, target=US, reason="three"))
    assert again.drain.meta.generation == 4, "history goes on"


async def test_explain_and_status(operator, replica):
    agents = [await FakeAgent(name, [replica]).start() for name in PLACES]
    try:

        async def planned():
            return len((await operator.status()).services[0].localities) == 3

        await eventually(planned, "a plan is there")

        async def explained():
            told = await operator.admin.Explain(admin_pb2.ExplainRequest(service="backend", locality=US))
            first = next(iter(told.candidates), None)
            return told if first and (first.share, first.healthy_tasks) == (1.0, 2) else None

        told = await eventually(explained, "the nearest serves, with both of its tasks")
        assert [one.datacenter for one in told.candidates] == [US, EU, ASIA]
        assert told.stamp.version >= 1
        assert all(one.reason for one in told.candidates)
        status = await operator.status()
        assert {(one.agent, one.alive, one.tasks) for one in status.agents} == {(one.name, True, 2) for one in agents}
        assert all(one.served_rps == 10.0 and one.cpu_utilization == 0.25 for one in status.tasks)
        assert status.services[0].backends[0].capacity_rps == 200
        for service_name, locality in (("nope", US), ("backend", "nowhere")):
            code, details = await operator.refused(
                "Explain", admin_pb2.ExplainRequest(service=service_name, locality=locality)
            )
            assert code is MISSING
            assert "gslb get" in details
    finally:
        for agent in agents:
            await agent.kill()


async def test_reports_are_acknowledged_and_bad_ones_refused_without_ending_the_stream(operator, replica):
    async with grpc.aio.insecure_channel(replica) as channel:
        stream = report_pb2_grpc.ReportsStub(channel).ReportLoad()
        agent = FakeAgent(US, [replica])
        good = agent.report()
        for report, accepted in ((good, True), (good, False), (report_pb2.LoadReport(), False), (agent.report(), True)):
            await stream.write(report)
            ack = await stream.read()
            assert (ack.accepted, ack.seq) == (accepted, report.seq)
            assert accepted or ack.reason
        stream.cancel()
        demand = report_pb2_grpc.ReportsStub(channel).ReportDemand()
        row = report_pb2.DemandRow(service="backend", locality=US, attempts=5)
        strange = report_pb2.DemandRow(service="backend", locality="atlantis", attempts=5)
        for report, accepted in (
            (report_pb2.DemandReport(reporter="c", boot_id="1", seq=1, period_s=1, rows=[row, strange]), True),
            (report_pb2.DemandReport(reporter="c", boot_id="1", seq=1, period_s=1, rows=[row]), False),
            (report_pb2.DemandReport(reporter="c", boot_id="1", seq=2, period_s=math.nan, rows=[row]), False),
            (report_pb2.DemandReport(reporter="", boot_id="1", seq=3, period_s=1), False),
        ):
            await demand.write(report)
            assert (await demand.read()).accepted is accepted
        demand.cancel()
    assert any("1 rows of demand" in message for _, _, message in await operator.check())


ZONE = "@ 60 IN SOA ns. h. 1 60 60 60 60\n@ 60 IN NS ns.example.com."


async def test_export_and_import_restore_everything_in_another_etcd(operator, replica, tmp_path):
    resources = [service(f"s{n}", user=f"u{n}") for n in range(40)]
    zone = config_pb2.Resource(zone=config_pb2.Zone(records=ZONE))
    await operator.apply(*resources, area("a", 1, 2, "10.0.0.0/8"), named(zone, "example.com"))
    await operator.admin.Drain(admin_pb2.DrainRequest(scope=1, target=US, reason="x", author="ann"))
    await operator.apply(service("s1", user="u1", rps=7))
    exported = await operator.admin.Export(admin_pb2.ExportRequest())
    assert len(exported.resources) == 3 + 41 + 1 + 1 + 1
    fresh = EmbeddedEtcd(tmp_path / "fresh", TEST_OPTIONS)
    fresh.start()
    stop = asyncio.Event()
    address = f"127.0.0.1:{free_port()}"
    settings = Settings(EtcdSettings((fresh.address,)), listen=address, replica="f", report_period_s=1.0)
    serving = asyncio.create_task(serve(settings, stop))
    try:
        async with Operator(address) as other:

            async def leads():
                try:
                    return (await other.status()).leading
                except grpc.aio.AioRpcError:
                    return False

            await eventually(leads, "the fresh replica leads")
            request = admin_pb2.ImportRequest(
                resources=exported.resources, new_incarnation=True, incarnation=exported.incarnation
            )
            imported = await other.admin.Import(request, timeout=30)
            assert imported.incarnation > exported.incarnation
            assert {one.action for one in imported.applied} == {"created"}
            again = await other.admin.Export(admin_pb2.ExportRequest())
            assert [bare(one) for one in again.resources] == [bare(one) for one in exported.resources]
            generations = {one.meta.name: one.meta.generation for one in again.resources}
            assert generations["s1"] == 2, "history does not go back"
            once_more = await other.admin.Import(admin_pb2.ImportRequest(resources=exported.resources), timeout=30)
            assert {one.action for one in once_more.applied} == {"unchanged"}
            assert once_more.incarnation == imported.incarnation
            bad = admin_pb2.ImportRequest(resources=[service("zz", user="zz"), service("yy", rps=0, user="yy")])
            code, _ = await other.refused("Import", bad)
            assert code is INVALID
            assert not [one for one in await names(other) if one == "zz"]
    finally:
        stop.set()
        await serving
        fresh.stop()


def bare(resource):
    resource = config_pb2.Resource.FromString(resource.SerializeToString())
    resource.ClearField("meta")
    return resource.SerializeToString(deterministic=True)


async def names(operator):
    return [one.meta.name for one in (await operator.admin.Get(admin_pb2.GetRequest())).resources]


async def test_a_large_import_goes_in_parts(operator):
    many = [service(f"s{n}", user=f"u{n}") for n in range(250)]
    code, details = await operator.refused("Apply", admin_pb2.ApplyRequest(resources=many))
    assert code is REFUSED
    assert "import" in details
    assert await names(operator) == [*sorted([*PLACES]), "backend"]
    imported = await operator.admin.Import(admin_pb2.ImportRequest(resources=many), timeout=30)
    assert len(imported.applied) == 250
    assert len(await names(operator)) == 254


async def test_readers_take_new_plans_after_the_loss_of_etcd_only_with_a_new_incarnation(etcd, replica, operator):
    agents = [await FakeAgent(name, [replica]).start() for name in PLACES]
    reader = await Reader([replica]).start()
    try:
        await eventually(lambda: reader.shares(US) == {US: 1.0}, "the plan arrives")
        exported = await operator.admin.Export(admin_pb2.ExportRequest())
        before = reader.plan().stamp
        async with Client([etcd.address]) as client:
            await client.delete(keys.ROOT, prefix_end(keys.ROOT))
        await asyncio.sleep(2)
        assert reader.shares(US) == {US: 1.0}
        request = admin_pb2.ImportRequest(
            resources=exported.resources, new_incarnation=True, incarnation=exported.incarnation
        )
        await operator.admin.Import(request, timeout=10)
        await eventually(lambda: reader.plan().stamp.incarnation > before.incarnation, "readers take the new plans")
        assert not [one for one in await operator.check() if one[0] == admin_pb2.SEVERITY_ERROR]
        assert reader.wrong == []
    finally:
        await reader.stop()
        for agent in agents:
            await agent.kill()
