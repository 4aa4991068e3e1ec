"""Three members: one may be lost or hang, and clients go on."""

import asyncio
from contextlib import aclosing

import pytest

from bns.etcd.client import Client
from bns.etcd.embedded import Cluster, EmbeddedEtcd
from bns.etcd.errors import EtcdError, OutcomeUnknown
from bns.etcd.v3 import rpc_pb2 as pb
from tests.support.etcd import until


async def leading_member(cluster: Cluster) -> EmbeddedEtcd:
    """The member that leads the cluster."""
    async with Client(cluster.addresses, timeout_s=10) as client:
        for address, status in (await client.statuses()).items():
            if isinstance(status, pb.StatusResponse) and status.header.member_id == status.leader:
                return cluster.member_at(address)
    raise AssertionError("no member leads")


async def follow(client: Client, values: list[bytes], revisions: list[int]) -> None:
    async with aclosing(client.watch(b"w/", b"w0", 1, heartbeat_s=0.5)) as batches:
        async for batch in batches:
            values.extend(event.kv.value for event in batch.events)
            revisions.extend(event.kv.mod_revision for event in batch.events)


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("whom", ["leader", "current"])
async def test_loss_of_one_of_three(etcd_cluster: Cluster, fault: str, whom: str) -> None:
    lost: list[int] = []
    values: list[bytes] = []
    revisions: list[int] = []
    async with Client(etcd_cluster.addresses, timeout_s=20) as client:
        await client.put(b"w/a", b"0")
        lease = await client.grant(6)
        await client.put(b"leased", b"1", lease)
        client.keep_alive(lease, 6, lost.append)
        watching = asyncio.create_task(follow(client, values, revisions))
        await until(lambda: values)
        victim = (
            await leading_member(etcd_cluster) if whom == "leader" else etcd_cluster.member_at(client.current_endpoint)
        )
        victim.kill() if fault == "kill" else victim.pause()
        for i in range(1, 6):
            await client.put(b"w/a", b"%d" % i, idempotent=True)
        kv = await client.get(b"w/a")
        assert kv is not None
        assert kv.value == b"5"
        await until(lambda: values[-1] == b"5")
        await asyncio.sleep(7)  # longer than the lease lives
        assert await client.get(b"leased") is not None
        assert lost == []
        assert revisions == sorted(set(revisions))
        assert list(dict.fromkeys(values)) == [b"0", b"1", b"2", b"3", b"4", b"5"]
        statuses = await client.statuses()
        assert isinstance(statuses[victim.address], EtcdError)
        assert sum(isinstance(status, pb.StatusResponse) for status in statuses.values()) == 2
        watching.cancel()
    victim.resume()


async def test_a_hung_member_costs_one_attempt(etcd_cluster: Cluster) -> None:
    loop = asyncio.get_running_loop()
    async with Client(etcd_cluster.addresses, timeout_s=30, attempt_timeout_s=0.5) as client:
        await client.put(b"a", b"1")
        hung = etcd_cluster.member_at(client.current_endpoint)
        hung.pause()
        # What may have been applied is not sent again on its own...
        with pytest.raises(OutcomeUnknown):
            await client.cas(b"never", 0, b"1")
        # ... but the next call goes elsewhere.
        started_s = loop.time()
        await client.put(b"a", b"2", idempotent=True)
        assert client.current_endpoint != hung.address
        assert loop.time() - started_s < 20
        hung.resume()


async def test_without_a_majority_writes_are_refused_and_come_back_with_it(etcd_cluster: Cluster) -> None:
    async with Client(etcd_cluster.addresses, timeout_s=2) as client:
        await client.put(b"a", b"1")
        etcd_cluster.members[0].kill()
        etcd_cluster.members[1].kill()
        with pytest.raises(EtcdError):
            await client.put(b"a", b"2", idempotent=True)
        etcd_cluster.members[0].spawn()
        await etcd_cluster.members[0].ready()
    async with Client(etcd_cluster.addresses, timeout_s=20) as client:
        await client.put(b"a", b"3", idempotent=True)
        kv = await client.get(b"a")
        assert kv is not None
        assert kv.value == b"3"


async def test_faults_one_after_the_other_lose_no_acknowledged_write(etcd_cluster: Cluster) -> None:
    acknowledged: set[bytes] = set()
    failed = 0
    values: list[bytes] = []
    revisions: list[int] = []
    stop = asyncio.Event()
    async with Client(etcd_cluster.addresses, timeout_s=20) as writer, Client(etcd_cluster.addresses) as reader:

        async def write(worker: int) -> None:
            nonlocal failed
            n = 0
            while not stop.is_set():
                n += 1
                value = b"%d-%d" % (worker, n)
                try:
                    await writer.put(b"w/%d/%d" % (worker, n % 20), value, idempotent=True)
                    acknowledged.add(value)
                except EtcdError:
                    failed += 1
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(follow(reader, values, revisions))
        writing = [asyncio.create_task(write(worker)) for worker in range(3)]
        for member, fault in zip(etcd_cluster.members, ("kill", "hang", "kill"), strict=True):
            await asyncio.sleep(0.5)
            if fault == "hang":
                member.pause()
                await asyncio.sleep(2)
                member.resume()
            else:
                member.kill()
                await asyncio.sleep(0.5)
                member.spawn()
                await member.ready()
        stop.set()
        await asyncio.gather(*writing)
        assert len(acknowledged) > 50
        await until(lambda: acknowledged <= set(values), what="every acknowledged write seen by the watch")
        assert revisions == sorted(set(revisions))
        watching.cancel()
