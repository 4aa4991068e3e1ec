"""The `bns` command as its users run it: real processes, a real server, a real etcd."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd
from bns.model import HealthStatus
from bns.registration import Registration
from bns.spawn import dies_with_us
from tests.integration.test_bns_attachment import Agent, running
from tests.support.bns import Replica, identity, replica, task
from tests.support.etcd import until

JOB = "/bns/us-east1/shakespeare/backend"
SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


@dataclass(slots=True)
class Ran:
    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BNS_")}
    return {**kept, **more}


@asynccontextmanager
async def started(*arguments: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`bns ARGUMENTS`, killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *dies_with_us([sys.executable, "-m", "bns", *arguments]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**env),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(*arguments: str, **env: str) -> Ran:
    """`bns ARGUMENTS` to its end."""
    async with started(*arguments, **env) as process:
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def two_tasks(etcd: Client) -> AsyncIterator[Replica]:
    async with replica(etcd) as one, Registration(one.address, identity()) as agent:
        await agent.register(task(f"{JOB}/0", 80, metadata={"version": "7"}))
        await one.store.wait_for_revision(await agent.register(task(f"{JOB}/1", 81)), 5)
        one.set_health(f"{JOB}/1", HealthStatus.HEALTHY)
        yield one


async def test_ls_and_resolve(etcd_client: Client) -> None:
    async with two_tasks(etcd_client) as one:
        ran = await run("ls", "/bns/us-east1", BNS_SERVER=one.address)
        assert (ran.code, ran.err) == (0, "")
        assert [line.split() for line in ran.out.splitlines()] == [
            ["NAME", "ADDRESS", "HEALTH", "AGENT"],
            [f"{JOB}/0", "127.0.0.1:80", "UNKNOWN", "node-1"],
            [f"{JOB}/1", "127.0.0.1:81", "HEALTHY", "node-1"],
        ]
        ran = await run("resolve", JOB, "--linearizable", "-o", "json", "--server", one.address)
        assert ran.code == 0
        found = json.loads(ran.out)
        assert [(each["name"], each["address"], each["health"]) for each in found] == [
            (f"{JOB}/0", "127.0.0.1:80", "UNKNOWN"),
            (f"{JOB}/1", "127.0.0.1:81", "HEALTHY"),
        ]
        assert found[0]["metadata"] == {"version": "7"}

        ran = await run("resolve", f"{JOB}/7", "--server", one.address)
        assert (ran.code, ran.out) == (1, "")
        assert f"nothing is registered as {JOB}/7" in ran.err


async def test_bad_usage_and_nobody_there() -> None:
    cases = [
        (("ls", "--server", "nonsense"), 2, "'nonsense': write it as HOST:PORT"),
        (("ls", "/bns/US", "--server", "127.0.0.1:1", "--timeout", "0.3"), 1, "no control plane answered in 0.3 s"),
        (("register", "/bns/a/b/c", "127.0.0.1:80", "--server", "127.0.0.1:1", "--", "true"), 2, "/bns/a/b/c"),
        (("register", "/bns/a/b/c/0", "web.example:80", "--server", "127.0.0.1:1", "--", "true"), 2, "'web.example'"),
        (("register", "/bns/a/b/c/0", "127.0.0.1", "--server", "127.0.0.1:1", "--", "true"), 2, "HOST:PORT"),
        (("register", "/bns/a/b/c/0", "127.0.0.1:1", "--port", "x=y", "--server", "a:1", "--", "true"), 2, "'y'"),
        (("register", "/bns/a/b/c/0", "127.0.0.1:1", "--probe", "icmp", "--server", "a:1", "--", "true"), 2, "'icmp'"),
        (("register", "/bns/a/b/c/0", "127.0.0.1:1", "--server", "a:1", "--", "/no/such"), 127, "'/no/such'"),
        (("elect", "x", "--", "true"), 2, "use --etcd HOST:PORT or set BNS_ETCD"),
        (("elect", "X", "--etcd", "127.0.0.1:1", "--", "true"), 2, "'X'"),
        (("elect", "x", "--etcd", "127.0.0.1:1", "--", "true"), 1, "etcd at 127.0.0.1:1 cannot be used"),
        (("elect", "x", "--etcd", "127.0.0.1:1", "--", "/no/such"), 127, "'/no/such'"),
    ]
    ran = []
    for start in range(0, len(cases), 4):
        ran += await asyncio.gather(*(run(*arguments) for arguments, _, _ in cases[start : start + 4]))
    for (arguments, code, message), each in zip(cases, ran, strict=True):
        assert (each.code, each.out) == (code, ""), (arguments, each)
        assert message in each.err, (arguments, each)
        assert "Traceback" not in each.err


async def test_a_port_that_nobody_listens_on_fails_register_before_the_command(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    ran = await run(
        "register", f"{JOB}/0", "127.0.0.1:80", "--server", "127.0.0.1:1", "--timeout", "0.5", "--", "touch", str(mark)
    )
    assert ran.code == 1
    assert "no control plane answered in 0.5 s" in ran.err
    assert not mark.exists()


async def test_watch(etcd_client: Client) -> None:
    async with replica(etcd_client) as one, Registration(one.address, identity()) as agent:
        await agent.register(task(f"{JOB}/0", 80))
        async with started("watch", "/bns/us-east1/", BNS_SERVER=one.address) as process:
            assert process.stdout is not None

            async def line() -> str:
                return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()

            assert (await line()).startswith("= 1 tasks at revision ")
            assert await line() == f"+ {JOB}/0 127.0.0.1:80 UNKNOWN"
            one.set_health(f"{JOB}/0", HealthStatus.DRAINING)
            assert await line() == f"+ {JOB}/0 127.0.0.1:80 DRAINING"
            await agent.deregister(f"{JOB}/0")
            assert await line() == f"- {JOB}/0"
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 20) == 130


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "[::1]:8080"])
async def test_register_runs_the_command_under_the_name(etcd_client: Client, address: str, tmp_path: Path) -> None:
    mark = tmp_path / "ready"
    async with replica(etcd_client, address="[::1]:0" if "::" in address else "127.0.0.1:0") as one:
        code = (
            "import pathlib, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
            f"pathlib.Path({str(mark)!r}).touch(); signal.pause()"
        )
        arguments = ("register", f"{JOB}/0", address, "--port", "debug=9", "--metadata", "a=b")
        async with started(*arguments, "--server", one.address, "--", sys.executable, "-c", code) as process:
            await until(lambda: f"{JOB}/0" in one.store.view.tasks, what="the registration")
            found = one.store.view.tasks[f"{JOB}/0"]
            host = found.address if ":" not in found.address else f"[{found.address}]"
            assert f"{host}:{found.port}" == address
            assert (found.named_ports, found.metadata, found.pid) == ({"debug": 9}, {"a": "b"}, process.pid)
            assert found.agent.startswith("register-")
            await until(mark.exists, what="the command")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 20) == 7
        await until(lambda: not one.store.view.tasks and not one.store.view.agents, what="the deregistration")


async def test_register_through_the_agent(tmp_path: Path) -> None:
    agent, path = Agent(), tmp_path / "agent.sock"
    with running(agent, path):
        arguments = ("register", f"{JOB}/0", "127.0.0.1:80", "--probe", "http:/healthz", "--cpu-cores", "2")
        ran = await run(*arguments, "--", "sh", "-c", "exit 9", BNS_AGENT=str(path))
        assert (ran.code, ran.out, ran.err) == (9, "", "")
        told = agent.heard[0].task
        assert (told.name, told.port, told.cpu_cores, told.probe.path) == (f"{JOB}/0", 80, 2.0, "/healthz")
        assert agent.kinds()[-1] == "detach"
        agent.refusal = "task is held by agent 'node-9'"
        ran = await run("register", f"{JOB}/0", "127.0.0.1:80", "--agent", str(path), "--", "sh", "-c", "exit 9")
        assert ran.code == 1
        assert "node-9" in ran.err


async def test_register_refuses_a_name_that_is_taken(etcd_client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with two_tasks(etcd_client) as one:
        ran = await run("register", f"{JOB}/0", "127.0.0.1:1", "--server", one.address, "--", "touch", str(mark))
        assert ran.code == 1
        assert "held by agent 'node-1', which is alive" in ran.err
        assert not mark.exists()
        ran = await run("register", f"{JOB}/5", "127.0.0.1:1", "--server", one.address, "--", "sh", "-c", "kill -9 $$")
        assert ran.code == 128 + 9


async def test_the_command_dies_with_bns_register_and_the_name_stays(etcd_client: Client) -> None:
    async with replica(etcd_client) as one:
        async with started("register", f"{JOB}/0", "127.0.0.1:1", "--server", one.address, "--", *SLEEP) as process:
            await until(lambda: psutil.Process(process.pid).children(), what="the command")
            (child,) = psutil.Process(process.pid).children()
            process.kill()
            await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, what="its end")
        assert f"{JOB}/0" in one.store.view.tasks


class Candidate:
    """A `bns elect` whose command writes its token to a file and sleeps."""

    def __init__(self, etcd: EmbeddedEtcd, folder: Path, name: str, ttl_s: int = 2) -> None:
        self.path = folder / name
        code = (
            "import os, pathlib, time;"
            f"pathlib.Path({str(self.path)!r}).write_text(os.environ['BNS_FENCING_TOKEN'] + ' ' + str(os.getpid()));"
            "time.sleep(60)"
        )
        self.arguments: Sequence[str] = (
            *("elect", "demo/leader", "--etcd", etcd.address, "--ttl", str(ttl_s), "--grace", "1"),
            *("--", sys.executable, "-c", code),
        )

    def leading(self) -> tuple[int, int] | None:
        """(token, pid of the command) once it runs."""
        try:
            token, pid = self.path.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(token), int(pid)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_one_of_two_runs_the_command_and_the_other_takes_over(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    one, two = Candidate(etcd, tmp_path, "one"), Candidate(etcd, tmp_path, "two")
    async with started(*one.arguments) as first, started(*two.arguments) as second:
        await until(lambda: one.leading() or two.leading(), what="a leader")
        await asyncio.sleep(1)
        assert (one.leading() is None) != (two.leading() is None), "exactly one"
        leader, follower, process = (one, two, first) if one.leading() else (two, one, second)
        assert leader.leading() is not None
        token, pid = leader.leading() or (0, 0)
        process.kill()
        await until(follower.leading, what="the take-over")
        assert (follower.leading() or (0, 0))[0] > token
        assert gone(pid)


async def test_when_the_command_ends_the_next_one_leads_at_once(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    waiting = Candidate(etcd, tmp_path, "waiting", ttl_s=60)
    short = ("elect", "demo/leader", "--etcd", etcd.address, "--ttl", "60", "--", "sh", "-c", "sleep 3; exit 5")
    async with started(*short) as process:
        assert process.stderr is not None
        assert b"leading with fencing token" in await asyncio.wait_for(process.stderr.readline(), 20)
        async with started(*waiting.arguments):
            assert await asyncio.wait_for(process.wait(), 20) == 5
            await until(waiting.leading, 20, what="the next leader, long before the lease lapses")


async def test_lost_leadership_ends_the_command_and_it_stands_again(
    etcd: EmbeddedEtcd, etcd_client: Client, tmp_path: Path
) -> None:
    one = Candidate(etcd, tmp_path, "one")
    async with started(*one.arguments) as process:
        await until(one.leading, what="a leader")
        token, pid = one.leading() or (0, 0)
        one.path.unlink()
        assert await etcd_client.delete(b"/bns-elect/", b"/bns-elect0") == 1
        await until(lambda: gone(pid), what="the end of the command")
        await until(one.leading, what="the next term")
        next_token, pid = one.leading() or (0, 0)
        assert next_token > token
        one.path.unlink()
        etcd.pause()
        try:
            await until(lambda: gone(pid), what="the end of the command while etcd is away")
        finally:
            etcd.resume()
        await until(one.leading, 30, what="the third term")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 128 + signal.SIGTERM


async def test_completion_asks_the_server(etcd_client: Client) -> None:
    async with two_tasks(etcd_client) as one:
        ran = await run(
            BNS_SERVER=one.address, _BNS_COMPLETE="bash_complete", COMP_WORDS=f"bns resolve {JOB}/", COMP_CWORD="2"
        )
        assert [line.partition(",")[2] for line in ran.out.splitlines()] == [f"{JOB}/0", f"{JOB}/1"]
