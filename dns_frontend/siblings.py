"""One process a core for the frontend without a data plane: the first starts the others, and counts for all of them.

Each has a stream of plans of its own, a UDP socket of its own with the same port, and takes connections from the common TCP
socket. What it counted goes to the first once a second, which has the only debug pages and sends the only demand report.
While one is away, the first answers on its socket. They end with the first, however that ends: the kernel kills them,
and their pipe ends.
"""

import asyncio
import base64
import contextlib
import json
import logging
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from bns.spawn import dies_with_us
from dns_frontend.limits import SIBLING_AGAIN_S, SIBLING_LINE_MAX_OCTETS, SIBLING_STOP_S
from dns_frontend.metrics import Counters
from dns_frontend.sockets import Listening
from dns_frontend.udp import UdpListener

if TYPE_CHECKING:
    from dns_frontend.server import Settings

log = logging.getLogger(__name__)

RELOAD: Final = b"reload\n"


class Orders(NamedTuple):
    """What a sibling is to do: a line of its standard input. Sockets are numbers of inherited files."""

    settings: "Settings"
    secrets: tuple[bytes, ...]  # of cookies; empty: they are off, or in a file
    sockets: tuple[tuple[int, int, str, bool], ...]  # UDP, TCP, address, wildcard


def packed(orders: Orders) -> bytes:
    """As a line."""
    return base64.b64encode(pickle.dumps(orders)) + b"\n"


def unpacked(line: bytes) -> Orders:
    """The same back, in the process that we started: nobody else writes to its standard input."""
    orders = pickle.loads(base64.b64decode(line))  # noqa: S301
    assert isinstance(orders, Orders)
    return orders


class Siblings:
    """The other processes. `listening` has as many UDP sockets for each address as there are processes; the first is ours."""

    def __init__(
        self,
        settings: "Settings",
        listening: Sequence[Listening],
        secrets: Callable[[], tuple[bytes, ...]],
        standing_in: Callable[[Listening], UdpListener],
        counters: Counters,
    ) -> None:
        hardening = replace(settings.hardening, rule=settings.hardening.rule.divided(settings.processes))
        self._settings = replace(settings, account=None, grpc=None, http=None, processes=1, hardening=hardening)
        self._listening = listening
        self._secrets = secrets
        self._standing_in = standing_in
        self._counters = counters
        self._pipes: dict[int, asyncio.StreamWriter] = {}
        self._connections: dict[int, int] = {}
        self.pids: dict[int, int] = {}

    @property
    def connections(self) -> int:
        """TCP connections of all of them."""
        return sum(self._connections.values())

    def reload(self) -> None:
        """Has them read their files anew."""
        for pipe in self._pipes.values():
            pipe.write(RELOAD)

    async def run(self) -> None:
        """Keeps them running, for ever."""
        async with asyncio.TaskGroup() as group:
            for number in range(1, len(self._listening[0].udp)):
                group.create_task(self._keep(number), name=f"process {number}")

    async def _keep(self, number: int) -> None:
        stand_ins = [self._standing_in(each._replace(udp=(each.udp[number],))) for each in self._listening]
        while True:
            for each in stand_ins:
                each.start()
            try:
                await self._one(number, stand_ins)
            except OSError as error:
                log.warning("process %d cannot be started: %s; trying on", number, error)
            finally:
                for each in stand_ins:
                    each.stop()
                self._pipes.pop(number, None)
                self._connections.pop(number, None)
            await asyncio.sleep(SIBLING_AGAIN_S)

    async def _one(self, number: int, stand_ins: Sequence[UdpListener]) -> None:
        """One process from its start to its end."""
        sockets = tuple(
            (each.udp[number].fileno(), each.tcp.fileno(), each.address, each.wildcard) for each in self._listening
        )
        process = await asyncio.create_subprocess_exec(
            *dies_with_us([sys.executable, "-m", "dns_frontend.sibling"]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[file for udp, tcp, _, _ in sockets for file in (udp, tcp)],
            limit=SIBLING_LINE_MAX_OCTETS,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self.pids[number] = process.pid
        try:
            named = replace(self._settings, name=f"{self._settings.name}/{number}")
            process.stdin.write(packed(Orders(named, self._secrets(), sockets)))
            self._pipes[number] = process.stdin
            while line := await process.stdout.readline():
                for each in stand_ins:
                    each.stop()
                told = json.loads(line)
                self._connections[number] = told["connections"]
                self._counters.absorb(told["counts"])
            log.warning("process %d ended with code %s; starting it anew", number, await process.wait())
        finally:
            process.stdin.close()
            try:
                async with asyncio.timeout(SIBLING_STOP_S):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            del self.pids[number]
