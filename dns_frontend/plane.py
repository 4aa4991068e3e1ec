"""The data plane beside the reference: the one is given tables, the other answers what the one leaves to it.

What cannot be compiled, which would be a bug, is answered by the reference alone until the next change.
"""

import asyncio
import ipaddress
import logging
import os
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from dns_frontend.limits import COLLECT_PERIOD_S
from dns_frontend.metrics import Counters, Transport
from dns_frontend.native import BadTableError, Library, NativePlane, NativeTable, Statistics
from dns_frontend.querylog import QueryLog
from dns_frontend.responder.guard import Guard
from dns_frontend.responder.locate import Source
from dns_frontend.responder.respond import Responder
from dns_frontend.responder.rrl import AnswerClass, Verdict
from dns_frontend.sockets import Listening, packet_info
from dns_frontend.table.compile import Compiled, compiled
from dns_frontend.table.serving import Serving

log = logging.getLogger(__name__)

# Packet length, socket, port, IP version, version of the local address, scope, interface, address, local address.
_MESSAGE: Final = struct.Struct("<HHHBBII16s16s")
_SAMPLED: Final = 0x8000  # in the number of the socket
_EPOCHS_KEPT: Final = 3
_OCTETS_OF: Final[Mapping[int, int]] = {4: 4, 6: 16}


class _Names(NamedTuple):
    """What the numbers of one epoch's counts stand for."""

    slots: Mapping[str, int]
    services: Mapping[int, str]  # those of `slots`, and of services that are gone
    localities: Sequence[str]
    datacenters: Sequence[str]


class DataPlane:
    """Threads that answer over UDP. `advance` may be called from any thread; the rest is the loop's."""

    def __init__(
        self,
        library: Library,
        responder: Responder,
        counters: Counters,
        default_locality: str,
        guard: Guard,
        querylog: QueryLog | None = None,
    ) -> None:
        self._guard = guard
        self._querylog = querylog
        self._seed = os.urandom(16)
        self._advancing = threading.Lock()
        self._library = library
        self._responder = responder
        self._counters = counters
        self._default_locality = default_locality
        self._sockets: list[socket.socket] = []
        self._plane: NativePlane | None = None
        self._lock = threading.Lock()  # of the counts' epochs: `advance` makes them, `collect` reads them
        self._event = -1
        self._compiled: Compiled | None = None
        self._table: NativeTable | None = None
        self._names: dict[int, _Names] = {}
        self._seen: Statistics | None = None
        self.table_octets = 0  # of the last table or patch

    @property
    def threads(self) -> int:
        return len(self._sockets)

    @property
    def statistics(self) -> Statistics | None:
        """As of the last `collect`."""
        return self._seen

    def start(self, listening: Sequence[Listening]) -> None:
        """Answers on these addresses, with a thread for each of their sockets. Raises NoDataPlaneError."""
        pairs = [(udp, each.wildcard) for each in listening for udp in each.udp]
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._plane = NativePlane(self._library, [(udp.fileno(), wildcard) for udp, wildcard in pairs], self._event)
        self._sockets = [udp for udp, _ in pairs]
        if self._querylog is not None:
            self._plane.sample(self._querylog.every)
        self._publish(renumbered=True)
        self._guard.shared = self._plane.judge
        asyncio.get_running_loop().add_reader(self._event, self._answer)

    def close(self) -> None:
        """Ends the threads and closes their sockets."""
        self._guard.shared = None
        with self._lock:
            if self._plane is not None:
                self._plane.close()
                self._plane = None
        if self._event >= 0:
            asyncio.get_running_loop().remove_reader(self._event)
            os.close(self._event)
            self._event = -1
        for udp in self._sockets:
            udp.close()

    def advance(self, serving: Serving) -> None:
        """Answers from `serving` from now on."""
        with self._advancing:
            self._advance(serving)

    def refresh(self) -> None:
        """Takes over what changed of the guard: secrets, or that what is served is old. From any thread."""
        with self._advancing:
            known = self._compiled
            if known is not None and known.guard != self._guard.guarding(self._seed):
                self._advance(known.serving)

    def _advance(self, serving: Serving) -> None:
        try:
            guard = self._guard.guarding(self._seed)
            made = compiled(serving, self._default_locality, self._compiled, guard)
            self._table = NativeTable(self._library, made.octets, self._table if made.is_patch else None)
        except Exception as error:
            # A bug of ours: slow and right answers until the next change, which starts anew.
            self._counters.bugs += 1
            level = logging.WARNING if isinstance(error, BadTableError) else logging.ERROR
            log.log(level, "the reference answers everything: %s", error, exc_info=level == logging.ERROR)
            self._compiled = self._table = None
            self._publish(renumbered=True)
            return
        self.table_octets = len(made.octets)
        self._compiled = made.kept()
        self._publish(renumbered=not made.is_patch)

    def _publish(self, *, renumbered: bool) -> None:
        with self._lock:
            if self._plane is None:
                return
            epoch = self._plane.serve(self._table, renumbered=renumbered)
            if self._compiled is None:
                return
            layout = self._compiled.layout
            known = self._names.get(epoch)
            if known is None or known.slots is not layout.slots or len(known.datacenters) != len(layout.datacenters):
                # A slot is never given to another service while its epoch lasts.
                services = {**(known.services if known else {}), **{slot: name for name, slot in layout.slots.items()}}
                names = _Names(layout.slots, services, tuple(layout.localities), tuple(layout.datacenters))
                self._names[epoch] = names

    async def run(self) -> None:
        """Collects what the threads counted, for ever."""
        while True:
            await asyncio.sleep(COLLECT_PERIOD_S)
            self.collect()
            self.refresh()

    def collect(self) -> None:
        """Adds what was counted since the last time to the counters."""
        with self._lock:
            if self._plane is None:
                return
            self._collect_statistics(self._plane.statistics())
            for row in self._plane.take_demand():
                names = self._names.get(row.epoch)
                if names is not None and row.second is not None:
                    self._counters.demanded(names.services[row.first], names.localities[row.second], row.questions)
            for row in self._plane.take_destinations():
                names = self._names.get(row.epoch)
                if names is not None:
                    datacenter = "" if row.second is None else names.datacenters[row.second]
                    self._counters.sent_to(names.localities[row.first], datacenter, row.questions)
            # A thread that still answers from the table before counts in the epoch before.
            for epoch in sorted(self._names)[:-_EPOCHS_KEPT]:
                del self._names[epoch]

    def _collect_statistics(self, now: Statistics) -> None:
        counters = self._counters
        before = self._seen or Statistics((0,) * len(now.rcodes))
        self._seen = now
        for rcode, (count, old) in enumerate(zip(now.rcodes, before.rcodes, strict=True)):
            if count > old:
                counters.answered(Transport.UDP, rcode, count - old)
        counters.ignored(Transport.UDP, now.ignored - before.ignored)
        counters.truncated += now.truncated - before.truncated
        counters.send_failures += now.send_failures - before.send_failures
        counters.bugs += now.panics - before.panics
        for place, (count, old) in enumerate(zip(now.limited, before.limited, strict=True)):
            if count > old:
                verdict = Verdict.DROP if place % 2 else Verdict.SLIP
                counters.limited(AnswerClass(place // 2).name.lower(), verdict.value, count - old)

    def _answer(self) -> None:
        """Answers what the threads leave to the reference. What waits is bounded, so this ends."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        octets = self._plane.take() if self._plane is not None else b""
        at = 0
        while at < len(octets):
            length, number, port, version, local_version, scope, interface, address, local = _MESSAGE.unpack_from(
                octets, at
            )
            at += _MESSAGE.size
            packet = octets[at : at + length]
            at += length
            own = address[: _OCTETS_OF[version]]
            source = Source(version, int.from_bytes(own, "big"))
            if number & _SAMPLED:
                # A thread has answered it, and it is here to be written down.
                if self._querylog is not None:
                    self._querylog.write(packet, source, Transport.UDP)
                continue
            answer = self._responder.respond(packet, source, Transport.UDP)
            if answer is None:
                continue
            host = str(ipaddress.ip_address(own))
            peer = (host, port) if version == 4 else (host, port, 0, scope)
            ancillary = packet_info(local_version, local, interface)
            try:
                self._sockets[number].sendmsg([answer], ancillary, socket.MSG_DONTWAIT, peer)
            except OSError:
                self._counters.send_failures += 1
