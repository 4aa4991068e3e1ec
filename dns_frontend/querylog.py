"""Some of the queries, a line of JSON each: who asks for what, and what is said. Off unless it is asked for.

About one in so many is written, chosen by chance, and never more than LINES_PER_S: a flood fills no disk and costs next to
nothing. The file is turned over when it is large, and a few old ones are kept.
"""

import ipaddress
import json
import logging
import math
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from typing_extensions import override

from dns_frontend.errors import FrontendError
from dns_frontend.limits import QUERY_LOG_FILES, QUERY_LOG_LINES_PER_S, QUERY_LOG_OCTETS
from dns_frontend.metrics import Transport
from dns_frontend.responder.locate import Source
from dns_frontend.responder.message import BadQueryError, Query, is_query, parse_query
from dns_frontend.responder.resolve import Reply
from dns_frontend.responder.respond import Responder
from dns_frontend.zone.name import to_text
from dns_frontend.zone.rtype import Rcode, type_text

log = logging.getLogger(__name__)


class QueryLogError(FrontendError):
    """The file cannot be written to."""


class _File(RotatingFileHandler):
    """A full disk is told once, and stops nobody."""

    told = False

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        if not self.told:
            self.told = True
            log.error("cannot write to the query log %s: %s; the answers go on", self.baseFilename, sys.exc_info()[1])


class QueryLog:
    """Writes about one of `every` queries to a file. Raises QueryLogError."""

    def __init__(
        self,
        path: Path,
        every: int,
        responder: Responder,
        wall_s: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        try:
            self._file = _File(path, maxBytes=QUERY_LOG_OCTETS, backupCount=QUERY_LOG_FILES, encoding="utf-8")
        except OSError as error:
            raise QueryLogError(f"cannot write the query log {path}: {error.strerror}; choose another file") from error
        self.every = every
        self._responder = responder
        self._wall_s = wall_s
        self._rng = rng
        self._until = self._gap()
        self._second = 0
        self._lines = 0
        self.written = 0
        self.left_out = 0  # beyond the limit of lines a second

    def close(self) -> None:
        self._file.close()

    def _gap(self) -> int:
        """Queries until the next one, one in `every` on average and without a rhythm."""
        if self.every <= 1:
            return 1
        return 1 + int(math.log(1.0 - self._rng()) / math.log(1.0 - 1.0 / self.every))

    def saw(self, packet: bytes, source: Callable[[], Source], transport: Transport) -> None:
        """A message has come; whether it is written is up to chance."""
        self._until -= 1
        if self._until <= 0:
            self._until = self._gap()
            self.write(packet, source(), transport)

    def write(self, packet: bytes, source: Source, transport: Transport) -> None:
        """One line, with what a message is answered by what is served now."""
        now_s = self._wall_s()
        if int(now_s) != self._second:
            self._second, self._lines = int(now_s), 0
        if self._lines >= QUERY_LOG_LINES_PER_S:
            self.left_out += 1
            return
        self._lines += 1
        self.written += 1
        reply = self._responder.reply_to(packet, source)
        line = json.dumps(_said(packet, source, transport, reply, now_s), separators=(",", ":"))
        self._file.emit(logging.makeLogRecord({"msg": line}))


def _said(packet: bytes, source: Source, transport: Transport, reply: Reply | None, now_s: float) -> dict[str, object]:
    address = ipaddress.IPv4Address(source.value) if source.version == 4 else ipaddress.IPv6Address(source.value)
    line: dict[str, object] = {
        "at": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds"),
        "client": str(address),
        "transport": transport.value,
    }
    try:
        query = parse_query(packet) if is_query(packet) else None
    except BadQueryError as error:
        return {**line, "bad": str(error), "rcode": Rcode(error.rcode).name}
    if query is None:
        return {**line, "bad": "no query"}
    line |= {"name": to_text(query.name), "type": type_text(query.rtype), "subnet": _subnet(query)}
    if reply is None:
        return {**line, "rcode": ""}
    return {
        **line,
        "rcode": Rcode(reply.rcode).name,
        "answers": sum(len(owned.rrset.rdatas) for owned in reply.answer),
        "service": reply.service,
        "locality": reply.locality,
        "datacenter": reply.datacenter,
    }


def _subnet(query: Query) -> str:
    """The client's network, if the query says one (RFC 7871)."""
    subnet = query.edns.subnet if query.edns is not None else None
    if subnet is None or not subnet.version:
        return ""
    address = ipaddress.IPv4Address(subnet.value) if subnet.version == 4 else ipaddress.IPv6Address(subnet.value)
    return f"{address}/{subnet.source}"
