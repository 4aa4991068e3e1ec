"""Floods in another's name, and clients that hold connections and say nothing, over real sockets."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time

import dns.asyncquery
import dns.flags
import dns.message
import dns.query
import pytest

from dns_frontend import tcp
from dns_frontend.responder.guard import Hardening
from dns_frontend.responder.rrl import Rule
from gslb.wire.snapshot import to_bytes
from tests.support.dns import addresses_in, data_plane_or_skip, reader_view, running, until, view_of

WWW = "www.shakespeare.example"
RATE = 50
FLOOD_S = 3.0
TIMEOUT_S = 30.0  # of one answer: the machine may be busy, an answer that never comes is what counts


@pytest.fixture(params=["python", "rust"])
async def frontend(plane, request):
    if request.param == "rust":
        data_plane_or_skip()
    hardening = Hardening(rule=Rule(RATE, 2), exempt=())
    async with running(plane.address, threads=2 * (request.param == "rust"), hardening=hardening) as made:
        await until(lambda: made.holder.connected and made.holder.held.serving.ready)
        yield made


def where(frontend) -> tuple[str, int]:
    host, _, port = frontend.addresses.dns[0].rpartition(":")
    return host, int(port)


def flood(to: tuple[str, int], wire: bytes) -> tuple[int, int, int]:
    """20 times the limit from one /24; octets in, octets out, and how many answers had TC."""
    spent = received = cut = 0
    sockets = []
    for host in range(1, 5):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((f"127.77.0.{host}", 0))
        made.setblocking(False)
        sockets.append(made)
    begin = time.monotonic()
    sent = 0
    while (now := time.monotonic() - begin) < FLOOD_S + 1.0:
        while now < FLOOD_S and sent < now * 20 * RATE:
            sockets[sent % len(sockets)].sendto(wire, to)
            spent += len(wire)
            sent += 1
        for one in sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    answer = one.recv(4096)
                    received += len(answer)
                    cut += bool(answer[2] & 0x02)
        time.sleep(0.001)
    for one in sockets:
        one.close()
    return spent, received, cut


async def others(to: tuple[str, int], stop: asyncio.Event) -> tuple[int, int]:
    """Clients of other networks, each well below the limit: (asked, answered)."""
    asked = answered = 0
    query = dns.message.make_query(WWW, "A")
    while not stop.is_set():
        for network in range(10):
            asked += 1
            with contextlib.suppress(Exception):
                answer = await dns.asyncquery.udp(query, to[0], TIMEOUT_S, to[1], source=f"127.{100 + network}.0.1")
                answered += bool(answer.answer)
        await asyncio.sleep(0.05)
    return asked, answered


@pytest.mark.parametrize("name", [WWW, "nope.shakespeare.example", "huge.shakespeare.example", "elsewhere.test"])
async def test_a_flood_in_anothers_name(frontend, name):
    wire = dns.message.make_query(name, "TXT" if name.startswith("huge") else "A", use_edns=0).to_wire()
    stop = asyncio.Event()
    asking = asyncio.create_task(others(where(frontend), stop))
    spent, received, cut = await asyncio.to_thread(flood, where(frontend), wire)
    stop.set()
    asked, answered = await asking
    assert 0 < received <= spent
    assert cut > 0 or name == "elsewhere.test"
    assert answered == asked > 10
    frontend._take_demand()
    held = {action for _, action in frontend.counters.held_back}
    assert held == {"dropped", "slipped"}


async def test_whoever_is_cut_short_is_answered_over_tcp(frontend):
    """What a resolver behind the flooded network does."""
    query = dns.message.make_query(WWW, "A")
    for _ in range(3 * RATE):
        with contextlib.suppress(Exception):
            answer, over_tcp = await dns.asyncquery.udp_with_fallback(
                query, where(frontend)[0], 0.2, where(frontend)[1], source="127.77.0.9"
            )
            if over_tcp:
                assert addresses_in(answer)
                return
    raise AssertionError("never told to come over TCP")


async def test_what_the_reference_answers_is_counted_with_the_rest(frontend):
    """The chain is always Python's: with a data plane its answers take from the buckets of that, and not from its own."""
    wire = dns.message.make_query("chain.shakespeare.example", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind(("127.77.0.9", 0))
        asking.setblocking(False)
        for _ in range(4 * RATE):
            asking.sendto(wire, where(frontend))

        def cut() -> bool:
            with contextlib.suppress(BlockingIOError):
                return bool(asking.recv(4096)[2] & 0x02)
            return False

        await until(cut)
    assert frontend._hardened.guard.buckets == (0 if frontend.plane else 1)


async def test_slow_connections_leave_room(frontend, monkeypatch):
    """A thousand that send a part of a message each: the answers go on, over both transports."""
    monkeypatch.setattr(tcp, "TCP_CONNECTIONS_MAX", 200)
    host, port = where(frontend)
    held = []
    query = dns.message.make_query(WWW, "A")
    for number in range(1000):
        try:
            _, writer = await asyncio.open_connection(host, port, local_addr=(f"127.20.{number % 250}.1", 0))
        except OSError:
            continue
        writer.write(b"\x00\x40abc"[: number % 5])
        held.append(writer)
        if number % 100 == 99:
            assert addresses_in(await dns.asyncquery.udp(query, host, TIMEOUT_S, port))
            assert addresses_in(await dns.asyncquery.tcp(query, host, TIMEOUT_S, port))
            assert frontend._tcp.connections <= 200
    assert frontend.counters.tcp_evicted > 0
    for writer in held:
        writer.transport.abort()


async def test_a_restarted_process_answers_from_its_disk(plane, tmp_path):
    """A whole process, killed, and started again with nobody to ask: the snapshot answers, and says how old it is."""
    path = tmp_path / "dns.snapshot"
    path.write_bytes(to_bytes(reader_view(view_of())))
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for attempt in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gslb", "dns", "--control", "127.0.0.1:1", "--listen", f"127.0.0.1:{port}",
            "--snapshot", str(path), stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            query = dns.message.make_query(WWW, "A", use_edns=0)
            answer = None
            end = time.monotonic() + TIMEOUT_S
            while answer is None or not any(option.otype == 15 for option in answer.options):
                assert time.monotonic() < end, f"attempt {attempt}: {answer}"
                with contextlib.suppress(OSError, dns.exception.Timeout):
                    answer = await dns.asyncquery.udp(query, "127.0.0.1", 0.2, port)
                await asyncio.sleep(0.02)
            assert addresses_in(answer)
            said = next(option for option in answer.options if option.otype == 15)
            assert said.code == 3
            assert said.text.startswith("no control plane since 20")
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
