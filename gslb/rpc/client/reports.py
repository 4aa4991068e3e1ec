"""Tells every control replica what this process asked for and what it saw of each task.

Every replica gets every report, so that any of them can take over without warm-up (design section 2). A report is the
same bytes for all: (reporter, boot id, seq) lets a reader refuse what it has counted already.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import grpc
from typing_extensions import override

from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.rpc.client.stream import Dial, LastingStream, StreamCall
from gslb.v1 import config_pb2, report_pb2, report_pb2_grpc

DemandKey = tuple[str, str, str, Criticality]  # service, locality, caller, criticality
Seen = tuple[str, int, int]  # task, ok, failed
_UNMEASURED: Mapping[str, float] = MappingProxyType({})

_CRITICALITY = {
    Criticality.CRITICAL_PLUS: report_pb2.CRITICALITY_CRITICAL_PLUS,
    Criticality.CRITICAL: report_pb2.CRITICALITY_CRITICAL,
    Criticality.SHEDDABLE_PLUS: report_pb2.CRITICALITY_SHEDDABLE_PLUS,
    Criticality.SHEDDABLE: report_pb2.CRITICALITY_SHEDDABLE,
}


class Reporter(LastingStream[report_pb2.DemandReport, report_pb2.ReportAck]):
    """The report stream to one replica."""

    def __init__(self, address: str, dial: Dial) -> None:
        super().__init__("gslb-rpc-reports", [address], dial)
        self.target = address
        self.sent_s = 0.0  # monotonic; when the oldest report without an answer went out, 0: none
        self.refused = 0  # reports
        self.refusal = ""  # the last refusal's reason

    @override
    def open(
        self, channel: grpc.Channel, requests: Iterator[report_pb2.DemandReport]
    ) -> StreamCall[report_pb2.ReportAck]:
        stub: report_pb2_grpc.ReportsStub = report_pb2_grpc.ReportsStub(channel)
        return stub.ReportDemand(requests)

    @override
    def greeting(self) -> Sequence[report_pb2.DemandReport]:
        return []

    def report(self, message: report_pb2.DemandReport) -> None:
        """Sends one report; lost when there is no stream, for the next one says what matters then."""
        if not self.sent_s:
            self.sent_s = time.monotonic()
        self.send(message)

    @override
    def on_message(self, message: report_pb2.ReportAck) -> None:
        self.sent_s = 0.0
        if not message.accepted:
            self.refused += 1
            self.refusal = message.reason[: limits.REASON_MAX_CHARS]

    def silent_s(self, now_s: float) -> float:
        """How long a report has been waiting for an answer; 0: none is."""
        return now_s - self.sent_s if self.sent_s else 0.0


class Tally:
    """What is counted outside of channels: requests that a GFE took in at the edge, leftovers of closed channels."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[DemandKey, int] = {}

    def add(self, key: DemandKey, attempts: int) -> None:
        """Counts logical first attempts. Beyond the most rows of a report, new keys are dropped."""
        with self._lock:
            if key in self._counts or len(self._counts) < limits.DEMAND_ROWS_MAX:
                self._counts[key] = self._counts.get(key, 0) + attempts

    def take(self) -> dict[DemandKey, int]:
        """Everything since the last call."""
        with self._lock:
            taken, self._counts = self._counts, {}
            return taken


def demand_rows(counts: Mapping[DemandKey, int]) -> list[report_pb2.DemandRow]:
    """Counts as rows of a report, those above zero."""
    return [
        report_pb2.DemandRow(
            service=service, locality=locality, caller=caller, criticality=_CRITICALITY[criticality], attempts=attempts
        )
        for (service, locality, caller, criticality), attempts in counts.items()
        if attempts
    ]


def observation_rows(
    seen: Iterable[Seen], rtt_ms: Mapping[str, float] = _UNMEASURED
) -> list[report_pb2.TaskObservation]:
    """What channels saw, summed over channels that ask the same task, and the round-trip times that were measured."""
    summed: dict[str, tuple[int, int]] = dict.fromkeys(rtt_ms, (0, 0))
    for task, ok, failed in seen:
        held_ok, held_failed = summed.get(task, (0, 0))
        summed[task] = (held_ok + ok, held_failed + failed)
    return [
        report_pb2.TaskObservation(task=task, ok=ok, failed=failed, rtt_ms=rtt_ms.get(task, 0.0))
        for task, (ok, failed) in list(summed.items())[: limits.TASKS_PER_REPORT_MAX]
    ]


class ReportMaker:
    """Numbers the reports of one process."""

    def __init__(self, reporter: str, boot_id: str) -> None:
        self._reporter = reporter
        self._boot_id = boot_id
        self._seq = 0

    def make(
        self,
        rows: Sequence[report_pb2.DemandRow],
        observations: Sequence[report_pb2.TaskObservation],
        *,
        period_s: float,
        datacenter: str,
        edge: bool = False,
    ) -> report_pb2.DemandReport:
        """The next report. Edge reports have a reporter of their own: neither replaces the other."""
        self._seq += 1
        return report_pb2.DemandReport(
            reporter=f"{self._reporter}/edge" if edge else self._reporter,
            boot_id=self._boot_id,
            seq=self._seq,
            period_s=period_s,
            datacenter=datacenter,
            rows=rows[: limits.DEMAND_ROWS_MAX],
            observations=observations,
            source=config_pb2.DEMAND_SOURCE_EDGE if edge else config_pb2.DEMAND_SOURCE_RPC,
        )
