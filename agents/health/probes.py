"""One probe of one task: a TCP connection, an HTTP GET or a gRPC health check. Never raises, always ends in time.

What answers may be broken or hostile: everything read from it is bounded, and a probe's failure is a short text.
"""

import asyncio
import re
import socket
import time
import urllib.parse
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agents import limits
from bns.model import ProbeKind, Task

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`detail` says in a few words what was seen; `rtt_ms` is how long it took."""

    ok: bool
    detail: str
    rtt_ms: float


class Probes:
    """Makes probes; keeps one gRPC channel for each task that is probed by gRPC."""

    def __init__(self) -> None:
        self._channels: dict[str, tuple[str, grpc.aio.Channel]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def probe(self, task: Task) -> ProbeResult:
        """Probes `task` as its record says."""
        spec = task.probe
        port = task.named_ports.get(spec.port_name) if spec.port_name else task.port
        if port is None:
            return ProbeResult(False, f"it has no port named {spec.port_name!r} to probe", 0.0)
        started = time.monotonic()
        ok, detail = False, ""
        try:
            async with asyncio.timeout(spec.timeout_s):
                match spec.kind:
                    case ProbeKind.TCP:
                        ok, detail = await _tcp(task.address, port)
                    case ProbeKind.HTTP:
                        ok, detail = await _http(task.address, port, spec.path or "/")
                    case ProbeKind.GRPC:
                        ok, detail = await self._grpc(task, port)
        except TimeoutError:
            ok, detail = False, f"no answer within {spec.timeout_s:g} s"
        except (OSError, asyncio.IncompleteReadError) as error:
            ok, detail = False, _reason(error)
        where = f"{spec.kind.name.lower()} {join(task.address, port)}"
        rtt_ms = (time.monotonic() - started) * 1000.0
        return ProbeResult(ok, f"{where}: {detail}"[: limits.DETAIL_MAX_CHARS], rtt_ms)

    def forget(self, name: str) -> None:
        """Closes what is kept for the task `name`."""
        _, channel = self._channels.pop(name, ("", None))
        if channel is not None:
            closing = asyncio.ensure_future(channel.close(None))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes everything."""
        for name in list(self._channels):
            self.forget(name)
        await asyncio.gather(*self._closing)

    async def _grpc(self, task: Task, port: int) -> tuple[bool, str]:
        stub = health_pb2_grpc.HealthStub(self._channel(task.name, join(task.address, port)))
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=task.probe.path))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return False, "serves no grpc.health.v1: add it, or probe by tcp"
            return False, f"{error.code().name}: {_printable(error.details() or '')}"
        name = health_pb2.HealthCheckResponse.ServingStatus.Name
        known = answer.status in health_pb2.HealthCheckResponse.ServingStatus.values()
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        return serving, name(answer.status) if known else f"status {answer.status}"

    def _channel(self, name: str, target: str) -> grpc.aio.Channel:
        known = self._channels.get(name)
        if known is not None and known[0] == target:
            return known[1]
        self.forget(name)
        options = [
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.max_receive_message_length", 4096),
            # Each task has its own connection, also where two tasks share an address by mistake.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        channel = grpc.aio.insecure_channel(target, options=options)
        self._channels[name] = (target, channel)
        return channel


async def tcp_rtt_ms(address: str, port: int, timeout_s: float) -> ProbeResult:
    """Time of a TCP handshake: one round trip, whatever the server does afterwards."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            ok, detail = await _tcp(address, port)
    except TimeoutError:
        ok, detail = False, f"no answer within {timeout_s:g} s"
    except OSError as error:
        ok, detail = False, _reason(error)
    return ProbeResult(ok, detail, (time.monotonic() - started) * 1000.0)


def join(address: str, port: int) -> str:
    """host:port as gRPC and URLs want it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


async def _connect(address: str, port: int) -> socket.socket:
    """A connected non-blocking socket. Literal addresses only: no name is looked up."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
        if connection.getsockname() == connection.getpeername():
            # Linux joins a socket to itself when a local port that nobody listens on is also the one it picked.
            raise ConnectionRefusedError
    except BaseException:
        connection.close()
        raise
    return connection


async def _tcp(address: str, port: int) -> tuple[bool, str]:
    (await _connect(address, port)).close()
    return True, "connected"


async def _http(address: str, port: int, path: str) -> tuple[bool, str]:
    loop = asyncio.get_running_loop()
    target = urllib.parse.quote(path if path.startswith("/") else "/" + path, safe="/?&=%:@!$'()*+,;~-._")
    request = (
        f"GET {target} HTTP/1.1\r\nHost: {join(address, port)}\r\nUser-Agent: gslb-agent\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    with await _connect(address, port) as connection:
        await loop.sock_sendall(connection, request.encode("ascii"))
        head = b""
        while b"\n" not in head and len(head) < limits.HTTP_HEAD_MAX_BYTES:
            data = await loop.sock_recv(connection, 4096)
            if not data:
                break
            head += data
    found = _STATUS_LINE.match(head)
    if found is None:
        return False, "its answer is not HTTP/1" if head else "it closed the connection without an answer"
    status = int(found[1])
    return 200 <= status < 400, f"status {status}"


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[: limits.DETAIL_MAX_CHARS]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[: limits.DETAIL_MAX_CHARS])
