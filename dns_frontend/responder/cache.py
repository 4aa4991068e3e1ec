"""Answers that were given a moment ago, for the frontend without a data plane: most queries repeat.

An answer of the responder depends on the query but for its ID, on who asks, and on what is served; the order of addresses
depends on the ID. Some of it depends on the time, too: when a new cookie was made, whether what we know is old. Nothing is
kept for longer than a second, and nothing that was made with other secrets.
"""

from typing import Final, NamedTuple

from dns_frontend.limits import CACHED_ANSWERS_MAX, CACHED_S
from dns_frontend.metrics import Transport
from dns_frontend.responder.locate import Source
from dns_frontend.responder.respond import Given, Responder
from dns_frontend.sockets import source_parts
from dns_frontend.table.serving import Serving

# The counts of the sections after the question: of queries without and with EDNS.
_USUAL_COUNTS: Final = frozenset({bytes(6), bytes(5) + b"\x01"})


class _Entry(NamedTuple):
    """Answers without their ID, by the ID modulo their number; None: not asked for yet."""

    tails: list[bytes | None]
    given: Given
    source: Source


class AnswerCache:
    """Answers over UDP: from memory, else by the responder. `tick` says what time it is."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._entries: dict[tuple[bytes, str], _Entry] = {}
        self._serving: Serving = responder.serving
        self._cookies = responder.cookies
        self._expires_s = 0.0

    def tick(self, now_s: float) -> None:
        """To be called before `respond` whenever some moments may have passed."""
        serving, cookies = self._responder.serving, self._responder.cookies
        if now_s >= self._expires_s or self._serving is not serving or self._cookies is not cookies:
            self._entries.clear()
            self._serving, self._cookies = serving, cookies
            self._expires_s = now_s + CACHED_S

    def respond(self, packet: bytes, host: str, family: int) -> bytes | None:
        """The answer to a message from an address, as the socket module writes it; None: say nothing."""
        key = (packet[2:], host)
        entry = self._entries.get(key)
        if entry is not None:
            tails = entry.tails
            tail = tails[0] if len(tails) == 1 else tails[(packet[0] << 8 | packet[1]) % len(tails)]
            if tail is not None:
                return self._responder.again(packet, packet[:2] + tail, entry.given, entry.source)
        source = Source(*source_parts(family, host))
        answer = self._responder.respond(packet, source, Transport.UDP)
        if answer is not None and packet[6:12] in _USUAL_COUNTS:
            self._keep(key, packet, answer, source)
        return answer

    def _keep(self, key: tuple[bytes, str], packet: bytes, answer: bytes, source: Source) -> None:
        given = self._responder.last
        if given is None:
            return
        reply = given.reply
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= CACHED_ANSWERS_MAX:
                self._entries.clear()
            entry = self._entries[key] = _Entry([None] * reply.turns, given, source)
        entry.tails[int.from_bytes(packet[:2], "big") % len(entry.tails)] = answer[2:]
