"""Leases against a real etcd: they expire, they are kept, and their loss is noticed in time."""

import asyncio

import pytest

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd
from bns.etcd.errors import EtcdError
from tests.support.etcd import until


async def test_a_lease_that_nobody_keeps_expires_and_takes_its_keys_along(etcd_client: Client) -> None:
    lease = await etcd_client.grant(1)
    await etcd_client.put(b"leased", b"1", lease)
    await etcd_client.put(b"plain", b"1")
    left = await etcd_client.time_to_live(lease, keys=True)
    assert list(left.keys) == [b"leased"]
    for _ in range(200):
        if await etcd_client.get(b"leased") is None:
            break
        await asyncio.sleep(0.05)
    assert await etcd_client.get(b"leased") is None
    assert await etcd_client.get(b"plain") is not None
    assert (await etcd_client.time_to_live(lease)).TTL == -1


async def test_a_lease_that_is_kept_stays(etcd_client: Client) -> None:
    lost: list[int] = []
    lease = await etcd_client.grant(3)
    await etcd_client.put(b"leased", b"1", lease)
    keeper = etcd_client.keep_alive(lease, 3, lost.append)
    await asyncio.sleep(7)
    assert not keeper.done()
    assert await etcd_client.get(b"leased") is not None
    assert lost == []


async def test_revoking_ends_the_renewal_without_an_alarm(etcd_client: Client) -> None:
    lost: list[int] = []
    lease = await etcd_client.grant(5)
    await etcd_client.put(b"leased", b"1", lease)
    keeper = etcd_client.keep_alive(lease, 5, lost.append)
    await asyncio.sleep(0.1)
    await etcd_client.revoke(lease)
    assert await etcd_client.get(b"leased") is None
    await until(keeper.done)
    assert lost == []
    await etcd_client.revoke(lease)  # gone already: not an error


async def test_a_lease_revoked_by_somebody_else_is_reported_once(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    lost: list[int] = []
    lease = await etcd_client.grant(2)
    keeper = etcd_client.keep_alive(lease, 2, lost.append)
    await asyncio.sleep(0.2)
    async with Client([etcd.address]) as other:
        await other.revoke(lease)
    await until(keeper.done)
    assert lost == [lease]
    assert keeper.exception() is None


async def test_a_lease_is_lost_in_time_when_etcd_hangs(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    loop = asyncio.get_running_loop()
    lost_at_s: list[float] = []
    lease = await etcd_client.grant(2)
    keeper = etcd_client.keep_alive(lease, 2, lambda _: lost_at_s.append(loop.time()))
    await asyncio.sleep(0.2)
    paused_s = loop.time()
    etcd.pause()
    await until(keeper.done)
    etcd.resume()
    # Not before half a life, for one failed renewal is no loss; and about when etcd itself would expire it.
    assert 0.9 < lost_at_s[0] - paused_s < 5


async def test_a_lease_is_lost_in_time_when_etcd_hangs_before_the_first_renewal(
    etcd: EmbeddedEtcd, etcd_client: Client
) -> None:
    lost: list[int] = []
    lease = await etcd_client.grant(2)
    etcd.pause()
    keeper = etcd_client.keep_alive(lease, 2, lost.append)
    await until(keeper.done)
    etcd.resume()
    assert lost == [lease]


async def test_a_lease_lives_through_a_restart_of_etcd(etcd: EmbeddedEtcd, etcd_client: Client) -> None:
    lost: list[int] = []
    lease = await etcd_client.grant(10)
    await etcd_client.put(b"leased", b"1", lease)
    keeper = etcd_client.keep_alive(lease, 10, lost.append)
    await asyncio.sleep(0.2)
    etcd.kill()
    etcd.spawn()
    await etcd.ready()
    await asyncio.sleep(0.1)
    assert await etcd_client.get(b"leased") is not None
    assert not keeper.done()
    assert lost == []


async def test_a_lease_that_does_not_exist_is_refused(etcd_client: Client) -> None:
    with pytest.raises(EtcdError, match="lease not found"):
        await etcd_client.put(b"a", b"1", lease=12345)
    lost: list[int] = []
    await asyncio.wait_for(etcd_client.keep_alive(12345, 5, lost.append), 20)
    assert lost == [12345]


async def test_closing_the_client_ends_its_renewals(etcd: EmbeddedEtcd) -> None:
    lost: list[int] = []
    async with Client([etcd.address]) as client:
        lease = await client.grant(5)
        keeper = client.keep_alive(lease, 5, lost.append)
        await asyncio.sleep(0.1)
    assert keeper.cancelled()
    assert lost == []
