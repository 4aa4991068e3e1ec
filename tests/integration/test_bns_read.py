"""Resolve, List and Watch on a real server and etcd: pages at one revision, resumption, slow readers, shared bytes."""

import asyncio
import random
from collections.abc import Iterable
from typing import Self

import grpc
import grpc.aio
import pytest

from bns.client import BnsClient, ClientView, Update
from bns.errors import NotFoundError, RefusedError, UnavailableError
from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd
from bns.model import HealthStatus
from bns.paging import PageToken
from bns.registration import Registration
from bns.store import read_record
from bns.transport import aio_channel
from bns.v1 import bns_pb2, bns_pb2_grpc
from tests.support.bns import Replica, identity, replica, task
from tests.support.etcd import until

JOB = "/bns/us-east1/shakespeare/backend"
OTHER = "/bns/us-east1/shakespeare/backend-2"


async def fill(one: Replica, agent: Registration, names: Iterable[str]) -> int:
    """Registers and waits until the mirror has it."""
    revision = max(await asyncio.gather(*(agent.register(task(name)) for name in names)))
    await one.store.wait_for_revision(revision, 10)
    return revision


class Raw:
    """Calls without our client, to see the messages themselves."""

    def __init__(self, address: str) -> None:
        self.channel = aio_channel(address)
        self.stub = bns_pb2_grpc.BnsStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close(None)

    async def page(self, prefix: str, token: str = "", size: int = 3) -> bns_pb2.ListResponse:
        return await self.stub.List(bns_pb2.ListRequest(prefix=prefix, page_size=size, page_token=token), timeout=10)


def names(endpoints: Iterable[bns_pb2.Endpoint]) -> list[str]:
    return [endpoint.task.name for endpoint in endpoints]


@pytest.mark.parametrize("remembered", [True, False], ids=["from memory", "from etcd"])
async def test_all_pages_show_one_revision(etcd_client: Client, remembered: bool) -> None:
    everything = sorted([*(f"{JOB}/{number}" for number in range(5)), *(f"{OTHER}/{number}" for number in range(3))])
    async with (
        replica(etcd_client) as one,
        Registration(one.address, identity()) as agent,
        Raw(one.address) as raw,
        BnsClient(one.address) as client,
    ):
        await fill(one, agent, everything)
        page = await raw.page("/bns/us-east1")
        found, revision = names(page.endpoints), page.revision
        # Changes between the pages must not be seen, whichever side of the page they are on.
        await agent.deregister(everything[0])
        await agent.deregister(everything[-1])
        await fill(one, agent, [f"{JOB}/9"])
        if not remembered:
            one.servicer._views.clear()
        while page.next_page_token:
            page = await raw.page("/bns/us-east1", page.next_page_token)
            assert page.revision == revision
            found += names(page.endpoints)
        assert found == everything
        now = [endpoint.task.name for endpoint in await client.list_tasks(JOB, page_size=2)]
        assert now == [f"{JOB}/{number}" for number in (0, 1, 2, 3, 9)], "a job, and not those that begin like it"


async def test_a_list_that_has_begun_is_finished_while_etcd_is_away(etcd_client: Client, etcd: EmbeddedEtcd) -> None:
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent:
        await fill(one, agent, (f"{JOB}/{number}" for number in range(6)))
        etcd.pause()
        try:
            async with BnsClient(one.address) as client:
                assert len(await client.list_tasks("/bns/", page_size=2)) == 6
        finally:
            etcd.resume()


async def test_a_fresh_list_reads_only_what_differs(etcd_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent:
        await fill(one, agent, [f"{JOB}/0", f"{JOB}/1"])
        before = one.store.view.tasks
        kvs, revision = await etcd_client.scan(b"/bns")
        changed: list[frozenset[str]] = []
        one.store.subscribe(lambda names, _: changed.append(names))
        read: list[str] = []
        monkeypatch.setattr("bns.store.read_record", lambda key, value: read.append(key) or read_record(key, value))
        one.store._on_snapshot([kv for kv in kvs if not kv.key.endswith(b"/1")], revision)
        assert read == []
        assert one.store.view.tasks[f"{JOB}/0"] is before[f"{JOB}/0"]
        assert changed == [{f"{JOB}/1"}]
        assert one.store.view.revision == revision


async def test_pages_of_a_compacted_revision_say_so(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent, Raw(one.address) as raw:
        await fill(one, agent, (f"{JOB}/{number}" for number in range(6)))
        page = await raw.page("/bns/")
        latest = await fill(one, agent, [f"{JOB}/9"])
        one.servicer._views.clear()
        await etcd_client.compact(latest)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw.page("/bns/", page.next_page_token)
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert "compacted" in (caught.value.details() or "")
        assert "start without a token" in (caught.value.details() or "")
        async with BnsClient(one.address) as client:
            assert len(await client.list_tasks("/bns/", page_size=2)) == 7


async def ask(raw: Raw, request: object) -> object:
    match request:
        case bns_pb2.ListRequest():
            return await raw.stub.List(request, timeout=10)
        case bns_pb2.ResolveRequest():
            return await raw.stub.Resolve(request, timeout=10)
        case bns_pb2.WatchRequest():
            return await raw.stub.Watch(request, timeout=10).read()
        case _:
            raise AssertionError(request)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (bns_pb2.ListRequest(prefix="/bns/US"), "'US' is not a DNS label"),
        (bns_pb2.ListRequest(prefix="/etc/passwd"), "is not a prefix of /bns/"),
        (bns_pb2.ListRequest(page_token="x"), "page_token 'x'"),
        (bns_pb2.ListRequest(page_token="é"), "page_token"),
        (bns_pb2.ListRequest(page_token="A" * 4000), "page_token"),
        (bns_pb2.ResolveRequest(name="/bns/a/b"), "/bns/DATACENTER/USER/JOB"),
        (bns_pb2.ResolveRequest(name="x" * 5000), "/bns/DATACENTER/USER/JOB"),
        (bns_pb2.ResolveRequest(), "/bns/DATACENTER/USER/JOB"),
        (bns_pb2.WatchRequest(prefix="bns"), "is not a prefix"),
    ],
)
async def test_bad_requests_are_invalid_arguments(etcd_client: Client, request_: object, message: str) -> None:
    async with replica(etcd_client) as one, Raw(one.address) as raw:
        with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
            await ask(raw, request_)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_page_token_of_another_prefix_stays_in_the_prefix(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent, Raw(one.address) as raw:
        revision = await fill(one, agent, [f"{JOB}/0", f"{OTHER}/0"])
        before = PageToken(revision, "/bns/a/a/a/0").encode()
        assert names((await raw.page(OTHER, before)).endpoints) == [f"{OTHER}/0"]
        behind = PageToken(revision, "/bns/z/z/z/0").encode()
        assert names((await raw.page(OTHER, behind)).endpoints) == []


async def test_a_cold_replica_answers_nobody(etcd_client: Client) -> None:
    async with replica(etcd_client) as one:
        one.servicer._ready = lambda: False
        async with BnsClient(one.address, timeout_s=0.5) as client:
            for call in (client.resolve(JOB), client.list_tasks("/bns/")):
                with pytest.raises(UnavailableError, match="warming up"):
                    await call
        async with Registration(one.address, identity()) as agent:
            assert await agent.wait_attached(10) == (), "agents are what it warms up with"


async def test_reads_go_to_another_replica(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, BnsClient(f"127.0.0.1:1,{one.address},127.0.0.1:2") as client:
        with pytest.raises(NotFoundError):
            await client.resolve(JOB)


class Reader:
    """Watches with our client and keeps what it was told."""

    def __init__(self, client: BnsClient, prefix: str) -> None:
        self.updates: list[Update] = []
        self.view = ClientView(client, prefix)
        self.view.subscribe(self.updates.append)

    async def __aenter__(self) -> Self:
        self.view.start()
        await asyncio.wait_for(self.view.synced.wait(), 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.view.close()


async def test_a_view_follows(etcd_client: Client) -> None:
    async with (
        replica(etcd_client) as one,
        Registration(one.address, identity()) as agent,
        BnsClient(one.address) as client,
    ):
        await fill(one, agent, [f"{JOB}/0", f"{JOB}/1", f"{OTHER}/0"])
        async with Reader(client, JOB) as reader:
            view = reader.view
            assert [each.task.name for each in view.resolve(JOB)] == [f"{JOB}/0", f"{JOB}/1"]
            assert view.resolve(f"{OTHER}/0") == ()
            one.set_health(f"{JOB}/1", HealthStatus.HEALTHY)
            await until(lambda: view.resolve(f"{JOB}/1")[0].health is HealthStatus.HEALTHY)
            await agent.deregister(f"{JOB}/0")
            await until(lambda: len(view.resolve(JOB)) == 1)
            await agent.register(task(f"{JOB}/1", 99))
            await until(lambda: view.resolve(JOB)[0].task.port == 99)
            assert view.resolve(JOB)[0].health is HealthStatus.HEALTHY
            await agent.deregister(f"{JOB}/1")
            await until(lambda: view.resolve(JOB) == ())
            assert not view.jobs()
            assert [update.snapshot for update in reader.updates] == [True, *[False] * (len(reader.updates) - 1)]
            assert all(each.task.job == JOB for update in reader.updates for each in update.upserted)


async def test_a_watch_resumes_at_another_replica_without_a_snapshot(etcd_client: Client, etcd: EmbeddedEtcd) -> None:
    async with Client([etcd.address]) as second_etcd, replica(second_etcd, "r2") as two:  # noqa: SIM117
        async with replica(etcd_client, "r1") as one, Registration(two.address, identity()) as agent:
            await fill(one, agent, (f"{JOB}/{number}" for number in range(20)))
            addresses = f"{one.address},{two.address}"
            first = next(seed for seed in range(99) if _first_of(addresses, seed) == one.address)
            async with BnsClient(addresses, rng=random.Random(first)) as client, Reader(client, "/bns/") as reader:
                await one.server.stop(None)
                two.set_health(f"{JOB}/3", HealthStatus.HEALTHY)
                await agent.register(task(f"{JOB}/4", 44))
                await agent.deregister(f"{JOB}/5")
                await until(lambda: reader.view.resolve(f"{JOB}/5") == (), what="resumption")
                assert reader.view.resolve(f"{JOB}/3")[0].health is HealthStatus.HEALTHY
                assert reader.view.resolve(f"{JOB}/4")[0].task.port == 44
                assert [update.snapshot for update in reader.updates[1:]] == [False] * (len(reader.updates) - 1)
                assert sum(len(update.upserted) for update in reader.updates[1:]) < 19, "not everything again"


def _first_of(addresses: str, seed: int) -> str:
    found = addresses.split(",")
    random.Random(seed).shuffle(found)
    return found[0]


async def test_watching_from_an_unknown_revision_begins_with_a_snapshot(etcd_client: Client) -> None:
    async with replica(etcd_client) as before, Registration(before.address, identity()) as agent:
        await fill(before, agent, [f"{JOB}/0"])
        old = await fill(before, agent, [f"{JOB}/1"])
        await fill(before, agent, [f"{JOB}/2"])
        async with replica(etcd_client, "r2") as one, Raw(one.address) as raw:
            now = one.store.view.revision
            for start, snapshot in ((old, True), (now + 1000, True), (0, True), (-5, True)):
                call = raw.stub.Watch(bns_pb2.WatchRequest(prefix="/bns/", start_revision=start), timeout=20)
                first = await call.read()
                assert isinstance(first, bns_pb2.WatchResponse)
                assert (first.snapshot, len(first.upserted)) == (snapshot, 3), start
                call.cancel()
            call = raw.stub.Watch(bns_pb2.WatchRequest(prefix="/bns/", start_revision=now), timeout=20)
            await asyncio.sleep(0.2)
            await agent.register(task(f"{JOB}/3"))
            first = await call.read()
            assert isinstance(first, bns_pb2.WatchResponse)
            assert (first.snapshot, names(first.upserted)) == (False, [f"{JOB}/3"])
            call.cancel()


async def test_a_slow_reader_gets_the_newest_state_and_not_the_backlog(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent:
        await fill(one, agent, (f"{JOB}/{number}" for number in range(4)))
        await asyncio.sleep(0.1)  # until that is told
        slot = one.servicer.fanout.open("/bns/")
        assert (await one.servicer.fanout.take(slot)).size == 4
        for port in range(2, 30):
            await agent.register(task(f"{JOB}/0", port))
        await agent.deregister(f"{JOB}/1")
        revision = await agent.register(task(f"{JOB}/2", 77))
        await one.store.wait_for_revision(revision, 5)
        await asyncio.sleep(0.2)
        delta = await one.servicer.fanout.take(slot)
        told = bns_pb2.WatchResponse.FromString(delta.data)
        assert [(each.task.name, each.task.port) for each in told.upserted] == [(f"{JOB}/0", 29), (f"{JOB}/2", 77)]
        assert list(told.removed) == [f"{JOB}/1"]
        assert told.revision == revision
        assert not slot.changed.is_set()
        assert one.servicer.fanout.counters.merged > 0
        one.servicer.fanout.shut(slot)
        assert one.servicer.fanout.watchers == 0


async def test_a_delta_is_encoded_once_for_all_watchers(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent:
        fanout = one.servicer.fanout
        await fill(one, agent, [f"{JOB}/0"])
        await asyncio.sleep(0.1)
        slots = [fanout.open(f"{JOB}/") for _ in range(50)]
        first = await asyncio.gather(*(fanout.take(slot) for slot in slots))
        assert len({id(delta.data) for delta in first}) == 1
        encoded = fanout.counters.encoded
        await agent.register(task(f"{JOB}/1"))
        second = await asyncio.gather(*(fanout.take(slot) for slot in slots))
        assert len({id(delta.data) for delta in second}) == 1
        assert fanout.counters.encoded == encoded + 1
        for slot in slots:
            fanout.shut(slot)


async def test_two_hundred_watchers_and_a_roll(etcd_client: Client) -> None:
    """The mechanism of the benchmark: everybody hears of every change, and of little else."""
    watchers = 200
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent:
        jobs = [f"/bns/us-east1/user/job-{number}" for number in range(10)]
        await fill(one, agent, (f"{job}/{number}" for job in jobs for number in range(20)))
        async with BnsClient(one.address) as client:
            views = [ClientView(client, jobs[number % 10]) for number in range(watchers)]
            for view in views:
                view.start()
            await asyncio.wait_for(asyncio.gather(*(view.synced.wait() for view in views)), 30)
            one.servicer.fanout.counters.endpoints_sent = 0
            rolled = [f"{job}/{number}" for job in jobs for number in (0, 1)]
            for name in rolled:
                await agent.register(task(name, 4711))
            await until(
                lambda: all(view.resolve(f"{jobs[i % 10]}/1")[0].task.port == 4711 for i, view in enumerate(views)),
                what="the roll at every watcher",
            )
            least = len(rolled) * watchers // 10
            assert least <= one.servicer.fanout.counters.endpoints_sent <= 1.2 * least
            await asyncio.gather(*(view.close() for view in views))


async def test_a_large_change_is_told_as_a_snapshot(etcd_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bns.fanout.DELTA_NAMES_MAX", 5)
    monkeypatch.setattr("bns.fanout.SNAPSHOT_PIECE", 3)
    async with (
        replica(etcd_client) as one,
        Registration(one.address, identity()) as agent,
        BnsClient(one.address) as client,
        Reader(client, "/bns/") as reader,
    ):
        await fill(one, agent, (f"{JOB}/{number}" for number in range(40)))
        await until(lambda: len(reader.view.resolve(JOB)) == 40)
        await agent.goodbye()
        await until(lambda: reader.view.resolve(JOB) == ())
        assert any(update.snapshot for update in reader.updates[1:])


async def test_a_refusal_ends_a_watch(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, BnsClient(one.address) as client:
        with pytest.raises(RefusedError, match="not a prefix"):
            await anext(client.watch("nonsense"))
