"""Bad reports and odd services on a real replica: answered, refused one by one, told by the check; planning goes on."""

import math

import grpc
import pytest

from bns.model import HealthStatus
from gslb.v1 import admin_pb2, config_pb2, report_pb2, report_pb2_grpc
from tests.support.control import FakeAgent, FakeClient, Operator, Reader, ReplicaProcess, eventually, planet, service

pytestmark = pytest.mark.timeout(180)

US, EU, ASIA = "us-east1", "europe-west1", "asia-east1"

BAD_LOADS = [
    {"ok_critical_rps": [math.nan] * 2},
    {"ok_critical_rps": [-1.0] * 2},
    {"ok_critical_rps": [1e300] * 2},
    {"ok_critical_rps": [1.0]},
    {"cpu_utilization": [-1.0] * 2},
    {"cpu_utilization": [math.inf] * 2},
    {"health": [77] * 2},
    {"machine_utilization": math.nan},
    {"period_s": 0.0},
    {"period_s": math.nan},
    {"task": ["x", "y"]},
]
BAD_DEMANDS = [
    {"period_s": math.nan},
    {"period_s": -1.0},
    {"period_s": math.inf},
    {"rows": [report_pb2.DemandRow(service="backend", locality=US, attempts=2**63)]},
    {"reporter": ""},
    {"source": 99},
    {"observations": [report_pb2.TaskObservation(task="t", ok=2**62)]},
    {"observations": [report_pb2.TaskObservation(task="t", ok=1, rtt_ms=math.nan)]},
]


def changed(report, fields):
    for name, value in fields.items():
        if isinstance(value, list):
            report.ClearField(name)
            getattr(report, name).extend(value)
        else:
            setattr(report, name, value)
    return report


async def test_whatever_comes_in_planning_goes_on_and_the_check_tells(etcd, tmp_path):
    replica = ReplicaProcess("r0", etcd.address, tmp_path).start()
    addresses = [replica.address]
    agents, clients = [], []
    try:
        await eventually(lambda: replica.page("/readyz")[0] == 200, "it is ready")
        async with Operator(replica.address) as operator, grpc.aio.insecure_channel(replica.address) as channel:
            await operator.apply(*planet(), service("idle", user="nobody"))
            agents = [await FakeAgent(place, addresses).start() for place in (US, EU, ASIA)]
            clients = [await FakeClient(US, addresses, {"backend": 100.0}).start()]
            reader = await Reader(addresses).start()
            await eventually(lambda: reader.count() == 6 and reader.plan() is not None, "tasks are planned for")

            reports = report_pb2_grpc.ReportsStub(channel)
            loads, demands = reports.ReportLoad(), reports.ReportDemand()
            for fields in BAD_LOADS:
                bad = changed(agents[0].report(), fields)
                bad.agent = "broken"
                await loads.write(bad)
                ack = await loads.read()
                assert not ack.accepted, fields
                assert ack.reason, fields
            for fields in BAD_DEMANDS:
                await demands.write(changed(clients[0].report(), fields))
                ack = await demands.read()
                assert not ack.accepted, fields
                assert ack.reason, fields
            loads.cancel()
            demands.cancel()
            lines = await operator.check()
            assert any(f"{len(BAD_LOADS)} refused" in message for _, subject, message in lines if "broken" in subject)
            assert any(subject.startswith("reports: demand of client-") for _, subject, _ in lines)
            assert any(subject == "service idle" and "cannot serve" in message for _, subject, message in lines)

            # Everybody is ill: all serve, and it is said; then they are well again.
            for health, said in ((HealthStatus.UNHEALTHY, True), (HealthStatus.HEALTHY, False)):
                for agent in agents:
                    for task in agent.tasks:
                        agent.set_health(task, health)

                async def told(said=said):
                    panics = [message for _, _, message in await operator.check() if "panic" in message]
                    return bool(panics) is said

                await eventually(told, f"panic is {said}")
                assert reader.plan().shares[US]
            # Nobody asks for anything.
            for client in clients:
                await client.stop()
            clients = []
            before = (await operator.status()).plans_published
            request = admin_pb2.DrainRequest(scope=config_pb2.DRAIN_SCOPE_DATACENTER, target=US, reason="idle")
            await operator.admin.Drain(request, timeout=10)
            await eventually(lambda: reader.shares(US).get(US, 0.0) == 0, "it is planned as ever")
            assert (await operator.status()).plans_published > before
            assert not reader.wrong, reader.wrong
            assert "Traceback" not in replica.words()
            assert "a planning round failed" not in replica.words()
            await reader.stop()
    finally:
        for one in clients:
            await one.stop()
        for one in agents:
            await one.kill()
        replica.stop()
