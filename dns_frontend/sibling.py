"""`python -m dns_frontend.sibling`: one more process of a frontend without data plane (see `siblings`)."""

import asyncio
import json
import logging
import signal
import socket
import sys

from dns_frontend.limits import SIBLING_LINE_MAX_OCTETS, SIBLING_READY_S, SIBLING_REPORT_S
from dns_frontend.server import Frontend
from dns_frontend.siblings import RELOAD, Orders, unpacked
from dns_frontend.sockets import Listening

log = logging.getLogger(__name__)


def _socket(file: int) -> socket.socket:
    made = socket.socket(fileno=file)
    made.setblocking(False)
    return made


async def _orders() -> tuple[Orders, asyncio.StreamReader]:
    reader = asyncio.StreamReader(limit=SIBLING_LINE_MAX_OCTETS)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return unpacked(await reader.readline()), reader


async def _obey(frontend: Frontend, reader: asyncio.StreamReader) -> None:
    """Until the first process is gone."""
    while line := await reader.readline():
        if line == RELOAD:
            frontend.reload_soon()
    frontend.stop()


async def _report(frontend: Frontend) -> None:
    """Joins once there is something to answer from, and says by its first line that it did."""
    while not frontend.ready:  # noqa: ASYNC110  once, at the start
        await asyncio.sleep(SIBLING_READY_S)
    frontend.join()
    while True:
        told = {"connections": frontend.connections, "counts": frontend.counters.take()}
        try:
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
        except OSError:
            frontend.stop()
            return
        await asyncio.sleep(SIBLING_REPORT_S)


async def _run() -> None:
    loop = asyncio.get_running_loop()
    # The first process decides when we end: it closes our standard input. A signal to the group is its, not ours.
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    orders, reader = await _orders()
    listening = [
        Listening((_socket(udp),), _socket(tcp), address, wildcard) for udp, tcp, address, wildcard in orders.sockets
    ]
    frontend = Frontend(orders.settings, listening, orders.secrets)
    loop.add_signal_handler(signal.SIGTERM, frontend.stop)
    try:
        await frontend.start()
    except BaseException:
        await frontend.close()
        raise
    jobs = [asyncio.create_task(_obey(frontend, reader)), asyncio.create_task(_report(frontend))]
    for job in jobs:
        job.add_done_callback(lambda _: frontend.stop())
    await frontend.run()
    for job in jobs:
        job.cancel()


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    asyncio.run(_run())
