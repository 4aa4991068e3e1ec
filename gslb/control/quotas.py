"""This replica's part in quotas: takes servers' usage in, and tells each its shares in the answer.

What a client asks of all servers lives in memory only (`gslb.balancer.quota`); every replica hears every server, and any
of them can be followed. One that has just started gives no shares before every server had the time to find it: shares
of a few would be too large.
"""

import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override

from gslb.balancer.quota import QuotaFold, Row
from gslb.control.ingest.replay import ReplayGuard
from gslb.control.ingest.usage import UNIT_NUMBERS, check, usages
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.quota import Quota, Share
from gslb.model.resources import Service
from gslb.v1 import quota_pb2, quota_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    from gslb.control.ingest.servicer import Intake

    Context = grpc.aio.ServicerContext[quota_pb2.UsageReport, quota_pb2.QuotaAnswer]

log = logging.getLogger(__name__)

SWEEP_S = 1.0
_REASON_MAX_CHARS = 300
_NO_QUOTAS: Mapping[str, Quota] = {}


@dataclass(slots=True)
class Told:
    """What one stream has been told: shares that did not change are not told again."""

    quotas: Mapping[str, Quota] | None = None
    held_back: set[str] = field(default_factory=set)  # clients that were near their quota or over it


class QuotaDesk:
    """`started_s`: monotonic, when this replica began to listen."""

    def __init__(self, started_s: float) -> None:
        self._fold = QuotaFold()
        self._guard = ReplayGuard(limits.QUOTA_SERVERS_MAX)
        self._known = False  # what is configured
        self._services: Mapping[str, Service] = {}
        self._quotas: dict[str, Mapping[str, Quota]] = {}
        self._settled_s = started_s + limits.QUOTA_SETTLE_S
        self._swept_s = started_s
        self.reports = 0
        self.refused = 0

    @property
    def servers(self) -> int:
        """How many are remembered."""
        return self._fold.servers

    def set_services(self, services: Mapping[str, Service]) -> None:
        """The operator changed something; of services that did not change, the quotas stay the same object."""
        before, old = self._quotas, self._services
        self._known, self._services = True, services
        self._quotas = {
            name: before[name]
            if name in before and old.get(name) is service
            else {quota.caller: quota for quota in service.quotas}
            for name, service in services.items()
            if service.quotas
        }

    def take(self, report: quota_pb2.UsageReport, told: Told, now_s: float) -> quota_pb2.QuotaAnswer:
        """Takes one report in; what to answer. Raises InvalidValueError."""
        check(report)
        refusal = self._guard.admit(report.reporter, report.boot_id, report.seq)
        if refusal:
            raise InvalidValueError(refusal)
        answer = quota_pb2.QuotaAnswer(seq=report.seq, accepted=True, report_every_s=limits.QUOTA_REPORT_PERIOD_S)
        quotas = self._quotas.get(report.service, _NO_QUOTAS)
        rows = list(usages(report))
        refusal = (
            self._fold.report(report.service, report.reporter, rows, report.period_s, quotas, now_s=now_s)
            if report.period_s > 0
            else self._fold.greet(report.service, report.reporter, now_s)
        )
        if refusal:
            raise InvalidValueError(refusal)
        if now_s < self._settled_s or not self._known:
            return answer
        if report.service not in self._services:
            raise InvalidValueError(
                f"service {report.service!r} is not configured: correct the name given to Quotas, or apply the service"
            )
        answer.settled = True
        answer.report_every_s = self._fold.every_s(quotas)
        held_back = self._fold.held_back(report.service)
        answer.complete = told.quotas is not quotas
        only = None if answer.complete else held_back | told.held_back
        shares = self._fold.shares(report.service, report.reporter, quotas, only)
        answer.shares.extend(_encoded(caller, share) for caller, share in sorted(shares.items()))
        told.quotas, told.held_back = quotas, held_back
        return answer

    def tick(self, now_s: float) -> None:
        """To be called a few times a second."""
        if now_s - self._swept_s >= SWEEP_S:
            self._swept_s = now_s
            self._fold.sweep(self._quotas, now_s)

    def thaw(self, frozen_s: float) -> None:
        """This process itself stood still: what it did not hear then was nobody's silence."""
        self._fold.thaw(frozen_s)

    def unenforced(self, now_s: float) -> list[str]:
        """Services that have quotas, and no server that reports what is asked of it."""
        if now_s < self._settled_s + limits.QUOTA_REPORT_IDLE_S:
            return []
        return sorted(name for name in self._quotas if not self._fold.heard(name))

    def rows(self) -> Iterable[Row]:
        """Every quota with what is asked and used."""
        return self._fold.rows(self._quotas)


def _encoded(caller: str, share: Share) -> quota_pb2.QuotaShare:
    return quota_pb2.QuotaShare(
        caller=caller, unit=UNIT_NUMBERS[share.unit], rate=share.rate, quota=share.quota, over=share.over
    )


class QuotasServicer(quota_pb2_grpc.QuotasServicer):
    """gslb.v1.Quotas over gRPC; a bad report is answered and ends nothing."""

    def __init__(self, desk: QuotaDesk, intake: "Intake") -> None:
        self._desk = desk
        self._intake = intake

    @override
    async def Share(
        self, request_iterator: AsyncIterator[quota_pb2.UsageReport], context: "Context"
    ) -> AsyncIterator[quota_pb2.QuotaAnswer]:
        told, complained = Told(), False
        async for report in request_iterator:
            answer = self._answer(report, told)
            if not answer.accepted and not complained:
                complained = True
                log.warning("refused a usage report of %r: %s", report.reporter[:100], answer.reason)
            yield answer

    def _answer(self, report: quota_pb2.UsageReport, told: Told) -> quota_pb2.QuotaAnswer:
        desk = self._desk
        try:
            answer = desk.take(report, told, time.monotonic())
        except InvalidValueError as error:
            desk.refused += 1
            reason = str(error)[:_REASON_MAX_CHARS]
            self._intake.refused(f"usage of {report.reporter[:100]}", reason)
            return quota_pb2.QuotaAnswer(
                seq=report.seq, accepted=False, reason=reason, report_every_s=limits.QUOTA_REPORT_IDLE_S
            )
        desk.reports += 1
        return answer
