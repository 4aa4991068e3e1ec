"""Octets in, octets out, for one message: never an exception, whatever comes in."""

import logging
from collections.abc import Generator, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from dns_frontend.limits import TCP_MESSAGE_MAX_OCTETS, TRANSFERS_MAX, UDP_PAYLOAD_MAX_OCTETS, UDP_PAYLOAD_MIN_OCTETS
from dns_frontend.metrics import Counters, Transport
from dns_frontend.responder.cookies import Cookies, Shown
from dns_frontend.responder.edns import opt_record
from dns_frontend.responder.guard import Guard
from dns_frontend.responder.locate import Source
from dns_frontend.responder.message import QR, RD, BadQueryError, Query, cookie_probe, is_query, parse_query
from dns_frontend.responder.resolve import Asker, Reply, resolve
from dns_frontend.responder.rrl import AnswerClass, Verdict
from dns_frontend.responder.transfer import TRANSFER_TYPES, is_current, messages, only_soa
from dns_frontend.responder.writer import Writer, header_only
from dns_frontend.table.serving import Serving
from dns_frontend.zone.records import ZoneData
from dns_frontend.zone.rtype import CLASS_IN, Rcode

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

AA: Final = 0x0400
TC: Final = 0x0200
_ECHOED: Final = 0x7800 | RD  # opcode and RD come back as they were


class Given(NamedTuple):
    """What the last answer says, if it is whole, and what the query's cookie has shown."""

    reply: Reply
    shown: Shown = Shown.NOTHING


class Responder:
    """Answers messages from `serving`, which may be replaced between any two of them."""

    def __init__(
        self,
        counters: Counters,
        default_locality: str = "",
        transfer: Sequence[Network] = (),
        guard: Guard | None = None,
    ) -> None:
        """Without a `guard` every query gets its plain answer."""
        self.serving = Serving()
        self._counters = counters
        self._guard = guard
        self._default_locality = default_locality
        self._transfer = transfer  # who may have whole zones
        self._transfers = 0
        self.last: Given | None = None

    @property
    def cookies(self) -> Cookies | None:
        """The secrets of cookies, in force now."""
        return self._guard.cookies if self._guard is not None else None

    def respond(self, packet: bytes, source: Source, transport: Transport) -> bytes | None:
        """The answer to one message; None: say nothing."""
        self.last = None
        if not is_query(packet):
            self._counters.ignored(transport)
            return None
        try:
            return self._respond(packet, source, transport)
        except Exception:
            # A bug of ours must not silence the server: the client asks another one, and we say where it was.
            self._counters.bugs += 1
            if self._counters.bugs == 1:
                log.exception(
                    "cannot answer a message of %d octets (logged once, see gslb_dns_bugs_total)", len(packet)
                )
            self._counters.answered(transport, Rcode.SERVFAIL)
            return bare(packet, Rcode.SERVFAIL)

    def reply_to(self, packet: bytes, source: Source) -> Reply | None:
        """What a query is answered with, whatever limits say; None: it is none. Counts nothing."""
        if not is_query(packet):
            return None
        try:
            query = parse_query(packet)
        except BadQueryError:
            return None
        return resolve(self.serving, query, Asker(source, self._default_locality))

    def stream(self, packet: bytes, source: Source) -> Generator[bytes, None, None]:
        """The answers to one message over TCP: one, or as many as a transfer takes; none: say nothing."""
        if is_query(packet) and (zone := self._wanted(packet, source)) is not None:
            yield from self._whole(packet, zone)
            return
        answer = self.respond(packet, source, Transport.TCP)
        if answer is not None:
            yield answer

    def _wanted(self, packet: bytes, source: Source) -> tuple[Query, ZoneData] | None:
        """The zone whose transfer is asked for, if it may be had; otherwise `respond` refuses."""
        if not self._transfer or self._transfers >= TRANSFERS_MAX:
            return None
        try:
            query = parse_query(packet)
        except BadQueryError:
            return None
        if query.rtype not in TRANSFER_TYPES or query.rclass != CLASS_IN or not self._allowed(source):
            return None
        if query.edns is not None and (query.edns.version or query.edns.malformed):
            return None
        zone = self.serving.table.zones.get(query.key)
        return (query, zone.static) if zone is not None and zone.static is not None else None

    def _allowed(self, source: Source) -> bool:
        return any(
            network.version == source.version
            and int(network.network_address) <= source.value <= int(network.broadcast_address)
            for network in self._transfer
        )

    def _whole(self, packet: bytes, wanted: tuple[Query, ZoneData]) -> Iterator[bytes]:
        query, data = wanted
        self._counters.answered(Transport.TCP, Rcode.NOERROR)
        if is_current(packet, query, data):
            yield only_soa(query, data)
            return
        self._counters.transfers += 1
        self._transfers += 1
        try:
            yield from messages(query, data)
        finally:
            self._transfers -= 1

    def _respond(self, packet: bytes, source: Source, transport: Transport) -> bytes | None:
        try:
            query = parse_query(packet)
        except BadQueryError as error:
            return self._bad(packet, error, source, transport)
        guard = self._guard
        if guard is None:
            reply = resolve(self.serving, query, Asker(source, self._default_locality))
            return self._sent(query, reply, transport, b"")
        shown = guard.look(query.edns, source)
        refused = guard.refusal(shown, transport)
        asker = Asker(source, self._default_locality)
        reply = Reply(rcode=refused) if refused else resolve(self.serving, query, asker)
        cookie = guard.cookie(query.edns, shown, source)
        more = cookie + guard.notes(query.edns, reply, transport) if query.edns is not None else b""
        if transport is Transport.TCP:
            return self._sent(query, reply, transport, more)
        message, truncated = encode(query, reply, udp_limit(query), more)
        kind, verdict = guard.judge(reply, len(message), source, shown)
        if verdict is Verdict.DROP:
            return None
        if verdict is Verdict.SLIP and kind is not AnswerClass.ERROR:
            self._counters.answered(transport, Rcode.NOERROR)
            return come_again(query, cookie)
        self._count(reply, transport, shown, truncated=truncated)
        return message

    def again(self, packet: bytes, message: bytes, given: Given, source: Source) -> bytes | None:
        """What an answer over UDP that was made a moment ago is worth now."""
        guard = self._guard
        if guard is not None and guard.limits:
            kind, verdict = guard.judge(given.reply, len(message), source, given.shown)
            if verdict is Verdict.DROP:
                return None
            if verdict is Verdict.SLIP and kind is not AnswerClass.ERROR:
                self._counters.answered(Transport.UDP, Rcode.NOERROR)
                query = parse_query(packet)
                return come_again(query, guard.cookie(query.edns, given.shown, source))
        self._count(given.reply, Transport.UDP, given.shown, truncated=False)
        return message

    def _sent(self, query: Query, reply: Reply, transport: Transport, more: bytes) -> bytes:
        limit = TCP_MESSAGE_MAX_OCTETS if transport is Transport.TCP else udp_limit(query)
        message, truncated = encode(query, reply, limit, more)
        self._count(reply, transport, Shown.NOTHING, truncated=truncated)
        return message

    def _count(self, reply: Reply, transport: Transport, shown: Shown, *, truncated: bool) -> None:
        self._counters.answered(transport, reply.rcode)
        if truncated:
            self._counters.truncated += 1
        else:
            self.last = Given(reply, shown)
        if reply.demand:
            self._counters.steered(reply.service, reply.locality, reply.datacenter)

    def _bad(self, packet: bytes, error: BadQueryError, source: Source, transport: Transport) -> bytes | None:
        """The answer to what is no question: a code, or a cookie to whoever asks for nothing else."""
        guard, shown = self._guard, Shown.NOTHING
        answer = b""
        if guard is not None and (edns := cookie_probe(packet)) is not None:
            shown = guard.look(edns, source)
            if cookie := guard.cookie(edns, shown, source):
                rcode = Rcode.BADCOOKIE if shown is Shown.STALE else Rcode.NOERROR
                answer = bare(packet, rcode, opt_record(edns, rcode >> 4, None, cookie))
                error = BadQueryError(str(error), rcode)
        answer = answer or bare(packet, error.rcode)
        if guard is not None and transport is Transport.UDP:
            _, verdict = guard.judge(None, len(answer), source, shown)
            if verdict is Verdict.DROP:
                return None
        self._counters.answered(transport, error.rcode)
        return answer


def bare(packet: bytes, rcode: int, opt: bytes = b"") -> bytes:
    """A message without a question: ID, opcode and RD of the query, and a code."""
    flags = int.from_bytes(packet[2:4], "big") & _ECHOED
    return header_only(int.from_bytes(packet[:2], "big"), QR | flags | (rcode & 0xF), bool(opt)) + opt


def come_again(query: Query, cookie: bytes) -> bytes:
    """What a client gets in place of an answer that the rate limit holds back: TC, so that it asks over TCP."""
    opt = opt_record(query.edns, 0, 0, cookie) if query.edns is not None else b""
    writer = Writer(query.question, query.name, UDP_PAYLOAD_MAX_OCTETS)
    writer.out += opt
    return writer.finish(query.id, QR | TC | (query.flags & RD), [1, 0, 0, 1 if opt else 0])


def udp_limit(query: Query) -> int:
    """Octets that an answer over UDP may have: what the client takes, and never so much that it would be fragmented."""
    if query.edns is None:
        return UDP_PAYLOAD_MIN_OCTETS
    return min(max(query.edns.payload, UDP_PAYLOAD_MIN_OCTETS), UDP_PAYLOAD_MAX_OCTETS)


def encode(query: Query, reply: Reply, limit: int, more: bytes = b"") -> tuple[bytes, bool]:
    """The message, and whether it was truncated. `more`: options of its OPT beside client subnet.

    RRsets are whole or not there. The first of answer, authority or glue that does not fit ends the message and sets TC:
    the client asks again over TCP. What is additional beyond that is left out without a word (RFC 2181 section 9).
    """
    flags = QR | (query.flags & RD) | (AA if reply.authoritative else 0) | (reply.rcode & 0xF)
    opt = opt_record(query.edns, reply.rcode >> 4, _scope(reply), more) if query.edns is not None else b""
    writer = Writer(query.question, query.name, limit - len(opt))
    counts = [1, 0, 0, 0]
    truncated = False
    for index, section in enumerate((reply.answer, reply.authority, reply.additional), 1):
        counts[index], whole = writer.section(section)
        if not whole:
            truncated = True
            flags |= TC
            break
    else:
        if reply.extras:
            counts[3] += writer.section(reply.extras)[0]
    if opt:
        writer.out += opt
        counts[3] += 1
    return writer.finish(query.id, flags, counts), truncated


def _scope(reply: Reply) -> int | None:
    """The scope to send back; none for a version of EDNS whose options we did not read."""
    return None if reply.rcode == Rcode.BADVERS else reply.scope
