"""A small planet of real processes for tests of the command line and of the docs, and ways to run commands on it.

etcd, two replicas of `gslb serve` and a `gslb agent` in each of two datacenters; the tasks that the agents probe are
sockets of this process. Clients' demand is reported to both replicas all the time, so that drains have numbers.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import yaml
from click.testing import CliRunner

from bns.etcd.embedded import EmbeddedEtcd, Options
from bns.model import HealthStatus
from bns.spawn import dies_with_us
from gslb.cli.main import main
from gslb.config.load import load
from gslb.v1 import admin_pb2, admin_pb2_grpc, config_pb2, report_pb2, report_pb2_grpc
from gslb.wire.resources import encode_resource
from tests.support.control import ReplicaProcess

WAIT_S = 90.0
REPORT_S = 0.5
# Locality and rps of the clients of each service.
DEMAND = {("web", "us-east1"): 60, ("web", "europe-west1"): 40, ("api", "us-east1"): 40}
TASKS = {
    "us-east1": [f"/bns/us-east1/shop/{task}" for task in ("web/0", "web/1", "api/0", "api/1")],
    "europe-west1": ["/bns/europe-west1/shop/web/0", "/bns/europe-west1/shop/web/1"],
}
# web can lose either datacenter; api lives in one, and can lose none of its two tasks.
BASE = """
kind: Datacenter
name: us-east1
spec: {region: na, latitude: 33.2, longitude: -80.0}
---
kind: Datacenter
name: europe-west1
spec: {region: eu, latitude: 50.4, longitude: 3.8}
---
kind: ClientArea
name: europe
spec: {latitude: 50.0, longitude: 8.0, cidrs: [198.51.100.0/24]}
---
kind: Service
name: web
owner: shop
spec:
  dns_names: [www.shop.example]
  backends:
    - {job: /bns/us-east1/shop/web, task_capacity_rps: 100}
    - {job: /bns/europe-west1/shop/web, task_capacity_rps: 100}
---
kind: Service
name: api
owner: shop
spec:
  backends:
    - {job: /bns/us-east1/shop/api, task_capacity_rps: 30}
---
kind: Zone
name: shop.example
spec:
  records: |
    @ 300 IN SOA ns1 admin 1 3600 600 86400 60
    @ 300 IN NS ns1
    ns1 300 IN A 192.0.2.1
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def ok(self) -> "Ran":
        assert self.code == 0, self
        return self

    def table(self) -> list[list[str]]:
        """The cells of a table's lines below its headings."""
        return [line.split() for line in self.out.splitlines()[1:]]


def in_process(*arguments: str, env: dict[str, str] | None = None, text: str | None = None) -> Ran:
    """`gslb ARGUMENTS` without the second that a process takes to start."""
    result = CliRunner().invoke(main, list(arguments), env=env, input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def in_child(*command: str, env: dict[str, str] | None = None, text: str = "", timeout_s: float = 60) -> Ran:
    """A command line as its own process; ended when it takes too long."""
    child = subprocess.run(
        dies_with_us(list(command)),
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=timeout_s,
        check=False,
    )
    return Ran(child.returncode, child.stdout, child.stderr)


def gslb_in_child(*arguments: str, env: dict[str, str] | None = None, text: str = "") -> Ran:
    return in_child(sys.executable, "-m", "gslb", *arguments, env=env, text=text)


class Doors:
    """Sockets that a TCP probe finds open."""

    def __init__(self, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.ports = [each.getsockname()[1] for each in self._sockets]
        self._ended = threading.Event()
        for each in self._sockets:
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.2):
                connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
                connection.close()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._selector.close()
        for each in self._sockets:
            each.close()


class Demand(threading.Thread):
    """A client of every service, reporting to one replica until it is closed."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._ended = threading.Event()

    def close(self) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(self._address) as channel:
                for _ack in report_pb2_grpc.ReportsStub(channel).ReportDemand(self._reports()):
                    pass
            self._ended.wait(0.2)

    def _reports(self) -> Iterator[report_pb2.DemandReport]:
        while not self._ended.is_set():
            rows = [
                report_pb2.DemandRow(service=service, locality=locality, attempts=int(rps * REPORT_S))
                for (service, locality), rps in DEMAND.items()
            ]
            yield report_pb2.DemandReport(
                reporter="client", boot_id="1", seq=time.monotonic_ns(), period_s=REPORT_S, datacenter="us-east1",
                source=config_pb2.DEMAND_SOURCE_RPC, rows=rows,
            )  # fmt: skip
            self._ended.wait(REPORT_S)


@dataclass
class Planet:
    """What runs. `env`: for commands."""

    directory: Path
    etcd: EmbeddedEtcd
    replicas: list[ReplicaProcess] = field(default_factory=list)
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def control(self) -> str:
        return ",".join(replica.address for replica in self.replicas)

    @property
    def env(self) -> dict[str, str]:
        return {
            "GSLB_CONTROL": self.control,
            "BNS_SERVER": self.control,
            "BNS_ETCD": self.etcd.address,
            "BNS_AGENT": str(self.directory / "us-east1.sock"),
            "USER": "ann",
            "LOGNAME": "ann",
            "COLUMNS": "200",
        }

    def gslb(self, *arguments: str, text: str | None = None) -> Ran:
        return in_process(*arguments, env=self.env, text=text)

    def file(self, text: str, name: str = "given.yaml") -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def apply(self, text: str, *flags: str) -> Ran:
        return self.gslb("apply", "-f", "-", *flags, text=text)

    def export(self) -> str:
        return self.gslb("export").ok().out

    @contextlib.contextmanager
    def admin(self, number: int = 0) -> Iterator[admin_pb2_grpc.AdminStub]:
        with grpc.insecure_channel(self.replicas[number].address) as channel:
            yield admin_pb2_grpc.AdminStub(channel)

    def status(self, number: int = 0) -> admin_pb2.StatusResponse:
        with self.admin(number) as admin:
            return admin.Status(admin_pb2.StatusRequest(), timeout=5)

    # Begin and end

    def start(self) -> None:
        self.etcd.start()
        self._ends.callback(self.etcd.remove_data)
        self._ends.callback(self.etcd.kill)
        for name in ("r1", "r2"):
            ring = str(self.directory / f"{name}.recorder")
            replica = ReplicaProcess(name, self.etcd.address, self.directory, "--recorder", ring)
            self.replicas.append(replica.start())
            self._ends.callback(stop, replica)
        for datacenter in TASKS:
            self._agent(datacenter)
        until(lambda: all(self._answers(number) for number in range(2)), "both replicas answer")
        self.restore()
        for replica in self.replicas:
            demand = Demand(replica.address)
            demand.start()
            self._ends.callback(demand.close)
        self.settle()

    def _agent(self, datacenter: str) -> None:
        doors = Doors(len(TASKS[datacenter]))
        self._ends.callback(doors.close)
        tasks = [
            {
                "name": name,
                "address": "127.0.0.1",
                "port": port,
                "probe": {"kind": "tcp", "interval_s": 0.5, "rise": 1},
            }
            for name, port in zip(TASKS[datacenter], doors.ports, strict=True)
        ]
        config = self.file(yaml.safe_dump({"tasks": tasks}), f"{datacenter}.tasks.yaml")
        command = [
            *(sys.executable, "-m", "gslb", "agent", "--name", f"agent-{datacenter}", "--datacenter", datacenter),
            *("--control", self.control, "--socket", str(self.directory / f"{datacenter}.sock")),
            *("--config", config, "--period", "1", "--machine-id", f"machine-{datacenter}", "--remote-probes", "0"),
        ]
        with (self.directory / f"agent-{datacenter}.log").open("ab") as log:
            child = subprocess.Popen(dies_with_us(command), stdout=log, stderr=log)
        self.agents.append(child)
        self._ends.callback(end, child)

    def close(self) -> None:
        self._ends.close()

    # States

    def _answers(self, number: int) -> bool:
        try:
            return self.status(number).etcd_age_s < 60
        except grpc.RpcError:
            return False

    def settle(self) -> None:
        """Until both replicas plan for healthy tasks and the full demand, all of it served where it arises."""
        until(lambda: all(self._settled(number) for number in range(2)), "the planet is settled")

    def _settled(self, number: int) -> bool:
        status = self.status(number)
        demand = {(s.service, one.locality): one.demand_rps for s in status.services for one in s.localities}
        at_home = [
            one.locality in one.datacenters and one.share[list(one.datacenters).index(one.locality)] > 0.99
            for s in status.services
            for one in s.localities
            if (s.service, one.locality) in DEMAND
        ]
        healthy = [task.task for task in status.tasks if task.health == HealthStatus.HEALTHY]
        return (
            status.warm
            and bool(status.leader)
            and sorted(healthy) == sorted(name for names in TASKS.values() for name in names)
            and all(abs(demand.get(key, 0.0) - rps) < 0.05 * rps for key, rps in DEMAND.items())
            and all(at_home)
            # Growth onto a datacenter is ramped: until it is over the plan is on its way.
            and not any(note.startswith("ramp:") for service in status.services for note in service.notes)
        )

    def restore(self) -> None:
        """Desired state as in BASE, and nothing else."""
        base = load(BASE, "base.yaml")
        with self.admin() as admin:
            wanted = [encode_resource(resource) for resource in base]
            names = {(message.WhichOneof("kind"), message.meta.name) for message in wanted}
            found = list(admin.Get(admin_pb2.GetRequest(), timeout=5).resources)
            for message in sorted(found, key=lambda each: ORDER.index(each.WhichOneof("kind"))):
                kind = message.WhichOneof("kind")
                if (kind, message.meta.name) not in names:
                    admin.Delete(
                        admin_pb2.DeleteRequest(kind={"client_area": "area"}.get(kind, kind), name=message.meta.name),
                        timeout=5,
                    )
            admin.Apply(admin_pb2.ApplyRequest(resources=wanted), timeout=10)


ORDER = ("drain", "service", "zone", "client_area", "datacenter")


def stop(replica: ReplicaProcess) -> None:
    if replica.process is not None and replica.process.poll() is None:
        replica.stop()


def end(child: subprocess.Popen[bytes]) -> None:
    """TERM, then KILL."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGCONT)
        child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def until(condition, what: str, timeout_s: float = WAIT_S):
    """The first true value of `condition()`."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"{what}: not so in {timeout_s:.0f} s"
        time.sleep(0.05)
    return value


@contextlib.contextmanager
def planet_in(directory: Path) -> Iterator[Planet]:
    """A planet that ends with the block, whatever happens in it."""
    planet = Planet(directory, EmbeddedEtcd(directory / "etcd", Options(unsafe_no_fsync=True)))
    try:
        planet.start()
        yield planet
    finally:
        planet.close()


@pytest.fixture(scope="session")
def lasting_planet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planet]:
    """One planet for all tests of the xdist group "cli", for its six processes take seconds to start."""
    with planet_in(tmp_path_factory.mktemp("planet")) as planet:
        yield planet


@pytest.fixture
def planet(lasting_planet: Planet) -> Iterator[Planet]:
    """The planet, its desired state made good after the test."""
    yield lasting_planet
    lasting_planet.restore()


def busy_port() -> tuple[socket.socket, str]:
    """A socket that listens, and its address."""
    taken = socket.create_server(("127.0.0.1", 0))
    return taken, f"127.0.0.1:{taken.getsockname()[1]}"
