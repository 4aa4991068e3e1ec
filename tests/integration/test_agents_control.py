"""Several control replicas: one session, a report stream to each, and no replica that can hold up another."""

import asyncio
import socket
import time
from pathlib import Path

from agents.node import Settings
from bns.v1 import bns_pb2
from tests.support.control_recorder import ControlRecorder, Shared, eventually
from tests.support.node_agent import Attached, running, server

NAME = "/bns/dc1/shop/web/0"
HEALTHY, UNHEALTHY = 1, 2


def agent_of(tmp_path: Path, *addresses: str, **more) -> Settings:
    return Settings("agent-1", "dc1", list(addresses), tmp_path / "a.sock", "machine-1", period_s=1.0, **more)


async def replicas(count: int) -> list[ControlRecorder]:
    shared = Shared()
    return [await ControlRecorder(shared).start() for _ in range(count)]


async def test_one_session_and_reports_to_all(tmp_path: Path) -> None:
    controls = await replicas(3)
    with server() as process:
        async with running(agent_of(tmp_path, *(c.address for c in controls))):
            task = await Attached(tmp_path / "a.sock").task(NAME, process.port, process.pid)
            await eventually(lambda: all(c.health_of(NAME) == HEALTHY for c in controls))
            assert sum(c.live_sessions for c in controls) == 1
            assert sum(len(c.registered) for c in controls) == 1
            for control in controls:
                first = control.reports[0].report
                assert not first.partial  # whoever answers gets everything at once
                assert (first.agent, first.datacenter, first.period_s) == ("agent-1", "dc1", 1.0)
                seqs = [arrived.report.seq for arrived in control.reports]
                assert seqs == sorted(set(seqs))
            await task.close()
    assert sum(c.goodbyes for c in controls) == 1
    for control in controls:
        await control.stop()


async def test_the_session_moves_on_when_its_replica_dies(tmp_path: Path) -> None:
    controls = await replicas(2)
    with server() as process:
        async with running(agent_of(tmp_path, *(c.address for c in controls))) as agent:
            task = await Attached(tmp_path / "a.sock").task(NAME, process.port, process.pid)
            await eventually(lambda: task.last.registered)
            holder = next(c for c in controls if c.live_sessions)
            other = next(c for c in controls if c is not holder)
            await holder.stop()
            await eventually(lambda: other.live_sessions == 1)
            assert other.hellos[-1].session_id == holder.hellos[-1].session_id
            assert other.registered == []  # BNS holds it already, as the welcome says
            reports = len(other.reports)
            await eventually(lambda: len(other.reports) > reports + 1)

            # What is asked for while no replica is there is done when one is back.
            await other.stop()
            await eventually(lambda: agent.session.replica is None)
            await task.send(detach=True)
            await eventually(lambda: task.code is not None)
            assert "no control-plane replica answered yet" in task.last.error
            back = await ControlRecorder(holder.shared, holder.address).start()
            await eventually(lambda: NAME not in back.shared.records)
            await eventually(lambda: back.reports)
            assert not back.reports[0].report.partial
            await task.close()
    await back.stop()


async def test_dead_hung_and_slow_replicas_hold_nobody_up(tmp_path: Path) -> None:
    """One address where nobody listens, one that accepts and never speaks, one whose replica never acknowledges."""
    good, mute = await replicas(2)
    mute.acks_reports = mute.welcomes = False
    dead = socket.create_server(("127.0.0.1", 0))
    nobody = f"127.0.0.1:{dead.getsockname()[1]}"
    dead.close()
    hung = socket.create_server(("127.0.0.1", 0))
    addresses = [nobody, f"127.0.0.1:{hung.getsockname()[1]}", mute.address, good.address]
    with server() as process:
        async with running(agent_of(tmp_path, *addresses)):
            task = await Attached(tmp_path / "a.sock").task(NAME, process.port, process.pid)
            await eventually(lambda: good.health_of(NAME) == HEALTHY)
            await eventually(lambda: task.last.registered, 30.0)
            killed_s = time.monotonic()
            process.kill()
            await eventually(lambda: good.health_of(NAME) == UNHEALTHY and mute.health_of(NAME) == UNHEALTHY)
            assert time.monotonic() - killed_s < 3.0
            await task.close()
    hung.close()
    for control in (good, mute):
        await control.stop()


async def test_a_restarted_agent_is_not_taken_for_a_replay(tmp_path: Path) -> None:
    (control,) = await replicas(1)
    for _ in range(3):
        async with running(agent_of(tmp_path, control.address)) as agent:
            reports = len(control.reports)
            await eventually(lambda reports=reports: len(control.reports) > reports + 1)
            await eventually(lambda agent=agent: agent.streams[0].acked_seq)
            assert agent.streams[0].refused == 0
    seqs = [arrived.report.seq for arrived in control.reports]
    assert seqs == sorted(set(seqs))
    assert len({arrived.report.boot_id for arrived in control.reports}) == 1
    await control.stop()


async def test_an_agent_that_comes_back_unsettles_nobody(tmp_path: Path) -> None:
    """Its first report has a verdict on what it adopted, however slow the probe; UNKNOWN is never reported."""
    (control,) = await replicas(1)
    open_now: set[asyncio.StreamWriter] = set()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        try:
            await reader.readline()
            await asyncio.sleep(0.7)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        finally:
            writer.close()
            open_now.discard(writer)

    listening = await asyncio.start_server(slow, "127.0.0.1", 0)
    record = bns_pb2.TaskRecord(
        name=NAME,
        address="127.0.0.1",
        port=listening.sockets[0].getsockname()[1],
        agent="agent-1",
        cpu_cores=1.0,
        probe=bns_pb2.ProbeSpec(kind=bns_pb2.PROBE_KIND_HTTP, timeout_s=3.0),
    )
    control.shared.records[NAME] = record
    async with running(agent_of(tmp_path, control.address)):
        await eventually(lambda: len(control.reports) >= 3)
    first = control.reports[0].report
    assert not first.partial
    assert dict(zip(first.task, first.health, strict=True)) == {NAME: HEALTHY}
    assert all(0 not in arrived.report.health for arrived in control.reports)
    assert control.registered == []  # as BNS has it, so it stays
    listening.close()
    await eventually(lambda: not open_now)
    await asyncio.sleep(0)
    await control.stop()


async def test_a_task_that_starts_is_not_reported_before_its_first_verdict(tmp_path: Path) -> None:
    (control,) = await replicas(1)
    async with running(agent_of(tmp_path, control.address)) as agent:
        await eventually(lambda: control.reports)
        with socket.create_server(("127.0.0.1", 0)) as bound:
            port = bound.getsockname()[1]
        task = await Attached(tmp_path / "a.sock").task(NAME, port, probe={"interval_s": 10.0, "fall": 100})
        await eventually(lambda: agent.keeper.get(NAME) is not None)
        reports = len(control.reports)
        await eventually(lambda: len(control.reports) > reports + 1)
        assert control.health_of(NAME) is None
        with server(port):
            # Probed often until the first verdict, whatever its interval; and one success is enough.
            await eventually(lambda: control.health_of(NAME) == HEALTHY, 5.0)
        await task.close()
    await control.stop()


async def test_a_refused_hello_is_no_reason_to_give_up(tmp_path: Path) -> None:
    controls = await replicas(2)
    controls[0].welcomes = False
    async with running(agent_of(tmp_path, *(c.address for c in controls))) as agent:
        await eventually(lambda: agent.session.replica == controls[1].address, 15.0)
    for control in controls:
        await control.stop()


async def test_two_datacenters_witness_each_other(tmp_path: Path) -> None:
    (control,) = await replicas(1)
    other = "/bns/dc2/shop/web/0"
    near = agent_of(tmp_path, control.address)
    far = Settings("agent-2", "dc2", [control.address], tmp_path / "b.sock", "machine-2", period_s=1.0)
    with server() as here, server() as there:
        async with running(near) as agent, running(far):
            one = await Attached(near.socket).task(NAME, here.port, here.pid)
            two = await Attached(far.socket).task(other, there.port, there.pid)

            def seen(name: str, by: str, ok: bool) -> list[float]:
                return [
                    row.rtt_ms
                    for arrived in control.reports
                    for row in arrived.report.remote
                    if arrived.report.agent == by and row.task == name and row.ok is ok
                ]

            await eventually(lambda: seen(other, "agent-1", True) and seen(NAME, "agent-2", True), 20.0)
            assert all(0.0 < rtt < 1000.0 for rtt in seen(other, "agent-1", True))
            assert not seen(NAME, "agent-1", True)  # never one's own datacenter
            there.kill()
            await eventually(lambda: seen(other, "agent-1", False), 20.0)
            assert set(seen(other, "agent-1", False)) == {0.0}  # a failure has no round-trip time
            assert other in {row["task"] for row in agent.witness.status()}
            await one.close()
            await two.close()
        await asyncio.sleep(0)
    await control.stop()
