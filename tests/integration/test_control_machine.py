"""A machine that others keep busy, on a real replica: its tasks count for less, and explain and check say so."""

import pytest

from gslb.v1 import admin_pb2, config_pb2
from tests.support.control import FakeAgent, FakeClient, Operator, ReplicaProcess, eventually, planet, service

pytestmark = pytest.mark.timeout(180)

US, EU, ASIA = "us-east1", "europe-west1", "asia-east1"


async def test_a_busy_machine_takes_capacity_although_its_tasks_are_nearly_idle(etcd, tmp_path):
    replica = ReplicaProcess("r0", etcd.address, tmp_path).start()
    agents, clients = [], []
    try:
        await eventually(lambda: replica.page("/readyz")[0] == 200, "it is ready")
        learned = service("backend", rps=100.0)
        for backend in learned.service.backends:
            backend.mode = config_pb2.CAPACITY_MODE_UTILIZATION
            backend.target_utilization = 0.8
        async with Operator(replica.address) as operator:
            await operator.apply(*planet(learned))
            agents = [await FakeAgent(place, [replica.address]).start() for place in (US, EU, ASIA)]
            clients = [await FakeClient(US, [replica.address], {"backend": 60.0}).start()]

            async def guarded():
                for agent in agents:
                    agent.rps = 10.0 + agent._seq % 3 / 10  # no two reports alike
                lines = [message for _, _, message in await operator.check() if "machine guard" in message]
                return lines[0] if lines else ""

            agents[0].machine_utilization = 0.99

            async def guarded_both():
                line = await guarded()
                return line if "2 tasks" in line else ""

            line = await eventually(guarded_both, "the guard is on for both tasks of the machine", 60)
            assert f"/bns/{US}/test/backend/" in line
            told = await operator.admin.Explain(admin_pb2.ExplainRequest(service="backend", locality=US), timeout=10)
            assert any("machine guard" in note for note in told.notes)

            async def capacity():
                (found,) = (await operator.status()).services
                return {one.datacenter: one.capacity_rps for one in found.backends}

            async def smaller():
                now = await capacity()
                return now[US] < 0.5 * now[EU] and now

            await eventually(smaller, "its capacity falls", 60)
            agents[0].machine_utilization = 0.1

            async def over():
                return not await guarded()

            await eventually(over, "the guard ends when there is room again", 120)
    finally:
        for one in clients:
            await one.stop()
        for one in agents:
            await one.kill()
        replica.stop()
