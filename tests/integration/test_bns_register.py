"""Agents, their sessions and their tasks, on a real etcd: what adopts, what is refused, what stays."""

import asyncio
from typing import Any

import grpc
import pytest

from bns.client import BnsClient
from bns.codec import encode_task, parse_task_bytes
from bns.errors import BadRecordError, NotFoundError, RefusedError, UnavailableError, code_number
from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd
from bns.registration import Callbacks, Identity, Registration
from tests.support.bns import identity, replica, task
from tests.support.etcd import until

JOB = "/bns/us-east1/shakespeare/backend"
ALREADY_EXISTS = code_number(grpc.StatusCode.ALREADY_EXISTS)


async def test_a_task_is_registered_found_changed_and_gone(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, BnsClient(one.address) as client:  # noqa: SIM117 - three contexts
        async with Registration(one.address, identity()) as agent:
            assert await agent.wait_attached(10) == ()
            first = await agent.register(task(f"{JOB}/0", 1))
            await one.store.wait_for_revision(first, 5)
            (found,) = await client.resolve(f"{JOB}/0")
            assert (found.target, found.task.agent, found.task.generation) == ("127.0.0.1:1", "node-1", 1)
            assert (found.task.machine, found.task.principal) == ("m1", "anonymous")

            assert await agent.register(task(f"{JOB}/0", 1)) == first, "what is the same is not written again"
            second = await agent.register(task(f"{JOB}/0", 2))
            assert second > first
            (found,) = await client.resolve(JOB, linearizable=True)
            assert (found.task.port, found.task.generation) == (2, 2)

            gone = await agent.deregister(f"{JOB}/0")
            assert await agent.deregister(f"{JOB}/0") >= gone, "gone is gone"
            await one.store.wait_for_revision(gone, 5)
            with pytest.raises(NotFoundError, match=f"nothing is registered as {JOB}"):
                await client.resolve(JOB)


async def test_bad_requests_change_nothing(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent:
        await agent.wait_attached(10)
        with pytest.raises(BadRecordError, match="port 0"):
            await agent.register(task(f"{JOB}/0", 0))
        for bad, message in (
            (task("/bns/europe-west1/shakespeare/backend/0"), "is not in 'us-east1'"),
            (task(f"{JOB}/0", agent="node-9"), "names agent 'node-9'"),
        ):
            with pytest.raises(RefusedError, match=message) as caught:
                await agent.register(bad)
            assert caught.value.code == code_number(grpc.StatusCode.INVALID_ARGUMENT)
        with pytest.raises(RefusedError, match="DNS label"):
            await agent.deregister(f"{JOB}/NO")
        assert agent.attached
        assert (await etcd_client.scan(b"/bns/"))[0] == []


async def test_a_task_of_a_live_agent_is_refused_to_another_and_of_a_dead_one_taken_over(etcd_client: Client) -> None:
    async with replica(etcd_client, ttl_s=2) as one:
        first = Registration(one.address, identity("node-1"))
        first.start()
        await first.register(task(f"{JOB}/0", 1))
        async with Registration(one.address, identity("node-2", machine="m2")) as second:
            with pytest.raises(
                RefusedError, match=r"held by agent 'node-1', which is alive \(machine 'm1'\)"
            ) as caught:
                await second.register(task(f"{JOB}/0", 2))
            assert caught.value.code == ALREADY_EXISTS
            with pytest.raises(RefusedError, match="held by agent 'node-1': deregister it there"):
                await second.deregister(f"{JOB}/0")

            await first.close()
            await until(lambda: not one.store.view.is_live("us-east1", "node-1"), what="lapse of the lease")
            assert f"{JOB}/0" in one.store.view.tasks, "loss of liveness deletes nothing"
            revision = await second.register(task(f"{JOB}/0", 2))
            view = await one.store.wait_for_revision(revision, 5)
            assert (view.tasks[f"{JOB}/0"].agent, view.tasks[f"{JOB}/0"].generation) == ("node-2", 2)


async def test_a_restarted_agent_adopts_its_tasks(etcd_client: Client) -> None:
    async with replica(etcd_client, ttl_s=60) as one:
        first = Registration(one.address, identity())
        first.start()
        await first.register(task(f"{JOB}/0"))
        await first.register(task(f"{JOB}/1"))
        lease = one.store.view.agents["us-east1", "node-1"].lease_id
        await first.close()
        async with Registration(one.address, identity()) as again:
            adopted = await again.wait_attached(10)
            assert [one_task.name for one_task in adopted] == [f"{JOB}/0", f"{JOB}/1"]
            assert one.store.view.agents["us-east1", "node-1"].lease_id == lease
        async with Registration(one.address, identity(machine="m2")) as other:
            with pytest.raises(RefusedError, match=r"agent us-east1/node-1 is alive on machine 'm1'") as caught:
                await other.wait_attached(10)
            assert caught.value.code == ALREADY_EXISTS
        assert set(one.store.view.tasks) == {f"{JOB}/0", f"{JOB}/1"}


async def test_a_lapsed_agent_is_adopted_by_another_machine(etcd_client: Client) -> None:
    async with replica(etcd_client, ttl_s=1) as one:
        first = Registration(one.address, identity())
        first.start()
        await first.register(task(f"{JOB}/0"))
        await first.close()
        await until(lambda: not one.store.view.agents, what="lapse of the lease")
        async with Registration(one.address, identity(machine="m2")) as other:
            assert [found.name for found in await other.wait_attached(10)] == [f"{JOB}/0"]


async def test_a_session_moves_to_another_replica(etcd_client: Client, etcd: EmbeddedEtcd) -> None:
    async with Client([etcd.address]) as second_etcd, replica(second_etcd, "r2", ttl_s=60) as two:
        welcomes: list[int] = []
        callbacks = Callbacks(on_welcome=lambda adopted: welcomes.append(len(adopted)))
        async with replica(etcd_client, "r1", ttl_s=60) as one:
            agent = Registration(f"{one.address},{two.address}", identity(), callbacks=callbacks)
            agent.start()
            await agent.register(task(f"{JOB}/0"))
            holder, other = (one, two) if agent.replica == one.address else (two, one)
            lease = holder.store.view.agents["us-east1", "node-1"].lease_id
            await holder.server.stop(None)
            await until(lambda: agent.attached and agent.replica == other.address, what="re-attachment")
            await agent.register(task(f"{JOB}/1"))
            assert welcomes == [0, 1]
            record = other.store.view.agents["us-east1", "node-1"]
            assert (record.replica, record.lease_id) == ("r2" if other is two else "r1", lease)
            await agent.close()


async def test_the_older_of_two_sessions_is_over_and_can_write_nothing(etcd_client: Client, etcd: EmbeddedEtcd) -> None:
    async with (
        Client([etcd.address]) as second_etcd,
        replica(etcd_client, "r1") as one,
        replica(second_etcd, "r2") as two,
        Registration(one.address, identity()) as old,
    ):
        await old.register(task(f"{JOB}/0"))
        session = one.registry.sessions["us-east1", "node-1"]
        async with Registration(two.address, identity()) as new:
            await new.wait_attached(10)
            await until(session.ended.is_set, what="end of the older session")
            with pytest.raises(RefusedError, match=r"newer session|over"):
                await session.deregister(f"{JOB}/0")
            assert f"{JOB}/0" in two.store.view.tasks


@pytest.mark.parametrize("kind", ["register", "deregister"])
async def test_a_session_that_is_overtaken_between_look_and_write_writes_nothing(
    etcd_client: Client, etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async with (
        Client([etcd.address]) as second_etcd,
        replica(etcd_client, "r1") as one,
        replica(second_etcd, "r2") as two,
        Registration(one.address, identity()) as old,
    ):
        new = Registration(two.address, identity())
        await old.register(task(f"{JOB}/0", 1))
        session = one.registry.sessions["us-east1", "node-1"]
        commit = session._commit
        commits: list[int] = []

        async def overtaken(*arguments: Any) -> int:
            if not commits:
                new.start()  # a second process of this agent, just before the first one's write
                await new.wait_attached(10)
            commits.append(await commit(*arguments))
            return commits[-1]

        monkeypatch.setattr(session, "_commit", overtaken)
        update = encode_task(task(f"{JOB}/0", 2))
        work = session.register(update) if kind == "register" else session.deregister(f"{JOB}/0")
        with pytest.raises(RefusedError, match=r"newer session|over"):
            await work
        await new.close()
        assert commits == [0], "the transaction itself refused"
        kv = await etcd_client.get(f"{JOB}/0".encode())
        assert kv is not None
        assert parse_task_bytes(kv.value).port == 1


async def test_the_goodbye_of_an_older_session_leaves_the_newer_one_its_lease(
    etcd_client: Client, etcd: EmbeddedEtcd
) -> None:
    async with (
        Client([etcd.address]) as second_etcd,
        replica(etcd_client, "r1") as one,
        replica(second_etcd, "r2") as two,
        Registration(one.address, identity()) as old,
    ):
        await old.wait_attached(10)
        session = one.registry.sessions["us-east1", "node-1"]
        async with Registration(two.address, identity()) as new:
            await new.wait_attached(10)
            before = two.store.view.agents["us-east1", "node-1"]
            await session.goodbye()
            revision = await new.register(task(f"{JOB}/0"))
            view = await two.store.wait_for_revision(revision, 5)
            assert view.agents["us-east1", "node-1"] == before
            assert (before.replica, before.lease_id) == ("r2", session._lease), "both hold the same lease"


async def test_what_is_wanted_is_registered_again_after_re_attachment(etcd_client: Client, etcd: EmbeddedEtcd) -> None:
    async with (
        Client([etcd.address]) as second_etcd,
        replica(second_etcd, "r2") as two,
        replica(etcd_client, "r1") as one,
        Registration(f"{one.address},{two.address}", identity()) as agent,
    ):
        await agent.register(task(f"{JOB}/0"))
        await agent.register(task(f"{JOB}/1"))
        await agent.deregister(f"{JOB}/1")
        holder = one if agent.replica == one.address else two
        await etcd_client.delete(f"{JOB}/0".encode())
        await until(lambda: not two.store.view.tasks)
        await holder.server.stop(None)
        await until(lambda: set(two.store.view.tasks) == {f"{JOB}/0"}, what="the task that is still wanted")


async def test_goodbye_removes_everything_of_this_agent_only(etcd_client: Client) -> None:
    async with (
        replica(etcd_client) as one,
        Registration(one.address, identity("node-1")) as staying,
    ):
        await staying.register(task(f"{JOB}/9"))
        leaving = Registration(one.address, identity("node-2"))
        leaving.start()
        await asyncio.gather(*(leaving.register(task(f"{JOB}/{number}")) for number in range(40, 80)))
        revision = await leaving.goodbye()
        view = await one.store.wait_for_revision(revision, 5)
        assert set(view.tasks) == {f"{JOB}/9"}
        await until(lambda: not one.store.view.is_live("us-east1", "node-2"))
        assert staying.attached


async def test_etcd_away_is_unavailable_and_then_made_up_for(etcd_client: Client, etcd: EmbeddedEtcd) -> None:
    async with replica(etcd_client, ttl_s=60) as one, BnsClient(one.address) as client:  # noqa: SIM117 - three contexts
        async with Registration(one.address, identity()) as agent:
            await agent.register(task(f"{JOB}/0"))
            await until(lambda: f"{JOB}/0" in one.store.view.tasks)
            etcd.pause()
            try:
                with pytest.raises(UnavailableError, match=f"{JOB}/1"):
                    await agent.register(task(f"{JOB}/1"), timeout_s=1)
                assert len(await client.resolve(JOB)) == 1, "reads go on"
                with pytest.raises(UnavailableError):
                    await client.resolve(JOB, linearizable=True)
            finally:
                etcd.resume()
            await until(lambda: f"{JOB}/1" in one.store.view.tasks, what="the registration that had to wait")


async def test_a_lost_lease_is_made_anew(etcd_client: Client) -> None:
    async with replica(etcd_client, ttl_s=2) as one, Registration(one.address, identity()) as agent:
        await agent.register(task(f"{JOB}/0"))
        await until(lambda: bool(one.store.view.agents))
        before = one.store.view.agents["us-east1", "node-1"].lease_id
        await etcd_client.revoke(before)
        await until(
            lambda: (
                one.store.view.agents.get(("us-east1", "node-1")) is not None
                and one.store.view.agents["us-east1", "node-1"].lease_id != before
            ),
            what="a new lease",
        )
        await agent.register(task(f"{JOB}/1"))
        assert agent.attached


async def test_a_bad_record_is_quarantined_and_healed_by_its_agent(etcd_client: Client) -> None:
    await etcd_client.put(f"{JOB}/0".encode(), b"\xff junk")
    await etcd_client.put(b"/bns/nonsense", b"")
    await etcd_client.put(b"/bns-agent/us-east1/node-1", b"\xff")
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent:
        assert set(one.store.view.quarantined) == {f"{JOB}/0", "/bns/nonsense", "/bns-agent/us-east1/node-1"}
        await one.store.wait_for_revision(await agent.register(task(f"{JOB}/0")), 5)
        assert set(one.store.view.quarantined) == {"/bns/nonsense"}
        assert one.store.view.tasks[f"{JOB}/0"].generation > 1

        await etcd_client.put(f"{JOB}/0".encode(), b"\xff junk again")
        await until(lambda: f"{JOB}/0" in one.store.view.quarantined)
        assert one.store.view.tasks[f"{JOB}/0"].port == 1, "the last good one stays"


@pytest.mark.parametrize(
    ("who", "message"),
    [
        (identity("No"), "agent 'No' is not a DNS label"),
        (identity(datacenter="us/east"), "'us/east'"),
        (identity(machine=""), "machine_id ''"),
        (identity(boot="x" * 300), "boot_id"),
        (Identity("a", "b", "c", "d", "\x07"), "session_id"),
    ],
)
async def test_bad_hellos_are_named(etcd_client: Client, who: Identity, message: str) -> None:
    async with replica(etcd_client) as one, Registration(one.address, who) as agent:
        with pytest.raises(RefusedError, match=message):
            await agent.wait_attached(10)
        assert not one.registry.sessions
