"""A small planet for tests of the RPC library: a control replica in the process, echo servers as processes of their own.

The echo server speaks bytes, in all four arities, without a proto of its own. Each response begins with the task's name.
"""

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace

import grpc

from bns.model import HealthStatus
from bns.transport import server_options
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Backend, Datacenter, Service
from gslb.v1 import discovery_pb2, discovery_pb2_grpc, report_pb2, report_pb2_grpc
from gslb.wire.codec import encode_endpoint, encode_plan, encode_resource, encode_service

SERVICE = "echo"
UNARY = "/test.Echo/Unary"
SERVER_STREAM = "/test.Echo/ServerStream"
CLIENT_STREAM = "/test.Echo/ClientStream"
BIDI = "/test.Echo/Bidi"

PLACES = {
    "us-east1": Coordinates(33.2, -80.0),
    "europe-west1": Coordinates(50.4, 3.8),
    "asia-east1": Coordinates(24.1, 120.7),
}


class EchoTask:
    """One echo server in a process of its own; `words` are for it, behind name and port."""

    module = "tests.support.echo_server"

    def __init__(self, name: str, port: int = 0, *words: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, name, str(port), *words],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def endpoint(self, health: HealthStatus = HealthStatus.HEALTHY, weight: float = 1.0) -> ServiceEndpoint:
        return ServiceEndpoint(self.name, "127.0.0.1", self.port, health, weight)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass
class World:
    """What the control replicas say; all replicas of a test share one."""

    services: dict[str, tuple[Plan | None, dict[str, ServiceEndpoint]]] = field(default_factory=dict)
    datacenters: Mapping[str, Coordinates] = field(default_factory=lambda: dict(PLACES))
    version: int = 0
    latency_critical: bool = False  # what the configuration of every service says
    replicas: list["ControlReplica"] = field(default_factory=list)

    def set(
        self,
        endpoints: Sequence[ServiceEndpoint],
        shares: Mapping[str, Mapping[str, float]] | None,
        service: str = SERVICE,
    ) -> None:
        plan = Plan(service, shares=shares) if shares is not None else None
        self.publish(endpoints, plan, service)

    def publish(self, endpoints: Sequence[ServiceEndpoint], plan: Plan | None, service: str = SERVICE) -> None:
        """The same with a whole plan, which gets the next stamp."""
        self.version += 1
        if plan is not None:
            plan = replace(plan, stamp=Stamp(1, 1, self.version))
        self.services[service] = (plan, {endpoint.task: endpoint for endpoint in endpoints})
        for replica in self.replicas:
            replica.push()

    def update(self, name: str, services: Sequence[str]) -> discovery_pb2.Update:
        changes = []
        for service in services:
            if service not in self.services:
                continue
            plan, endpoints = self.services[service]
            jobs = sorted({endpoint.task.rpartition("/")[0] for endpoint in endpoints.values()})
            backends = tuple(Backend(job, 100.0) for job in jobs)
            config = Service(Meta(service), backends, latency_critical=self.latency_critical) if jobs else None
            changes.append(
                discovery_pb2.ServiceUpdate(
                    service=service,
                    config=encode_service(config) if config else None,
                    plan=encode_plan(plan) if plan else None,
                    endpoints_snapshot=True,
                    upserted=[encode_endpoint(endpoint) for endpoint in endpoints.values()],
                )
            )
        places = [Datacenter(Meta(dc), "test", where) for dc, where in self.datacenters.items()]
        return discovery_pb2.Update(
            replica=name,
            services=changes,
            catalog=discovery_pb2.Catalog(resources=[encode_resource(place) for place in places]),
            synced=True,
            unknown_services=[service for service in services if service not in self.services],
        )


class ControlReplica(discovery_pb2_grpc.DiscoveryServicer, report_pb2_grpc.ReportsServicer):
    """A real gRPC server with Discovery and Reports, whose world a test sets by hand."""

    def __init__(self, world: World, port: int = 0) -> None:
        self.world = world
        self.reports: list[report_pb2.DemandReport] = []
        self.load_reports: list[report_pb2.LoadReport] = []
        self.mute = False  # takes streams and answers nothing: it hangs
        self.cold = False  # takes reports and sends no views
        self.subscriptions = 0
        self._lock = threading.Lock()
        self._queues: dict[queue.SimpleQueue[bool], list[str]] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(32), options=server_options())
        discovery_pb2_grpc.add_DiscoveryServicer_to_server(self, self._server)
        report_pb2_grpc.add_ReportsServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()
        world.replicas.append(self)

    def push(self) -> None:
        with self._lock:
            for line in self._queues:
                line.put(True)

    def listeners(self) -> int:
        with self._lock:
            return len(self._queues)

    def Subscribe(self, request_iterator, context) -> Iterator[discovery_pb2.Update]:  # noqa: N802
        line: queue.SimpleQueue[bool] = queue.SimpleQueue()
        with self._lock:
            self._queues[line] = []
            self.subscriptions += 1
        context.add_callback(lambda: line.put(False))

        def listen() -> None:
            try:
                for request in request_iterator:
                    with self._lock:
                        self._queues[line] = list(request.services)
                    line.put(True)
            except Exception:  # noqa: BLE001  # the stream ended, however
                line.put(False)

        threading.Thread(target=listen, daemon=True).start()
        try:
            while line.get():
                if not self.mute and not self.cold:
                    with self._lock:
                        services = self._queues[line]
                    yield self.world.update(self.address, services)
        finally:
            with self._lock:
                del self._queues[line]

    def ReportDemand(self, request_iterator, context) -> Iterator[report_pb2.ReportAck]:  # noqa: N802
        for report in request_iterator:
            if self.mute:
                continue
            with self._lock:
                self.reports.append(report)
            yield report_pb2.ReportAck(seq=report.seq, accepted=True)

    def demand(self) -> dict[tuple[str, str, str, int], int]:
        """Attempts so far by (service, locality, caller, criticality), of all reports."""
        found: dict[tuple[str, str, str, int], int] = {}
        with self._lock:
            for report in self.reports:
                for row in report.rows:
                    key = (row.service, row.locality, row.caller, row.criticality)
                    found[key] = found.get(key, 0) + row.attempts
        return found

    def observed(self) -> dict[str, tuple[int, int]]:
        """(ok, failed) so far by task, of all reports."""
        found: dict[str, tuple[int, int]] = {}
        with self._lock:
            for report in self.reports:
                for row in report.observations:
                    ok, failed = found.get(row.task, (0, 0))
                    found[row.task] = (ok + row.ok, failed + row.failed)
        return found

    def close(self) -> None:
        if self in self.world.replicas:
            self.world.replicas.remove(self)
        self._server.stop(None).wait(5)


class Planet:
    """Two control replicas and echo tasks, or others that `make` makes of a task's name; everything ends with `close`."""

    def __init__(self, tasks: Sequence[str], replicas: int = 2, *, make: Callable[[str], EchoTask] = EchoTask) -> None:
        self.world = World()
        self.replicas = [ControlReplica(self.world) for _ in range(replicas)]
        self.tasks = {name: make(f"/bns/{name}") for name in tasks}

    @property
    def control(self) -> str:
        return ",".join(replica.address for replica in self.replicas)

    def serve(
        self,
        shares: Mapping[str, float] | None,
        health: Mapping[str, HealthStatus] | None = None,
        *,
        without: Sequence[str] = (),
        service: str = SERVICE,
    ) -> None:
        """Publishes a plan for clients in us-east1, and all tasks HEALTHY but for `health` and `without`."""
        endpoints = [
            task.endpoint((health or {}).get(name, HealthStatus.HEALTHY))
            for name, task in self.tasks.items()
            if name not in without
        ]
        self.world.set(endpoints, None if shares is None else {"us-east1": shares}, service)

    def close(self) -> None:
        for task in self.tasks.values():
            task.close()
        for replica in self.replicas:
            replica.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Polls until `condition` holds; fails after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def name_of(response: bytes) -> str:
    """Which task answered, without /bns/."""
    return response.split(b" ", 1)[0].decode().removeprefix("/bns/")
