"""The agent as a process, with real control-plane replicas on a real etcd: kill -9, adoption, signals, failover."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from bns.attachment import AgentAttachment, Counters
from bns.etcd.embedded import EmbeddedEtcd, free_port
from bns.model import Task
from bns.v1 import bns_pb2, bns_pb2_grpc
from tests.support.control import ReplicaProcess, eventually
from tests.support.node_agent import AgentProcess, server

NAME = "/bns/dc1/shop/web/0"
HEALTHY, UNHEALTHY, DRAINING = 1, 2, 3


@pytest.fixture
def replicas(etcd: EmbeddedEtcd, tmp_path: Path):
    running = [ReplicaProcess(name, etcd.address, tmp_path).start() for name in ("r1", "r2")]
    yield running
    for replica in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            replica.stop()


@pytest.fixture
def spawn(tmp_path: Path):
    started: list[AgentProcess] = []

    def start(control: list[str], *extra: str) -> AgentProcess:
        started.append(AgentProcess(tmp_path, control, *extra))
        return started[-1]

    yield start
    for agent in started:
        agent.close()


async def endpoint(address: str, name: str = NAME) -> bns_pb2.Endpoint | None:
    """What a replica answers for a task; None: nothing, or it does not answer."""
    import grpc.aio

    async with grpc.aio.insecure_channel(address) as channel:
        try:
            answer = await bns_pb2_grpc.BnsStub(channel).Resolve(bns_pb2.ResolveRequest(name=name), timeout=2)
        except grpc.aio.AioRpcError:
            return None
    return answer.endpoints[0] if answer.endpoints else None


async def sees(replica: ReplicaProcess, health: int | None, name: str = NAME) -> None:
    """Waits until the replica answers `name` with this health (None: with nothing)."""

    async def so() -> bool:
        found = await endpoint(replica.address, name)
        return found is None if health is None else found is not None and found.health == health

    await eventually(so, f"{replica.name} sees {name} as {health}")


def page(http: str, path: str = "/statusz?format=json") -> str:
    with urllib.request.urlopen(f"http://{http}{path}", timeout=5) as answer:
        return answer.read().decode()


async def test_kill_9_loses_nothing_and_the_next_agent_adopts(replicas, spawn) -> None:
    control = [replica.address for replica in replicas]
    http = f"127.0.0.1:{free_port()}"
    with server() as process, server() as quiet:
        agent = spawn(control, "--http", http)
        task = Task(NAME, "127.0.0.1", process.port, pid=process.pid)
        # This one never speaks to an agent again: only BNS remembers it.
        lone = Task("/bns/dc1/shop/web/1", "127.0.0.1", quiet.port, pid=quiet.pid)
        attachment = AgentAttachment(f"unix:{agent.socket}", task, counters=Counters)
        attachment.start()
        single = AgentAttachment(f"unix:{agent.socket}", lone)
        single.start()
        await attachment.registered(20.0)
        await single.registered(20.0)
        for replica in replicas:
            await sees(replica, HEALTHY)
            await sees(replica, HEALTHY, lone.name)
        generation = (await endpoint(control[0])).task.generation

        await asyncio.to_thread(single.close)
        agent.process.kill()
        await agent.exit_code()
        for _ in range(10):
            for replica in replicas:
                found = await endpoint(replica.address)
                assert found is not None
                assert found.health == HEALTHY
            await asyncio.sleep(0.2)

        again = spawn(control, "--http", http)
        await eventually(lambda: "adopted" in again.text, "adoption")
        await eventually(lambda: attachment.state.registered and attachment.state.attached, "attachment anew")
        for _ in range(10):
            for name in (NAME, lone.name):
                assert (await endpoint(control[0], name)).health == HEALTHY
            await asyncio.sleep(0.2)
        assert (await endpoint(control[0])).task.generation == generation  # nothing was written for it
        rows = {row["task"]: row for row in json.loads(await asyncio.to_thread(page, http))["tasks"]}
        assert (rows[lone.name]["from"], rows[lone.name]["pid"]) == ("adopted", quiet.pid)
        assert rows[NAME]["attached"]

        # The adopted task is looked after as any other.
        quiet.kill()
        await sees(replicas[0], UNHEALTHY, lone.name)
        await asyncio.to_thread(attachment.close)


async def test_a_task_that_died_while_no_agent_ran_is_unhealthy_after_adoption(replicas, spawn) -> None:
    control = [replica.address for replica in replicas]
    with server() as process:
        agent = spawn(control)
        attachment = AgentAttachment(f"unix:{agent.socket}", Task(NAME, "127.0.0.1", process.port, pid=process.pid))
        attachment.start()
        await attachment.registered(20.0)
        await sees(replicas[0], HEALTHY)
        agent.process.kill()
        await agent.exit_code()
        await asyncio.to_thread(attachment.close)
    again = spawn(control)
    await sees(replicas[0], UNHEALTHY)
    assert f"process {process.pid} ended while no agent ran" in again.text


async def test_sigterm_deregisters_and_exits_with_0(replicas, spawn, tmp_path: Path) -> None:
    config = tmp_path / "tasks.yaml"
    state = tmp_path / "state"
    with server() as process:
        config.write_text(f"tasks:\n  - {{name: {NAME}, address: 127.0.0.1, port: {process.port}}}\n")
        agent = spawn([r.address for r in replicas], "--config", str(config), "--state", str(state))
        await sees(replicas[0], HEALTHY)
        await eventually(lambda: state.exists() and NAME in state.read_text(), "the state file")
        agent.process.send_signal(signal.SIGTERM)
        assert await agent.exit_code() == 0
        await sees(replicas[0], None)
        assert NAME not in state.read_text()
        assert not agent.socket.exists()
        assert "Traceback" not in agent.text


async def test_sighup_reloads_and_a_bad_file_keeps_the_old(replicas, spawn, tmp_path: Path) -> None:
    config = tmp_path / "tasks.yaml"
    line = "  - {{name: /bns/dc1/shop/web/{}, address: 127.0.0.1, port: {}}}\n"
    with server() as one, server() as two:
        config.write_text("tasks:\n" + line.format(0, one.port))
        agent = spawn([r.address for r in replicas], "--config", str(config))
        await sees(replicas[0], HEALTHY)

        config.write_text("tasks:\n" + line.format(0, one.port) + line.format(1, 0))
        agent.process.send_signal(signal.SIGHUP)
        await eventually(lambda: "port 0 is not from 1 to 65535" in agent.text, "the refusal")
        assert f"{config}:3:" in agent.text
        await sees(replicas[0], HEALTHY)

        config.write_text("tasks:\n" + line.format(1, two.port))
        agent.process.send_signal(signal.SIGHUP)
        await sees(replicas[0], HEALTHY, "/bns/dc1/shop/web/1")
        await sees(replicas[0], None)


async def test_the_process_of_a_configured_task_is_found_by_its_port(replicas, spawn, tmp_path: Path) -> None:
    """It has no stream and names no pid: its CPU is measured and its end is noticed all the same."""
    config = tmp_path / "tasks.yaml"
    http = f"127.0.0.1:{free_port()}"
    with server() as process:
        probe = "{interval_s: 60}"
        config.write_text(f"tasks:\n  - {{name: {NAME}, address: 127.0.0.1, port: {process.port}, probe: {probe}}}\n")
        spawn([r.address for r in replicas], "--config", str(config), "--http", http)
        await sees(replicas[0], HEALTHY)

        async def found() -> bool:
            (row,) = json.loads(await asyncio.to_thread(page, http))["tasks"]
            return row["pid"] == process.pid and row["cpu"] is not None

        await eventually(found, "the pid")
        metrics = await asyncio.to_thread(page, http, "/metrics")
        assert 'gslb_agent_tasks{health="HEALTHY"} 1.0' in metrics
        assert f'gslb_agent_task_cpu_utilization{{task="{NAME}"}}' in metrics
        assert await asyncio.to_thread(page, http, "/readyz") == "ok\n"
        process.kill()
        await sees(replicas[0], UNHEALTHY)


async def test_killing_a_replica_moves_the_session(replicas, spawn, tmp_path: Path) -> None:
    http = f"127.0.0.1:{free_port()}"
    with server() as one, server() as two:
        agent = spawn([r.address for r in replicas], "--http", http)
        first = AgentAttachment(f"unix:{agent.socket}", Task(NAME, "127.0.0.1", one.port, pid=one.pid))
        first.start()
        await first.registered(20.0)

        holder = json.loads(await asyncio.to_thread(page, http))["registration"]["replica"]
        lost = next(r for r in replicas if r.address == holder)
        left = next(r for r in replicas if r is not lost)
        lost.kill()
        name = "/bns/dc1/shop/web/1"
        second = AgentAttachment(f"unix:{agent.socket}", Task(name, "127.0.0.1", two.port, pid=two.pid))
        second.start()
        await second.registered(20.0)
        await sees(left, HEALTHY)
        await sees(left, HEALTHY, name)
        second.lame_duck()
        await sees(left, DRAINING, name)
        assert await second.detached()
        await sees(left, None, name)
        await asyncio.to_thread(first.close)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--name", "A"], 2, "--name 'A' is not a DNS label"),
        (["--datacenter", "x_y"], 2, "'x_y'"),
        (["--control", "nowhere"], 2, "--control"),
        (["--period", "0.5"], 2, "0.5 is not in the range"),
        (["--period", "11"], 2, "11"),
        (["--machine-id", ""], 2, "--machine-id ''"),
        (["--config", "none.yaml"], 1, "none.yaml: cannot be read: No such file"),
        (["--config", "bad.yaml"], 1, "bad.yaml:2: unknown field 'nmae' in the task: did you mean 'name'?"),
        (["--http", "127.0.0.1:99999"], 1, "choose another --http"),
        (["--socket", "bad.yaml"], 1, "is not a socket"),
        (["--tls-cert", "c.pem"], 2, "--tls-key"),
    ],
)
def test_bad_usage_is_one_clear_line(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "bad.yaml").write_text("tasks:\n  - nmae: x\n")
    flags = {"--name": "a", "--datacenter": "dc1", "--control": "127.0.0.1:1", "--socket": "a.sock"}
    flags |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    command = [sys.executable, "-m", "gslb", "agent", *(word for pair in flags.items() for word in pair)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 30.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml"]
