"""A frontend that serves from files: alone, beside a control plane, read anew while it answers, and handed on whole."""

import asyncio
import ipaddress
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dns.asyncquery
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.xfr
import dns.zone
import grpc.aio
import pytest

from bns.etcd.embedded import free_port
from bns.spawn import dies_with_us
from dns_frontend.errors import FrontendError
from dns_frontend.local import Files
from gslb.v1 import dns_pb2, dns_pb2_grpc
from tests.support.corpus import zone_files
from tests.support.dns import (
    ControlPlane,
    addresses_in,
    catalog,
    data_plane_or_skip,
    reader_view,
    running,
    until,
    view_of,
)

TIMEOUT_S = 10.0
HEAD = "$TTL 300\n@ SOA ns1 host {} 3600 600 604800 60\n@ NS ns1\nns1 A 127.0.0.1\n"


def where(frontend) -> tuple[str, int]:
    host, _, port = frontend.addresses.dns[0].rpartition(":")
    return host, int(port)


async def ask(frontend, name, rtype="A", **more) -> dns.message.Message:
    host, port = where(frontend)
    return await dns.asyncquery.udp(dns.message.make_query(name, rtype, **more), host, TIMEOUT_S, port)


def zone_file(directory: Path, serial: int, more: str = "") -> Path:
    path = directory / "z.test.zone"
    path.write_text(HEAD.format(serial) + more)
    return path


async def serial(frontend) -> int:
    return (await ask(frontend, "z.test", "SOA")).answer[0][0].serial


async def test_zones_from_files_without_a_control_plane(tmp_path):
    files = Files(tuple(zone_files().items()))
    async with running(alone=True, files=files) as frontend:
        message = await ask(frontend, "_sip._tcp.rich.example", "SRV")
        assert len(message.answer[0]) == 2
        assert {str(rrset.name) for rrset in message.additional} == {"big.sip.rich.example.", "small.sip.rich.example."}
        assert (await ask(frontend, "elsewhere.test")).rcode() == dns.rcode.REFUSED


async def test_a_bad_file_ends_the_start_with_every_mistake(tmp_path):
    bad = tmp_path / "bad"
    bad.write_text(HEAD.format(1) + "x A 1.2.3\n")
    files = Files((("a.test", bad), ("b.test", tmp_path / "none"), ("b..test", bad)))
    with pytest.raises(FrontendError) as caught:
        async with running(alone=True, files=files):
            pass
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{bad}:5: ")
    assert "No such file" in lines[1]


@pytest.mark.parametrize("threads", [0, 1], ids=["python", "data plane"])
async def test_files_are_read_anew_and_what_is_bad_stays(tmp_path, threads):
    if threads:
        data_plane_or_skip()
    path = zone_file(tmp_path, 1)
    async with (
        running(alone=True, files=Files((("z.test", path),)), threads=threads) as frontend,
        grpc.aio.insecure_channel(frontend.addresses.grpc) as channel,
    ):
        stub = dns_pb2_grpc.DnsFrontendStub(channel)
        zone_file(tmp_path, 2, "new A 127.0.0.9\n")
        reply = await stub.Reload(dns_pb2.ReloadRequest())
        assert [(zone.origin, zone.serial, zone.names) for zone in reply.zones] == [("z.test.", 2, 3)]
        assert not reply.problems
        assert await serial(frontend) == 2, "what the answer says is served when it comes"
        assert addresses_in(await ask(frontend, "new.z.test")) == {"127.0.0.9"}
        zone_file(tmp_path, 3, "new A 127.0.0\n")
        reply = await stub.Reload(dns_pb2.ReloadRequest())
        assert [zone.serial for zone in reply.zones] == [2]
        assert len(reply.problems) == 1
        assert reply.problems[0].startswith(f"{path}:5: ")
        assert addresses_in(await ask(frontend, "new.z.test")) == {"127.0.0.9"}
        zone_file(tmp_path, 4)
        assert not (await stub.Reload(dns_pb2.ReloadRequest())).problems
        assert (await ask(frontend, "new.z.test")).rcode() == dns.rcode.NXDOMAIN


async def test_no_query_is_lost_while_files_are_read(tmp_path):
    more = "".join(f"h{number} A 127.0.0.{number % 250}\n" for number in range(3000))
    path = zone_file(tmp_path, 1, more)
    async with running(alone=True, files=Files((("z.test", path),))) as frontend:
        seen: list[int] = []
        stop = asyncio.Event()

        async def keep_asking() -> None:
            while not stop.is_set():
                seen.append(await serial(frontend))

        asking = asyncio.create_task(keep_asking())
        for number in (2, 3, 4):
            zone_file(tmp_path, number, more)
            await frontend.reload()
        stop.set()
        await asking
        assert seen == sorted(seen)
        assert set(seen) >= {1, 2, 3} or len(seen) > 3, seen


async def test_a_file_goes_before_the_catalogs_zone(tmp_path):
    plane = ControlPlane()
    await plane.start()
    plane.serve(
        reader_view(view_of(), known=catalog({"z.test": HEAD.format(7), "shakespeare.example": HEAD.format(8)}))
    )
    try:
        async with running(plane.address, files=Files((("Z.Test", zone_file(tmp_path, 100)),))) as frontend:
            await until(lambda: frontend.holder.held.serving.ready)
            assert await serial(frontend) == 100
            assert (await ask(frontend, "shakespeare.example", "SOA")).answer[0][0].serial == 8
            assert addresses_in(await ask(frontend, "www.shakespeare.example"))
            assert any("from this machine's file" in line for line in frontend.holder.held.serving.problems)
            zone_file(tmp_path, 101)
            await frontend.reload()
            assert await serial(frontend) == 101
    finally:
        await plane.stop()


CONFIG = """
zones: {z.test: z.test.zone}
datacenters:
  us-east1: {latitude: 33.2, longitude: -80.0}
  europe-west1: {latitude: 50.4, longitude: 3.8}
areas:
  na: {latitude: 40.0, longitude: -95.0, cidrs: [127.0.0.0/8]}
  eu: {latitude: 50.0, longitude: 10.0, cidrs: [11.0.0.0/8]}
services:
  www:
    dns_names: [www.z.test]
    ttl_s: 20
    addresses:
      us-east1: [192.0.2.1, 192.0.2.2, "2001:db8::1"]
      europe-west1: [198.51.100.1]
"""


async def test_services_from_one_file(tmp_path):
    zone_file(tmp_path, 1, "www TXT also\n")
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    async with running(alone=True, files=Files(config=config)) as frontend:
        near = await ask(frontend, "www.z.test")
        assert addresses_in(near) == {"192.0.2.1", "192.0.2.2"}
        assert near.answer[0].ttl == 20
        far = await ask(frontend, "www.z.test", options=[dns.edns.ECSOption("11.1.2.0", 24)])
        assert addresses_in(far) == {"198.51.100.1"}
        assert (await ask(frontend, "www.z.test", "TXT")).answer
        assert frontend._status()["control plane"] == "none: this machine's files say everything"
        config.write_text(CONFIG.replace("198.51.100.1", "198.51.100.9") + "  bad: {}\n")
        local = await frontend.reload()
        assert local.problems == (
            f"{config}:16: services.bad.addresses: missing: give a list of addresses for each datacenter",
        )
        config.write_text(CONFIG.replace("192.0.2.1, ", ""))
        await frontend.reload()
        assert addresses_in(await ask(frontend, "www.z.test")) == {"192.0.2.2"}


async def test_transfers_for_those_who_may_have_them(tmp_path):
    files = Files(tuple(zone_files().items()))
    allowed = (ipaddress.ip_network("127.0.0.0/8"),)
    async with running(alone=True, files=files, transfer=allowed) as frontend:
        host, port = where(frontend)

        def fetch() -> dns.zone.Zone:
            made = dns.zone.Zone("rich.example")
            dns.query.inbound_xfr(host, made, port=port, timeout=TIMEOUT_S)
            return made

        made = await asyncio.to_thread(fetch)
        assert made.find_rdataset("mail", "A")[0].address == "192.0.2.3"
        assert made.find_rdataset("hidden.sub", "TXT"), "what a delegation hides is part of the zone"
        assert len(made.find_rdataset("huge", "TXT")) == 7
        # IXFR: the whole zone for who is behind, the SOA alone for who is not; over UDP nothing.
        query, _ = dns.xfr.make_query(made, serial=1)
        assert len((await dns.asyncquery.tcp(query, host, TIMEOUT_S, port, one_rr_per_rrset=True)).answer) > 50
        query, _ = dns.xfr.make_query(made)
        assert [rrset.rdtype for rrset in (await dns.asyncquery.tcp(query, host, TIMEOUT_S, port)).answer] == [6]
        assert (await ask(frontend, "rich.example", "AXFR")).rcode() == dns.rcode.REFUSED
        assert frontend.counters.transfers == 2
    async with running(alone=True, files=files, transfer=(ipaddress.ip_network("10.0.0.0/8"),)) as frontend:
        host, port = where(frontend)
        refused = await dns.asyncquery.tcp(dns.message.make_query("rich.example", "AXFR"), host, TIMEOUT_S, port)
        assert refused.rcode() == dns.rcode.REFUSED


def test_the_command_reads_its_files_again_on_sighup(tmp_path):
    path = zone_file(tmp_path, 1)
    port = free_port()
    command = [sys.executable, "-m", "gslb", "dns", "--listen", f"127.0.0.1:{port}", "--zone", f"z.test={path}"]
    environment = {name: value for name, value in os.environ.items() if name != "GSLB_CONTROL"}
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(dies_with_us(command), stderr=log, env=environment)
    try:
        until_serial(port, 1)
        zone_file(tmp_path, 2)
        process.send_signal(signal.SIGHUP)
        until_serial(port, 2)
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
        log.close()


def until_serial(port: int, wanted: int) -> None:
    deadline_s = time.monotonic() + 30.0
    while True:
        try:
            message = dns.query.udp(dns.message.make_query("z.test", "SOA"), "127.0.0.1", 1.0, port)
            if message.answer and message.answer[0][0].serial == wanted:
                return
        except (dns.exception.Timeout, OSError):
            pass
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
