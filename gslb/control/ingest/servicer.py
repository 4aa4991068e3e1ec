"""gslb.v1.Reports over gRPC: agents and clients stream in, each report is answered, none of them ends the stream."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar

import grpc
import grpc.aio
from typing_extensions import override

from gslb.control.ingest.load import AgentKey
from gslb.model.errors import InvalidValueError
from gslb.v1 import report_pb2, report_pb2_grpc

log = logging.getLogger(__name__)

Report = TypeVar("Report", report_pb2.LoadReport, report_pb2.DemandReport)
Context = grpc.aio.ServicerContext[Report, report_pb2.ReportAck]
Acks = AsyncIterator[report_pb2.ReportAck]

_REASON_MAX_CHARS = 300
_WHO_MAX_CHARS = 100


class Intake(Protocol):
    """What the servicer feeds; the replica implements it."""

    def take_load(self, report: report_pb2.LoadReport) -> None:
        """Raises InvalidValueError."""

    def take_demand(self, report: report_pb2.DemandReport) -> None:
        """Raises InvalidValueError."""

    def refused(self, reporter: str, reason: str) -> None:
        """A report was refused."""

    def agent_connected(self, key: AgentKey) -> None:
        """A load stream of this agent brought its first report."""

    def agent_disconnected(self, key: AgentKey) -> None:
        """Such a stream ended."""


class ReportsServicer(report_pb2_grpc.ReportsServicer):
    """Counts in `accepted` and `refused`, by kind of report."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    @override
    async def ReportLoad(
        self, request_iterator: AsyncIterator[report_pb2.LoadReport], context: Context[report_pb2.LoadReport]
    ) -> Acks:
        key: AgentKey | None = None
        complained = False
        try:
            async for report in request_iterator:
                ack = self._take("load", report.agent, report, self._intake.take_load)
                if ack.accepted and key is None:
                    key = (report.datacenter, report.agent)
                    self._intake.agent_connected(key)
                if not ack.accepted and not complained:
                    complained = True
                    log.warning("refused a load report of agent %r: %s", report.agent[:100], ack.reason)
                yield ack
        finally:
            if key is not None:
                self._intake.agent_disconnected(key)

    @override
    async def ReportDemand(
        self, request_iterator: AsyncIterator[report_pb2.DemandReport], context: Context[report_pb2.DemandReport]
    ) -> Acks:
        complained = False
        async for report in request_iterator:
            ack = self._take("demand", report.reporter, report, self._intake.take_demand)
            if not ack.accepted and not complained:
                complained = True
                log.warning("refused a demand report of %r: %s", report.reporter[:100], ack.reason)
            yield ack

    def _take(self, kind: str, who: str, report: Report, take: Callable[[Report], None]) -> report_pb2.ReportAck:
        try:
            take(report)
        except InvalidValueError as error:
            self.refused[kind] += 1
            self._intake.refused(f"{kind} of {who[:_WHO_MAX_CHARS]}", str(error)[:_REASON_MAX_CHARS])
            return report_pb2.ReportAck(seq=report.seq, accepted=False, reason=str(error)[:_REASON_MAX_CHARS])
        self.accepted[kind] += 1
        return report_pb2.ReportAck(seq=report.seq, accepted=True)
