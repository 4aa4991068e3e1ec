"""Watches against a real etcd: nothing lost, nothing twice, whatever happens to the connection."""

import asyncio
from contextlib import aclosing

import pytest

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd
from bns.etcd.errors import Compacted, EtcdError
from bns.etcd.v3 import rpc_pb2 as pb
from bns.etcd.watch import Batch
from tests.support.etcd import until
from tests.support.relay import Relay


class Seen:
    """What a watch has delivered."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.events: list[pb.Event] = []

    async def follow(self, client: Client, key: bytes, end: bytes, start_revision: int, heartbeat_s: float) -> None:
        async with aclosing(client.watch(key, end, start_revision, heartbeat_s)) as batches:
            async for batch in batches:
                self.batches.append(batch)
                self.events.extend(batch.events)

    @property
    def values(self) -> list[bytes]:
        return [event.kv.value for event in self.events]


async def test_a_watch_from_a_revision_replays_and_goes_on(etcd_client: Client) -> None:
    await etcd_client.put(b"w/before", b"0")
    first = await etcd_client.put(b"w/a", b"1")
    await etcd_client.delete(b"w/a")
    await etcd_client.put(b"x/other", b"no")
    seen = Seen()
    task = asyncio.create_task(seen.follow(etcd_client, b"w/", b"w0", first, 2.0))
    await until(lambda: len(seen.events) >= 2)
    last = await etcd_client.put(b"w/b", b"2")
    await until(lambda: len(seen.events) >= 3)
    task.cancel()
    assert [(event.type, event.kv.key) for event in seen.events] == [
        (pb.Event.PUT, b"w/a"),
        (pb.Event.DELETE, b"w/a"),
        (pb.Event.PUT, b"w/b"),
    ]
    assert seen.batches[-1].revision == last
    assert not any(batch.resumed for batch in seen.batches)


async def test_a_watch_from_now_says_from_where(etcd_client: Client) -> None:
    revision = await etcd_client.put(b"w/a", b"old")
    seen = Seen()
    task = asyncio.create_task(seen.follow(etcd_client, b"w/", b"w0", 0, 2.0))
    await until(lambda: seen.batches)
    assert seen.batches[0] == Batch(revision, [], progress=True)
    await etcd_client.put(b"w/a", b"new")
    await until(lambda: seen.events)
    task.cancel()
    assert seen.values == [b"new"]


async def test_silence_is_told_from_death_by_progress(etcd_client: Client) -> None:
    seen = Seen()
    task = asyncio.create_task(seen.follow(etcd_client, b"w/", b"w0", 0, 0.1))
    await until(lambda: len(seen.batches) >= 4)
    task.cancel()
    assert all(batch.progress and not batch.resumed for batch in seen.batches)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_restart_in_mid_watch_loses_and_repeats_nothing(
    etcd: EmbeddedEtcd, etcd_client: Client, how: str
) -> None:
    seen = Seen()
    start = await etcd_client.put(b"w/0", b"0")
    task = asyncio.create_task(seen.follow(etcd_client, b"w/", b"w0", start, 0.5))
    written = [b"0"]
    async with Client([etcd.address], timeout_s=20) as writer:
        for round_ in range(3):
            for i in range(20):
                value = b"%d-%d" % (round_, i)
                await writer.put(b"w/%d" % i, value, idempotent=True)
                written.append(value)
            if how == "kill":
                etcd.kill()
            else:
                etcd.stop()
            etcd.spawn()
            await etcd.ready()
        await writer.put(b"w/end", b"end", idempotent=True)
    written.append(b"end")
    await until(lambda: b"end" in seen.values)
    task.cancel()
    assert seen.values == written
    revisions = [event.kv.mod_revision for event in seen.events]
    assert revisions == sorted(set(revisions))
    assert sum(batch.resumed for batch in seen.batches) >= 1


async def test_a_hung_etcd_is_noticed_and_the_watch_resumes(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    seen = Seen()
    await etcd_client.put(b"w/a", b"1")
    task = asyncio.create_task(seen.follow(etcd_client, b"w/", b"w0", 0, 0.3))
    await until(lambda: seen.batches)
    etcd.pause()
    await asyncio.sleep(2)  # twice the heartbeat, and then some
    etcd.resume()
    await etcd_client.put(b"w/a", b"2")
    await until(lambda: seen.events)
    task.cancel()
    assert seen.values == [b"2"]
    assert any(batch.resumed for batch in seen.batches)


async def test_a_watch_of_compacted_history_says_what_is_left(etcd_client: Client) -> None:
    first = await etcd_client.put(b"w/a", b"1")
    last = await etcd_client.put(b"w/a", b"2")
    await etcd_client.compact(last)
    with pytest.raises(Compacted) as raised:
        await asyncio.wait_for(Seen().follow(etcd_client, b"w/", b"w0", first, 2.0), 20)
    assert raised.value.revision == last


async def test_compaction_while_the_watch_is_cut_off(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    seen = Seen()
    start = await etcd_client.put(b"w/a", b"1")
    async with Relay(etcd.address) as relay, Client([relay.address]) as watcher:
        task = asyncio.create_task(seen.follow(watcher, b"w/", b"w0", start, 0.3))
        await until(lambda: seen.events)
        await relay.cut()
        for i in range(5):
            last = await etcd_client.put(b"w/a", b"%d" % i)
        await etcd_client.compact(last, physical=True)
        await asyncio.sleep(0.2)
        assert not task.done()
        await relay.heal()
        with pytest.raises(Compacted):
            await asyncio.wait_for(task, 20)


async def test_a_catch_up_of_16_mb_arrives_whole(etcd: EmbeddedEtcd) -> None:
    megabyte = bytes(range(256)) * 4096
    async with Client([etcd.address], timeout_s=20) as client:
        start = await client.put(b"w/000", megabyte)
        for i in range(1, 18):
            await client.put(b"w/%03d" % i, megabyte)
        seen = Seen()
        task = asyncio.create_task(seen.follow(client, b"w/", b"w0", start, 2.0))
        await until(lambda: len(seen.events) >= 18, 60)
        task.cancel()
        assert [event.kv.key for event in seen.events] == [b"w/%03d" % i for i in range(18)]
        assert all(value == megabyte for value in seen.values)
        # What makes the test a test: more than gRPC's limit of 4 MiB in one message.
        assert max(sum(event.ByteSize() for event in batch.events) for batch in seen.batches) > 16_000_000
        # A list of the same size comes through too.
        kvs, _ = await client.scan(b"w/")
        assert sum(len(kv.value) for kv in kvs) == 18 * len(megabyte)


async def test_a_slow_reader_gets_everything(etcd_client: Client) -> None:
    start = await etcd_client.put(b"w/a", b"0")
    for i in range(1, 200):
        await etcd_client.put(b"w/a", b"%d" % i)
    values: list[bytes] = []
    async with aclosing(etcd_client.watch(b"w/a", start_revision=start, heartbeat_s=0.1)) as batches:
        async for batch in batches:
            await asyncio.sleep(0.5)  # longer than the heartbeat
            values.extend(event.kv.value for event in batch.events)
            if len(values) == 200:
                await etcd_client.put(b"w/a", b"200")
            if len(values) == 201:
                break
    assert values == [b"%d" % i for i in range(201)]


async def test_a_watch_of_a_closed_client_ends(etcd: EmbeddedEtcd) -> None:
    client = Client([etcd.address])
    seen = Seen()
    task = asyncio.create_task(seen.follow(client, b"w/", b"w0", 0, 2.0))
    await until(lambda: seen.batches)
    await client.close()
    with pytest.raises(EtcdError, match="closed"):
        await asyncio.wait_for(task, 20)


async def test_a_heartbeat_of_nothing_is_refused(etcd_client: Client) -> None:
    with pytest.raises(EtcdError, match="heartbeat_s is 0"):
        await asyncio.wait_for(Seen().follow(etcd_client, b"w/", b"w0", 0, 0), 20)
