"""Answers that were given a moment ago, for the frontend without a data plane: most queries repeat.

An answer of the responder depends on the query but for its ID, on who asks, and on what is served; the order of addresses
depends on the ID. What may also depend on the time or on secrets (EDNS options) is not kept, and nothing is kept for
longer than a second.
"""

from typing import Final, NamedTuple

from dns_frontend.limits import CACHED_ANSWERS_MAX, CACHED_S
from dns_frontend.metrics import Transport
from dns_frontend.responder.locate import Source
from dns_frontend.responder.resolve import Reply
from dns_frontend.responder.respond import Responder
from dns_frontend.sockets import source_parts
from dns_frontend.table.serving import Serving

_NO_RECORDS: Final = bytes(6)  # the counts of the sections after the question
_ONE_RECORD: Final = bytes(5) + b"\x01"
_ROOT_OPT: Final = b"\x00\x00\x29"
_OPT_OCTETS: Final = 11  # without options


class _Entry(NamedTuple):
    """Answers without their ID, by the ID modulo their number; None: not asked for yet."""

    tails: list[bytes | None]
    reply: Reply
    source: Source


class AnswerCache:
    """Answers over UDP: from memory, else by the responder. `tick` says what time it is."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._entries: dict[tuple[bytes, str], _Entry] = {}
        self._serving: Serving = responder.serving
        self._expires_s = 0.0

    def tick(self, now_s: float) -> None:
        """To be called before `respond` whenever some moments may have passed."""
        if now_s >= self._expires_s or self._serving is not self._responder.serving:
            self._entries.clear()
            self._serving = self._responder.serving
            self._expires_s = now_s + CACHED_S

    def respond(self, packet: bytes, host: str, family: int) -> bytes | None:
        """The answer to a message from an address, as the socket module writes it; None: say nothing."""
        key = (packet[2:], host)
        entry = self._entries.get(key)
        if entry is not None:
            tails = entry.tails
            tail = tails[0] if len(tails) == 1 else tails[(packet[0] << 8 | packet[1]) % len(tails)]
            if tail is not None:
                return self._responder.again(packet, packet[:2] + tail, entry.reply, entry.source)
        source = Source(*source_parts(family, host))
        answer = self._responder.respond(packet, source, Transport.UDP)
        if answer is not None and _repeats(packet):
            self._keep(key, packet, answer, source)
        return answer

    def _keep(self, key: tuple[bytes, str], packet: bytes, answer: bytes, source: Source) -> None:
        reply = self._responder.last
        if reply is None:
            return
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= CACHED_ANSWERS_MAX:
                self._entries.clear()
            addresses = len(reply.answer[-1].rrset.rdatas) if reply.service and reply.answer else 1
            tails: list[bytes | None] = [None] * addresses
            entry = _Entry(tails, reply, source)
            self._entries[key] = entry
        entry.tails[int.from_bytes(packet[:2], "big") % len(entry.tails)] = answer[2:]


def _repeats(packet: bytes) -> bool:
    """Whether the query has nothing in it but a question, and perhaps an OPT record without options."""
    counts = packet[6:12]
    if counts == _NO_RECORDS:
        return True
    opt = packet[-_OPT_OCTETS:]
    return counts == _ONE_RECORD and opt.startswith(_ROOT_OPT) and opt.endswith(b"\x00\x00")
