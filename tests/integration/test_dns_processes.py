"""The frontend without a data plane in several processes: all answer, one counts, and none is left behind."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import dns.asyncquery
import dns.message
import pytest

from bns.etcd.embedded import free_port
from dns_frontend.metrics import Counters, Told, Transport
from tests.support.dns import addresses_in, plan, running, service_update, until, view_of

WWW = "www.shakespeare.example"
PROCESSES = 3
TIMEOUT_S = 30.0


@pytest.fixture
async def frontend(plane):
    async with running(plane.address, processes=PROCESSES) as made:
        await until(lambda: made.holder.held.serving.ready and plane.streams == PROCESSES)
        await until(lambda: len(made._siblings._connections) == PROCESSES - 1)
        yield made


def where(frontend) -> tuple[str, int]:
    host, _, port = frontend.addresses.dns[0].rpartition(":")
    return host, int(port)


async def answers(frontend, count: int) -> set[str]:
    """Asks from as many ports, which the kernel spreads over the processes; all addresses in the answers."""
    seen = set()
    for _ in range(count):
        query = dns.message.make_query(WWW, "A")
        found = addresses_in(await dns.asyncquery.udp(query, where(frontend)[0], TIMEOUT_S, where(frontend)[1]))
        assert found
        seen |= found
    return seen


async def test_all_answer_and_the_first_counts(plane, frontend):
    assert {request.subscriber for request in plane.requests} == {"dns-test", "dns-test/1", "dns-test/2"}
    own = frontend.counters.answers.get((Transport.UDP, 0), 0)
    await answers(frontend, 60)
    mine = frontend.counters.answers.get((Transport.UDP, 0), 0) - own
    assert mine < 60, "others answered, too"
    for _ in range(20):
        query = dns.message.make_query(WWW, "A")
        assert addresses_in(await dns.asyncquery.tcp(query, where(frontend)[0], TIMEOUT_S, where(frontend)[1]))
    await until(lambda: frontend.counters.answers.get((Transport.UDP, 0), 0) - own == 60)
    await until(lambda: frontend.counters.answers.get((Transport.TCP, 0), 0) == 20)


async def test_a_new_plan_reaches_all(plane, frontend):
    everywhere = {"na": {"asia-east1": 1.0}, "eu": {"asia-east1": 1.0}, "asia": {"asia-east1": 1.0}}
    plane.push(service_update(view_of(planned=plan(everywhere, version=2))))

    async def moved() -> bool:
        return await answers(frontend, 30) <= {"127.3.0.1", "127.3.0.2"}

    async with asyncio.timeout(TIMEOUT_S):
        while not await moved():
            await asyncio.sleep(0.05)


async def test_one_that_dies_is_replaced_and_nobody_notices(frontend):
    (pid, other) = frontend._siblings.pids.values()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid not in frontend._siblings.pids.values())
    assert await answers(frontend, 30), "the first stands in"
    await until(lambda: len(frontend._siblings._connections) == PROCESSES - 1)
    assert other in frontend._siblings.pids.values()
    assert await answers(frontend, 30)


async def test_nothing_is_left_after_a_kill(tmp_path):
    (tmp_path / "zone").write_text("$TTL 30\n@ SOA ns1 h 1 3600 600 604800 60\n@ NS ns1\nns1 A 127.0.0.1\n")
    port = free_port()
    arguments = ["dns", "--listen", f"127.0.0.1:{port}", "--zone", f"example.org={tmp_path}/zone", "--threads", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gslb", *arguments, "--processes", str(PROCESSES), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: len(family(process.pid)) == PROCESSES)
        query = dns.message.make_query("ns1.example.org", "A")
        for _ in range(20):
            assert addresses_in(await asked(query, port)) == {"127.0.0.1"}
        children = family(process.pid)[1:]
    finally:
        process.kill()
        await process.wait()
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


async def asked(query, port: int):
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            with contextlib.suppress(Exception):
                return await dns.asyncquery.udp(query, "127.0.0.1", 2.0, port)


def family(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]
    return [pid]


def test_counts_arrive_whole():
    """What one process takes and another absorbs is all that was counted."""
    one, other = Counters(), Counters()
    one.answered(Transport.TCP, 3, 7)
    one.ignored(Transport.UDP, 2)
    one.steered("gfe", "eu", "europe-west1")
    one.limited("error", "dropped", 4)
    one.tcp_evicted = 5
    told: Told = one.take()
    other.absorb(told)
    other.absorb(one.take())
    assert other.answers == {(Transport.TCP, 3): 7}
    assert other.ignored_messages[Transport.UDP] == 2
    assert other.destinations == {("eu", "europe-west1"): 1}
    assert other.take_demand() == {("gfe", "eu"): 1}
    assert other.held_back == {("error", "dropped"): 4}
    assert other.tcp_evicted == 5
    assert one.answers == {}
