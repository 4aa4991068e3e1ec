"""Keys and transactions against a real etcd."""

import asyncio

import pytest

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd, free_port
from bns.etcd.errors import Compacted, EtcdError, OutcomeUnknown, Unavailable
from bns.etcd.ops import compare_lease, compare_value, compare_version, op_delete, op_put, op_range


async def test_put_get_delete(etcd_client: Client) -> None:
    revision = await etcd_client.put(b"a", b"1")
    kv = await etcd_client.get(b"a")
    assert kv is not None
    assert (kv.value, kv.mod_revision, kv.version) == (b"1", revision, 1)
    assert await etcd_client.delete(b"a") == 1
    assert await etcd_client.get(b"a") is None
    assert await etcd_client.delete(b"a") == 0
    before = await etcd_client.get(b"a", revision=revision)
    assert before is not None
    assert before.value == b"1"


async def test_compare_and_swap_lets_one_of_many_through(etcd_client: Client) -> None:
    first = await asyncio.gather(*(etcd_client.cas(b"k", 0, b"%d" % i) for i in range(20)))
    created = [revision for revision in first if revision is not None]
    assert len(created) == 1
    second = await asyncio.gather(*(etcd_client.cas(b"k", created[0], b"second") for _ in range(20)))
    changed = [revision for revision in second if revision is not None]
    assert len(changed) == 1
    assert changed[0] > created[0]
    assert await etcd_client.cas(b"k", created[0], b"stale") is None
    kv = await etcd_client.get(b"k")
    assert kv is not None
    assert (kv.value, kv.version, kv.mod_revision) == (b"second", 2, changed[0])


async def test_counting_by_compare_and_swap_loses_nothing(etcd_client: Client) -> None:
    await etcd_client.put(b"n", b"0")

    async def add_ten() -> None:
        done = 0
        while done < 10:
            kv = await etcd_client.get(b"n")
            assert kv is not None
            if await etcd_client.cas(b"n", kv.mod_revision, b"%d" % (int(kv.value) + 1)) is not None:
                done += 1

    await asyncio.gather(*(add_ten() for _ in range(5)))
    kv = await etcd_client.get(b"n")
    assert kv is not None
    assert kv.value == b"50"


async def test_a_transaction_is_all_or_nothing(etcd_client: Client) -> None:
    lease = await etcd_client.grant(60)
    await etcd_client.put(b"a", b"1", lease)
    response = await etcd_client.txn(
        [compare_value(b"a", "==", b"1"), compare_version(b"a", "==", 1), compare_lease(b"a", "==", lease)],
        [op_put(b"b", b"2"), op_delete(b"a")],
        [op_range(b"a")],
    )
    assert response.succeeded
    assert await etcd_client.get(b"a") is None
    response = await etcd_client.txn(
        [compare_value(b"b", "==", b"2"), compare_version(b"a", "==", 1)], [op_put(b"b", b"3")], [op_range(b"b")]
    )
    assert not response.succeeded
    assert response.responses[0].response_range.kvs[0].value == b"2"


async def test_a_transaction_that_could_end_the_member_is_never_sent(etcd_client: Client) -> None:
    await etcd_client.put(b"a", b"1")
    for failure in ([], [op_range(b"b")]):
        with pytest.raises(ValueError, match="only reads"):
            await etcd_client.txn([compare_version(b"a", "==", 1)], [op_range(b"a")], failure)


async def test_a_scan_is_of_one_revision_however_many_pages(etcd_client: Client) -> None:
    for i in range(25):
        await etcd_client.put(b"p/%02d" % i, b"old")
    await etcd_client.put(b"q", b"other")
    kvs, revision = await etcd_client.scan(b"p/", page=4)
    assert [kv.key for kv in kvs] == [b"p/%02d" % i for i in range(25)]
    await etcd_client.put(b"p/99", b"new")
    again, same = await etcd_client.scan(b"p/", page=7, revision=revision)
    assert (again, same) == (kvs, revision)
    keys, _ = await etcd_client.scan(b"p/", keys_only=True)
    assert len(keys) == 26
    assert not any(kv.value for kv in keys)
    everything, _ = await etcd_client.scan(b"")
    assert len(everything) == 27


async def test_compacted_history_is_told_apart(etcd_client: Client) -> None:
    first = await etcd_client.put(b"a", b"1")
    last = await etcd_client.put(b"a", b"2")
    await etcd_client.compact(last, physical=True)
    with pytest.raises(Compacted):
        await etcd_client.get(b"a", revision=first)
    with pytest.raises(Compacted):
        await etcd_client.scan(b"a", revision=first)


async def test_status_and_alarms(etcd_client: Client) -> None:
    status = await etcd_client.status()
    assert status.version.startswith("3.")
    assert status.dbSize > 0
    assert await etcd_client.alarms() == []
    statuses = await etcd_client.statuses()
    assert list(statuses) == list(etcd_client.endpoints)


async def test_an_etcd_that_is_not_there_is_one_clear_line() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with Client([address], timeout_s=0.5) as client:
        with pytest.raises(Unavailable) as raised:
            await client.get(b"a")
        assert address in str(raised.value)
        assert "check that it runs" in str(raised.value)
        assert "\n" not in str(raised.value)
        # Refused connections prove that nothing was written: no doubt is raised about a write either.
        with pytest.raises(Unavailable) as raised:
            await client.put(b"a", b"1")
        assert not isinstance(raised.value, OutcomeUnknown)
        assert client.silent_s() is None
        answer = (await client.statuses())[address]
        assert isinstance(answer, EtcdError)


async def test_a_write_without_an_answer_leaves_a_doubt_and_a_read_does_not(etcd: EmbeddedEtcd) -> None:
    async with Client([etcd.address], timeout_s=0.5) as client:
        await client.put(b"a", b"1")
        etcd.pause()
        with pytest.raises(OutcomeUnknown, match="may or may not have been applied"):
            await client.cas(b"b", 0, b"1")
        with pytest.raises(Unavailable) as raised:
            await client.get(b"a")
        assert not isinstance(raised.value, OutcomeUnknown)
        etcd.resume()


async def test_a_call_waits_for_an_etcd_that_comes_back_in_time(etcd: EmbeddedEtcd) -> None:
    async with Client([etcd.address], timeout_s=20) as client:
        await client.put(b"a", b"1")
        etcd.kill()
        put = asyncio.create_task(client.put(b"a", b"2"))
        await asyncio.sleep(0.3)
        etcd.spawn()
        await put
        kv = await client.get(b"a")
        assert kv is not None
        assert kv.version == 2  # sent again, and applied once


async def test_a_closed_client_says_so(etcd: EmbeddedEtcd) -> None:
    client = Client([etcd.address])
    await client.put(b"a", b"1")
    etcd.pause()
    pending = asyncio.create_task(client.get(b"a"))
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(EtcdError, match="closed"):
        await pending
    with pytest.raises(EtcdError, match="closed"):
        await client.get(b"a")
    etcd.resume()


def test_no_endpoint_is_refused() -> None:
    with pytest.raises(EtcdError, match="no etcd endpoint"):
        Client([])
