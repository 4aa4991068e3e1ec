"""DNS over TCP (RFC 7766): pipelining, one deadline a message, caps, and eviction of who is idle longest."""

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict

from dns_frontend.limits import (
    TCP_CONNECTIONS_MAX,
    TCP_CONNECTIONS_PER_PREFIX,
    TCP_FIRST_S,
    TCP_IDLE_S,
    TCP_MESSAGE_S,
    TCP_WRITE_BUFFER_OCTETS,
)
from dns_frontend.metrics import Counters
from dns_frontend.responder.locate import Source
from dns_frontend.responder.respond import Responder
from dns_frontend.sockets import Listening, source_parts
from dns_frontend.table.steering import client_key

log = logging.getLogger(__name__)

_LENGTH_OCTETS = 2
# Messages answered from the buffer of one connection before others get their turn.
_BURST = 16
_CLOSE_S = 1.0


class TcpServer:
    """Serves the TCP side of all addresses, with common caps."""

    def __init__(self, responder: Responder, counters: Counters) -> None:
        self._responder = responder
        self._counters = counters
        self._servers: list[asyncio.Server] = []
        self._idle: OrderedDict[asyncio.StreamWriter, None] = OrderedDict()  # longest without a message first
        self._per_prefix: Counter[bytes] = Counter()
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        return len(self._idle)

    async def start(self, listening: Listening) -> None:
        self._servers.append(await asyncio.start_server(self._accepted, sock=listening.tcp))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._idle):
            writer.transport.abort()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=_CLOSE_S)
        await asyncio.sleep(0)  # the transports' own last callbacks

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.create_task(self._handle(reader, writer))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = writer.get_extra_info("peername")
            family = writer.get_extra_info("socket").family
            source = Source(*source_parts(family, peer[0]))
        except (TypeError, OSError):  # gone already
            writer.transport.abort()
            return
        prefix = client_key(*source)
        if self._per_prefix[prefix] >= TCP_CONNECTIONS_PER_PREFIX:
            self._counters.tcp_refused += 1
            writer.transport.abort()
            return
        if len(self._idle) >= TCP_CONNECTIONS_MAX:
            self._evict()
        self._per_prefix[prefix] += 1
        self._idle[writer] = None
        writer.transport.set_write_buffer_limits(high=TCP_WRITE_BUFFER_OCTETS)
        try:
            await self._serve(reader, writer, source)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # slow, gone or cut short: all the same to us
        finally:
            self._idle.pop(writer, None)
            self._per_prefix[prefix] -= 1
            if not self._per_prefix[prefix]:
                del self._per_prefix[prefix]
            writer.transport.abort()

    def _evict(self) -> None:
        writer, _ = self._idle.popitem(last=False)
        self._counters.tcp_evicted += 1
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: Source) -> None:
        """One connection until its client closes it or breaks a limit."""
        sent = 0
        while True:
            try:
                async with asyncio.timeout(TCP_IDLE_S if sent else TCP_FIRST_S):
                    head = await reader.readexactly(_LENGTH_OCTETS)
            except asyncio.IncompleteReadError:
                await self._finish(writer)
                return
            async with asyncio.timeout(TCP_MESSAGE_S):
                packet = await reader.readexactly(int.from_bytes(head, "big"))
            # Closed by itself when the client goes in the middle of a transfer.
            with contextlib.closing(self._responder.stream(packet, source)) as answers:
                for answer in answers:
                    writer.write(len(answer).to_bytes(_LENGTH_OCTETS, "big") + answer)
                    async with asyncio.timeout(TCP_MESSAGE_S):
                        await writer.drain()
                    if (sent := sent + 1) % _BURST == 0:
                        await asyncio.sleep(0)
            if writer in self._idle:
                self._idle.move_to_end(writer)

    async def _finish(self, writer: asyncio.StreamWriter) -> None:
        """The client has sent its last query: let the answers that are still under way reach it."""
        writer.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(TCP_MESSAGE_S):
                await writer.wait_closed()
