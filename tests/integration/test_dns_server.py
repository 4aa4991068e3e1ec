"""A whole frontend on real sockets, fed by a real Discovery stream, asked by dig and dnspython."""

import asyncio
import contextlib
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import grpc.aio
import pytest

from bns.model import HealthStatus
from dns_frontend import limits as dns_limits
from dns_frontend import tcp
from gslb.v1 import dns_pb2, dns_pb2_grpc
from tests.support.dns import (
    NEAREST,
    ControlPlane,
    addresses_in,
    catalog,
    catalog_update,
    data_plane_or_skip,
    endpoints,
    plan,
    reader_view,
    running,
    service,
    service_update,
    subnet_of,
    until,
    view_of,
)

WWW = "www.shakespeare.example"
TIMEOUT_S = 5.0


@pytest.fixture(params=[0, 2], ids=["python", "rust"])
async def frontend(plane, request):
    """Everything is asked of both responders."""
    if request.param:
        data_plane_or_skip()
    async with running(plane.address, threads=request.param) as made:
        await until(lambda: made.holder.connected and made.holder.held.serving.ready)
        yield made


def where(frontend, index=0) -> tuple[str, int]:
    host, _, port = frontend.addresses.dns[index].rpartition(":")
    return host.strip("[]"), int(port)


async def udp(frontend, name, rtype="A", subnet=None, index=0):
    options = [dns.edns.ECSOption(*subnet)] if subnet else None
    query = dns.message.make_query(name, rtype, use_edns=0 if subnet else None, options=options)
    host, port = where(frontend, index)
    return await dns.asyncquery.udp(query, host, TIMEOUT_S, port)


async def over_tcp(frontend, name, rtype="A"):
    host, port = where(frontend)
    return await dns.asyncquery.tcp(dns.message.make_query(name, rtype), host, TIMEOUT_S, port)


async def dig(frontend, *arguments) -> str:
    program = shutil.which("dig")
    if program is None:
        pytest.skip("dig is not installed")
    host, port = where(frontend)
    command = [program, f"@{host}", "-p", str(port), "+tries=1", "+time=5", "+norec", *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout, done.stdout
    return done.stdout


async def test_answers_over_both_transports(frontend):
    by_udp = await udp(frontend, WWW, subnet=("11.1.2.0", 24))
    assert addresses_in(by_udp) == {"127.2.0.1", "127.2.0.2"}
    assert subnet_of(by_udp).scopelen == 8
    assert (await over_tcp(frontend, "ns1.shakespeare.example")).answer


async def test_dig_of_every_kind(frontend):
    assert set((await dig(frontend, "+short", "+subnet=11.0.0.0/24", WWW)).split()) == {"127.2.0.1", "127.2.0.2"}
    full = await dig(frontend, "+subnet=10.0.0.0/8", WWW)
    assert "status: NOERROR" in full
    assert "flags: qr aa;" in full
    assert "CLIENT-SUBNET: 10.0.0.0/8/9" in full
    assert (await dig(frontend, "+short", "shakespeare.example", "NS")).split() == [
        "ns1.shakespeare.example.",
        "ns2.shakespeare.example.",
    ]
    assert "status: NXDOMAIN" in await dig(frontend, "nope.shakespeare.example")
    assert "status: REFUSED" in await dig(frontend, "example.com")
    assert "status: BADVERS" in await dig(frontend, "+edns=7", "+noednsnegotiation", WWW)
    assert "CLIENT-SUBNET: 0.0.0.0/0/0" in await dig(frontend, "+subnet=0", WWW)
    assert "status: NOTIMP" in await dig(frontend, "+opcode=NOTIFY", "+noedns", WWW)
    assert "status: FORMERR" in await dig(frontend, "+header-only", "+noedns", WWW)
    assert "RFC8482" in await dig(frontend, WWW, "ANY")


async def test_dig_comes_back_over_tcp_when_truncated(frontend):
    assert len((await dig(frontend, "+short", "huge.shakespeare.example", "TXT")).splitlines()) == 7
    assert "status: NOERROR" in await dig(frontend, "+tcp", WWW)


async def test_an_update_changes_the_next_answer(plane, frontend):
    members = endpoints({"us-east1": 2}, health=HealthStatus.DRAINING) | endpoints({"europe-west1": 2})
    plane.push(service_update(view_of(members=members)))

    async def moved():
        return addresses_in(await udp(frontend, WWW, subnet=("10.1.2.0", 24)))

    begin = time.monotonic()
    while await moved() != {"127.2.0.1", "127.2.0.2"}:
        assert time.monotonic() - begin < TIMEOUT_S
        await asyncio.sleep(0.02)


async def test_a_plan_only_advances(plane, frontend):
    plane.push(service_update(view_of(planned=plan({**NEAREST, "na": {"asia-east1": 1.0}}, version=5))))
    await until(lambda: frontend.holder.held.view.services["gfe"].plan.stamp.version == 5)
    plane.push(service_update(view_of(planned=plan({**NEAREST, "na": {"europe-west1": 1.0}}, version=4))))
    await until(lambda: frontend.counters.bad_updates)
    assert addresses_in(await udp(frontend, WWW, subnet=("10.1.2.0", 24))) == {"127.3.0.1", "127.3.0.2"}


async def test_a_bad_zone_is_quarantined_and_logged_once(plane, frontend, caplog):
    for _ in range(3):
        plane.push(catalog_update(catalog({"shakespeare.example": "ns1 A 999.1.1.1"})))
        await until(lambda: frontend.holder.held.serving.problems)
    assert frontend.counters.zone_problems == 1
    assert sum("is refused" in record.message for record in caplog.records) == 1
    assert (await udp(frontend, "ns1.shakespeare.example")).answer, "the old zone stays"
    plane.push(catalog_update(catalog({"shakespeare.example": "$TTL 9\n@ SOA a b 1 2 3 4 5\n@ NS a\nnew A 1.2.3.4\n"})))
    await until(lambda: not frontend.holder.held.serving.problems)
    assert (await udp(frontend, "new.shakespeare.example")).answer


async def test_pipelined_queries_on_one_connection(frontend):
    reader, writer = await asyncio.open_connection(*where(frontend))
    queries = [dns.message.make_query(f"h{n}.wild.shakespeare.example", "A", id=n) for n in range(500)]
    wires = [query.to_wire() for query in queries]
    writer.write(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))
    writer.write_eof()
    got = {}
    while head := await asyncio.wait_for(reader.read(2), TIMEOUT_S):
        (size,) = struct.unpack("!H", head)
        message = dns.message.from_wire(await reader.readexactly(size))
        got[message.id] = message
    assert set(got) == set(range(500))
    assert all(query.is_response(got[query.id]) for query in queries)
    writer.close()


async def test_a_message_in_pieces_is_one_message(frontend):
    reader, writer = await asyncio.open_connection(*where(frontend))
    wire = dns.message.make_query(WWW, "A").to_wire()
    for octet in struct.pack("!H", len(wire)) + wire:
        writer.write(bytes((octet,)))
        await writer.drain()
    (size,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), TIMEOUT_S))
    assert dns.message.from_wire(await reader.readexactly(size)).answer
    writer.close()


async def test_slow_connections_are_closed(frontend, monkeypatch):
    monkeypatch.setattr(tcp, "TCP_FIRST_S", 0.2)
    monkeypatch.setattr(tcp, "TCP_MESSAGE_S", 0.2)
    for sent in (b"", b"\x00", b"\x00\x40", b"\x00\x40abc"):
        reader, writer = await asyncio.open_connection(*where(frontend))
        writer.write(sent)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), TIMEOUT_S)
        writer.close()
    await until(lambda: frontend._tcp.connections == 0)


async def test_one_prefix_cannot_take_all_connections(frontend, monkeypatch):
    monkeypatch.setattr(tcp, "TCP_CONNECTIONS_PER_PREFIX", 5)
    held = [await asyncio.open_connection(*where(frontend)) for _ in range(5)]
    await until(lambda: frontend._tcp.connections == 5)

    async def heard():  # no connection, or one that is cut
        reader, _ = await asyncio.open_connection(*where(frontend))
        await asyncio.wait_for(reader.readexactly(1), TIMEOUT_S)

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await heard()
    assert frontend.counters.tcp_refused == 1
    for _, other in held:
        other.close()
    await until(lambda: not frontend._tcp._per_prefix)


async def test_the_kernel_queues_as_many_connections_as_we_say(frontend):
    """A queue that is full loses SYNs, and those come again after a second, then three."""
    told = frontend._tcp._listening[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (room,) = struct.unpack_from("=I", told, 28)  # tcpi_sacked, which is that of a listening socket
    assert room == min(dns_limits.TCP_BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text()))


async def test_a_client_that_takes_no_answers_is_closed(frontend, monkeypatch):
    """Pipelined questions whose answers nobody reads: memory is bounded, and so is the time."""
    monkeypatch.setattr(tcp, "TCP_MESSAGE_S", 0.5)
    made = socket.create_connection(where(frontend))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    wire = dns.message.make_query("huge.shakespeare.example", "TXT").to_wire()
    packed = (struct.pack("!H", len(wire)) + wire) * 1000

    async def pushed():
        while True:
            with contextlib.suppress(BlockingIOError):
                made.send(packed)
            await asyncio.sleep(0.01)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await asyncio.wait_for(pushed(), TIMEOUT_S)
    made.close()
    await until(lambda: frontend._tcp.connections == 0)
    assert (await over_tcp(frontend, WWW)).answer


async def test_long_messages_that_never_end_cannot_fill_the_memory(frontend, monkeypatch):
    monkeypatch.setattr(tcp, "TCP_BUFFERED_MAX_OCTETS", 10_000)
    _, writer = await asyncio.open_connection(*where(frontend))
    writer.write(b"\xff\xff" + bytes(9000))
    await until(lambda: frontend._tcp._held == 9002)
    other, writer2 = await asyncio.open_connection(*where(frontend))
    writer2.write(b"\xff\xff" + bytes(3000))
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(other.readexactly(1), TIMEOUT_S)
    assert (await over_tcp(frontend, WWW)).answer, "who asks something short is answered"
    assert frontend.counters.tcp_evicted == 1
    writer.close()
    await until(lambda: frontend._tcp._held == 0)
    writer2.close()


async def test_the_longest_idle_connection_makes_room(frontend, monkeypatch):
    monkeypatch.setattr(tcp, "TCP_CONNECTIONS_MAX", 3)
    held = []
    for count in range(3):
        held.append(await asyncio.open_connection(*where(frontend)))
        await until(lambda count=count: frontend._tcp.connections == count + 1)
    wire = dns.message.make_query(WWW, "A").to_wire()
    held[0][1].write(struct.pack("!H", len(wire)) + wire)
    await asyncio.wait_for(held[0][0].readexactly(20), TIMEOUT_S)  # now the second is idle longest
    assert (await over_tcp(frontend, WWW)).answer
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(held[1][0].readexactly(1), TIMEOUT_S)
    assert frontend.counters.tcp_evicted == 1
    for _, writer in held:
        writer.close()


async def test_hostile_octets_do_not_stop_it(frontend):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for size in (0, 1, 11, 12, 13, 100, 4096, 9000, 60_000):
            sender.sendto(b"\xaa" * size, where(frontend))
            sender.sendto(b"\x00" * size, where(frontend))
    _, writer = await asyncio.open_connection(*where(frontend))
    writer.write(b"\x00\x00" * 3 + b"\x00\x05hello" + b"\x00\x0c" + b"\x00" * 12 + b"\xff\xff" + b"\x00" * 65535)
    await writer.drain()
    assert (await udp(frontend, WWW)).answer
    writer.close()


async def test_a_wildcard_socket_answers_from_the_address_asked(plane):
    async with running(plane.address, listen=("0.0.0.0:0", "[::1]:0")) as made:
        await until(lambda: made.holder.held.serving.ready)
        port = where(made)[1]
        query = dns.message.make_query(WWW, "A")
        for address in ("127.0.0.1", "127.77.3.4"):
            # dnspython ignores what does not come from the address it asked.
            assert (await dns.asyncquery.udp(query, address, TIMEOUT_S, port)).answer
            assert (await dns.asyncquery.tcp(query, address, TIMEOUT_S, port)).answer
        assert (await udp(made, WWW, index=1)).answer


async def test_explain_says_what_is_answered_and_why(frontend):
    async with grpc.aio.insecure_channel(frontend.addresses.grpc) as channel:
        stub = dns_pb2_grpc.DnsFrontendStub(channel)
        found = await stub.Explain(dns_pb2.ExplainDnsRequest(name=WWW, client_ip="10.200.9.9"))
        assert (found.service, found.locality, found.matched_prefix) == ("gfe", "asia", "10.200.0.0/16")
        assert (found.chosen, found.scope, found.ttl_s, found.source) == ("asia-east1", 16, 30, "live")
        assert sorted(found.answers) == ["127.3.0.1", "127.3.0.2"]
        assert dict(zip(found.datacenters, found.share, strict=True)) == {"asia-east1": 1.0}
        assert (found.stamp.incarnation, found.stamp.epoch, found.stamp.version) == (1, 1, 1)
        assert found.plan_age_s > 1000
        assert "in asia" in found.reason
        wire = await udp(frontend, WWW, subnet=("10.200.9.9", 32))
        assert addresses_in(wire) == set(found.answers)
        assert subnet_of(wire).scopelen == found.scope
        chain = await stub.Explain(dns_pb2.ExplainDnsRequest(name="alias.shakespeare.example", client_ip="11.0.0.1"))
        assert chain.chosen == "europe-west1"
        assert "CNAME www.shakespeare.example." in chain.answers
        static = await stub.Explain(dns_pb2.ExplainDnsRequest(name="ns1.shakespeare.example", client_ip="::1"))
        assert static.answers == ["127.0.0.1"]
        assert static.scope == 0
        for request, code in (
            (dns_pb2.ExplainDnsRequest(name="example.com", client_ip="1.2.3.4"), grpc.StatusCode.NOT_FOUND),
            (dns_pb2.ExplainDnsRequest(name=WWW, client_ip="1.2.3"), grpc.StatusCode.INVALID_ARGUMENT),
            (dns_pb2.ExplainDnsRequest(name="a..b", client_ip="1.2.3.4"), grpc.StatusCode.INVALID_ARGUMENT),
            (dns_pb2.ExplainDnsRequest(name=WWW, client_ip="1.2.3.4", type="X"), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Explain(request)
            assert caught.value.code() is code


async def test_explain_of_a_lost_datacenter_and_of_panic(plane, frontend):
    members = endpoints({"us-east1": 2}, health=HealthStatus.UNHEALTHY) | endpoints({"europe-west1": 1})
    plane.push(service_update(view_of(members=members)))
    await until(lambda: len(frontend.holder.held.serving.services["gfe"].view.endpoints) == 3)
    async with grpc.aio.insecure_channel(frontend.addresses.grpc) as channel:
        stub = dns_pb2_grpc.DnsFrontendStub(channel)
        lost = await stub.Explain(dns_pb2.ExplainDnsRequest(name=WWW, client_ip="10.1.2.3"))
        assert lost.chosen == "europe-west1"
        assert "nothing can be served in us-east1" in lost.reason
        plane.push(service_update(view_of(members=endpoints({"us-east1": 1}, health=HealthStatus.TIMEOUT))))
        await until(lambda: len(frontend.holder.held.serving.services["gfe"].view.endpoints) == 1)
        panic = await stub.Explain(dns_pb2.ExplainDnsRequest(name=WWW, client_ip="10.1.2.3"))
        assert panic.answers == ["127.1.0.1"]
        assert "panic" in panic.reason


async def page(frontend, path) -> str:
    def fetch() -> str:
        with urllib.request.urlopen(f"http://{frontend.addresses.http}{path}", timeout=TIMEOUT_S) as response:
            return response.read().decode()

    return await asyncio.to_thread(fetch)


async def test_metrics_and_status(frontend):
    await udp(frontend, WWW, subnet=("11.1.2.0", 24))
    await udp(frontend, "nope.shakespeare.example")
    await over_tcp(frontend, WWW)
    if frontend.plane is not None:
        frontend.plane.collect()  # as it does each second
    metrics = await page(frontend, "/metrics")
    for line in (
        'gslb_dns_answers_total{rcode="NOERROR",transport="udp"} 1.0',
        'gslb_dns_answers_total{rcode="NXDOMAIN",transport="udp"} 1.0',
        'gslb_dns_answers_total{rcode="NOERROR",transport="tcp"} 1.0',
        'gslb_dns_steered_total{datacenter="europe-west1",locality="eu"} 1.0',
        "gslb_dns_age_seconds 0.0",
        "gslb_dns_connected 1.0",
        'gslb_dns_zone_serial{zone="shakespeare.example."} 2.026112101e+09',
    ):
        assert line in metrics
    status = await page(frontend, "/statusz?format=json")
    assert WWW in status
    assert await page(frontend, "/readyz") == "ok\n"


async def test_demand_goes_to_every_replica(plane):
    other = ControlPlane()
    await other.start()
    async with running(plane.address, other.address) as made:
        other.serve(reader_view(view_of()))
        await until(lambda: made.holder.held.serving.ready)
        for index in range(7):
            await udp(made, WWW, subnet=(f"11.1.{index}.0", 24))
        await udp(made, WWW, subnet=("99.0.0.0", 24))
        await udp(made, "ns1.shakespeare.example")

        def total(replica) -> int:
            rows = [row for report in replica.reports for row in report.rows]
            return sum(row.attempts for row in rows if (row.service, row.locality) == ("gfe", "eu"))

        await until(lambda: total(plane) == 7 and total(other) == 7)
        assert {row.locality for report in plane.reports for row in report.rows} == {"eu"}
        assert [report.seq for report in plane.reports] == sorted({report.seq for report in plane.reports})
        assert len({report.boot_id for report in plane.reports + other.reports}) == 1
        assert all(0 < report.period_s < 60 for report in plane.reports)
        assert {report.dns_responder for report in plane.reports} == {made.answered_by}
    await other.stop()


async def test_not_ready_before_anything_is_known():
    async with running("127.0.0.1:1") as made:
        assert (await udp(made, WWW)).rcode() == dns.rcode.SERVFAIL
        with pytest.raises(urllib.error.HTTPError, match="503"):
            await page(made, "/readyz")


async def test_a_half_sent_state_is_not_served(plane):
    first = service_update(view_of(), synced=False)
    plane.first = [first]
    async with running(plane.address) as made:
        await until(lambda: plane.streams == 1)
        await until(lambda: made.holder._view.services)
        assert (await udp(made, WWW)).rcode() == dns.rcode.SERVFAIL
        plane.push(catalog_update(catalog()))
        await until(lambda: made.holder.held.serving.ready)
        assert (await udp(made, WWW)).answer


async def test_a_large_update_does_not_stop_the_answers(plane, frontend):
    names = [f"n{index}" for index in range(300)]
    for name in names:
        plane.push(
            service_update(
                view_of(
                    service(f"{name}.shakespeare.example", name=name),
                    plan(name=name),
                    endpoints({"us-east1": 50, "europe-west1": 50}),
                )
            )
        )
    answers = 0
    while len(frontend.holder.held.serving.services) < 301:
        assert (await udp(frontend, WWW)).answer
        answers += 1
    assert answers >= 10, "the update is taken between answers, not before them"
    assert (await udp(frontend, "n299.shakespeare.example")).answer


def test_limits_are_sane():
    assert dns_limits.UDP_PAYLOAD_MAX_OCTETS == 1232
    assert dns_limits.TCP_MESSAGE_S < dns_limits.TCP_IDLE_S
