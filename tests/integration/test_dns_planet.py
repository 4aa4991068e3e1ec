"""DNS on the real control plane: etcd, two `gslb serve` replicas, agents that register and report, two frontends."""

import asyncio
import contextlib
from dataclasses import dataclass

import dns.asyncquery
import dns.edns
import dns.message
import grpc.aio
import pytest_asyncio

from bns.model import HealthStatus
from bns.v1 import bns_pb2, bns_pb2_grpc
from gslb.v1 import admin_pb2, config_pb2, dns_pb2, dns_pb2_grpc
from tests.support.control import PLACES, FakeAgent, Operator, ReplicaProcess, area, eventually, planet, service
from tests.support.dns import ZONE_TEXT, addresses_in, running

US, EU, ASIA = PLACES
OCTETS = {US: 1, EU: 2, ASIA: 3}
CLIENTS = {US: "10.1.2.0", EU: "11.1.2.0", ASIA: "12.1.2.0"}
WWW = "www.shakespeare.example"


@dataclass
class Machine(FakeAgent):
    """An agent whose tasks have addresses of their own datacenter."""

    async def _session(self, address):
        async with grpc.aio.insecure_channel(address) as channel:
            stream = bns_pb2_grpc.BnsStub(channel).Register()
            hello = bns_pb2.RegisterHello(
                agent=self.name, datacenter=self.datacenter, machine_id=self.name, boot_id="boot", session_id="one"
            )
            await stream.write(bns_pb2.RegisterRequest(hello=hello))
            await asyncio.wait_for(stream.read(), 5)
            for number, task in enumerate(self.tasks):
                where = f"127.{OCTETS[self.datacenter]}.0.{number + 1}"
                record = bns_pb2.TaskRecord(name=task, address=where, port=80, agent=self.name)
                await stream.write(bns_pb2.RegisterRequest(request_id=number + 1, register=record))
                await asyncio.wait_for(stream.read(), 10)
            await stream.read()


def zone():
    resource = config_pb2.Resource(zone=config_pb2.Zone(records=ZONE_TEXT))
    resource.meta.name = "shakespeare.example"
    return resource


async def ask(frontend, client, name=WWW):
    host, _, port = frontend.addresses.dns[0].rpartition(":")
    subnet = dns.edns.ECSOption(client, 24)
    query = dns.message.make_query(name, "A", use_edns=0, options=[subnet])
    return addresses_in(await dns.asyncquery.udp(query, host, 5.0, int(port)))


class World:
    def __init__(self, etcd, directory):
        self.etcd = etcd
        self.replicas = [ReplicaProcess(f"r{n}", etcd.address, directory) for n in range(2)]
        self.addresses = [replica.address for replica in self.replicas]
        self.machines = {name: Machine(name, self.addresses, job="gfe") for name in PLACES}

    async def start(self):
        for replica in self.replicas:
            replica.start()
        await eventually(lambda: all(one.page("/readyz")[0] == 200 for one in self.replicas), "both are ready")
        areas = [
            area(f"clients-{index}", *PLACES[name][1:], f"{10 + index}.0.0.0/8") for index, name in enumerate(PLACES)
        ]
        gfe = service("gfe", dns_names=[WWW], source=config_pb2.DEMAND_SOURCE_DNS, ttl_s=5)
        async with Operator(self.addresses[0]) as operator:
            await operator.apply(*planet(gfe), *areas, zone())
        for machine in self.machines.values():
            await machine.start()

    async def close(self):
        for machine in self.machines.values():
            await machine.kill()
        for replica in self.replicas:
            replica.stop()


@pytest_asyncio.fixture
async def world(etcd, tmp_path):
    made = World(etcd, tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


def nearest(place):
    return {f"127.{OCTETS[place]}.0.1", f"127.{OCTETS[place]}.0.2"}


async def the_only_zone_goes_and_comes_back(operator, *frontends):
    """At an operator's word; a service's name needs no zone."""

    async def name_server(expected):
        found = [await ask(frontend, CLIENTS[US], "ns1.shakespeare.example") for frontend in frontends]
        return all(addresses == expected for addresses in found)

    await operator.admin.Delete(admin_pb2.DeleteRequest(kind="zone", name="shakespeare.example"))
    await eventually(lambda: name_server(set()), "the zone is gone")
    assert await ask(frontends[0], CLIENTS[US]) == nearest(US)
    await operator.apply(zone())
    await eventually(lambda: name_server({"127.0.0.1"}), "the zone is back")


async def admitted(operator, drain):
    """Whether the drain is; a fast machine has asked for more than the two others serve: that fades."""
    try:
        await operator.admin.Drain(drain)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        return False
    return True


async def test_the_planet_through_dns(world, tmp_path):
    snapshot = tmp_path / "dns.snapshot"
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(running(*world.addresses, name="one", snapshot=snapshot))
        two = await stack.enter_async_context(running(*world.addresses, name="two"))

        async def answers(place, expected):
            return [await ask(frontend, CLIENTS[place]) for frontend in (one, two)] == [expected, expected]

        # Each client area gets the nearest datacenter, from both frontends.
        for place in PLACES:
            await eventually(lambda place=place: answers(place, nearest(place)), f"{place} serves its clients")
        assert one.holder.held.serving.problems == ()
        assert await ask(one, CLIENTS[US], "ns1.shakespeare.example") == {"127.0.0.1"}

        # What is asked for becomes demand in the plan.
        def demand(locality):
            plan = one.holder.held.view.services["gfe"].plan
            return plan.demand_rps.get(locality, 0.0) if plan else 0.0

        async def asked_until(condition):
            for _ in range(20):
                await ask(one, CLIENTS[EU])
            return condition()

        await eventually(lambda: asked_until(lambda: demand("clients-1") > 1.0), "the plan knows of the demand", 90)

        # A drain moves the clients, its end brings them back.
        async with Operator(world.addresses[0]) as operator:
            scope = config_pb2.DRAIN_SCOPE_DATACENTER
            drain = admin_pb2.DrainRequest(scope=scope, target=US, reason="test", duration_s=600)

            await eventually(lambda: admitted(operator, drain), "the drain is admitted", 90)
            await eventually(lambda: answers(US, nearest(EU)), "drained: the next nearest answers")
            async with grpc.aio.insecure_channel(one.addresses.grpc) as channel:
                found = await dns_pb2_grpc.DnsFrontendStub(channel).Explain(
                    dns_pb2.ExplainDnsRequest(name=WWW, client_ip=CLIENTS[US])
                )
            assert (found.locality, found.chosen) == ("clients-0", EU)
            await operator.admin.Undrain(admin_pb2.UndrainRequest(scope=scope, target=US))
            await eventually(lambda: answers(US, nearest(US)), "back again")

            await the_only_zone_goes_and_comes_back(operator, one, two)
            assert await answers(US, nearest(US))

        # One ill task is out of the answers at once.
        machine = world.machines[ASIA]
        machine.set_health(machine.tasks[0], HealthStatus.UNHEALTHY)
        await eventually(lambda: answers(ASIA, {"127.3.0.2"}), "the ill task is not given")
        machine.set_health(machine.tasks[0], HealthStatus.HEALTHY)
        await eventually(lambda: answers(ASIA, nearest(ASIA)), "the well one is")

        # A replica dies, then the other, then etcd: nobody notices.
        world.replicas[0].kill()
        for place in PLACES:
            assert await answers(place, nearest(place))
        await eventually(lambda: all(f.subscriber.address == world.addresses[1] for f in (one, two)), "failover")
        world.replicas[1].kill()
        world.etcd.kill()
        for place in PLACES:
            assert await answers(place, nearest(place))
    # A restart with nobody there answers from disk.
    async with running(*world.addresses, snapshot=snapshot) as again:
        for place in PLACES:
            assert await ask(again, CLIENTS[place]) == nearest(place)
