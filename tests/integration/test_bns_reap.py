"""The reaper on a real etcd: what it removes, and what makes it wait."""

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd
from bns.etcd.ops import compare_value
from bns.reaping import ReapPolicy
from bns.registration import Registration
from tests.support.bns import Replica, identity, replica, task
from tests.support.etcd import until

JOB = "/bns/us-east1/shakespeare/backend"
POLICY = ReapPolicy(after_s=60.0)


async def abandoned(one: Replica, names: list[str], agent: str = "node-1") -> None:
    """Registers `names` with an agent that then vanishes."""
    vanishing = Registration(one.address, identity(agent))
    vanishing.start()
    for name in names:
        await vanishing.register(task(name))
    await until(lambda: one.store.view.is_live("us-east1", agent))
    await vanishing.close()
    await until(lambda: not one.store.view.is_live("us-east1", agent), what="lapse of the lease")


async def look(one: Replica, now_s: float, until_s: float) -> float:
    """Looks every 20 s, and sees nothing removed."""
    while now_s < until_s:
        report = await one.registry.reap(now_s)
        assert report.reachable
        assert report.removed == ()
        now_s += 20.0
    return now_s


async def test_an_agent_that_stays_away_loses_its_tasks_within_the_budget(etcd_client: Client) -> None:
    async with (
        replica(etcd_client, ttl_s=1, policy=POLICY) as one,
        Registration(one.address, identity("node-2")) as two,
    ):
        await abandoned(one, [f"{JOB}/0", f"{JOB}/1", "/bns/us-east1/lonely/job/0"])
        await two.register(task(f"{JOB}/2"))
        await until(lambda: f"{JOB}/2" in one.store.view.tasks)
        now_s = await look(one, 0.0, 60.0)
        report = await one.registry.reap(now_s)
        assert report.removed == (f"{JOB}/0",), "half of three is one; the last of a job never goes"
        assert report.decision.held == {JOB: 1, "/bns/us-east1/lonely/job": 1}
        await until(lambda: f"{JOB}/0" not in one.store.view.tasks)
        assert (await one.registry.reap(now_s + 10)).removed == ()
        report = await one.registry.reap(now_s + 31)
        assert report.removed == (f"{JOB}/1",)
        await until(lambda: set(one.store.view.tasks) == {f"{JOB}/2", "/bns/us-east1/lonely/job/0"})


async def test_time_without_etcd_does_not_count_and_a_return_starts_anew(
    etcd_client: Client, etcd: EmbeddedEtcd
) -> None:
    async with replica(etcd_client, ttl_s=1, policy=POLICY) as one:
        await abandoned(one, [f"{JOB}/0", f"{JOB}/1"])
        now_s = await look(one, 0.0, 60.0)
        etcd.pause()
        try:
            assert not (await one.registry.reap(now_s)).reachable
        finally:
            etcd.resume()
        assert (await one.registry.reap(now_s + 500)).removed == ()
        async with Registration(one.address, identity()) as back:
            assert len(await back.wait_attached(10)) == 2
            report = await one.registry.reap(now_s + 520)
            assert (report.removed, report.absent_s) == ((), {})


async def test_a_deposed_leader_removes_nothing(etcd_client: Client) -> None:
    async with replica(etcd_client, ttl_s=1, policy=POLICY) as one:
        await abandoned(one, [f"{JOB}/0", f"{JOB}/1"])
        now_s = await look(one, 0.0, 60.0)
        report = await one.registry.reap(now_s, [compare_value(b"/gslb/leader", "==", b"me")])
        assert report.decision.remove == (f"{JOB}/0",)
        assert report.removed == ()
        assert len(one.store.view.tasks) == 2


async def test_a_record_without_an_agent_is_left_to_whoever_wrote_it(etcd_client: Client) -> None:
    async with replica(etcd_client, ttl_s=1, policy=POLICY) as one:
        for number in range(4):
            handmade = task(f"{JOB}/{number}")
            await etcd_client.put(handmade.name.encode(), _encoded(handmade))
        await until(lambda: len(one.store.view.tasks) == 4)
        assert (await one.registry.reap(await look(one, 0.0, 100.0))).removed == ()


def _encoded(made: object) -> bytes:
    from bns.codec import encode_task
    from bns.model import Task

    assert isinstance(made, Task)
    return encode_task(made).SerializeToString()
