"""Publishing and desired state against a real etcd: fences, races, restores."""

import asyncio
import time

import pytest_asyncio

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd
from bns.etcd.errors import EtcdError
from gslb.control import keys
from gslb.control.admin import apply
from gslb.control.admin.desk import Desk
from gslb.control.leader import Elector
from gslb.control.publish import Publisher
from gslb.control.view.mirror import GslbMirror
from gslb.model.plan import Plan
from gslb.wire.codec import plan_from_bytes
from tests.support.control import area, datacenter, eventually
from tests.support.etcd import TEST_OPTIONS


def plan(service, us=1.0):
    return Plan(service, shares={"us": {"us": us, "eu": 1 - us}})


class Side:
    """What a replica needs to publish, without the replica."""

    def __init__(self, etcd):
        self.etcd = etcd
        self.told = []
        self.mirror = GslbMirror(etcd, lambda _: None)
        self.publisher = Publisher(etcd, self.mirror.plans, self.told.append)
        self.running = asyncio.create_task(self.mirror.run())

    async def lead(self, name):
        lease = await self.etcd.grant(60)
        return await self.etcd.campaign(keys.LEADERS, name.encode(), lease)

    async def publish(self, *plans, leadership, incarnation=1):
        return await self.publisher.publish(plans, leadership, incarnation, time.time())


@pytest_asyncio.fixture
async def sides(etcd):
    async with Client([etcd.address]) as one, Client([etcd.address]) as other:
        both = Side(one), Side(other)
        await eventually(lambda: all(side.mirror.synced for side in both), "mirrors stand")
        yield both
        for side in both:
            side.running.cancel()
        await asyncio.gather(*(side.running for side in both), return_exceptions=True)


async def stored(etcd, service):
    kv = await etcd.get(keys.plan_key(service))
    return plan_from_bytes(kv.value) if kv else None


async def test_versions_grow_and_the_writer_is_told_at_once(sides):
    one, other = sides
    leadership = await one.lead("one")
    for version in (1, 2, 3):
        outcome = await one.publish(plan("s", us=0.5 + version / 10), leadership=leadership)
        assert outcome.published == {"s"}
        assert one.told[-1] == {"s"}
        assert one.mirror.plans.plans["s"].plan.stamp == (1, leadership.revision, version)
    await eventually(lambda: "s" in other.mirror.plans.plans, "the other has it")
    await eventually(lambda: other.mirror.plans.plans["s"].plan.stamp.version == 3, "the newest")


async def test_a_deposed_leader_that_wakes_up_overwrites_nothing(sides):
    old, new = sides
    paused = await old.lead("old")
    await old.publish(plan("s"), leadership=paused)
    await eventually(lambda: "s" in new.mirror.plans.plans, "the new one has it")
    # As if `old` was stopped here: its lease ends, another leads and publishes, and it never saw any of that.
    old.running.cancel()
    await new.etcd.resign(paused)
    leadership = await new.lead("new")
    await new.publish(plan("s", us=0.25), leadership=leadership)
    for _ in range(3):
        # The second alone: nobody has written it meanwhile, so nothing but the leader's key stands in its way.
        for plans in ((plan("s", us=0.75), plan("t")), (plan("t"),)):
            outcome = await old.publish(*plans, leadership=paused)
            assert outcome.deposed
            assert not outcome.published
    assert (await stored(new.etcd, "s")).shares["us"]["us"] == 0.25
    assert await stored(new.etcd, "t") is None


async def test_the_version_is_compared_even_by_a_true_leader(sides):
    one, other = sides
    leadership = await one.lead("one")
    await one.publish(plan("s"), plan("t"), leadership=leadership)
    one.running.cancel()
    await asyncio.gather(one.running, return_exceptions=True)
    await other.etcd.put(keys.plan_key("s"), b"somebody else's")
    outcome = await one.publish(plan("s", us=0.5), plan("t", us=0.5), leadership=leadership)
    assert outcome.published == {"t"}, "one that was touched does not keep the others back"
    assert set(outcome.refused) == {"s"}
    assert not outcome.deposed
    assert (await other.etcd.get(keys.plan_key("s"))).value == b"somebody else's"


async def test_many_plans_go_in_several_transactions(sides):
    one, _ = sides
    leadership = await one.lead("one")
    outcome = await one.publish(*(plan(f"s{n}") for n in range(350)), leadership=leadership)
    assert len(outcome.published) == 350
    assert one.publisher.total == 350


async def test_a_plan_no_reader_would_take_is_not_written(sides):
    one, _ = sides
    leadership = await one.lead("one")
    outcome = await one.publish(
        Plan("s", shares={"us": {"us": 0.7}}), Plan("u", shares={}), plan("t"), leadership=leadership
    )
    assert outcome.published == {"t"}
    assert "sum" in outcome.refused["s"]
    assert set(outcome.refused) == {"s", "u"}


async def test_after_a_restore_nothing_is_published_below_what_readers_hold(sides):
    one, _ = sides
    leadership = await one.lead("one")
    await one.publish(plan("s"), leadership=leadership, incarnation=5)
    await eventually(lambda: one.mirror.plans.mod_revision("s"), "the mirror has it")
    outcome = await one.publish(plan("s", us=0.5), leadership=leadership, incarnation=1)
    assert "new-incarnation" in outcome.refused["s"]
    outcome = await one.publish(plan("s", us=0.5), leadership=leadership, incarnation=6)
    assert outcome.published == {"s"}
    assert one.mirror.plans.plans["s"].plan.stamp.version == 2


async def test_concurrent_changes_never_undo_each_other(sides):
    """Forty changes through two replicas at once: all are there, and the whole was valid at each moment."""

    async def add(desk, number):
        given = apply.decode_all([area(f"a{number}", 1, 2, f"10.{number}.0.0/16")])

        async def work(snapshot):
            return apply.decide(snapshot, given, "me"), None

        await desk.change(work)

    desks = [Desk(side.etcd, side.mirror) for side in sides]
    limit = asyncio.Semaphore(4)

    async def one(number):
        async with limit:
            await add(desks[number % 2], number)

    await asyncio.gather(*(one(number) for number in range(40)))
    snapshot = await desks[0].read()
    assert set(snapshot.catalog.areas) == {f"a{number}" for number in range(40)}
    assert sides[0].mirror.config.catalog.areas.keys() == snapshot.catalog.areas.keys()


async def test_a_race_for_one_name_is_checked_again(sides):
    desk = Desk(sides[0].etcd, sides[0].mirror)
    calls = []

    async def work(snapshot):
        calls.append(snapshot)
        if len(calls) == 1:
            other = Desk(sides[1].etcd, sides[1].mirror)

            async def first(theirs):
                return apply.decide(theirs, apply.decode_all([datacenter("us-east1")]), "other"), None

            await other.change(first)
        return apply.decide(snapshot, apply.decode_all([datacenter("us-east1")]), "me"), None

    await desk.change(work)
    assert len(calls) == 2
    assert calls[1].catalog.datacenters["us-east1"].meta.principal == "other"
    assert (await desk.read()).catalog.datacenters["us-east1"].meta.generation == 1, "unchanged the second time"


async def test_election_goes_on_from_term_to_term(etcd):
    changes = []
    async with Client([etcd.address]) as client, Client([etcd.address]) as second:
        electors = [
            Elector(one, f"r{n}", f"a:{n}", lambda: changes.append(1)) for n, one in enumerate((client, second))
        ]
        tasks = [asyncio.create_task(elector.run()) for elector in electors]
        leader = await eventually(lambda: next((one for one in electors if one.leadership), None), "one leads")
        epochs = [leader.leadership.revision]
        for _ in range(3):
            # Somebody deletes the key: the leader finds out when it publishes.
            await client.delete(leader.leadership.key)
            leader.deposed()
            leader = await eventually(
                lambda: next((one for one in electors if one.leadership), None), "one leads again"
            )
            epochs.append(leader.leadership.revision)
        assert epochs == sorted(set(epochs)), "the fencing token grows"
        # Cancelling hands over at once.
        index = electors.index(leader)
        tasks[index].cancel()
        await asyncio.gather(tasks[index], return_exceptions=True)
        started = time.monotonic()
        await eventually(lambda: electors[1 - index].leadership, "the other leads")
        assert time.monotonic() - started < 2.5, "without waiting for a lease to end"
        tasks[1 - index].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_new_empty_etcd_at_the_same_address_takes_nothing_from_readers(etcd, tmp_path):
    """The disaster of an etcd that comes back empty: plans and configuration are served on, and alarmed."""
    async with Client([etcd.address]) as client:
        side = Side(client)
        await eventually(lambda: side.mirror.synced, "the mirror stands")
        desk = Desk(client, side.mirror)

        async def work(snapshot):
            return apply.decide(snapshot, apply.decode_all([datacenter("us-east1")]), "me"), None

        await desk.change(work)
        leadership = await side.lead("one")
        await side.publish(plan("s"), leadership=leadership)
        etcd.kill()
        empty = EmbeddedEtcd(tmp_path / "empty", TEST_OPTIONS, ports=etcd.ports)
        empty.start()
        try:
            await eventually(lambda: side.mirror.config.vanished, "the mirror has noticed")
            assert set(side.mirror.config.catalog.datacenters) == {"us-east1"}
            assert side.mirror.plans.plans["s"].plan.stamp.version == 1
            assert side.mirror.plans.mod_revision("s") == 0
            assert not (await desk.read()).catalog.datacenters, "admin calls see what etcd has"
            snapshot = None
            try:
                outcome = await side.publish(plan("s", us=0.5), leadership=leadership)
                assert outcome.deposed
            except EtcdError as error:
                snapshot = error
            assert snapshot is None
        finally:
            side.running.cancel()
            await asyncio.gather(side.running, return_exceptions=True)
            empty.stop()
