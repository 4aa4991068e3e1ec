"""Capacity from CPU through a real replica: what agents report becomes what the plan reckons with."""

import random
from dataclasses import dataclass, field

from gslb.control.ingest.columns import parse
from gslb.v1 import config_pb2
from tests.support.control import PLACES, FakeAgent, FakeClient, Operator, ReplicaProcess, eventually, planet, service

US, EU, ASIA = PLACES
IDLE = 0.04


@dataclass
class BusyAgent(FakeAgent):
    """Its tasks use `cost` of their CPU for each request a second, with noise."""

    cost: float = 0.008
    error_rps: float = 0.0
    cpu: float | None = None  # what it says whatever its tasks do
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def report(self, *, partial=False, tasks=None):
        report = super().report(partial=partial, tasks=tasks)
        rps = [self.rps * self.rng.uniform(0.9, 1.1) for _ in report.task]
        cpu = [(IDLE + self.cost * each) * self.rng.uniform(0.9, 1.1) for each in rps]
        report.ok_critical_rps[:] = rps
        report.error_critical_rps[:] = [self.error_rps] * len(rps)
        report.cpu_utilization[:] = cpu if self.cpu is None else [self.cpu] * len(rps)
        return report


def learning(name):
    """A service whose owner declared 100 rps a task, to be corrected by CPU."""
    resource = service(name)
    for backend in resource.service.backends:
        backend.mode = config_pb2.CAPACITY_MODE_UTILIZATION
        backend.target_utilization = 0.8
    return resource


async def test_a_cost_that_doubles_halves_capacity_and_moves_load(etcd, tmp_path):
    replica = ReplicaProcess("r0", etcd.address, tmp_path)
    agents = {place: BusyAgent(place, [replica.address], rps=50.0) for place in PLACES}
    client = None
    try:
        replica.start()

        async def ready():
            return replica.page("/readyz")[0] == 200

        await eventually(ready, "the replica is ready")
        async with Operator(replica.address) as operator:
            await operator.apply(*planet(learning("backend")))
            for agent in agents.values():
                await agent.start()
            client = await FakeClient(US, [replica.address], rps={"backend": 120.0}).start()

            async def capacity(place):
                status = (await operator.status()).services[0]
                return next(one.capacity_rps for one in status.backends if one.datacenter == place)

            async def shares():
                status = (await operator.status()).services[0]
                locality = next(one for one in status.localities if one.locality == US)
                return dict(zip(locality.datacenters, locality.share, strict=True))

            async def learned():
                return 2 * 83 < await capacity(US) < 2 * 98 and (await shares()).get(US) == 1.0

            # Two tasks of (0.8 - 0.04) / 0.008 = 95 rps.
            await eventually(learned, "what a task serves is learned", 60)
            agents[US].cost *= 2

            async def halved():
                return 2 * 43 < await capacity(US) < 2 * 52

            await eventually(halved, "half the capacity is gone", 60)

            async def moved():
                return (await shares()).get(US, 0.0) < 0.9

            await eventually(moved, "load goes elsewhere", 60)
            assert 2 * 83 < await capacity(ASIA) < 2 * 101
            known = await capacity(ASIA)
            agents[ASIA].cpu = 0.0

            async def noted():
                return any(
                    "reports set aside" in message and f"/bns/{ASIA}/test/backend/0 reports 0 % CPU" in message
                    for _, _, message in await operator.check()
                )

            await eventually(noted, "the liars are shown by the check", 60)
            assert 0.9 * known < await capacity(ASIA) < 1.1 * known
    finally:
        for part in (client,) if client else ():
            await part.stop()
        for agent in agents.values():
            await agent.kill()
        replica.stop()


def test_a_partial_report_repeats_the_load_of_the_whole_one():
    agent = BusyAgent(US, [])
    whole = agent.report()
    columns = parse(whole, None, 0.0)
    assert columns.load_seq == whole.seq
    partial = agent.report(partial=True, tasks=agent.tasks[:1])
    assert parse(partial, columns, 1.0).load_seq == whole.seq
    assert parse(partial, None, 1.0).load_seq == 0
    following = agent.report()
    assert parse(following, parse(partial, columns, 1.0), 2.0).load_seq == following.seq
