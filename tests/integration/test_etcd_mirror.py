"""Mirrors against a real etcd: they go on for ever and end up with the truth."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd
from bns.etcd.mirror import Mirror, MirrorSpec
from bns.etcd.ops import KeyValue, op_delete, op_put
from bns.etcd.v3 import rpc_pb2 as pb
from bns.etcd.watch import Batch
from tests.support.etcd import TEST_OPTIONS, until
from tests.support.relay import Relay


class Copy:
    """What a mirror's callbacks make of it."""

    def __init__(self, client: Client, prefix: bytes = b"m/", check_interval_s: float = 300.0) -> None:
        self.held: dict[bytes, bytes] = {}
        self.snapshots: list[int] = []
        self.batches: list[Batch] = []
        spec = MirrorSpec(prefix, heartbeat_s=0.3, check_interval_s=check_interval_s)
        self.mirror: Mirror = client.new_mirror(spec, self.on_snapshot, self.on_batch)
        self.task = asyncio.create_task(self.mirror.run())

    def on_snapshot(self, kvs: Sequence[KeyValue], revision: int) -> None:
        self.held = {kv.key: kv.value for kv in kvs}
        self.snapshots.append(revision)

    def on_batch(self, batch: Batch) -> None:
        self.batches.append(batch)
        for event in batch.events:
            if event.type == pb.Event.PUT:
                self.held[event.kv.key] = event.kv.value
            else:
                del self.held[event.kv.key]


async def truth(client: Client) -> dict[bytes, bytes]:
    kvs, _ = await client.scan(b"m/")
    return {kv.key: kv.value for kv in kvs}


async def test_list_then_watch(etcd_client: Client) -> None:
    await etcd_client.put(b"m/a", b"1")
    await etcd_client.put(b"n", b"other")
    copy = Copy(etcd_client)
    await until(lambda: copy.snapshots)
    assert copy.held == {b"m/a": b"1"}
    await etcd_client.txn([], [op_put(b"m/b", b"2"), op_delete(b"m/a")])
    await until(lambda: copy.held == {b"m/b": b"2"})
    assert len(copy.batches) == 1  # one transaction is never torn
    assert len(copy.snapshots) == 1
    copy.task.cancel()


async def test_the_client_has_it_in_one_call(etcd_client: Client) -> None:
    snapshots: list[int] = []
    batches: list[Batch] = []
    task = asyncio.create_task(
        etcd_client.mirror(b"m/", lambda _, revision: snapshots.append(revision), batches.append)
    )
    await until(lambda: snapshots)
    await etcd_client.put(b"m/a", b"1")
    await until(lambda: batches)
    task.cancel()


async def test_an_etcd_that_is_away_from_the_start_is_waited_for(
    etcd: EmbeddedEtcd, caplog: pytest.LogCaptureFixture
) -> None:
    etcd.stop()
    async with Client([etcd.address], timeout_s=0.3) as client:
        copy = Copy(client)
        await until(lambda: copy.mirror.stats.failures >= 2)
        assert copy.snapshots == []
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1  # not one for each try
        assert etcd.address in warnings[0]
        assert not copy.task.done()
        etcd.spawn()
        await until(lambda: copy.snapshots)
        copy.task.cancel()


async def test_compaction_leads_to_a_new_list(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    await etcd_client.put(b"m/a", b"1")
    await etcd_client.put(b"m/gone", b"1")
    async with Relay(etcd.address) as relay, Client([relay.address]) as cut_off:
        copy = Copy(cut_off)
        await until(lambda: copy.snapshots)
        await relay.cut()
        for i in range(10):
            last = await etcd_client.put(b"m/b", b"%d" % i)
        await etcd_client.delete(b"m/gone")
        await etcd_client.compact(last, physical=True)
        assert b"m/b" not in copy.held
        await relay.heal()
        await until(lambda: copy.held == {b"m/a": b"1", b"m/b": b"9"})
        assert copy.mirror.stats.compactions == 1
        assert len(copy.snapshots) == 2
        copy.task.cancel()


async def test_restarts_and_hangs_under_writes_end_in_the_truth(etcd: EmbeddedEtcd) -> None:
    async with Client([etcd.address], timeout_s=30) as writer, Client([etcd.address]) as reader:
        copy = Copy(reader, check_interval_s=0.5)
        stop = asyncio.Event()

        async def write() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                await writer.put(b"m/%d" % (n % 30), b"%d" % n, idempotent=True)
                if n % 7 == 0:
                    await writer.delete(b"m/%d" % ((n * 3) % 30), idempotent=True)

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.5)
        for fault in ("kill", "hang", "stop"):
            if fault == "hang":
                etcd.pause()
                await asyncio.sleep(1.5)
                etcd.resume()
            else:
                etcd.kill() if fault == "kill" else etcd.stop()
                etcd.spawn()
                await etcd.ready()
            await asyncio.sleep(0.5)
        stop.set()
        await writing
        expected = await truth(writer)
        await until(lambda: copy.held == expected)
        checks = copy.mirror.stats.checks
        await until(lambda: copy.mirror.stats.checks > checks)
        assert copy.mirror.stats.mismatches == 0
        assert copy.mirror.stats.rejected_events == 0
        assert len(copy.snapshots) == 1  # resumed, not listed anew
        copy.task.cancel()


async def test_a_missed_event_is_found_by_the_comparison(etcd_client: Client) -> None:
    await etcd_client.put(b"m/a", b"1")
    copy = Copy(etcd_client, check_interval_s=0.2)
    await until(lambda: copy.mirror.stats.checks >= 2)
    assert (copy.mirror.stats.mismatches, len(copy.snapshots)) == (0, 1)
    # As if the watch had swallowed an event: etcd has a key that the mirror never heard of.
    revision = await etcd_client.put(b"m/b", b"2")
    await until(lambda: copy.held == {b"m/a": b"1", b"m/b": b"2"})
    copy.mirror._held.apply(pb.Event(type=pb.Event.DELETE, kv=pb.KeyValue(key=b"m/b", mod_revision=revision)))
    del copy.held[b"m/b"]
    await until(lambda: copy.held == {b"m/a": b"1", b"m/b": b"2"})
    assert (copy.mirror.stats.mismatches, len(copy.snapshots)) == (1, 2)
    copy.task.cancel()


async def test_comparisons_under_writes_raise_no_false_alarm(etcd_client: Client) -> None:
    copy = Copy(etcd_client, check_interval_s=0.01)
    for i in range(500):
        await etcd_client.put(b"m/%d" % (i % 40), b"%d" % i)
    await until(lambda: copy.mirror.stats.checks >= 10)
    assert copy.mirror.stats.mismatches == 0
    copy.task.cancel()


async def test_an_event_that_comes_again_is_dropped(etcd_client: Client) -> None:
    copy = Copy(etcd_client)
    await until(lambda: copy.snapshots)
    await etcd_client.put(b"m/a", b"1")
    await etcd_client.put(b"m/a", b"2")
    await until(lambda: copy.held == {b"m/a": b"2"})
    old = copy.batches[0]
    copy.mirror._take(old)
    assert copy.held == {b"m/a": b"2"}
    assert copy.mirror.stats.rejected_events == 1
    new = pb.Event(kv=pb.KeyValue(key=b"m/b", value=b"3", mod_revision=copy.batches[-1].revision + 1))
    copy.mirror._take(replace(old, revision=new.kv.mod_revision, events=[*old.events, new]))
    assert copy.held == {b"m/a": b"2", b"m/b": b"3"}
    assert copy.mirror.stats.rejected_events == 2
    copy.task.cancel()


async def test_an_etcd_that_comes_back_empty_is_believed(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    for i in range(20):
        await etcd_client.put(b"m/%d" % i, b"old")
    copy = Copy(etcd_client)
    await until(lambda: len(copy.held) == 20)
    etcd.stop()
    etcd.remove_data()
    etcd.spawn()
    await etcd.ready()
    # Its revisions are lower than those the mirror has seen: the watch alone would wait for ever.
    await etcd_client.put(b"m/new", b"1", idempotent=True)
    await until(lambda: copy.held == {b"m/new": b"1"})
    assert copy.snapshots[-1] < copy.snapshots[0]
    await etcd_client.put(b"m/new", b"2")
    await until(lambda: copy.held == {b"m/new": b"2"})
    copy.task.cancel()


def test_the_fixture_really_runs_without_fsync(etcd: EmbeddedEtcd) -> None:
    assert etcd.options is TEST_OPTIONS
    assert "--unsafe-no-fsync" in etcd.command()
