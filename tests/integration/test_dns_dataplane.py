"""The data plane on real sockets: threads that answer, the reference behind them, counts that reach metrics and reports."""

import asyncio
import shutil
import socket
import urllib.request

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from dns_frontend.metrics import Transport
from dns_frontend.native import NoDataPlaneError, load_library
from dns_frontend.sockets import listen
from tests.support.dns import (
    NEAREST,
    ControlPlane,
    addresses_in,
    data_plane_or_skip,
    endpoints,
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


@pytest.fixture
async def control():
    data_plane_or_skip()
    made = ControlPlane()
    await made.start()
    made.serve(reader_view(view_of()))
    yield made
    await made.stop()


@pytest.fixture
async def frontend(control):
    async with running(control.address, threads=2) as made:
        await until(lambda: made.holder.connected and made.holder.held.serving.ready)
        yield made


async def ask(frontend, name, rtype="A", host="127.0.0.1"):
    port = int(frontend.addresses.dns[0].rpartition(":")[2])
    return await dns.asyncquery.udp(dns.message.make_query(name, rtype), host, TIMEOUT_S, port)


def test_it_is_built_where_it_can_be():
    """CI has cargo: there, a frontend without its data plane is a failure, not a choice."""
    if shutil.which("cargo") is None:
        with pytest.raises(NoDataPlaneError, match="install Rust"):
            load_library()
        return
    load_library()


async def test_the_threads_answer_and_the_reference_does_the_rest(frontend):
    plane = frontend.plane
    for _ in range(20):
        assert len(addresses_in(await ask(frontend, WWW))) == 2
    assert (await ask(frontend, "nope.shakespeare.example")).rcode() == dns.rcode.NXDOMAIN
    plane.collect()
    assert plane.statistics.asked == 0
    # A chain of names: left to the reference, and the answer comes from the same port.
    assert len((await ask(frontend, "chain.shakespeare.example")).answer) == 3
    plane.collect()
    assert plane.statistics.asked == 1
    answers = frontend.counters.answers
    assert answers[Transport.UDP, 0] == 21
    assert answers[Transport.UDP, 3] == 1


async def test_counts_reach_the_control_plane_and_metrics(frontend, control):
    for _ in range(7):
        await ask(frontend, WWW)

    def demanded() -> int:
        return sum(int(row.attempts) for report in control.reports for row in report.rows)

    # Clients on 127/8 are in no area: counted, and not reported.
    await until(lambda: control.reports)
    assert demanded() == 0
    frontend.plane.collect()
    assert sum(frontend.counters.destinations.values()) == 7
    url = f"http://{frontend.addresses.http}/metrics"
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=TIMEOUT_S).read().decode())
    assert "gslb_dns_data_plane_threads 2.0" in page
    assert 'gslb_dns_answers_total{rcode="NOERROR",transport="udp"} 7.0' in page


async def test_a_new_plan_is_served_by_the_threads(frontend, control):
    before = addresses_in(await ask(frontend, WWW))
    members = endpoints({"asia-east1": 2})
    everybody = {locality: {"asia-east1": 1.0} for locality in NEAREST}
    control.push(service_update(view_of(planned=plan(everybody, version=2), members=members)))

    async def moved() -> bool:
        return addresses_in(await ask(frontend, WWW)) == {"127.3.0.1", "127.3.0.2"}

    end = asyncio.get_running_loop().time() + TIMEOUT_S
    while not await moved():
        assert asyncio.get_running_loop().time() < end
    assert before != {"127.3.0.1", "127.3.0.2"}
    frontend.plane.collect()
    assert frontend.plane.statistics.asked == 0


async def test_services_come_and_go(frontend, control):
    more = service("more.shakespeare.example", name="more")
    control.push(service_update(view_of(more, plan(name="more"))))
    await until(lambda: "more" in frontend.holder.held.serving.services)
    for _ in range(3):
        assert addresses_in(await ask(frontend, "more.shakespeare.example"))
    frontend.plane.collect()
    assert frontend.counters.demand["more", ""] == 3


@pytest.mark.parametrize(("listen_on", "asked"), [("0.0.0.0:0", "127.9.9.9"), ("[::]:0", "::1")])
async def test_answers_leave_from_the_address_that_was_asked(control, listen_on, asked):
    """dnspython drops an answer from another address, so that an answer is proof; of the threads and of the reference."""
    async with running(control.address, threads=2, listen=(listen_on,)) as frontend:
        await until(lambda: frontend.holder.held.serving.ready)
        assert addresses_in(await ask(frontend, WWW, host=asked))
        assert (await ask(frontend, "chain.shakespeare.example", host=asked)).answer


async def test_before_anything_is_known_the_reference_says_servfail():
    data_plane_or_skip()
    async with running(threads=1) as frontend:
        assert (await ask(frontend, WWW)).rcode() == dns.rcode.SERVFAIL
        assert frontend.plane.threads == 1


def test_sockets_of_one_address_share_a_port():
    listening = listen("127.0.0.1:0", 3)
    try:
        ports = {udp.getsockname() for udp in listening.udp}
        assert len(listening.udp) == 3
        assert ports == {listening.tcp.getsockname()}
        assert all(udp.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for udp in listening.udp)
    finally:
        for made in (*listening.udp, listening.tcp):
            made.close()
