"""Elections against a real etcd: one leads, the next follows, and a deposed leader can do no harm."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bns.etcd.client import Client
from bns.etcd.election import Leadership
from bns.etcd.embedded import EmbeddedEtcd
from bns.etcd.errors import LeaseLost
from bns.etcd.ops import compare_mod, op_put
from bns.spawn import dies_with_us
from tests.support.etcd import until

PREFIX = b"/leader/0/"


async def candidate(client: Client, name: bytes, ttl_s: int = 10) -> tuple[int, "asyncio.Task[Leadership]"]:
    """A lease that is kept, and the campaign of its holder."""
    lease = await client.grant(ttl_s)
    client.keep_alive(lease, ttl_s)
    return lease, asyncio.create_task(client.campaign(PREFIX, name, lease))


async def test_of_several_one_leads_and_they_follow_in_order(etcd_client: Client) -> None:
    assert await etcd_client.leader(PREFIX) is None
    _, first = await candidate(etcd_client, b"first")
    leadership = await first
    others = []
    for name in (b"second", b"third", b"fourth"):
        others.append(await candidate(etcd_client, name))
        await asyncio.sleep(0.1)
    assert not any(task.done() for _, task in others)
    assert await etcd_client.leader(PREFIX) == leadership
    tokens = [leadership.revision]
    for _, task in others:
        assert await etcd_client.resign(leadership)
        leadership = await asyncio.wait_for(task, 20)
        assert await etcd_client.leader(PREFIX) == leadership
        tokens.append(leadership.revision)
        assert sum(other.done() for _, other in others) == len(tokens) - 1
    assert tokens == sorted(set(tokens))  # fencing tokens only grow
    assert not await etcd_client.resign(Leadership(leadership.key, leadership.revision - 1))


async def test_only_the_predecessor_is_awaited(etcd_client: Client) -> None:
    _, first = await candidate(etcd_client, b"first")
    leadership = await first
    second_lease, second = await candidate(etcd_client, b"second")
    await asyncio.sleep(0.1)
    _, third = await candidate(etcd_client, b"third")
    await asyncio.sleep(0.1)
    await etcd_client.revoke(second_lease)  # it gives up while the first still leads
    await asyncio.sleep(0.3)
    assert not third.done()
    await etcd_client.resign(leadership)
    assert (await asyncio.wait_for(third, 20)).value == b"third"
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(second, 20)


async def test_a_dead_leader_is_followed_when_its_lease_expires(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    async with Client([etcd.address]) as doomed:
        _, first = await candidate(doomed, b"first", ttl_s=1)
        await first
        _, second = await candidate(etcd_client, b"second")
        await asyncio.sleep(1.5)
        assert not second.done()  # the lease is kept
    assert (await asyncio.wait_for(second, 20)).value == b"second"


async def test_to_campaign_again_with_the_same_lease_is_to_find_oneself(etcd_client: Client) -> None:
    lease, first = await candidate(etcd_client, b"first")
    leadership = await first
    again = await etcd_client.campaign(PREFIX, b"first", lease)
    assert again == leadership


async def test_a_campaign_with_a_lease_that_is_gone_fails(etcd_client: Client) -> None:
    lease = await etcd_client.grant(10)
    await etcd_client.revoke(lease)
    with pytest.raises(LeaseLost):
        await etcd_client.campaign(PREFIX, b"late", lease)


async def test_a_campaign_survives_compaction_and_a_restart(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    _, first = await candidate(etcd_client, b"first")
    leadership = await first
    _, second = await candidate(etcd_client, b"second")
    await asyncio.sleep(0.2)
    for i in range(10):
        last = await etcd_client.put(b"other", b"%d" % i)
    await etcd_client.compact(last, physical=True)
    etcd.kill()
    etcd.spawn()
    await etcd.ready()
    await asyncio.sleep(0.5)
    assert not second.done()
    async with Client([etcd.address], timeout_s=20) as other:
        assert await other.resign(leadership)
    assert (await asyncio.wait_for(second, 20)).value == b"second"


async def publish(client: Client, leadership: Leadership, value: bytes, mod_revision: int) -> bool:
    """As every publisher must: fenced."""
    response = await client.txn(
        [leadership.fence(), compare_mod(b"/plan", "==", mod_revision)], [op_put(b"/plan", value)]
    )
    return response.succeeded


async def test_a_deposed_leader_is_refused_by_its_fence(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    old_lease, first = await candidate(etcd_client, b"old")
    old = await first
    assert await publish(etcd_client, old, b"by old", 0)
    _, second = await candidate(etcd_client, b"new")
    await etcd_client.revoke(old_lease)
    new = await asyncio.wait_for(second, 20)
    kv = await etcd_client.get(b"/plan")
    assert kv is not None
    # Also before the new leader has written anything, when the plan itself would still match.
    assert not await publish(etcd_client, old, b"too late", kv.mod_revision)
    assert await publish(etcd_client, new, b"by new", kv.mod_revision)
    kv = await etcd_client.get(b"/plan")
    assert kv is not None
    assert kv.value == b"by new"


_LEADER = """
import asyncio, sys
from bns.etcd.client import Client
from bns.etcd.ops import op_put

async def main():
    async with Client([sys.argv[1]]) as client:
        lease = await client.grant(2)
        lost = asyncio.Event()
        client.keep_alive(lease, 2, lambda lease: lost.set())
        leadership = await client.campaign(b"/leader/0/", b"paused", lease)
        response = await client.txn([leadership.fence()], [op_put(b"/plan", b"by paused")])
        print("leads", response.succeeded, flush=True)
        # It is stopped here, and when it wakes it believes to lead: it writes before it looks at anything.
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        response = await client.txn([leadership.fence()], [op_put(b"/plan", b"by paused, late")])
        print("late", response.succeeded, flush=True)
        await asyncio.wait_for(lost.wait(), 20)
        print("lost", flush=True)

asyncio.run(main())
"""


async def test_a_paused_leader_overwrites_nothing_when_it_wakes(
    etcd: EmbeddedEtcd, etcd_client: Client, tmp_path: Path
) -> None:
    script = tmp_path / "leader.py"
    script.write_text(_LEADER)
    with subprocess.Popen(
        dies_with_us([sys.executable, str(script), etcd.address]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as paused:
        assert paused.stdin is not None
        assert paused.stdout is not None
        assert await asyncio.to_thread(paused.stdout.readline) == "leads True\n"
        _, second = await candidate(etcd_client, b"next")
        await asyncio.sleep(0.3)
        assert not second.done()
        os.kill(paused.pid, signal.SIGSTOP)
        successor = await asyncio.wait_for(second, 30)
        assert (await etcd_client.txn([successor.fence()], [op_put(b"/plan", b"by next")])).succeeded
        paused.stdin.write("\n")
        paused.stdin.flush()
        os.kill(paused.pid, signal.SIGCONT)
        assert await asyncio.to_thread(paused.stdout.readline) == "late False\n"
        assert await asyncio.to_thread(paused.stdout.readline) == "lost\n"
        assert await asyncio.to_thread(paused.wait) == 0
    kv = await etcd_client.get(b"/plan")
    assert kv is not None
    assert kv.value == b"by next"
    await until(lambda: not second.cancelled())
