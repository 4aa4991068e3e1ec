"""Probes against real servers, broken and hostile ones among them."""

import asyncio
import time

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as aio_health

from agents.health.probes import Probes, tcp_rtt_ms
from bns.model import ProbeKind, ProbeSpec, Task


async def served(answer, probe: ProbeSpec, address: str = "127.0.0.1"):
    """What a probe of a TCP server with the behaviour `answer(reader, writer)` sees, and what the server read."""
    read = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer, read)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, address, 0)
    port = server.sockets[0].getsockname()[1]
    probes = Probes()
    try:
        result = await probes.probe(Task("/bns/a/b/c/0", address, port, named_ports={"web": port}, probe=probe))
    finally:
        await probes.close()
        server.close()
    return result, b"".join(read)


def says(data: bytes):
    async def answer(reader, writer, read):
        read.append(await reader.read(4096))
        writer.write(data)
        await writer.drain()

    return answer


async def silence(reader, _writer, read):
    read.append(await reader.read())  # until the other side closes


async def endless(reader, writer, _read):
    while not writer.is_closing():
        writer.write(b"x" * 65536)
        await writer.drain()


HTTP = ProbeSpec(ProbeKind.HTTP, "/healthz?a=b c", "web", timeout_s=5.0)
QUICK = ProbeSpec(ProbeKind.HTTP, "/", timeout_s=0.2)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_tcp(address: str) -> None:
    result, _ = await served(silence, ProbeSpec(), address)
    assert result.ok
    assert result.detail.startswith("tcp ")
    assert result.detail.endswith(": connected")
    assert 0.0 < result.rtt_ms < 1000.0


async def test_refused() -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    result = await Probes().probe(Task("/bns/a/b/c/0", "127.0.0.1", port))
    assert (result.ok, result.detail) == (False, f"tcp 127.0.0.1:{port}: connection refused")
    assert not (await tcp_rtt_ms("127.0.0.1", port, 1.0)).ok


@pytest.mark.parametrize(
    ("data", "ok", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, "status 200"),
        (b"HTTP/1.0 204\r\n\r\n", True, "status 204"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", True, "status 302"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False, "status 404"),
        (b"HTTP/1.1 503 No\r\n\r\n", False, "status 503"),
        (b"HTTP/1.1 99 Hm\r\n\r\n", False, "its answer is not HTTP/1"),
        (b"HTTP/1.1 2000 Hm\r\n\r\n", False, "its answer is not HTTP/1"),
        (b"SSH-2.0-OpenSSH\r\n", False, "its answer is not HTTP/1"),
        (b"\x00" * 20_000, False, "its answer is not HTTP/1"),
        (b"", False, "it closed the connection without an answer"),
    ],
)
async def test_http(data: bytes, ok: bool, detail: str) -> None:
    result, request = await served(says(data), HTTP)
    assert (result.ok, result.detail.split(": ", 1)[1]) == (ok, detail)
    assert request.startswith(b"GET /healthz?a=b%20c HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_path_cannot_smuggle_a_header() -> None:
    _, request = await served(says(b""), ProbeSpec(ProbeKind.HTTP, "x\r\nEvil: 1", timeout_s=5.0))
    assert request.startswith(b"GET /x%0D%0AEvil:%201 HTTP/1.1\r\n")


async def test_silence_and_endlessness_end_in_time() -> None:
    started = time.monotonic()
    result, _ = await served(silence, QUICK)
    assert (result.ok, result.detail.split(": ", 1)[1]) == (False, "no answer within 0.2 s")
    result, _ = await served(endless, QUICK)
    assert not result.ok
    result, _ = await served(silence, ProbeSpec(ProbeKind.GRPC, timeout_s=0.2))
    assert not result.ok
    result, _ = await served(endless, ProbeSpec(ProbeKind.GRPC, timeout_s=0.2))
    assert not result.ok
    assert time.monotonic() - started < 10.0


async def test_a_port_name_that_the_task_lacks() -> None:
    result = await Probes().probe(Task("/bns/a/b/c/0", "127.0.0.1", 80, probe=ProbeSpec(port_name="web")))
    assert (result.ok, result.detail) == (False, "it has no port named 'web' to probe")


async def test_grpc_health() -> None:
    server = grpc.aio.server()
    servicer = aio_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("shop", health_pb2.HealthCheckResponse.NOT_SERVING)
    probes = Probes()

    async def seen(service: str) -> tuple[bool, str]:
        spec = ProbeSpec(ProbeKind.GRPC, service, timeout_s=5.0)
        result = await probes.probe(Task("/bns/a/b/c/0", "127.0.0.1", port, probe=spec))
        return result.ok, result.detail.split(": ", 1)[1]

    assert await seen("") == (True, "SERVING")
    assert await seen("shop") == (False, "NOT_SERVING")
    await servicer.set("shop", health_pb2.HealthCheckResponse.SERVING)
    assert await seen("shop") == (True, "SERVING")
    ok, detail = await seen("unknown")
    assert not ok
    assert detail.startswith("NOT_FOUND")
    await server.stop(None)
    ok, detail = await seen("")
    assert not ok
    await probes.close()


async def test_a_grpc_server_without_health_says_so() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    probes = Probes()
    spec = ProbeSpec(ProbeKind.GRPC, timeout_s=5.0)
    result = await probes.probe(Task("/bns/a/b/c/0", "127.0.0.1", port, probe=spec))
    assert not result.ok
    assert "serves no grpc.health.v1" in result.detail
    await probes.close()
    await server.stop(None)
