"""A control-plane replica as agents see it, on a real gRPC server: answers by the protocol and records what came in."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio

from bns.v1 import bns_pb2, bns_pb2_grpc
from gslb.v1 import report_pb2, report_pb2_grpc


@dataclass
class Shared:
    """What replicas have in common through etcd: the records, by name."""

    records: dict[str, bns_pb2.TaskRecord] = field(default_factory=dict)


@dataclass
class Arrived:
    """A load report and when it came (monotonic seconds)."""

    report: report_pb2.LoadReport
    at_s: float


class ControlRecorder(bns_pb2_grpc.BnsServicer, report_pb2_grpc.ReportsServicer):
    """One replica. Several may share their records."""

    def __init__(self, shared: Shared | None = None, address: str = "127.0.0.1:0") -> None:
        self.shared = shared or Shared()
        self.address = address
        self.hellos: list[bns_pb2.RegisterHello] = []
        self.registered: list[bns_pb2.TaskRecord] = []
        self.deregistered: list[str] = []
        self.goodbyes = 0
        self.live_sessions = 0
        self.reports: list[Arrived] = []
        self.seen_seq = 0
        self.refusals: dict[str, tuple[int, str]] = {}  # name -> (code, message)
        self.welcomes = True
        self.acks_reports = True
        self._server: grpc.aio.Server | None = None

    async def start(self) -> "ControlRecorder":
        self._server = grpc.aio.server()
        bns_pb2_grpc.add_BnsServicer_to_server(self, self._server)
        report_pb2_grpc.add_ReportsServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def Register(self, request_iterator, context):  # noqa: N802  gRPC's name
        hello = (await anext(request_iterator)).hello
        self.hellos.append(hello)
        if not self.welcomes:
            await asyncio.Event().wait()
        adopted = [r for r in self.shared.records.values() if r.agent == hello.agent]
        self.live_sessions += 1
        try:
            yield bns_pb2.RegisterResponse(
                welcome=bns_pb2.RegisterWelcome(liveness_ttl_s=60, adopted=adopted),
            )
            async for request in request_iterator:
                ack = self._apply(hello, request)
                yield bns_pb2.RegisterResponse(request_id=request.request_id, ack=ack)
                if request.WhichOneof("kind") == "goodbye":
                    return
        finally:
            self.live_sessions -= 1

    def _apply(self, hello: bns_pb2.RegisterHello, request: bns_pb2.RegisterRequest) -> bns_pb2.RegisterAck:
        match request.WhichOneof("kind"):
            case "register":
                record = request.register
                if record.name in self.refusals:
                    code, message = self.refusals[record.name]
                    return bns_pb2.RegisterAck(code=code, message=message)
                record.agent, record.machine = hello.agent, hello.machine_id
                record.generation += 1
                self.registered.append(record)
                self.shared.records[record.name] = record
            case "deregister":
                self.deregistered.append(request.deregister)
                self.shared.records.pop(request.deregister, None)
            case "goodbye":
                self.goodbyes += 1
                for name in [n for n, r in self.shared.records.items() if r.agent == hello.agent]:
                    del self.shared.records[name]
        return bns_pb2.RegisterAck(code=0, revision=1)

    async def Watch(self, request, context) -> AsyncIterator[bns_pb2.WatchResponse]:  # noqa: N802  gRPC's name
        known: dict[str, bytes] = {}
        snapshot = True
        while True:
            now = {n: r.SerializeToString() for n, r in self.shared.records.items() if n.startswith(request.prefix)}
            changed = [bns_pb2.TaskRecord.FromString(b) for n, b in now.items() if known.get(n) != b]
            removed = [n for n in known if n not in now]
            if snapshot or changed or removed:
                upserted = [bns_pb2.Endpoint(task=t) for t in changed]
                yield bns_pb2.WatchResponse(snapshot=snapshot, upserted=upserted, removed=removed)
            known, snapshot = now, False
            await asyncio.sleep(0.02)

    async def ReportLoad(self, request_iterator, context):  # noqa: N802  gRPC's name
        async for report in request_iterator:
            self.reports.append(Arrived(report, time.monotonic()))
            accepted = report.seq > self.seen_seq
            self.seen_seq = max(self.seen_seq, report.seq)
            if self.acks_reports:
                reason = "" if accepted else f"replay: seq {report.seq} is not above {self.seen_seq}"
                yield report_pb2.ReportAck(seq=report.seq, accepted=accepted, reason=reason)

    def health_of(self, name: str) -> int | None:
        """The newest health that was reported for `name`."""
        for arrived in reversed(self.reports):
            if name in arrived.report.task:
                return arrived.report.health[list(arrived.report.task).index(name)]
        return None


async def eventually(condition: Callable[[], object], timeout_s: float = 10.0, what: str = "") -> None:
    """Waits until `condition()` is true; fails with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what or "this did not happen in time"
        await asyncio.sleep(0.01)
