"""The debug pages: every page answers, hostile requests are bounded, a busy port is one clear line."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from gslb.ops.http import OpsListenError, OpsServer


class Process:
    def __init__(self) -> None:
        registry = CollectorRegistry()
        Counter("demo_requests", "requests", registry=registry).inc(3)
        self.ready = (False, "no plan yet")
        self.ops = OpsServer(
            "test <process>",
            registry=registry,
            ready=lambda: self.ready,
            status=lambda: {"name": "<b>", "tasks": [{"task": "a", "rps": 1.5}, {"task": "b", "why": "x"}]},
        )
        self.address = self.ops.start("127.0.0.1:0")

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.ops.close()
    process.ops.close()


def test_live_and_ready_are_different_things(process: Process) -> None:
    assert process.get("/livez") == (200, "ok\n")
    assert process.get("/readyz") == (503, "no plan yet\n")
    process.ready = (True, "")
    assert process.get("/healthz") == (200, "ok\n")


def test_metrics_are_the_registry_given(process: Process) -> None:
    status, body = process.get("/metrics")
    assert status == 200
    assert "demo_requests_total 3.0" in body


def test_status_escapes_and_tabulates(process: Process) -> None:
    status, body = process.get("/statusz")
    assert status == 200
    assert "&lt;b&gt;" in body
    assert "<b>" not in body
    assert "<td>1.5</td>" in body
    assert json.loads(process.get("/statusz?format=json")[1])["tasks"][0]["task"] == "a"


def test_profile_is_bounded_and_sees_other_threads(process: Process) -> None:
    stop = threading.Event()
    worker = threading.Thread(target=stop.wait, name="the-worker")
    worker.start()
    status, body = process.get("/profilez?seconds=0.1")
    stop.set()
    worker.join()
    assert status == 200
    assert "the-worker;" in body
    assert process.get("/profilez?seconds=1000")[0] == 400
    assert process.get("/profilez?seconds=nan")[0] == 400
    assert process.get("/profilez?seconds=x")[0] == 400


def test_only_reads(process: Process) -> None:
    assert process.get("/metrics", method="POST")[0] == 405
    assert process.get("/etc/passwd")[0] == 404


def test_a_restarted_process_gets_its_port_back_at_once(process: Process) -> None:
    # The server closes first (HTTP/1.0), so its side of the connection lingers in TIME_WAIT.
    assert process.get("/livez")[0] == 200
    process.ops.close()
    again = OpsServer("x", registry=CollectorRegistry(), ready=lambda: (True, ""), status=dict)
    assert again.start(process.address) == process.address
    again.close()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:80", "[::]:0", "example.org:80"])
def test_off_loopback_is_refused(address: str) -> None:
    ops = OpsServer("x", registry=CollectorRegistry(), ready=lambda: (True, ""), status=dict)
    with pytest.raises(OpsListenError, match="they stay on loopback"):
        ops.start(address)


def test_port_in_use_is_one_clear_line(process: Process) -> None:
    other = OpsServer("x", registry=CollectorRegistry(), ready=lambda: (True, ""), status=dict)
    with pytest.raises(OpsListenError, match=process.address):
        other.start(process.address)
    with pytest.raises(OpsListenError, match="nonsense"):
        other.start("nonsense")
