"""Two real replicas on a real etcd, with agents, clients and readers: what the control plane promises."""

import asyncio
import signal
import time

import grpc
import pytest
import pytest_asyncio

from bns.etcd.client import Client
from bns.model import HealthStatus
from gslb.control import keys
from gslb.v1 import admin_pb2, config_pb2
from gslb.wire.codec import plan_from_bytes
from tests.support.control import (
    PLACES,
    FakeAgent,
    FakeClient,
    Operator,
    Reader,
    ReplicaProcess,
    area,
    datacenter,
    eventually,
    leader_of,
    planet,
    service,
)

US, EU, ASIA = PLACES


class Planet:
    def __init__(self, etcd, directory):
        self.etcd = etcd
        self.replicas = [ReplicaProcess(f"r{n}", etcd.address, directory) for n in range(2)]
        self.addresses = [replica.address for replica in self.replicas]
        self.agents = {name: FakeAgent(name, self.addresses) for name in PLACES}
        self.readers = []
        self.clients = []

    async def warm(self):
        async def all_warm():
            return all(replica.page("/readyz")[0] == 200 for replica in self.replicas)

        await eventually(all_warm, "both replicas are ready")

    async def leader(self):
        return await eventually(lambda: leader_of(self.replicas), "a replica leads")

    async def reader(self, *addresses, **subscription):
        reader = await Reader(list(addresses) or self.addresses, **subscription).start()
        self.readers.append(reader)
        return reader

    async def client(self, locality, **what):
        client = await FakeClient(locality, self.addresses, **what).start()
        self.clients.append(client)
        return client

    async def close(self):
        for part in (*self.readers, *self.clients):
            await part.stop()
        for agent in self.agents.values():
            await agent.kill()
        for replica in self.replicas:
            replica.stop()


@pytest_asyncio.fixture
async def world(etcd, tmp_path):
    """Etcd, two replicas, three datacenters with an agent and two tasks of `backend` each, and a synced reader."""
    made = Planet(etcd, tmp_path)
    try:
        for replica in made.replicas:
            replica.start()
        await made.warm()
        async with Operator(made.addresses[0]) as operator:
            await operator.apply(*planet())
        for agent in made.agents.values():
            await agent.start()
        made.first = await made.reader()
        await eventually(lambda: made.first.shares(US) == {US: 1.0}, "the first plan arrives")
        await eventually(
            lambda: (
                len(made.first.view.services["backend"].endpoints) == 6
                and all(
                    one.health is HealthStatus.HEALTHY for one in made.first.view.services["backend"].endpoints.values()
                )
            ),
            "all endpoints are there and healthy",
        )
        yield made
        assert made.first.wrong == []
    finally:
        await made.close()


async def test_registration_health_and_demand_reach_readers(world):
    reader, agent = world.first, world.agents[US]
    assert {reader.view.services["backend"].endpoints[task].port for task in agent.tasks} == set(agent.ports.values())
    assert set(reader.view.catalog.datacenters) == set(PLACES)
    # A task's health is with the readers at once; when a whole datacenter is ill, its load goes elsewhere.
    agent.set_health(agent.tasks[0], HealthStatus.UNHEALTHY)
    await eventually(lambda: reader.health(agent.tasks[0]) is HealthStatus.UNHEALTHY, "the health arrives", 10)
    agent.set_health(agent.tasks[1], HealthStatus.UNHEALTHY)
    await eventually(lambda: reader.shares(US).get(EU, 0) > 0.9, "the plan follows", 10)
    for task in agent.tasks:
        agent.set_health(task, HealthStatus.HEALTHY)
    # More than one datacenter can serve spills over to the next nearest.
    await world.client(US, rps={"backend": 300.0})

    def spilled():
        shares = reader.shares(US)
        return 0.4 < shares.get(US, 0) < 0.75 and shares.get(EU, 0) > 0.2

    await eventually(spilled, "demand above capacity spills over")


async def test_drain_is_refused_with_numbers_and_done_otherwise(world):
    reader = world.first
    await world.client(US, rps={"backend": 450.0})
    scope = config_pb2.DRAIN_SCOPE_DATACENTER
    async with Operator(world.addresses[1]) as operator:

        async def known():
            status = (await operator.status()).services[0]
            return sum(one.demand_rps for one in status.localities) > 420

        await eventually(known, "demand is known")
        drain = admin_pb2.DrainRequest(scope=scope, target=US, reason="test", duration_s=600)
        code, details = await operator.refused("Drain", drain)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "backend" in details
        assert "380" in details, f"the capacity that remains is named: {details}"
        assert (await operator.admin.Get(admin_pb2.GetRequest(kind="drain"))).resources == []

        drain.dry_run = True
        response = await operator.admin.Drain(drain)
        assert len(response.violations) == 1
        effect = next(one for one in response.effects if one.datacenter == US)
        assert (effect.capacity_before_rps, effect.capacity_after_rps) == (200, 0)
        assert effect.load_before_rps > 100
        assert (await operator.admin.Get(admin_pb2.GetRequest(kind="drain"))).resources == []

        drain.dry_run = False
        drain.override = True
        name = (await operator.admin.Drain(drain)).name
        await eventually(lambda: reader.shares(US).get(US, 0) == 0, "nobody is sent to the drained datacenter", 10)
        assert all(reader.health(task) is HealthStatus.DRAINING for task in world.agents[US].tasks)
        listed = (await operator.admin.Get(admin_pb2.GetRequest(kind="drain", name=name))).resources[0]
        assert listed.drain.overridden
        assert listed.drain.reason == "test"

        removed = await operator.admin.Undrain(admin_pb2.UndrainRequest(scope=scope, target=US))
        assert list(removed.removed) == [name]
        await eventually(lambda: reader.shares(US).get(US, 0) > 0.3, "the traffic comes back")
        assert all(reader.health(task) is HealthStatus.HEALTHY for task in world.agents[US].tasks)


async def test_a_drain_ends_by_itself_and_narrow_scopes_drain_narrowly(world):
    reader, tasks = world.first, world.agents[EU].tasks
    async with Operator(world.addresses[0]) as operator:
        drain = admin_pb2.DrainRequest(scope=config_pb2.DRAIN_SCOPE_TASK, target=tasks[0], reason="short", duration_s=3)
        await operator.admin.Drain(drain)
        await eventually(lambda: reader.health(tasks[0]) is HealthStatus.DRAINING, "the task is drained", 10)
        assert reader.health(tasks[1]) is HealthStatus.HEALTHY
        await eventually(lambda: reader.health(tasks[0]) is HealthStatus.HEALTHY, "the drain has expired", 20)

        async def tombstoned():
            return not (await operator.admin.Get(admin_pb2.GetRequest(kind="drain"))).resources

        await eventually(tombstoned, "it is not listed any more")


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_another_replica_takes_over(world, how):
    leader = await world.leader()
    other = next(replica for replica in world.replicas if replica is not leader)
    started = time.monotonic()
    if how == "kill":
        leader.kill()
    else:
        leader.signal(signal.SIGSTOP)
    await eventually(lambda: leader_of([other]), "the other replica leads", 15)
    assert time.monotonic() - started < 8, "takeover takes 3 to 5 s"
    survivor = await world.reader(other.address)
    await eventually(survivor.plan, "the new leader's readers have the plan")
    before = survivor.plan().stamp
    agent = world.agents[US]
    for task in agent.tasks:
        agent.set_health(task, HealthStatus.UNHEALTHY)
    await eventually(lambda: survivor.plan().stamp > before, "the new leader publishes", 10)
    written = survivor.plan().stamp
    if how == "stop":
        leader.signal(signal.SIGCONT)
        await asyncio.sleep(3)
        async with Client([world.etcd.address]) as client:
            kv = await client.get(keys.plan_key("backend"))
        stamp = plan_from_bytes(kv.value).stamp
        assert stamp >= written, "the one that woke up has overwritten nothing"
        assert stamp.epoch == written.epoch
        assert await leader_of(world.replicas) is other
    for each in world.readers:
        stamps = each.stamps["backend"]
        assert each.wrong == []
        assert stamps[-1] == max(stamps)


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_everything_is_served_while_etcd_is_away_and_goes_on_afterwards(world, how):
    world.etcd.kill() if how == "kill" else world.etcd.pause()
    await asyncio.sleep(4)
    # Those who come now get everything, from either replica, and health still flows.
    late = [await world.reader(address) for address in world.addresses]
    for reader in late:
        await eventually(lambda reader=reader: reader.shares(US) == {US: 1.0}, "a plan without etcd", 10)
        assert len(reader.view.services["backend"].endpoints) == 6
    agent = world.agents[ASIA]
    agent.set_health(agent.tasks[0], HealthStatus.UNHEALTHY)
    for reader in late:
        await eventually(
            lambda reader=reader: reader.health(agent.tasks[0]) is HealthStatus.UNHEALTHY, "health without etcd", 10
        )
    async with Operator(world.addresses[0]) as operator:
        found = await operator.check()
        assert any(subject == "etcd" and severity == admin_pb2.SEVERITY_ERROR for severity, subject, _ in found)
        exported = await operator.admin.Export(admin_pb2.ExportRequest())
        assert len(exported.resources) == 4
        code, details = await operator.refused(
            "Apply", admin_pb2.ApplyRequest(resources=[datacenter("mars", ("x", 1, 2))])
        )
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "nothing was changed" in details
    assert all(replica.page("/readyz")[0] == 200 for replica in world.replicas), "losing etcd is not ill health"
    world.etcd.start() if how == "kill" else world.etcd.resume()
    await world.leader()
    before = world.first.plan().stamp
    for task in agent.tasks:
        agent.set_health(task, HealthStatus.UNHEALTHY)
    await eventually(lambda: world.first.plan().stamp > before, "plans are published again")
    async with Operator(world.addresses[1]) as operator:
        await eventually(lambda: _applies(operator, area("antarctica", -80, 0)), "writes work again")


async def _applies(operator, *resources):
    try:
        await operator.apply(*resources)
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_killing_an_agent_removes_nothing_and_a_second_witness_decides(world):
    reader, agent = world.first, world.agents[US]
    await agent.kill()
    await asyncio.sleep(4 * 1.0)
    assert all(reader.health(task) is HealthStatus.HEALTHY for task in agent.tasks)
    assert reader.shares(US) == {US: 1.0}
    client = await world.client(EU, seen={agent.tasks[0]: (0, 20), agent.tasks[1]: (20, 0)})
    await eventually(lambda: reader.health(agent.tasks[0]) is HealthStatus.TIMEOUT, "the second witness counts", 15)
    assert reader.health(agent.tasks[1]) is HealthStatus.HEALTHY
    async with Operator(world.addresses[0]) as operator:
        assert any(agent.name in subject for _, subject, _ in await operator.check())
    client.seen = {}
    await agent.start()
    await eventually(lambda: reader.health(agent.tasks[0]) is HealthStatus.HEALTHY, "the agent is back", 15)


async def test_bad_records_are_quarantined_one_by_one(world):
    async with Client([world.etcd.address]) as client:
        good = (await client.get(b"/gslb/config/service/default/backend")).value
        await client.put(b"/gslb/config/service/default/backend", b"\xff\xff rubbish")
        await client.put(b"/gslb/config/zone/default/nonsense", b"\x0a\x03abc")
        await client.put(b"/gslb/plan/0/backend", b"no plan")
        await client.put(b"/bns/us-east1/test/backend/77", b"\xffno task")
        await asyncio.sleep(1.5)
        assert world.first.shares(US) == {US: 1.0}
        assert len(world.first.view.services["backend"].endpoints) == 6
        for address in world.addresses:
            async with Operator(address) as operator:
                found = await operator.check()
                errors = {subject for severity, subject, _ in found if severity == admin_pb2.SEVERITY_ERROR}
                assert "/gslb/config/service/default/backend" in errors
                assert "/gslb/config/zone/default/nonsense" in errors
                assert "/bns/us-east1/test/backend/77" in errors
        # The rest goes on, a replica that starts now comes up with the rest, and a good value ends it.
        async with Operator(world.addresses[0]) as operator:
            await operator.apply(service("other"))
            await eventually(lambda: "other" in world.first.view.services, "a new service arrives", 10)
            await client.put(b"/gslb/config/service/default/backend", good)

            async def clean():
                return not any("service/default/backend" in subject for _, subject, _ in await operator.check())

            await eventually(clean, "the record is good again", 10)


async def test_a_vanished_service_is_served_on_and_a_deleted_one_goes(world):
    reader = world.first
    async with Client([world.etcd.address]) as client, Operator(world.addresses[0]) as operator:
        await client.delete(b"/gslb/config/service/default/backend")
        await asyncio.sleep(1.5)
        assert len(reader.view.services["backend"].endpoints) == 6
        assert any("vanished" in message for _, _, message in await operator.check())
        await operator.apply(service("backend"))
        await operator.admin.Delete(admin_pb2.DeleteRequest(kind="service", name="backend"))
        await eventually(lambda: "backend" not in reader.view.services, "the deleted service goes", 10)
        kv = await client.get(b"/gslb/config/service/default/backend")
        stored = config_pb2.Resource.FromString(kv.value)
        assert stored.meta.HasField("deleted_at"), "a tombstone stays"
        applied = await operator.apply(service("backend"))
        assert applied.applied[0].action == "created"
        assert applied.applied[0].generation == stored.meta.generation + 1
        await eventually(lambda: reader.shares(US) == {US: 1.0}, "it is back, with its plan")


async def test_subscriptions_get_only_what_they_ask_for(world):
    async with Operator(world.addresses[0]) as operator:
        await operator.apply(service("other", user="else"))
    narrow = await world.reader(world.addresses[1], services=["backend", "nonesuch"])
    await eventually(lambda: narrow.view.synced, "the narrow reader is synced")
    assert set(narrow.view.services) == {"backend"}
    assert narrow.view.unknown == {"nonesuch"}
    assert not narrow.view.catalog.datacenters
    async with Operator(world.addresses[0]) as operator:
        await operator.apply(service("nonesuch", user="late"))
    await eventually(lambda: "nonesuch" in narrow.view.services, "it arrives once it exists", 10)
    assert "other" not in narrow.view.services


async def test_terminating_the_leader_hands_over_at_once(world):
    leader = await world.leader()
    other = next(replica for replica in world.replicas if replica is not leader)
    started = time.monotonic()
    assert await asyncio.to_thread(leader.stop) == 0
    took = time.monotonic() - started
    await eventually(lambda: leader_of([other]), "the other replica leads", 10)
    assert took < 5
    assert "Traceback" not in leader.words()
    status, metrics = other.page("/metrics")
    assert status == 200
    assert "gslb_control_leading 1.0" in metrics
    assert "gslb_control_reports_total" in metrics
    assert other.page("/statusz")[0] == 200
    assert "Traceback" not in other.words()
