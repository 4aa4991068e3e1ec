"""DNS over UDP: read what is there, answer it, go on. No queue of our own: the kernel's is bounded."""

import asyncio
from functools import partial

from dns_frontend.limits import DATAGRAM_MAX_OCTETS, DATAGRAMS_PER_WAKE
from dns_frontend.metrics import Counters, Transport
from dns_frontend.querylog import QueryLog
from dns_frontend.responder.cache import AnswerCache
from dns_frontend.responder.locate import Source
from dns_frontend.responder.respond import Responder
from dns_frontend.sockets import Listening, reply_from, source_parts

_ANCILLARY_OCTETS = 64


class UdpListener:
    """Serves one UDP socket from the event loop."""

    def __init__(
        self, listening: Listening, responder: Responder, counters: Counters, querylog: QueryLog | None = None
    ) -> None:
        self._socket = listening.udp[0]
        self._family = self._socket.family
        self._wildcard = listening.wildcard
        self._cache = AnswerCache(responder)
        self._counters = counters
        self._querylog = querylog
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(
            self._socket.fileno(), self._answer_with_source if self._wildcard else self._answer
        )

    def stop(self) -> None:
        """Leaves the socket to others."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    def _answer(self) -> None:
        self._cache.tick(self._loop.time())
        receive, send, respond, family = self._socket.recvfrom, self._socket.sendto, self._cache.respond, self._family
        for _ in range(DATAGRAMS_PER_WAKE):
            try:
                packet, peer = receive(DATAGRAM_MAX_OCTETS)
            except OSError:  # nothing more, or an error of an earlier answer: neither says anything of the next query
                return
            if not peer[1]:  # port 0 cannot be answered
                self._counters.ignored(Transport.UDP)
                continue
            answer = respond(packet, peer[0], family)
            if self._querylog is not None:
                self._querylog.saw(packet, partial(_source, family, peer[0]), Transport.UDP)
            if answer is not None:
                try:
                    send(answer, peer)
                except OSError:
                    self._counters.send_failures += 1

    def _answer_with_source(self) -> None:
        """As `_answer`, for a socket bound to every address: the answer leaves from where the query came to."""
        self._cache.tick(self._loop.time())
        for _ in range(DATAGRAMS_PER_WAKE):
            try:
                packet, ancillary, _, peer = self._socket.recvmsg(DATAGRAM_MAX_OCTETS, _ANCILLARY_OCTETS)
            except OSError:
                return
            if not peer[1]:
                self._counters.ignored(Transport.UDP)
                continue
            answer = self._cache.respond(packet, peer[0], self._family)
            if self._querylog is not None:
                self._querylog.saw(packet, partial(_source, self._family, peer[0]), Transport.UDP)
            if answer is not None:
                try:
                    self._socket.sendmsg([answer], reply_from(ancillary), 0, peer)
                except OSError:
                    self._counters.send_failures += 1


def _source(family: int, host: str) -> Source:
    return Source(*source_parts(family, host))
