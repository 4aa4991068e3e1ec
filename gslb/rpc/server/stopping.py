"""Ends a server so that nobody notices: lame duck, serve on until idle, deregister, stop.

A server that just stops breaks the requests that are under way and those that are sent to it until every client has
heard. A lame duck says first that it wants no more, and goes when nobody asks any more.
"""

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from gslb.model import limits
from gslb.rpc.server.load import Load
from gslb.rpc.server.registration import Registration

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Nobody asked for this long: clients have heard. News of health takes well under a second from agent to client.
_QUIET_S = 1.0
_LOOK_PERIOD_S = 0.05
# For what may still be under way when the limit has passed.
_STOP_GRACE_S = 1.0


class AioHealth(Protocol):
    """What is used of grpc_health's asyncio servicer."""

    async def enter_graceful_shutdown(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Goodbye:
    """What a server takes leave of; `limit_s`: how long it serves on at most."""

    load: Load
    registration: Registration | None = None
    limit_s: float = limits.LAME_DUCK_LIMIT_S

    def is_quiet(self, since_s: float, now_s: float) -> bool:
        """Whether nobody has asked for a while since `since_s`, or the time is up."""
        waited_s = now_s - since_s
        return waited_s >= self.limit_s or min(waited_s, self.load.idle_s()) >= _QUIET_S


def add_health(server: grpc.Server) -> health.HealthServicer:
    """Adds grpc.health.v1 to a server, SERVING."""
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def add_aio_health(server: grpc.aio.Server) -> AioHealth:
    """Adds grpc.health.v1 to an asyncio server, SERVING."""
    servicer: AioHealth = health.aio.HealthServicer()  # type: ignore[attr-defined]  # chosen by version at run time
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def stop_gracefully(server: grpc.Server, health_servicer: health.HealthServicer | None, goodbye: Goodbye) -> None:
    """Lame duck, serve on until idle or the limit, deregister, stop. Blocks."""
    if goodbye.registration is not None:
        goodbye.registration.lame_duck()
    if health_servicer is not None:
        health_servicer.enter_graceful_shutdown()
    since_s = time.monotonic()
    while not goodbye.is_quiet(since_s, time.monotonic()):
        time.sleep(_LOOK_PERIOD_S)
    if goodbye.registration is not None:
        goodbye.registration.close()
    server.stop(_STOP_GRACE_S).wait()
    log.info("stopped, %d requests were under way", goodbye.load.in_flight)


def serve_until_signal(
    server: grpc.Server,
    health_servicer: health.HealthServicer | None,
    goodbye: Goodbye,
    signals: Sequence[signal.Signals] = SIGNALS,
) -> None:
    """Serves until SIGTERM or SIGINT, then stops gracefully; a second signal stops at once. In the main thread only."""
    asked = threading.Event()
    before = {number: signal.getsignal(number) for number in signals}

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        if asked.is_set():
            raise SystemExit(128 + number)
        asked.set()

    for number in signals:
        signal.signal(number, on_signal)
    try:
        asked.wait()
        stop_gracefully(server, health_servicer, goodbye)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def aio_stop_gracefully(server: grpc.aio.Server, health_servicer: AioHealth | None, goodbye: Goodbye) -> None:
    """As `stop_gracefully`, for an asyncio server."""
    if goodbye.registration is not None:
        goodbye.registration.lame_duck()
    if health_servicer is not None:
        await health_servicer.enter_graceful_shutdown()
    since_s = time.monotonic()
    while not goodbye.is_quiet(since_s, time.monotonic()):  # noqa: ASYNC110  # counters of all threads
        await asyncio.sleep(_LOOK_PERIOD_S)
    if goodbye.registration is not None:
        await asyncio.to_thread(goodbye.registration.close)
    await server.stop(_STOP_GRACE_S)
    log.info("stopped, %d requests were under way", goodbye.load.in_flight)


async def aio_serve_until_signal(
    server: grpc.aio.Server,
    health_servicer: AioHealth | None,
    goodbye: Goodbye,
    signals: Sequence[signal.Signals] = SIGNALS,
) -> None:
    """As `serve_until_signal`, for an asyncio server in the main thread's loop."""
    loop = asyncio.get_running_loop()
    asked, again = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (again if asked.is_set() else asked).set()

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        await asked.wait()
        stopping = asyncio.create_task(aio_stop_gracefully(server, health_servicer, goodbye))
        impatient = asyncio.create_task(again.wait())
        await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
        impatient.cancel()
        if not stopping.done():
            stopping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stopping
            await server.stop(None)
        else:
            stopping.result()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
