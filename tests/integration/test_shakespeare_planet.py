"""The sample service on the running planet: every hop's pages and logs, a drained GFE, a datacenter without its tablet."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.planet import DemoPlanet

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("planet")]

DATACENTERS = ("us-east1", "europe-west1", "asia-east1", "southamerica-east1")


def get(address: str, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        return reply.status, {key.lower(): value for key, value in reply.getheaders()}, reply.read().decode()
    finally:
        connection.close()


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return condition()


def gslb(demo_planet: DemoPlanet, *arguments: str) -> str:
    environment = {**os.environ, "GSLB_CONTROL": demo_planet.control}
    return subprocess.run(
        [sys.executable, "-m", "gslb", *arguments],
        env=environment, check=True, timeout=60, capture_output=True, text=True,
    ).stdout  # fmt: skip


@contextmanager
def drained(demo_planet: DemoPlanet, *scope: str) -> Iterator[None]:
    gslb(demo_planet, "drain", *scope, "--for", "5m", "--reason", "test")
    try:
        yield
    finally:
        gslb(demo_planet, "undrain", *scope)


def test_every_server_has_its_debug_pages(demo_planet: DemoPlanet) -> None:
    tasks = [task for datacenter in DATACENTERS for task in demo_planet.tasks(datacenter)]
    assert len(tasks) == 24
    for task in tasks:
        assert get(task["http"], "/healthz")[0] == 200, task
        status, _, page = get(task["http"], "/statusz?format=json")
        assert (status, json.loads(page)["task"]) == (200, task["bns"])
        assert "shakespeare_rpcs_total" in get(task["http"], "/metrics")[2]
    assert get(tasks[0]["http"], "/profilez?seconds=0.2")[2].startswith("# 20 samples")
    assert get(tasks[0]["http"], "/profilez?seconds=9999")[0] == 400


def test_no_gate_refuses_anybody_at_the_demo_s_load(demo_planet: DemoPlanet) -> None:
    tasks = [task for datacenter in DATACENTERS for task in demo_planet.tasks(datacenter)]

    def gates() -> list[dict]:
        return [json.loads(get(task["http"], "/statusz?format=json")[2])["gate"] for task in tasks]

    before = gates()
    time.sleep(10)
    after = gates()
    assert {gate["slots"] for gate in after} == {512}
    assert [gate["refused"] for gate in after] == [gate["refused"] for gate in before]
    # It is measured in windows that have requests: the gates do see them.
    assert max(gate["in_flight"] for gate in [*before, *after]) >= 1
    assert not any(gate["overloaded"] for gate in after)


def test_backends_keep_quotas_and_frontends_are_within_theirs(demo_planet: DemoPlanet) -> None:
    def of_frontends() -> dict[str, object]:
        rows = json.loads(gslb(demo_planet, "get", "quotas", "-o", "json"))
        return next(
            row for row in rows if (row["service"], row["caller"]) == ("shakespeare-backend", "shakespeare-frontend")
        )

    # Each search of the built-in load is a request of a frontend's.
    assert until(lambda: float(str(of_frontends()["used"])) > 5.0), of_frontends()
    pages = [get(task["http"], "/statusz?format=json")[2] for task in demo_planet.tasks("us-east1", "backend")]
    kept = {client["caller"]: client for page in pages for client in json.loads(page)["quotas"]["clients"]}
    assert set(kept) == {"shakespeare-frontend", "*"}
    assert all(client["refused"] == 0 for client in kept.values())


def test_a_trace_id_runs_through_every_hop_s_log(demo_planet: DemoPlanet) -> None:
    status, headers, page = get(demo_planet.gfe("asia-east1"), "/search?q=hurricano")
    assert status == 200
    trace_id = headers["x-trace-id"]
    assert trace_id in page

    def hops() -> set[str]:
        tasks = [task for datacenter in DATACENTERS for task in demo_planet.tasks(datacenter)]
        return {task["bns"].split("/")[4] for task in tasks if f"trace={trace_id}" in demo_planet.log(task)}

    assert until(lambda: hops() == {"gfe", "frontend", "backend", "tablet"}), hops()


@pytest.mark.parametrize(
    ("path", "status", "fragment"),
    [
        ("/", 200, "Every line that Shakespeare wrote"),
        ("/search?q=two+words", 400, "is not one word"),
        ("/search?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E", 400, "&lt;script&gt;"),
        ("/search?q=zxzx", 200, "0 occurrences"),
        ("/nowhere", 404, "There is nothing at /nowhere"),
    ],
)
def test_what_browsers_may_send(demo_planet: DemoPlanet, path: str, status: int, fragment: str) -> None:
    seen = get(demo_planet.gfe("europe-west1"), path)
    assert (seen[0], fragment in seen[2]) == (status, True), seen
    assert "<script>" not in seen[2]


def test_a_drained_gfe_proxies_on_to_elsewhere_and_closes_keep_alives(demo_planet: DemoPlanet) -> None:
    gfe = demo_planet.gfe("southamerica-east1")
    assert "connection" not in get(gfe, "/search?q=rose")[1]
    with drained(demo_planet, "datacenter", "southamerica-east1"):
        assert until(lambda: get(gfe, "/search?q=rose")[1].get("connection") == "close")
        status, _, page = get(gfe, "/search?q=rose")
        assert status == 200
        assert not re.search(r"frontend /bns/southamerica-east1/", page)
        assert not re.search(r"backend /bns/southamerica-east1/", page)
    assert until(lambda: "connection" not in get(gfe, "/search?q=rose")[1])


def test_a_datacenter_whose_tablet_dies_reads_another_s(demo_planet: DemoPlanet) -> None:
    gfe = demo_planet.gfe("asia-east1")
    (tablet,) = demo_planet.tasks("asia-east1", "tablet")
    # Stopped, it would hang; dead, its port refuses. The demo's supervisor does not restart it.
    os.kill(tablet["pid"], signal.SIGKILL)
    for word in ("witches", "thunder", "lightning", "rain", "battle", "toad", "owl"):
        status, _, page = get(gfe, f"/search?q={word}")
        assert status == 200, page
        assert re.search(r'data-total="[1-9]', page)
