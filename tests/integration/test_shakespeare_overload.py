"""One backend of the example under more than it can do: who is refused, and what the others get."""

import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from bns.etcd.embedded import free_port
from bns.model import HealthStatus
from bns.spawn import dies_with_us
from examples.shakespeare import index, words
from examples.shakespeare.search import LINES_DEFAULT, LINES_LESS
from examples.shakespeare.v1 import shakespeare_pb2 as pb
from examples.shakespeare.v1 import shakespeare_pb2_grpc as rpc
from gslb.model.endpoint import ServiceEndpoint
from tests.support.echo import Planet, wait_until

PLACES = 30
# Each search burns this on purpose, so that 50 a second are more than the backend can do, on any machine.
CPU_MS = 20.0
ASKED_RPS = 150.0
ASKED_S = 4.0
CRITICAL_EVERY = 15


def write_index(path: Path) -> None:
    """A work of so many lines with one word in each."""
    places = [words.PlaceKey(0, line) for line in range(1, PLACES + 1)]
    rows = [(words.WORKS_KEY, b"hamlet"), (words.word_key("storm"), words.pack_places(places))]
    index._write([*rows, *((words.line_key("hamlet", place.line), b"a storm") for place in places)], path)


class Server:
    """A server of the example as a process; without an agent, which it does not miss."""

    def __init__(self, job: str, planet: Planet, directory: Path, *options: str) -> None:
        self.task = f"/bns/us-east1/u/{job}/0"
        self.port, self.http = free_port(), free_port()
        self.command = [
            sys.executable, "-m", f"examples.shakespeare.{job}", "--name", self.task, "--listen", f"127.0.0.1:{self.port}",
            "--http", f"127.0.0.1:{self.http}", "--control", planet.control, "--agent", f"unix:{directory}/none", *options,
        ]  # fmt: skip

    @property
    def endpoint(self) -> ServiceEndpoint:
        return ServiceEndpoint(self.task, "127.0.0.1", self.port, HealthStatus.HEALTHY)

    @contextmanager
    def running(self) -> Iterator[None]:
        process = subprocess.Popen(dies_with_us(self.command), stderr=subprocess.DEVNULL)
        try:
            wait_until(self.is_ready, 60)
            yield
        finally:
            process.kill()
            process.wait()

    def is_ready(self) -> bool:
        try:
            return self.page("/readyz") != ""
        except OSError:
            return False

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as reply:
            return reply.read().decode()

    def gate(self) -> dict:
        return json.loads(self.page("/statusz?format=json"))["gate"]


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Server]:
    write_index(tmp_path / "index.sqlite")
    planet = Planet([], replicas=1)
    with ExitStack() as stack:
        stack.callback(planet.close)
        tablet = Server("tablet", planet, tmp_path, "--index", str(tmp_path / "index.sqlite"))
        planet.world.set([tablet.endpoint], {"us-east1": {"us-east1": 1.0}}, "shakespeare-tablet")
        stack.enter_context(tablet.running())
        made = Server("backend", planet, tmp_path, "--slots", "1", "--cpu-ms-per-request", f"{CPU_MS:g}")
        stack.enter_context(made.running())
        yield made


def end_of(call: grpc.Future) -> tuple[str, pb.SearchResponse | None]:
    try:
        return "OK", call.result(60)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}", None


@pytest.mark.timeout(180)
def test_the_sheddable_are_refused_and_the_critical_get_less(backend: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{backend.port}") as channel:
        search = rpc.BackendStub(channel).Search
        request = pb.SearchRequest(word="storm")
        before = [search(request, timeout=30) for _ in range(3)]
        assert [(reply.degraded, len(reply.places), reply.total) for reply in before] == [
            (False, LINES_DEFAULT, PLACES)
        ] * 3
        calls = []
        for number in range(int(ASKED_RPS * ASKED_S)):
            level = "CRITICAL" if number % CRITICAL_EVERY == 0 else "SHEDDABLE"
            calls.append((level, search.future(request, timeout=30, metadata=(("gslb-criticality", level),))))
            time.sleep(1 / ASKED_RPS)
        ends = [(level, *end_of(call)) for level, call in calls]
        # What is asked of it now is nothing again: whole answers.
        wait_until(lambda: not search(request, timeout=30).degraded, 30)
        assert len(search(request, timeout=30).places) == LINES_DEFAULT
    by_level = {name: Counter(end for level, end, _ in ends if level == name) for name in ("CRITICAL", "SHEDDABLE")}
    refused = "RESOURCE_EXHAUSTED: overloaded; don't retry"
    assert set(by_level["CRITICAL"]) == {"OK"}
    assert by_level["SHEDDABLE"][refused] > 100
    assert set(by_level["SHEDDABLE"]) <= {"OK", refused}
    less = [reply for _, _, reply in ends if reply is not None and reply.degraded]
    assert [reply for level, _, reply in ends if level == "CRITICAL" and reply.degraded]
    assert {(len(reply.places), reply.total) for reply in less} == {(LINES_LESS, PLACES)}
    gate = backend.gate()
    assert gate["slots"] == 1
    assert gate["refused"] == {
        "CRITICAL_PLUS": 0, "CRITICAL": 0, "SHEDDABLE_PLUS": 0, "SHEDDABLE": by_level["SHEDDABLE"][refused],
    }  # fmt: skip
    assert 'gslb_rpc_gate_refused_total{criticality="SHEDDABLE",gate="main"}' in backend.page("/metrics")
