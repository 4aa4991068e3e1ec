"""Round-trip times that clients measure: by the kernel, one datacenter at a time, and reported beside what was asked."""

import socket
import threading
from collections.abc import Iterator

import pytest

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.client.reports import observation_rows
from gslb.rpc.client.rtt import RttMeter, kernel_rtt_ms, next_endpoint
from gslb.steer.view import ServiceView


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def endpoint(datacenter: str, number: int = 0, port: int = 1) -> ServiceEndpoint:
    return ServiceEndpoint(f"/bns/{datacenter}/u/j/{number}", "127.0.0.1", port, HealthStatus.HEALTHY)


def view(*endpoints: ServiceEndpoint) -> ServiceView:
    return ServiceView.build("s", endpoints={one.task: one for one in endpoints})


def test_datacenters_take_turns_and_so_do_their_tasks() -> None:
    here = view(endpoint("a"), endpoint("a", 1), endpoint("b"))
    asked = [one.task for turn in range(4) if (one := next_endpoint([here, view(endpoint("b"))], turn))]
    assert asked == ["/bns/a/u/j/0", "/bns/b/u/j/0", "/bns/a/u/j/1", "/bns/b/u/j/0"]
    assert next_endpoint([], 0) is None
    assert next_endpoint([view()], 7) is None


def test_the_kernel_tells_the_round_trip_of_a_handshake(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as connection:
        rtt_ms = kernel_rtt_ms(connection)
    assert rtt_ms is not None
    assert 0 < rtt_ms < 1000


def test_a_meter_measures_who_answers_and_says_nothing_of_others(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    asked, tried = threading.Semaphore(0), []

    def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
        tried.append(address[1])
        asked.release()
        if address[1] != port:
            raise ConnectionRefusedError
        return socket.create_connection(address, timeout_s)

    here = view(endpoint("a", port=port), endpoint("b", port=port + 1))
    meter = RttMeter(lambda: [here], period_s=0.01, connect=connect)
    meter.start()
    meter.start()
    for _ in range(5):
        assert asked.acquire(timeout=10)
    meter.close()
    assert set(tried) == {port, port + 1}
    taken = meter.take()
    assert taken.keys() == {"/bns/a/u/j/0"}
    assert taken["/bns/a/u/j/0"] > 0
    assert meter.take() == {}


def test_what_was_measured_is_reported_with_or_without_requests() -> None:
    rows = observation_rows([("t", 1, 2), ("v", 1, 0)], {"t": 80.0, "u": 7.0})
    assert {row.task: (row.ok, row.failed, row.rtt_ms) for row in rows} == {
        "t": (1, 2, 80.0),
        "u": (0, 0, 7.0),
        "v": (1, 0, 0.0),
    }
