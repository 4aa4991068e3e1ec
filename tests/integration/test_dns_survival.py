"""What must not take answers away: a dead control plane, a restart, a bad snapshot, a bad start."""

import asyncio
import os
import signal
import stat
import sys
import time
from pathlib import Path

import dns.asyncquery
import dns.message
import grpc.aio
import pytest

from gslb.v1 import discovery_pb2, dns_pb2, dns_pb2_grpc
from gslb.wire.snapshot import from_bytes, to_bytes
from tests.support.dns import (
    ControlPlane,
    addresses_in,
    catalog,
    plan,
    reader_view,
    running,
    service,
    service_update,
    until,
    view_of,
)

WWW = "www.shakespeare.example"
TIMEOUT_S = 5.0


async def ask(address: str, name: str = WWW, rtype: str = "A") -> dns.message.Message:
    host, _, port = address.rpartition(":")
    return await dns.asyncquery.udp(dns.message.make_query(name, rtype), host, TIMEOUT_S, int(port))


async def test_a_dead_control_plane_changes_nothing(plane):
    async with running(plane.address) as made:
        await until(lambda: made.holder.connected and made.holder.held.serving.ready)
        before = addresses_in(await ask(made.addresses.dns[0]))
        await plane.stop()
        await until(lambda: not made.holder.connected)
        assert addresses_in(await ask(made.addresses.dns[0])) == before
        await until(lambda: made.holder.age_s > 0)


async def test_another_replica_takes_over(plane):
    other = ControlPlane()
    await other.start()
    other.serve(reader_view(view_of(planned=plan(version=9))))
    try:
        async with running(plane.address, other.address) as made:
            await until(lambda: made.holder.connected and made.holder.held.serving.ready)
            first, second = (plane, other) if made.subscriber.address == plane.address else (other, plane)
            await first.stop()
            await until(lambda: made.subscriber.address == second.address)
            assert (await ask(made.addresses.dns[0])).answer
            assert second.requests[0].all_services
            assert second.requests[0].catalog
            assert list(second.requests[0].services) == ["gfe"], "it asks about what it holds"
            # An older plan of a replica that lags is no step back.
            versions = [view.plan.stamp.version for view in made.holder.held.view.services.values()]
            assert versions == ([9] if first is other else [versions[0]])
    finally:
        await other.stop()


async def test_a_replica_that_stays_silent_is_left(plane, monkeypatch):
    monkeypatch.setattr("dns_frontend.subscriber.FIRST_UPDATE_S", 0.3)
    silent = ControlPlane()
    await silent.start()
    try:
        async with running(silent.address, plane.address) as made:
            await until(lambda: made.subscriber.address == plane.address)
    finally:
        await silent.stop()


async def test_a_restart_answers_from_disk_without_anybody(plane, tmp_path):
    path = tmp_path / "deep" / "dns.snapshot"
    async with running(plane.address, snapshot=path) as made:
        await until(lambda: made.holder.connected and made.holder.held.serving.ready)
        live = addresses_in(await ask(made.addresses.dns[0]))
        await until(path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name], "no temporary file is left"
    begin = time.monotonic()
    async with running(snapshot=path) as made:
        assert addresses_in(await ask(made.addresses.dns[0])) == live
        assert time.monotonic() - begin < 2.0
        assert (await ask(made.addresses.dns[0], "ns1.shakespeare.example")).answer
        async with grpc.aio.insecure_channel(made.addresses.grpc) as channel:
            found = await dns_pb2_grpc.DnsFrontendStub(channel).Explain(
                dns_pb2.ExplainDnsRequest(name=WWW, client_ip="10.0.0.1")
            )
        assert found.source == "snapshot"
        await until(lambda: made.holder.age_s > 0)


async def test_a_change_reaches_the_disk(plane, tmp_path):
    path = tmp_path / "dns.snapshot"
    async with running(plane.address, snapshot=path) as made:
        await until(path.exists)
        plane.push(service_update(view_of(planned=plan(version=7))))
        await until(lambda: made.holder.held.view.services["gfe"].plan.stamp.version == 7)
    view, problems = from_bytes(path.read_bytes())
    assert view.services["gfe"].plan.stamp.version == 7, "written at the latest when it ends"
    assert not problems


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "rubbish", "directory", "unsynced"])
async def test_a_bad_snapshot_is_refused_and_said(plane, tmp_path, caplog, damage):
    path = tmp_path / "dns.snapshot"
    good = bytearray(to_bytes(reader_view(view_of())))
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(good[: len(good) // 2])
        case "flipped":
            good[len(good) // 2] ^= 1
            path.write_bytes(good)
        case "rubbish":
            path.write_bytes(b"rubbish" * 1000)
        case "directory":
            path.mkdir()
        case "unsynced":
            from gslb.wire.reader import ReaderView

            path.write_bytes(to_bytes(ReaderView()))
    async with running(plane.address, snapshot=path) as made:
        await until(lambda: made.holder.connected and made.holder.held.serving.ready)
        assert (await ask(made.addresses.dns[0])).answer
    said = [record.message for record in caplog.records if "going on without it" in record.message]
    assert len(said) == 1
    assert str(path) in said[0]


async def test_a_snapshot_that_cannot_be_written_is_said_once(plane, tmp_path, caplog):
    path = tmp_path / "not-a-directory" / "dns.snapshot"
    path.parent.write_text("a file")
    async with running(plane.address, snapshot=path) as made:
        await until(lambda: made._writer.failures)
        assert (await ask(made.addresses.dns[0])).answer
    assert sum("cannot write snapshot" in record.message for record in caplog.records) == 1


async def test_services_deleted_while_we_were_away_go_within_the_budget(plane, tmp_path):
    path = tmp_path / "dns.snapshot"
    old = [view_of(service(f"s{n}.shakespeare.example", name=f"s{n}"), plan(name=f"s{n}")) for n in range(4)]
    path.write_bytes(to_bytes(reader_view(*old)))
    plane.first = [discovery_pb2.Update(replica="test", synced=True, unknown_services=["s3"])]
    async with running(plane.address, snapshot=path) as made:
        await until(lambda: set(made.holder.held.serving.services) == {"s0", "s1", "s2"})
        # A control plane that has lost most of the world is not believed.
        plane.push(discovery_pb2.Update(replica="test", synced=True, unknown_services=["s0", "s1"]))
        await until(lambda: made.counters.bad_updates)
        assert (await ask(made.addresses.dns[0], "s0.shakespeare.example")).answer


async def start(*arguments: str, expect: int) -> str:
    """Runs `gslb dns` to its end; what it said on stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gslb", "dns", *arguments, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == expect, err.decode()
    assert out == b"", "messages are not data"
    return err.decode()


async def test_a_port_in_use_is_one_clear_line(plane):
    async with running(plane.address) as made:
        taken = made.addresses.dns[0]
        for flag, address, fine in (
            ("--listen", taken, ()),
            ("--grpc", made.addresses.grpc, ("--listen", "127.0.0.1:0")),
            ("--http", made.addresses.http, ("--listen", "127.0.0.1:0")),
        ):
            said = await start(*fine, flag, address, "--control", plane.address, expect=1)
            line = next(line for line in said.splitlines() if line.startswith("Error: "))
            assert address in line
            assert "in use" in line.lower()
            assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "--control"),
        (("--control", "nowhere"), "nowhere"),
        (("--control", "127.0.0.1:1", "--name", "x" * 300), "--name"),
        (("--control", "127.0.0.1:1", "--snapshot", "/"), "--snapshot"),
    ],
)
async def test_bad_usage_is_exit_code_2(arguments, reason):
    assert reason in await start(*arguments, expect=2)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:99999", "192.0.2.1:0", "no such host:53"])
async def test_an_address_that_cannot_be_bound(address):
    said = await start("--control", "127.0.0.1:1", "--listen", address, expect=1)
    assert f"{address.rpartition(':')[0] or address}" in said
    assert "Traceback" not in said


async def wait_for_line(process: asyncio.subprocess.Process, part: str) -> str:
    assert process.stderr is not None
    while line := (await asyncio.wait_for(process.stderr.readline(), 20)).decode():
        if part in line:
            return line
    raise AssertionError(f"the process ended without saying {part!r}")


async def test_the_command_serves_and_ends_on_sigterm(plane, tmp_path):
    path: Path = tmp_path / "dns.snapshot"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gslb",
        "dns",
        *("--control", plane.address, "--listen", "127.0.0.1:0", "--snapshot", str(path), "--name", "dns-1"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        line = await wait_for_line(process, "DNS on ")
        address = line.partition("DNS on ")[2].partition(",")[0]
        await wait_for_line(process, "in step with")
        for _ in range(200):
            answer = await ask(address)
            if answer.answer:
                break
            await asyncio.sleep(0.02)
        assert addresses_in(answer)
        assert plane.requests[0].subscriber == "dns-1"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert from_bytes(path.read_bytes())[0].synced
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        assert process.stderr is not None
        await process.stderr.read()


async def test_kill_9_in_the_middle_of_writing_leaves_a_whole_snapshot(plane, tmp_path):
    path: Path = tmp_path / "dns.snapshot"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gslb",
        "dns",
        *("--control", plane.address, "--listen", "127.0.0.1:0", "--snapshot", str(path)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(path.exists)
        for version in range(2, 40):
            plane.push(service_update(view_of(planned=plan(version=version))))
            await asyncio.sleep(0.05)
    finally:
        process.kill()
        await process.wait()
    view, problems = from_bytes(path.read_bytes())
    assert view.synced
    assert not problems
    assert view.services["gfe"].plan.stamp.version >= 1
    async with running(snapshot=path) as made:
        assert (await ask(made.addresses.dns[0])).answer


async def test_a_zone_and_catalog_survive_in_the_snapshot(plane, tmp_path):
    path = tmp_path / "dns.snapshot"
    path.write_bytes(to_bytes(reader_view(view_of(), known=catalog())))
    async with running(snapshot=path) as made:
        assert made.holder.held.view.catalog == catalog()
