"""What clients asked for, told to every replica of the control plane: all of them compute, one publishes.

A report that a replica did not get is not kept for it: the next one is as good, and a backlog after an outage would
count old demand as new.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Mapping

import grpc
import grpc.aio

from bns.transport import aio_channel
from dns_frontend.limits import DEMAND_ACK_S, RECONNECT_MAX_S, RECONNECT_MIN_S
from dns_frontend.subscriber import Upstream
from gslb.model import limits
from gslb.v1 import config_pb2, report_pb2, report_pb2_grpc

log = logging.getLogger(__name__)

Demand = Mapping[tuple[str, str], int]  # questions by (service, locality)


class _Slot:
    """The newest report for one replica; an older one that was not sent is overwritten."""

    def __init__(self) -> None:
        self._report: report_pb2.DemandReport | None = None
        self._filled = asyncio.Event()

    def put(self, report: report_pb2.DemandReport) -> None:
        self._report = report
        self._filled.set()

    async def get(self) -> report_pb2.DemandReport:
        """Each report once, when there is one."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            report, self._report = self._report, None
            if report is not None:
                return report


class DemandReporter:
    """Makes a report each period and streams it to every replica. `responder`: what answers, in words for people."""

    def __init__(
        self, upstream: Upstream, take_demand: Callable[[], Demand], responder: Callable[[], str], rng: random.Random
    ) -> None:
        self._upstream = upstream
        self._take_demand = take_demand
        self._responder = responder
        self._rng = rng
        self._boot_id = uuid.UUID(int=rng.getrandbits(128)).hex
        self._seq = 0
        self._slots = {address: _Slot() for address in upstream.control}
        self.refused = 0

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            for address, slot in self._slots.items():
                group.create_task(self._send_for_ever(address, slot), name=f"demand to {address}")
            group.create_task(self._report_for_ever(), name="demand")

    async def _report_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(limits.DEMAND_REPORT_PERIOD_S)
            now = loop.time()
            report = self.report(self._take_demand(), now - last)
            last = now
            for slot in self._slots.values():
                slot.put(report)

    def report(self, demand: Demand, period_s: float) -> report_pb2.DemandReport:
        """The next report. Clients that no prefix of the map covers have no locality to be planned for."""
        self._seq += 1
        return report_pb2.DemandReport(
            reporter=self._upstream.name,
            boot_id=self._boot_id,
            seq=self._seq,
            period_s=period_s,
            source=config_pb2.DEMAND_SOURCE_DNS,
            dns_responder=self._responder(),
            rows=[
                report_pb2.DemandRow(
                    service=service,
                    locality=locality,
                    criticality=report_pb2.CRITICALITY_CRITICAL,
                    attempts=count,
                )
                for (service, locality), count in demand.items()
                if locality
            ],
        )

    async def _send_for_ever(self, address: str, slot: _Slot) -> None:
        failures = 0
        while True:
            sent = self._seq
            try:
                await self._send(address, slot)
            except grpc.aio.AioRpcError as error:
                if failures == 0:
                    log.info("demand does not reach %s: %s; trying on", address, error.code().name)
            except (TimeoutError, asyncio.InvalidStateError):
                log.info("demand is not acknowledged by %s; trying on", address)
            failures = 0 if self._seq > sent + 2 else failures + 1
            longest = min(RECONNECT_MAX_S, RECONNECT_MIN_S * 2.0 ** min(failures, 10))
            await asyncio.sleep(longest * self._rng.uniform(0.5, 1.0))

    async def _send(self, address: str, slot: _Slot) -> None:
        async with aio_channel(address, self._upstream.tls) as channel:
            # Written to, not given an iterator: grpc.aio leaves the task that waits for an iterator behind.
            call = report_pb2_grpc.ReportsStub(channel).ReportDemand()  # type: ignore[call-arg]
            while True:
                report = await slot.get()
                async with asyncio.timeout(DEMAND_ACK_S):
                    await call.write(report)
                    ack = await call.read()
                if not isinstance(ack, report_pb2.ReportAck):
                    return
                if not ack.accepted:
                    self.refused += 1
                    if self.refused == 1:
                        log.warning(
                            "%s refuses our demand: %s (does another frontend have --name %s, too?)",
                            address,
                            ack.reason[:200],
                            self._upstream.name,
                        )
