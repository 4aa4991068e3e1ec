"""The local socket and what follows from it: registration, health told at once, load, detach. Real processes and servers."""

import asyncio
import socket
import stat
import time
from pathlib import Path

import grpc.aio
import pytest

from agents import limits
from agents.local.socket import SocketError, listen
from agents.node import Agent, Settings
from bns.v1 import agent_pb2, agent_pb2_grpc
from tests.support.control_recorder import ControlRecorder, eventually
from tests.support.node_agent import Attached, running, server

NAME = "/bns/dc1/shop/web/0"
HEALTHY, UNHEALTHY, DRAINING = 1, 2, 3


@pytest.fixture
async def control():
    recorder = await ControlRecorder().start()
    yield recorder
    await recorder.stop()


@pytest.fixture
def settings(tmp_path: Path, control: ControlRecorder) -> Settings:
    return Settings("agent-1", "dc1", [control.address], tmp_path / "a.sock", "machine-1", period_s=1.0)


async def test_a_task_attaches_serves_and_detaches(control: ControlRecorder, settings: Settings) -> None:
    with server() as process:
        async with running(settings) as agent:
            task = await Attached(settings.socket).task(NAME, process.port, process.pid, cpu_cores=0.5)
            await eventually(lambda: task.last.registered and task.last.health == HEALTHY)
            record = control.shared.records[NAME]
            assert (record.agent, record.machine, record.port, record.pid) == (
                "agent-1", "machine-1", process.port, process.pid,
            )  # fmt: skip
            assert abs(record.start_time.seconds - time.time()) < 30
            await eventually(lambda: control.health_of(NAME) == HEALTHY)
            kept = agent.keeper.get(NAME)
            await eventually(lambda: kept.cpu_utilization == kept.cpu_utilization)  # no longer NaN

            await task.send(lame_duck=True)
            await eventually(lambda: control.health_of(NAME) == DRAINING)
            await eventually(lambda: task.last.health == DRAINING)
            await task.send(detach=True)
            await eventually(lambda: task.code is not None)
            assert task.code is grpc.StatusCode.OK
            assert (task.last.registered, task.last.error) == (False, "")
            assert control.shared.records == {}
            assert control.deregistered == [NAME]
            await task.close()


async def test_a_killed_task_is_told_at_once(control: ControlRecorder, settings: Settings) -> None:
    with server() as process:
        async with running(settings):
            task = await Attached(settings.socket).task(NAME, process.port, process.pid)
            await eventually(lambda: control.health_of(NAME) == HEALTHY)
            killed_s = time.monotonic()
            process.kill()  # its stream to the agent is this test's and lives on: only the process tells
            await eventually(lambda: control.health_of(NAME) == UNHEALTHY)
            arrived = next(a for a in control.reports if a.at_s >= killed_s and UNHEALTHY in a.report.health)
            assert arrived.report.partial
            assert list(arrived.report.task) == [NAME]
            assert arrived.at_s - killed_s < 1.0
            assert NAME in control.shared.records  # ill, and still registered
            await task.close()


async def test_a_broken_stream_and_a_closed_port_are_told_at_once(control: ControlRecorder, settings: Settings) -> None:
    """A task whose process the agent cannot see."""
    listening = socket.create_server(("127.0.0.1", 0))
    async with running(settings):
        task = await Attached(settings.socket).task(NAME, listening.getsockname()[1], probe={"interval_s": 60.0})
        await eventually(lambda: control.health_of(NAME) == HEALTHY)
        listening.close()
        await asyncio.sleep(0.1)
        await task.close()
        await eventually(lambda: control.health_of(NAME) == UNHEALTHY, 5.0)  # the next regular probe is a minute away


async def test_a_broken_stream_alone_changes_nothing_and_the_task_attaches_again(
    control: ControlRecorder, settings: Settings
) -> None:
    with server() as process:
        async with running(settings) as agent:
            task = await Attached(settings.socket).task(NAME, process.port, process.pid)
            await eventually(lambda: control.health_of(NAME) == HEALTHY)
            await task.close()
            kept = agent.keeper.get(NAME)
            await eventually(lambda: kept.attachment is None)
            await asyncio.sleep(0.5)
            assert kept.health.status == HEALTHY
            again = await Attached(settings.socket).task(NAME, process.port, process.pid)
            await eventually(lambda: again.last.registered and again.last.health == HEALTHY)
            assert len(control.registered) == 1
            assert all(UNHEALTHY not in arrived.report.health for arrived in control.reports)
            await again.close()


async def test_a_restarted_task_takes_its_name_again(control: ControlRecorder, settings: Settings) -> None:
    async with running(settings):
        with server() as first:
            old = await Attached(settings.socket).task(NAME, first.port, first.pid)
            await eventually(lambda: control.health_of(NAME) == HEALTHY)
        await eventually(lambda: control.health_of(NAME) == UNHEALTHY)
        with server() as second:
            new = await Attached(settings.socket).task(NAME, second.port, second.pid)
            await eventually(lambda: control.health_of(NAME) == HEALTHY)
            assert control.shared.records[NAME].port == second.port
            await new.close()
        await old.close()


async def test_load_is_reported_by_criticality(control: ControlRecorder, settings: Settings) -> None:
    with server() as process:
        async with running(settings):
            task = await Attached(settings.socket).task(NAME, process.port, process.pid)
            sending = asyncio.create_task(_counting(task))
            await eventually(lambda: [a for a in control.reports if sum(a.report.ok_critical_rps) > 0], 15.0)
            await asyncio.sleep(2.2)
            report = [a.report for a in control.reports if not a.report.partial and a.report.task][-1]
            sending.cancel()
            # 100 and 50 a second, as far as this machine keeps time.
            assert report.ok_critical_rps[0] == pytest.approx(100.0, rel=0.3)
            assert report.error_sheddable_rps[0] == pytest.approx(50.0, rel=0.3)
            assert report.ok_critical_rps[0] / report.error_sheddable_rps[0] == pytest.approx(2.0, rel=0.01)
            assert report.ok_sheddable_rps[0] == report.error_critical_rps[0] == 0.0
            assert report.in_flight[0] == 3
            await task.close()


async def _counting(task: Attached) -> None:
    started = time.monotonic()
    while True:
        elapsed_s = time.monotonic() - started
        count = round(elapsed_s * 50.0)
        await task.send(counters=agent_pb2.TaskCounters(ok=[0, 2 * count], error=[0, 0, 0, count], in_flight=3))
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "/bns/dc2/shop/web/0"}, "is of datacenter 'dc2'; this agent serves 'dc1'"),
        ({"name": "/bns/dc1/Shop/web/0"}, "'Shop'"),
        ({"name": ""}, "is not of the form"),
        ({"address": "localhost"}, "'localhost'"),
        ({"port": 0}, "port 0"),
        ({"port": 70000}, "port 70000"),
        ({"cpu_cores": -1.0}, "cpu_cores -1.0"),
        ({"cpu_cores": float("nan")}, "cpu_cores nan"),
        ({"probe": {"interval_s": float("inf")}}, "interval_s inf"),
        ({"metadata": {"k": "v" * 5000}}, "metadata"),
    ],
)
async def test_a_bad_task_is_refused(control: ControlRecorder, settings: Settings, fields: dict, words: str) -> None:
    async with running(settings) as agent:
        task = Attached(settings.socket)
        await task.send(task={"name": NAME, "address": "127.0.0.1", "port": 80, **fields})
        await eventually(lambda: task.code is not None)
        assert task.code is grpc.StatusCode.INVALID_ARGUMENT
        assert words in task.details
        assert words in task.last.error
        assert agent.keeper.all() == []
        await task.close()
    assert control.registered == []


async def test_a_name_that_lives_is_refused_to_others(control: ControlRecorder, settings: Settings) -> None:
    with server() as one, server() as two:
        async with running(settings):
            first = await Attached(settings.socket).task(NAME, one.port, one.pid)
            await eventually(lambda: first.last.registered)
            second = await Attached(settings.socket).task(NAME, two.port, two.pid)
            await eventually(lambda: second.code is not None)
            assert second.code is grpc.StatusCode.ALREADY_EXISTS
            assert f"already registered by process {one.pid} at 127.0.0.1:{one.port}" in second.details
            assert control.shared.records[NAME].port == one.port
            assert first.code is None
            await second.close()
            await first.close()


async def test_what_bns_refuses_is_told_to_the_task(control: ControlRecorder, settings: Settings) -> None:
    control.refusals[NAME] = (6, "task is held by agent 'agent-9', which is alive")
    with server() as process:
        async with running(settings) as agent:
            task = await Attached(settings.socket).task(NAME, process.port, process.pid)
            await eventually(lambda: task.code is not None)
            assert task.code is grpc.StatusCode.ALREADY_EXISTS
            assert "agent-9" in task.last.error
            assert agent.keeper.all() == []
            await task.close()


async def test_hostile_streams_do_no_harm(control: ControlRecorder, settings: Settings) -> None:
    with server() as process:
        async with running(settings) as agent:
            good = await Attached(settings.socket).task(NAME, process.port, process.pid)
            await eventually(lambda: control.health_of(NAME) == HEALTHY)

            no_task = Attached(settings.socket)
            await no_task.send(counters=agent_pb2.TaskCounters(ok=[1]))
            too_large = Attached(settings.socket)
            await too_large.send(task={"name": "x" * limits.LOCAL_MESSAGE_MAX_BYTES})
            twice = await Attached(settings.socket).task("/bns/dc1/shop/web/1", process.port, process.pid)
            await twice.task("/bns/dc1/shop/web/2", process.port, process.pid)
            for stream in (no_task, too_large, twice):
                await eventually(lambda stream=stream: stream.code is not None)
            codes = (no_task.code, too_large.code, twice.code)
            assert codes == (
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.INVALID_ARGUMENT,
            )

            flood = await Attached(settings.socket).task("/bns/dc1/shop/web/3", process.port, process.pid)
            big = agent_pb2.TaskCounters(ok=[2**64 - 1] * 1000, in_flight=2**32 - 1)
            for _ in range(200):
                flood.call_write = asyncio.ensure_future(flood.send(counters=big))
                await asyncio.wait({flood.call_write}, timeout=0.01)
            reports = len(control.reports)
            await eventually(lambda: len(control.reports) > reports + 1, what="the agent still reports")
            assert agent.keeper.get(NAME).health.status == HEALTHY
            for stream in (flood, twice, too_large, no_task, good):
                await stream.close()


async def test_list_tasks(control: ControlRecorder, settings: Settings) -> None:
    with server() as process:
        async with running(settings):
            task = await Attached(settings.socket).task(NAME, process.port, process.pid)
            await eventually(lambda: task.last.health == HEALTHY)
            async with grpc.aio.insecure_channel(f"unix:{settings.socket}") as channel:
                listed = await agent_pb2_grpc.NodeAgentStub(channel).ListTasks(agent_pb2.ListTasksRequest())
            assert (listed.agent, listed.datacenter) == ("agent-1", "dc1")
            (item,) = listed.tasks
            assert (item.task.name, item.health, item.attached) == (NAME, HEALTHY, True)
            assert item.reason == f"tcp 127.0.0.1:{process.port}: connected"
            await task.close()


async def test_the_socket_is_ours_alone(settings: Settings, tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(settings.socket))
    stale.close()  # a killed agent leaves such a file behind
    async with running(settings):
        assert stat.S_IMODE(settings.socket.stat().st_mode) == 0o600
        with pytest.raises(SocketError, match="is in use by another process: an agent runs already"):
            await Agent(settings).start()
        assert settings.socket.exists()
        async with grpc.aio.insecure_channel(f"unix:{settings.socket}") as channel:
            await agent_pb2_grpc.NodeAgentStub(channel).ListTasks(agent_pb2.ListTasksRequest())
    assert not settings.socket.exists()
    (tmp_path / "file").write_text("precious")
    for path, words in ((tmp_path / "file", "is not a socket"), (tmp_path / "no" / "where", "directory")):
        refused = grpc.aio.server()
        with pytest.raises(SocketError, match=words):
            listen(refused, path)
        await refused.stop(None)
    assert (tmp_path / "file").read_text() == "precious"
