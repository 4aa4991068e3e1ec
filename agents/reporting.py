"""Load reports to every control replica of the cell: one stream each, none waits for another.

The period and the numbers are common; what is sent is made when a stream can take it. A replica that is slow or away
therefore gets the newest state when it is back, never a backlog, and holds nothing of this agent but one message.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import grpc
import grpc.aio

from agents import limits
from agents.backoff import Backoff
from agents.health.schedule import Rng
from agents.replicas import Ended, Replica, both, connect, converse
from gslb.v1 import report_pb2, report_pb2_grpc

log = logging.getLogger(__name__)

Call = grpc.aio.StreamStreamCall[report_pb2.LoadReport, report_pb2.ReportAck]
# Names, None: a full report; else a partial one of these tasks. Time since when remote probes are news to the replica.
# The result may be None: there is nothing to say.
MakeReport = Callable[[frozenset[str] | None, float], report_pb2.LoadReport | None]


class Counts(Protocol):
    """What is counted, by replica."""

    def sent(self, replica: str, kind: str) -> None: ...

    def refused(self, replica: str) -> None: ...


class Sequence64:
    """Numbers that grow within a boot, over restarts of the agent too: nanoseconds since boot."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """The next number, above all before."""
        self._last = max(self._last + 1, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        return self._last


class ReportStream:
    """Reports to one replica."""

    def __init__(self, replica: Replica, make: MakeReport, counts: Counts, rng: Rng) -> None:
        self._replica = replica
        self._make = make
        self._counts = counts
        self._backoff = Backoff(rng)
        self._full_due = False
        self._changed: set[str] = set()
        self._remote_changed = False
        self._wake = asyncio.Event()
        self._complained = ""
        self.up = False
        self.problem = "no report sent yet"
        self.acked_seq = 0
        self.refused = 0

    @property
    def address(self) -> str:
        """Of the replica."""
        return self._replica.address

    def full(self) -> None:
        """A period ended."""
        self._full_due = True
        self._wake.set()

    def changed(self, names: Sequence[str]) -> None:
        """The health of these tasks changed, or (none) a remote probe's verdict: to be said at once."""
        self._changed.update(names)
        self._remote_changed |= not names
        self._wake.set()

    async def run(self) -> None:
        """Reports for ever; cancel it to end."""
        await converse(self._attempt, self._failed, self._backoff)

    def _failed(self, problem: str) -> None:
        self.problem = problem
        if self._complained != problem:
            self._complained = problem
            log.warning("no load reports to %s: %s; trying again", self.address, problem)

    async def _attempt(self) -> bool:
        """One stream, until it ends."""
        await connect(self._replica, limits.CONNECT_TIMEOUT_S)
        stub = report_pb2_grpc.ReportsStub(self._replica.channel)
        call: Call = stub.ReportLoad()  # type: ignore[call-arg]  # written to, not iterated
        try:
            await both(self._read(call), self._write(call))
        finally:
            call.cancel()
            self.up = False
        return False

    async def _write(self, call: Call) -> None:
        self._full_due = True  # whoever answers now may know nothing of us
        remote_since_s = 0.0
        while True:
            self._wake.clear()
            full = self._full_due
            names = frozenset(self._changed)
            if full or names or self._remote_changed:
                self._full_due = self._remote_changed = False
                self._changed.clear()
                report = self._make(None if full else names, remote_since_s)
                remote_since_s = time.monotonic()
                if report is not None:
                    await call.write(report)
                    self._counts.sent(self.address, "full" if full else "partial")
                if not full:
                    # A change is told at once; what changes right after it is told together.
                    await asyncio.sleep(limits.PARTIAL_GAP_S)
            await self._wake.wait()

    async def _read(self, call: Call) -> None:
        while True:
            ack = await call.read()
            if not isinstance(ack, report_pb2.ReportAck):
                raise Ended("the replica ended the stream")
            if not self.up:
                self.up, self.problem = True, ""
                self._backoff.reset()
                log.info("reporting to %s", self.address)
            if ack.accepted:
                self.acked_seq = ack.seq
                self._complained = ""
            else:
                self._refused(ack.reason[:500])

    def _refused(self, reason: str) -> None:
        self.refused += 1
        self._counts.refused(self.address)
        self.problem = f"refused: {reason}"
        if self._complained != reason:
            self._complained = reason
            log.error("%s refuses our load reports: %s", self.address, reason)
