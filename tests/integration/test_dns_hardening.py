"""A whole process that leaves root, and plans that a frontend does not believe."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import dns.asyncquery
import dns.message
import psutil
import pytest

from gslb.v1 import discovery_pb2
from gslb.wire.codec import encode_plan
from tests.support.dns import addresses_in, plan, running, until

WWW = "www.shakespeare.example"
ZONE = "@ 300 IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ 300 IN NS ns1\nns1 300 IN A 192.0.2.1\n"


async def run(tmp_path: Path, *arguments: str) -> asyncio.subprocess.Process:
    zone = tmp_path / "zone"
    zone.write_text(ZONE)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gslb", "dns", "--listen", "127.0.0.1:0", "--zone", f"shop.example={zone}", *arguments,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def port_of(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    line = ""
    while "DNS on " not in line:
        line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        assert line
    return int(line.partition("DNS on ")[2].partition(",")[0].rpartition(":")[2])


@pytest.mark.parametrize("threads", ["0", "2"])
async def test_every_query_is_written_down_if_that_is_wanted(tmp_path, threads):
    log = tmp_path / "queries.log"
    process = await run(
        tmp_path, "--query-log", str(log), "--query-log-every", "1", "--threads", threads, "--processes", "1"
    )
    try:
        port = await port_of(process)
        asked = [("ns1.shop.example", "A"), ("shop.example", "SOA"), ("none.shop.example", "A"), ("other.example", "A")]
        for name, rtype in asked:
            await dns.asyncquery.udp(dns.message.make_query(name, rtype), "127.0.0.1", 30, port)
        await dns.asyncquery.tcp(dns.message.make_query("ns1.shop.example", "A"), "127.0.0.1", 30, port)
        await until(lambda: log.exists() and len(log.read_text().splitlines()) == 5)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [(line["name"], line["type"], line["rcode"], line["transport"]) for line in lines] == [
            ("ns1.shop.example.", "A", "NOERROR", "udp"), ("shop.example.", "SOA", "NOERROR", "udp"),
            ("none.shop.example.", "A", "NXDOMAIN", "udp"), ("other.example.", "A", "REFUSED", "udp"),
            ("ns1.shop.example.", "A", "NOERROR", "tcp"),
        ]  # fmt: skip
        assert {line["client"] for line in lines} == {"127.0.0.1"}
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_every_thread_leaves_root(tmp_path):
    process = await run(tmp_path, "--user", "nobody")
    try:
        port = await port_of(process)
        answer = await dns.asyncquery.udp(dns.message.make_query("ns1.shop.example", "A"), "127.0.0.1", 30, port)
        assert addresses_in(answer)
        nobody = psutil.Process(process.pid)
        assert set(nobody.uids()) == set(nobody.gids()) == {65534}
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            status = (thread / "status").read_text()
            assert "Uid:\t65534\t65534\t65534\t65534" in status
            assert "CapEff:\t0000000000000000" in status
            assert "Groups:\t \n" in status
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--user", "no-such-user-here"), "--user 'no-such-user-here': this machine has no such user"),
        (("--group", "nogroup"), "--group 'nogroup' without --user"),
        (("--cookie-secret", "/nowhere/at/all"), "cookie secrets /nowhere/at/all: cannot be read"),
        (("--rrl-exempt", "10.0.0.1/8"), "--rrl-exempt: "),
        (("--nsid", "x" * 65), "--nsid is longer than 64 octets"),
        (("--query-log", "/nowhere/at/all"), "cannot write the query log /nowhere/at/all: No such file or directory"),
        (("--geo", "/nowhere/at/all"), "geo database /nowhere/at/all: cannot be read"),
    ],
)
async def test_bad_options_are_one_clear_line(tmp_path, arguments, says):
    process = await run(tmp_path, *arguments)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode in {1, 2}
    assert says in said.decode()
    assert "Traceback" not in said.decode()


def changed(version: int, change) -> discovery_pb2.Update:
    made = encode_plan(plan({"na": {"asia-east1": 1.0}, "eu": {"asia-east1": 1.0}}, version=version))
    change(made)
    return discovery_pb2.Update(
        replica="test", synced=True, services=[discovery_pb2.ServiceUpdate(service="gfe", plan=made)]
    )


async def test_a_plan_that_cannot_be_is_refused_and_the_last_good_stays(plane):
    def emptied(made) -> None:
        del made.localities[:]

    def cut(made) -> None:
        del made.localities[-1:]  # as if octets were missing: the checksum is of the whole

    def overfull(made) -> None:
        made.localities[0].share[0] = 2.0

    async with running(plane.address) as made:
        await until(lambda: made.holder.connected and made.holder.held.serving.ready)
        host, _, port = made.addresses.dns[0].rpartition(":")
        query = dns.message.make_query(WWW, "A")
        before = addresses_in(await dns.asyncquery.udp(query, host, 30, int(port)))
        for number, change in enumerate((emptied, cut, overfull), 1):
            plane.push(changed(10 + number, change))
            await until(lambda number=number: made.counters.bad_updates == number)
            assert made.holder.held.view.services["gfe"].plan.stamp.version == 1
        assert addresses_in(await dns.asyncquery.udp(query, host, 30, int(port))) == before
        plane.push(changed(20, lambda made: None))
        await until(lambda: made.holder.held.view.services["gfe"].plan.stamp.version == 20)
