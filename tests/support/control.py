"""Real control-plane replicas as processes, and scripted agents, clients and readers that speak real gRPC to them."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field

import grpc

from bns.etcd.embedded import free_port
from bns.model import HealthStatus
from bns.spawn import dies_with_us
from bns.v1 import bns_pb2, bns_pb2_grpc
from gslb.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    config_pb2,
    discovery_pb2,
    discovery_pb2_grpc,
    report_pb2,
    report_pb2_grpc,
)
from gslb.wire.reader import ReaderView, fold

PLACES = {"us-east1": ("na", 33.2, -80.0), "europe-west1": ("eu", 50.4, 3.8), "asia-east1": ("asia", 24.1, 120.5)}
PERIOD_S = 1.0
WAIT_S = 60.0


async def eventually(condition, what, timeout_s=WAIT_S):
    """The first true value of `condition()` (a plain function or a coroutine function)."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout_s} s"
        await asyncio.sleep(0.03)


async def end(tasks):
    """Cancels until they have ended: a cancellation that meets a finished call can get lost."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)


class ReplicaProcess:
    """`gslb serve` as a child process."""

    def __init__(self, name, etcd_address, directory, *flags):
        self.name = name
        self.address = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.log = directory / f"{name}.log"
        self._command = [
            *(sys.executable, "-m", "gslb", "serve", "--etcd", etcd_address, "--listen", self.address),
            *("--http", self.http, "--replica", name, "--plan-period", "1", "--report-period", str(PERIOD_S), *flags),
        ]
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                dies_with_us(self._command), stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """The exit code after SIGTERM."""
        if self.process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self):
        self.process.kill()
        self.process.wait()

    def page(self, path):
        """Status and text of a debug page."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def words(self):
        return self.log.read_text(errors="replace")


class Operator:
    """The admin API of one replica; fresh channel each, so that a dead replica is noticed."""

    def __init__(self, address):
        self._channel = grpc.aio.insecure_channel(address)
        self.admin = admin_pb2_grpc.AdminStub(self._channel)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._channel.close()

    async def status(self):
        return await self.admin.Status(admin_pb2.StatusRequest(), timeout=5)

    async def check(self):
        response = await self.admin.Check(admin_pb2.CheckRequest(), timeout=10)
        return [(one.severity, one.subject, one.message) for one in response.findings]

    async def apply(self, *resources, **flags):
        return await self.admin.Apply(admin_pb2.ApplyRequest(resources=resources, **flags), timeout=10)

    async def refused(self, method, request):
        """(code, details) of a call that has to fail."""
        try:
            answer = await getattr(self.admin, method)(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"{method} was granted: {answer}")


async def leader_of(replicas):
    """The replica that says it leads, None when none does. Ones that do not answer are passed over."""
    for replica in replicas:
        async with Operator(replica.address) as operator:
            try:
                status = await operator.admin.Status(admin_pb2.StatusRequest(), timeout=1)
            except grpc.aio.AioRpcError:
                continue
            if status.leading:
                return replica
    return None


def datacenter(name, place=None):
    region, latitude, longitude = place or PLACES[name]
    resource = config_pb2.Resource(
        datacenter=config_pb2.Datacenter(region=region, latitude=latitude, longitude=longitude)
    )
    resource.meta.name = name
    return resource


def service(name, rps=100.0, user="test", places=PLACES, **spec):
    resource = config_pb2.Resource(service=config_pb2.Service(**spec))
    resource.meta.name = name
    for place in places:
        resource.service.backends.add(job=f"/bns/{place}/{user}/{name}", task_capacity_rps=rps)
    return resource


def area(name, latitude, longitude, *cidrs):
    resource = config_pb2.Resource(
        client_area=config_pb2.ClientArea(latitude=latitude, longitude=longitude, cidrs=cidrs)
    )
    resource.meta.name = name
    return resource


def planet(*services):
    """Three datacenters and services that run in each of them."""
    return [*(datacenter(name) for name in PLACES), *(services or [service("backend")])]


_PORTS = itertools.count(20_000)


@dataclass
class FakeAgent:
    """Registers tasks through one replica and reports to all of them. `health` and `rps` may be changed as it runs."""

    datacenter: str
    addresses: list
    job: str = "backend"
    count: int = 2
    user: str = "test"
    health: dict = field(default_factory=dict)
    rps: float = 10.0
    machine_utilization: float = 0.1
    silent: bool = False

    def __post_init__(self):
        self.name = f"m-{self.datacenter}-{self.job}"
        self.tasks = [f"/bns/{self.datacenter}/{self.user}/{self.job}/{n}" for n in range(self.count)]
        self.ports = {task: next(_PORTS) for task in self.tasks}
        self._seq = time.monotonic_ns()
        self._work = []
        self._changed = {}

    async def start(self):
        self._work = [asyncio.create_task(self._register())]
        self._work += [asyncio.create_task(self._report_for_ever(address)) for address in self.addresses]
        return self

    async def kill(self):
        """As kill -9: streams break, nothing is deregistered."""
        await end(self._work)

    def set_health(self, task, health):
        self.health[task] = health
        for event in self._changed.values():
            event.set()

    def report(self, *, partial=False, tasks=None):
        tasks = tasks or self.tasks
        self._seq += 1
        return report_pb2.LoadReport(
            agent=self.name,
            datacenter=self.datacenter,
            boot_id="boot",
            seq=self._seq,
            period_s=PERIOD_S,
            partial=partial,
            machine_utilization=self.machine_utilization,
            machine_cores=2,
            task=tasks,
            health=[int(self.health.get(task, HealthStatus.HEALTHY)) for task in tasks],
            cpu_utilization=[0.25] * len(tasks),
            ok_critical_rps=[self.rps] * len(tasks),
        )

    async def _register(self):
        for address in itertools.cycle(self.addresses):
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.TimeoutError):
                await self._session(address)
            await asyncio.sleep(0.2)

    async def _session(self, address):
        async with grpc.aio.insecure_channel(address) as channel:
            stream = bns_pb2_grpc.BnsStub(channel).Register()
            hello = bns_pb2.RegisterHello(
                agent=self.name, datacenter=self.datacenter, machine_id=self.name, boot_id="boot", session_id="one"
            )
            await stream.write(bns_pb2.RegisterRequest(hello=hello))
            await asyncio.wait_for(stream.read(), 5)
            for number, task in enumerate(self.tasks):
                record = bns_pb2.TaskRecord(name=task, address="127.0.0.1", port=self.ports[task], agent=self.name)
                await stream.write(bns_pb2.RegisterRequest(request_id=number + 1, register=record))
                ack = await asyncio.wait_for(stream.read(), 10)
                assert ack is grpc.aio.EOF or ack.ack.code == 0, ack
            await stream.read()

    async def _report_for_ever(self, address):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with grpc.aio.insecure_channel(address) as channel:
                    await self._report(report_pb2_grpc.ReportsStub(channel).ReportLoad(), address)
            await asyncio.sleep(0.1)

    async def _report(self, stream, address):
        changed = self._changed[address] = asyncio.Event()
        partial = False
        while True:
            if not self.silent:
                await stream.write(self.report(partial=partial))
                if await stream.read() is grpc.aio.EOF:
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S / 2):
                    await changed.wait()
            partial = changed.is_set()
            changed.clear()


@dataclass
class FakeClient:
    """Reports demand of one locality, and what it saw of tasks, to every replica."""

    locality: str
    addresses: list
    rps: dict = field(default_factory=dict)  # by service
    seen: dict = field(default_factory=dict)  # task -> (ok, failed)
    callers: dict = field(default_factory=dict)  # by service: the service that asks
    period_s: float = 0.5

    async def start(self):
        self._seq = 0
        self._work = [asyncio.create_task(self._for_ever(address)) for address in self.addresses]
        return self

    async def stop(self):
        await end(self._work)

    def report(self):
        self._seq += 1
        return report_pb2.DemandReport(
            reporter=f"client-{self.locality}",
            boot_id="1",
            seq=self._seq,
            period_s=self.period_s,
            datacenter=self.locality,
            source=config_pb2.DEMAND_SOURCE_RPC,
            rows=[
                report_pb2.DemandRow(
                    service=name,
                    locality=self.locality,
                    attempts=int(rps * self.period_s),
                    caller=self.callers.get(name, ""),
                )
                for name, rps in self.rps.items()
            ],
            observations=[
                report_pb2.TaskObservation(task=task, ok=ok, failed=failed) for task, (ok, failed) in self.seen.items()
            ],
        )

    async def _for_ever(self, address):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with grpc.aio.insecure_channel(address) as channel:
                    stream = report_pb2_grpc.ReportsStub(channel).ReportDemand()
                    while True:
                        await stream.write(self.report())
                        if await stream.read() is grpc.aio.EOF:
                            break
                        await asyncio.sleep(self.period_s)
            await asyncio.sleep(0.1)


class Reader:
    """Subscribes to everything at any of the replicas, as clients do, and holds the control plane to its promises.

    `wrong` collects what no reader may ever see: a plan that goes back, a service that is emptied.
    """

    def __init__(self, addresses, **subscription):
        self.addresses = addresses
        self.view = ReaderView()
        self.wrong = []
        self.updates = 0
        self.stamps = {}  # service -> every stamp received, in order
        self._subscription = subscription or {"all_services": True, "catalog": True}
        self._task = None

    async def start(self):
        self._task = asyncio.create_task(self._for_ever())
        return self

    async def stop(self):
        await end([self._task])

    def plan(self, name="backend"):
        held = self.view.services.get(name)
        return held.plan if held else None

    def count(self, name="backend"):
        held = self.view.services.get(name)
        return len(held.endpoints) if held else 0

    def shares(self, locality, name="backend"):
        plan = self.plan(name)
        return dict(plan.shares.get(locality, {})) if plan else {}

    def health(self, task):
        for held in self.view.services.values():
            if task in held.endpoints:
                return held.endpoints[task].health
        return None

    async def _for_ever(self):
        for address in itertools.cycle(self.addresses):
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with grpc.aio.insecure_channel(address) as channel:
                    stream = discovery_pb2_grpc.DiscoveryStub(channel).Subscribe()
                    await stream.write(discovery_pb2.SubscribeRequest(subscriber="test", **self._subscription))
                    while (update := await stream.read()) is not grpc.aio.EOF:
                        self._take(update)
            await asyncio.sleep(0.05)

    def _take(self, update):
        self.updates += 1
        for change in update.services:
            if change.HasField("plan"):
                stamp = change.plan.stamp
                self.stamps.setdefault(change.service, []).append((stamp.incarnation, stamp.epoch, stamp.version))
            held = self.view.services.get(change.service)
            if held and held.endpoints and change.endpoints_snapshot and not change.upserted:
                self.wrong.append(f"{change.service} was emptied")
        self.view, problems = fold(self.view, update)
        self.wrong += problems


def as_json(page):
    return json.loads(page[1])
