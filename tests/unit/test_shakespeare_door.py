"""What browsers meet first: every request is demand, and says nothing about how critical it is; pages of lesser answers."""

import pytest

from examples.shakespeare.gfe import Door
from examples.shakespeare.pages import Hit, Result, ServedBy, search_page
from gslb.model.criticality import Criticality
from gslb.rpc.context import Request, current
from gslb.rpc.server import AsgiMiddleware, Gate, Load

SERVED_BY = ServedBy("/bns/a/u/frontend/0", "/bns/a/u/backend/0", "t")


class Edge:
    def __init__(self) -> None:
        self.hosts: list[str] = []

    def arrived(self, host: str) -> None:
        self.hosts.append(host)


async def ask(door: Door, headers: dict[bytes, bytes], client: tuple[str, int] | None) -> int:
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message) -> None:
        sent.append(message)

    await door({"type": "http", "path": "/", "headers": list(headers.items()), "client": client}, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize("level", [4.0, 0.0], ids=["served", "refused"])
async def test_every_request_is_demand_and_none_is_more_critical_than_others(level: float) -> None:
    seen: list[Request | None] = []

    async def app(scope, receive, send) -> None:
        seen.append(current())
        assert dict(scope["headers"]) == {b"host": b"h"}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    edge, load, gate = Edge(), Load(), Gate(1)
    door = Door(AsgiMiddleware(app, load, gate), edge)
    gate._guard.admission.level = level
    headers = {
        b"host": b"h",
        b"Gslb-Criticality": b"CRITICAL_PLUS",
        b"gslb-trace-id": b"mine",
        b"gslb-timeout-ms": b"1",
    }
    status = await ask(door, headers, ("192.0.2.1", 5))
    assert edge.hosts == ["192.0.2.1"]
    assert load.counters().ok[Criticality.CRITICAL] + load.counters().error[Criticality.CRITICAL] == 1
    if level:
        (request,) = seen
        assert status == 200
        assert (request.criticality, request.deadline_s) == (Criticality.CRITICAL, None)
        assert request.trace_id != "mine"
    else:
        assert (status, seen) == (503, [])
    await ask(door, {b"host": b"h"}, None)
    assert edge.hosts == ["192.0.2.1", ""]


def test_a_page_says_when_there_is_more() -> None:
    hits = [Hit("hamlet", 3, "a storm")]
    assert 'id="degraded"' not in search_page(Result("storm", 30, hits), SERVED_BY)
    page = search_page(Result("storm", 30, hits, degraded=True), SERVED_BY)
    assert '<p id="degraded">Very many ask just now' in page
    assert 'data-total="30"' in page
