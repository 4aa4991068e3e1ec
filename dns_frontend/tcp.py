"""DNS over TCP (RFC 7766): pipelining, one deadline a message, caps, and eviction of who is idle longest.

Sockets and the event loop without asyncio's streams: whoever opens connections by the thousand and says nothing pays more
for each than we do. A stream costs 130 us of CPU, and `asyncio.start_server` shortens the kernel's queue of connections
to 100, beyond which a client's SYN is lost and comes again after one second and three. For the same reason there is room
for many: slow clients that are held until their deadline come back once in two seconds, those that are evicted at once.
"""

import asyncio
import contextlib
import errno
import logging
import select
import socket
import struct
from collections import Counter, OrderedDict
from collections.abc import Generator
from typing import Final

from dns_frontend.limits import (
    TCP_ACCEPTS_PER_WAKE,
    TCP_BUFFERED_MAX_OCTETS,
    TCP_CONNECTION_FREE_OCTETS,
    TCP_CONNECTIONS_MAX,
    TCP_CONNECTIONS_PER_PREFIX,
    TCP_EVENTS_PER_WAKE,
    TCP_FIRST_S,
    TCP_IDLE_S,
    TCP_MESSAGE_S,
    TCP_NO_FILES_S,
    TCP_READ_OCTETS,
    TCP_SWEEP_S,
    TCP_WRITE_BUFFER_OCTETS,
)
from dns_frontend.metrics import Counters, Transport
from dns_frontend.querylog import QueryLog
from dns_frontend.responder.locate import Source
from dns_frontend.responder.respond import Responder
from dns_frontend.sockets import Listening, files_left, source_parts
from dns_frontend.table.steering import client_key

log = logging.getLogger(__name__)

_LENGTH_OCTETS: Final = 2
# Messages answered from the buffer of one connection before others get their turn.
_BURST: Final = 16
# Closes with RST: nothing of it stays behind, here or in the kernel.
_RESET: Final = struct.pack("ii", 1, 0)
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _Connection:
    """A client: what of it is not answered yet, and what waits to be sent to it."""

    __slots__ = (
        "answered",
        "answers",
        "awaited",
        "begun",
        "deadline_s",
        "ended",
        "held",
        "own",
        "prefix",
        "received",
        "source",
        "unsent",
    )

    def __init__(self, own: socket.socket, source: Source, prefix: bytes, deadline_s: float) -> None:
        self.own = own
        self.source = source
        self.prefix = prefix
        self.deadline_s = deadline_s  # of what it is to do next, by the loop's clock
        self.received = bytearray()
        self.unsent = bytearray()
        self.answers: Generator[bytes, None, None] | None = None  # to the message before
        self.begun = False  # the deadline is that of the message in `received`
        self.held = 0  # octets of both
        self.awaited = select.EPOLLIN  # what we wait for; 0: its turn comes
        self.ended = False  # the client sends nothing more
        self.answered = False

    def message(self) -> bytes | None:
        """The next message, if all of it is there."""
        received = self.received
        if len(received) < _LENGTH_OCTETS:
            return None
        end = _LENGTH_OCTETS + int.from_bytes(received[:_LENGTH_OCTETS], "big")
        if len(received) < end:
            return None
        packet = bytes(received[_LENGTH_OCTETS:end])
        del received[:end]
        return packet


class TcpServer:
    """Serves the TCP side of all addresses, with common caps.

    Its connections are in an epoll of their own, which the loop sees as one file: that costs a fifth of what the loop
    would do for each of them.
    """

    def __init__(self, responder: Responder, counters: Counters, querylog: QueryLog | None = None) -> None:
        self._responder = responder
        self._querylog = querylog
        self._counters = counters
        self._listening: list[socket.socket] = []
        self._idle: OrderedDict[_Connection, None] = OrderedDict()  # longest without a message first
        self._by_file: dict[int, _Connection] = {}
        self._per_prefix: Counter[bytes] = Counter()
        self._sweeping: asyncio.TimerHandle | None = None
        self._poll: select.epoll | None = None
        self._files = 0  # that connections may take
        self._held = 0  # octets in the buffers of all connections

    @property
    def connections(self) -> int:
        return len(self._idle)

    def start(self, listening: Listening) -> None:
        self._loop = asyncio.get_running_loop()
        if self._poll is None:
            self._files = files_left()
            self._poll = select.epoll()
            self._loop.add_reader(self._poll.fileno(), self._dispatch, self._poll)
        self._listening.append(listening.tcp)
        self._listen(listening.tcp)

    def close(self) -> None:
        for listener in self._listening:
            if listener.fileno() >= 0:
                self._loop.remove_reader(listener)
                listener.close()
        for connection in list(self._idle):
            self._close(connection)
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._poll is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None

    def _listen(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener, self._accept, listener)

    def _dispatch(self, poll: select.epoll) -> None:
        for file, events in poll.poll(0, TCP_EVENTS_PER_WAKE):
            connection = self._by_file.get(file)
            if connection is None:  # closed by what came before it here
                continue
            if connection.awaited == select.EPOLLIN:
                self._read(connection)
            elif connection.awaited == select.EPOLLOUT:
                self._write(connection)
            elif events & (select.EPOLLERR | select.EPOLLHUP):
                self._close(connection)

    def _await(self, connection: _Connection, what: int) -> None:
        if connection.awaited != what and self._poll is not None:
            connection.awaited = what
            self._poll.modify(connection.own, what)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(TCP_ACCEPTS_PER_WAKE):
            try:
                own, peer = listener.accept()
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    return  # nobody more, or one that is gone already
                if self._idle:
                    self._evict()
                    continue
                log.warning("cannot take a TCP connection: %s", error.strerror)
                self._loop.remove_reader(listener)
                self._loop.call_later(TCP_NO_FILES_S, self._listen, listener)
                return
            self._admit(own, peer[0])

    def _admit(self, own: socket.socket, host: str) -> None:
        own.setblocking(False)
        source = Source(*source_parts(own.family, host))
        prefix = client_key(*source)
        if self._per_prefix[prefix] >= TCP_CONNECTIONS_PER_PREFIX or self._poll is None:
            self._counters.tcp_refused += 1
            _reset(own)
            return
        if len(self._idle) >= min(TCP_CONNECTIONS_MAX, self._files):
            self._evict()
        self._per_prefix[prefix] += 1
        connection = _Connection(own, source, prefix, self._loop.time() + TCP_FIRST_S)
        self._idle[connection] = None
        self._by_file[own.fileno()] = connection
        self._poll.register(own, select.EPOLLIN)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(TCP_SWEEP_S, self._sweep)
        self._read(connection)  # its first message often came with it

    def _evict(self) -> None:
        self._counters.tcp_evicted += 1
        self._close(next(iter(self._idle)))

    def _sweep(self) -> None:
        """Closes who is late. One look at all of them now and then is cheaper than a timer for each."""
        now_s = self._loop.time()
        for connection in [each for each in self._idle if each.deadline_s <= now_s]:
            self._close(connection)
        self._sweeping = self._loop.call_later(TCP_SWEEP_S, self._sweep) if self._idle else None

    def _close(self, connection: _Connection) -> None:
        """Ends a connection. What was handed to the kernel still goes out."""
        file = connection.own.fileno()
        if file < 0:
            return
        del self._by_file[file]
        if connection.answers is not None:
            connection.answers.close()
        if connection.answered:
            connection.own.close()
        else:
            _reset(connection.own)
        del self._idle[connection]
        self._held -= connection.held
        left = self._per_prefix[connection.prefix] - 1
        if left:
            self._per_prefix[connection.prefix] = left
        else:
            del self._per_prefix[connection.prefix]

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.own.recv(TCP_READ_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        connection.received += data
        connection.ended = not data
        self._work(connection)

    def _work(self, connection: _Connection) -> None:
        """Answers a few of its messages, then waits for whatever is to happen next."""
        if connection.own.fileno() < 0:  # closed before its turn came
            return
        busy = self._answer(connection)
        if not (self._send(connection) and self._afford(connection)):
            return
        if busy:
            self._await(connection, 0)
            connection.deadline_s = self._loop.time() + TCP_MESSAGE_S
            self._loop.call_soon(self._work, connection)
        elif connection.ended:
            self._close(connection)
        else:
            self._await_more(connection)

    def _afford(self, connection: _Connection) -> bool:
        """Counts what a connection makes us keep. False: it is closed, for all together make us keep too much."""
        held = len(connection.received) + len(connection.unsent)
        self._held += held - connection.held
        connection.held = held
        if self._held <= TCP_BUFFERED_MAX_OCTETS or held <= TCP_CONNECTION_FREE_OCTETS:
            return True
        self._counters.tcp_evicted += 1
        self._close(connection)
        return False

    def _await_more(self, connection: _Connection) -> None:
        if connection.received:
            if not connection.begun:
                connection.begun = True
                connection.deadline_s = self._loop.time() + TCP_MESSAGE_S
        elif connection.answered:
            connection.deadline_s = self._loop.time() + TCP_IDLE_S
        self._await(connection, select.EPOLLIN)

    def _answer(self, connection: _Connection) -> bool:
        """Moves answers to what is unsent; whether there is more to do."""
        for _ in range(_BURST):
            if connection.answers is None:
                packet = connection.message()
                if packet is None:
                    return False
                connection.begun = False
                connection.answered = True
                self._idle.move_to_end(connection)
                connection.answers = self._responder.stream(packet, connection.source)
                if self._querylog is not None:
                    self._querylog.saw(packet, lambda: connection.source, Transport.TCP)
            answer = next(connection.answers, None)
            if answer is None:
                connection.answers = None
                continue
            connection.unsent += len(answer).to_bytes(_LENGTH_OCTETS, "big") + answer
            if len(connection.unsent) >= TCP_WRITE_BUFFER_OCTETS:
                break
        return True

    def _send(self, connection: _Connection) -> bool:
        """Hands what is unsent to the kernel. False: it did not take all, and goes on by itself; or the client is gone."""
        if not connection.unsent:
            return True
        try:
            sent = connection.own.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return False
        del connection.unsent[:sent]
        if connection.unsent:
            # Who does not take its answers may not ask for more.
            connection.deadline_s = self._loop.time() + TCP_MESSAGE_S
            self._await(connection, select.EPOLLOUT)
            self._afford(connection)
            return False
        return True

    def _write(self, connection: _Connection) -> None:
        try:
            sent = connection.own.send(connection.unsent)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        del connection.unsent[:sent]
        if not connection.unsent:
            self._work(connection)


def _reset(own: socket.socket) -> None:
    with contextlib.suppress(OSError):
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    own.close()
