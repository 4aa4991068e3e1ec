"""The flight recorder of a running replica: what it told beforehand is compared with what then really happened."""

import asyncio
import json
import time
from datetime import UTC, datetime

import grpc
import pytest

from bns.model import HealthStatus
from gslb.v1 import admin_pb2, config_pb2
from tests.support.cli import Ran, in_process
from tests.support.control import (
    PLACES,
    FakeAgent,
    FakeClient,
    Operator,
    ReplicaProcess,
    area,
    eventually,
    planet,
    service,
)

pytestmark = pytest.mark.timeout(300)
LOST = "europe-west1"


def iso(at_s):
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


async def gslb(replica, *arguments) -> Ran:
    return await asyncio.to_thread(in_process, *arguments, env={"GSLB_CONTROL": replica.address, "COLUMNS": "200"})


async def replayed(replica, *arguments):
    ran = await gslb(replica, "replay", *arguments, "-o", "json")
    assert ran.code == 0, ran
    return json.loads(ran.out)[0]


def loads(document, key):
    return {row["datacenter"]: row[key] for row in document["loads"] if row["service"] == "backend"}


async def test_what_if_tells_what_then_happens(etcd, tmp_path):
    ring = tmp_path / "recorder"
    replica = ReplicaProcess("r1", etcd.address, tmp_path, "--recorder", str(ring)).start()
    agents, client = [], None
    try:
        await eventually(lambda: replica.page("/livez")[0] == 200, "the replica lives")
        async with Operator(replica.address) as operator:
            await eventually(lambda: answers(operator), "the replica answers")
            await operator.apply(*planet(service("backend")), area("europe", 50.0, 8.0))
            agents += [await FakeAgent(place, [replica.address], count=2).start() for place in PLACES]
            client = await FakeClient("europe", [replica.address], {"backend": 120.0}).start()
            await eventually(lambda: steady(operator, {LOST: 120.0}), "the plan is steady", 90)
            before_s = time.time()
            told = await replayed(replica, "--at", iso(before_s), "--what-if", f"drain datacenter {LOST}")
            assert told["identical"]
            assert told["steps_run_again"] > 1
            assert loads(told, "before_rps")[LOST] == pytest.approx(120, rel=0.1)

            request = admin_pb2.DrainRequest(
                scope=config_pb2.DRAIN_SCOPE_DATACENTER, target=LOST, reason="test", author="ann", duration_s=600
            )
            await operator.admin.Drain(request, timeout=10)
            await eventually(lambda: steady(operator, {LOST: 0.0}), "the drain is planned", 60)
            happened = await replayed(replica, "--at", "now")
            assert happened["identical"], happened["differences"]
            really, said = loads(happened, "before_rps"), loads(told, "settled_rps")
            assert said.keys() == really.keys()
            for name, rps in said.items():
                assert rps == pytest.approx(really[name], abs=6), (name, said, really)
            assert loads(told, "at_once_rps")[LOST] == 0

            again = await replayed(replica, "--at", iso(before_s), "--what-if", f"drain datacenter {LOST}")
            assert loads(again, "settled_rps") == said, "the past does not change"
            back = await replayed(replica, "--what-if", f"undrain datacenter {LOST}")
            assert loads(back, "settled_rps")[LOST] == pytest.approx(120, rel=0.1)

            words = await gslb(
                replica, "replay", "--what-if", "lose datacenter us-east1", "--what-if", "demand europe x5"
            )
            assert words.code == 0, words
            assert "identical, bit for bit" in words.err
            assert "no longer survivable: backend: the loss of asia-east1" in words.err
            assert "europe" in words.out
            assert any(
                "recorder" in subject and "steps recorded" in text for _, subject, text in await operator.check()
            )

            agents[0].set_health(agents[0].tasks[0], HealthStatus.UNHEALTHY)
            await eventually(lambda: capacity_of(operator, agents[0].datacenter, 100.0), "the ill task is out")
        replica.kill()
        path = max(ring.glob("*.rec"))
        path.write_bytes(path.read_bytes()[:-3])  # as a kill within a write would leave it
        found = await gslb(replica, "replay", "--dir", str(ring))
        assert found.code == 0, found
        assert "cut off" in found.err
        listed = await gslb(replica, "replay", "--list", "--dir", str(ring), "-o", "json")
        assert json.loads(listed.out)[0]["replica"] == "r1"
        early = await gslb(replica, "replay", "--dir", str(ring), "--at", "-23h")
        assert early.code == 1
        assert "the recording begins at" in early.err
    finally:
        for each in agents:
            await each.kill()
        if client is not None:
            await client.stop()
        if replica.process.poll() is None:
            replica.stop()


async def test_without_a_recorder_it_says_so(etcd, tmp_path):
    replica = ReplicaProcess("r1", etcd.address, tmp_path).start()
    try:
        await eventually(lambda: replica.page("/livez")[0] == 200, "the replica lives")
        ran = await gslb(replica, "replay", "--list")
        assert ran.code == 1
        assert "--recorder DIR" in ran.err
    finally:
        replica.stop()


async def answers(operator):
    try:
        return (await operator.status()).warm
    except grpc.aio.AioRpcError:
        return False


async def rows_of(operator):
    status = await operator.status()
    return {row.datacenter: row for one in status.services for row in one.backends}, status


async def steady(operator, load_rps):
    rows, status = await rows_of(operator)
    if any(note.startswith("ramp:") for one in status.services for note in one.notes):
        return False
    near = all(name in rows and abs(rows[name].load_rps - rps) <= 0.08 * rps + 0.01 for name, rps in load_rps.items())
    return near and all(row.capacity_rps in {0.0, 200.0} for row in rows.values())


async def capacity_of(operator, datacenter, rps):
    rows, _ = await rows_of(operator)
    return rows[datacenter].capacity_rps == rps
