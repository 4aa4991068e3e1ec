"""The planet on one machine: etcd, two control-plane replicas, four datacenters with agents and tasks, two DNS frontends.

Starts it in the order of its dependencies, says what it waits for, and knows every address and pid.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import grpc

from bns.etcd.embedded import EmbeddedEtcd
from bns.model import HealthStatus
from gslb.demo import ports
from gslb.demo.layout import BACKEND_SERVICE, JOBS, SITES, WEB_NAME, Site, TaskPlace
from gslb.demo.resolver import ResolveError, Resolver
from gslb.demo.supervisor import ProcessSpec, StartError, Supervisor
from gslb.v1 import admin_pb2, admin_pb2_grpc

REPORT_PERIOD_S = 2.0
PLAN_PERIOD_S = 2.0
GFE_PORT = 8080
# Where `gslb` looks when it is told nothing.
CONTROL_PORT = 9001
DNS_GRPC_PORT = 9053
CONTROL_HTTP_PORT = 9101
DNS_HTTP_PORT = 9153
DNS_PORT = 5300
START_TIMEOUT_S = 90.0
RPC_TIMEOUT_S = 2.0
LOG_SAMPLE = 0.01
# A part of what a search costs is burned, so that capacity, which is learned from CPU, differs less between machines: a
# little more than what a GFE is declared to take. More of it would be felt on a machine of two cores.
BACKEND_CPU_MS = 1.0
BACKEND_CPU_CORES = 0.18

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Replica:
    """One control-plane replica."""

    label: str
    address: str
    http: str


@dataclass(frozen=True, slots=True)
class DnsFrontend:
    """One DNS frontend: where it answers DNS, explains, and shows its debug pages."""

    label: str
    address: str
    grpc: str
    http: str


def _loopback(start: int, taken: set[int]) -> str:
    """A free address near the port where people look first; `taken` grows by it."""
    port = start
    while True:
        port = ports.first_free(["127.0.0.1"], port)
        if port not in taken:
            taken.add(port)
            return f"127.0.0.1:{port}"
        port += 1


@dataclass(slots=True)
class Planet:
    """Everything that runs. Make it with `create`, then `start`, and `stop` whatever happens."""

    directory: Path
    texts: Path
    progress: Progress
    log_sample: float
    etcd: EmbeddedEtcd
    supervisor: Supervisor
    replicas: tuple[Replica, ...]
    dns: tuple[DnsFrontend, ...]
    tasks: tuple[TaskPlace, ...]
    agent_http: dict[str, str] = field(default_factory=dict)
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    @classmethod
    def create(cls, directory: Path, texts: Path, progress: Progress, log_sample: float = LOG_SAMPLE) -> "Planet":
        """Chooses addresses; starts nothing."""
        logs = directory / "logs"
        logs.mkdir()
        gfe_port = ports.first_free((site.task_address("gfe", 0) for site in SITES), GFE_PORT)
        dns_port = ports.first_free(["127.0.0.1"], DNS_PORT, udp=True)
        dns_ports = (dns_port, ports.first_free(["127.0.0.1"], dns_port + 1, udp=True))
        taken: set[int] = set()
        tasks = tuple(
            _place(site, job, index, gfe_port)
            for job, count in JOBS.items()
            for site in SITES
            for index in range(count)
        )
        return cls(
            directory=directory,
            texts=texts,
            progress=progress,
            log_sample=log_sample,
            etcd=EmbeddedEtcd(directory / "etcd"),
            supervisor=Supervisor(logs),
            replicas=tuple(
                Replica(f"control-{i}", _loopback(CONTROL_PORT + i, taken), _loopback(CONTROL_HTTP_PORT + i, taken))
                for i in range(2)
            ),
            dns=tuple(
                DnsFrontend(
                    f"dns-{i}",
                    f"127.0.0.1:{port}",
                    _loopback(DNS_GRPC_PORT + i, taken),
                    _loopback(DNS_HTTP_PORT + i, taken),
                )
                for i, port in enumerate(dns_ports)
            ),
            tasks=tasks,
            agent_http={site.name: f"{site.agent_address}:{ports.any_free(site.agent_address)}" for site in SITES},
        )

    @property
    def control(self) -> str:
        """All replicas, as --control wants them."""
        return ",".join(replica.address for replica in self.replicas)

    @property
    def gfe_port(self) -> int:
        return next(task.port for task in self.tasks if task.job == "gfe")

    @property
    def dns_servers(self) -> list[str]:
        return [frontend.address for frontend in self.dns]

    def tasks_of(self, datacenter: str, job: str) -> list[TaskPlace]:
        """The places of a job's tasks in a datacenter."""
        return [task for task in self.tasks if task.site.name == datacenter and task.job == job]

    # -- start and stop --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Brings everything up; returns when every task is healthy and every area resolves. Raises StartError."""
        began_s = time.monotonic()
        index = asyncio.create_task(self._build_index())
        try:
            await self._start_control()
            self.progress("four datacenters: an agent each, and the index of Shakespeare's words ...")
            for site in SITES:
                self.supervisor.start(self._agent_spec(site))
            await index
        finally:
            index.cancel()
            await asyncio.gather(index, return_exceptions=True)
        self.progress(f"{len(self.tasks)} tasks and two DNS frontends ...")
        for frontend in self.dns:
            self.supervisor.start(self._dns_spec(frontend))
        for task in self.tasks:
            self.supervisor.start(self._task_spec(task))
        await self._until("every task is registered and healthy", self._all_healthy)
        await self._until("every client area resolves", self._all_resolve)
        self.progress(f"the planet is up, {time.monotonic() - began_s:.1f} s")

    async def _start_control(self) -> None:
        self.progress("etcd and two control-plane replicas ...")
        self.etcd.spawn()
        await self.etcd.ready()
        for replica in self.replicas:
            self.supervisor.start(self._replica_spec(replica))
        await self._until("a control-plane replica answers", self._admin_answers)
        await self._run_to_end(self._apply_spec())

    async def stop(self) -> None:
        """Ends every process."""
        for channel in self._channels.values():
            await channel.close(None)
        self._channels.clear()
        await self.supervisor.stop_all()
        self.etcd.stop()

    async def _build_index(self) -> None:
        outputs = [argument for site in SITES for argument in ("--output", str(self._index_file(site)))]
        await self._run_to_end(
            ProcessSpec("index", "examples.shakespeare.index", ("--texts", str(self.texts), *outputs))
        )

    async def _run_to_end(self, spec: ProcessSpec) -> None:
        self.supervisor.start(spec)
        code = await self.supervisor.wait(spec.label, START_TIMEOUT_S)
        if code != 0:
            raise StartError(
                self.supervisor.why_dead(spec.label) if code is not None else f"{spec.label} takes too long"
            )

    async def _until(self, what: str, condition: Callable[[], Awaitable[str]]) -> None:
        """Waits until `condition` returns "" (else it says what is missing). Raises StartError."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while missing := await condition():
            for label in self.supervisor.dead():
                if label not in {"index", "apply"}:
                    raise StartError(self.supervisor.why_dead(label))
            if time.monotonic() > deadline_s:
                raise StartError(
                    f"waited {START_TIMEOUT_S:.0f} s until {what}: {missing}; logs: {self.directory / 'logs'}"
                )
            await asyncio.sleep(0.1)

    async def _admin_answers(self) -> str:
        try:
            await self.status()
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()}"
        return ""

    async def _all_healthy(self) -> str:
        try:
            status = await self.status()
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()}"
        healthy = {task.task for task in status.tasks if task.health == int(HealthStatus.HEALTHY)}
        missing = [task.name for task in self.tasks if task.name not in healthy]
        return f"{len(missing)} are not, such as {missing[0]}" if missing else ""

    async def _all_resolve(self) -> str:
        for site in SITES:
            resolver = Resolver(self.dns_servers, site.client_subnet(0), random.Random(1))
            try:
                await resolver.query(WEB_NAME)
            except ResolveError as error:
                return str(error)
        return ""

    # -- asking the control plane ----------------------------------------------------------------------------------

    def channel(self, address: str) -> grpc.aio.Channel:
        """A kept channel to `address`."""
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address)
        return self._channels[address]

    def admin(self, replica: Replica) -> "admin_pb2_grpc.AdminAsyncStub":
        """The admin API of one replica."""
        return admin_pb2_grpc.AdminStub(self.channel(replica.address))

    async def status(self, among: Iterable[Replica] = ()) -> admin_pb2.StatusResponse:
        """Status from the first replica that answers. Raises AioRpcError when none does."""
        candidates = list(among) or [r for r in self.replicas if self.supervisor.alive(r.label)] or list(self.replicas)
        for replica in candidates[:-1]:
            try:
                return await self.admin(replica).Status(admin_pb2.StatusRequest(), timeout=RPC_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                continue
        return await self.admin(candidates[-1]).Status(admin_pb2.StatusRequest(), timeout=RPC_TIMEOUT_S)

    async def leader(self) -> Replica | None:
        """The replica that says it leads; None when nobody does."""
        for replica in self.replicas:
            if not self.supervisor.alive(replica.label):
                continue
            try:
                status = await self.admin(replica).Status(admin_pb2.StatusRequest(), timeout=RPC_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                continue
            if status.leading:
                return replica
        return None

    async def backend_capacity(self) -> dict[str, float]:
        """Capacity of the backend service by datacenter, in rps, as the control plane sees it."""
        status = await self.status()
        service = next(s for s in status.services if s.service == BACKEND_SERVICE)
        return {backend.datacenter: backend.capacity_rps for backend in service.backends}

    # -- what to run -----------------------------------------------------------------------------------------------

    def socket(self, site: Site) -> Path:
        """The local socket of a datacenter's agent."""
        return self.directory / f"{site.name}.sock"

    def knobs(self, task: TaskPlace) -> Path:
        """The file that a backend's knobs are read from; there is none until somebody turns one."""
        return self.directory / f"{task.label}.knobs.json"

    def _index_file(self, site: Site) -> Path:
        return self.directory / f"{site.name}.sqlite"

    def _replica_spec(self, replica: Replica) -> ProcessSpec:
        arguments = ("serve", "--etcd", self.etcd.address, "--listen", replica.address, "--http", replica.http)
        periods = ("--plan-period", f"{PLAN_PERIOD_S:g}", "--report-period", f"{REPORT_PERIOD_S:g}")
        recorder = ("--recorder", str(self.directory / "recorder" / replica.label))
        return ProcessSpec(replica.label, "gslb", (*arguments, "--replica", replica.label, *periods, *recorder))

    def _apply_spec(self) -> ProcessSpec:
        planet = resources.files("gslb.demo") / "planet.yaml"
        return ProcessSpec("apply", "gslb", ("apply", "-f", str(planet), "--control", self.control))

    def _agent_spec(self, site: Site) -> ProcessSpec:
        names = ("--name", f"agent-{site.name}", "--datacenter", site.name, "--machine-id", f"machine-{site.name}")
        places = ("--control", self.control, "--socket", str(self.socket(site)), "--http", self.agent_http[site.name])
        period = ("--period", f"{REPORT_PERIOD_S:g}", "--remote-probes", "2")
        # One machine stands for all: what keeps it busy is not what keeps a datacenter busy.
        state = ("--state", str(self.directory / f"{site.name}.agent"), "--no-machine-cpu")
        return ProcessSpec(f"{site.name}-agent", "gslb", ("agent", *names, *places, *period, *state))

    def _dns_spec(self, frontend: DnsFrontend) -> ProcessSpec:
        arguments = ("dns", "--name", frontend.label, "--listen", frontend.address, "--control", self.control)
        ports_ = ("--grpc", frontend.grpc, "--http", frontend.http)
        snapshot = ("--snapshot", str(self.directory / f"{frontend.label}.snapshot"))
        return ProcessSpec(frontend.label, "gslb", (*arguments, *ports_, *snapshot))

    def _task_spec(self, task: TaskPlace) -> ProcessSpec:
        arguments = ["--name", task.name, "--listen", task.address, "--http", task.http, "--control", self.control]
        arguments += ["--agent", f"unix:{self.socket(task.site)}", "--log-sample", f"{self.log_sample:g}"]
        arguments += ["--snapshot", str(self.directory / f"{task.label}.snapshot")]
        if task.job == "tablet":
            arguments += ["--index", str(self._index_file(task.site))]
        if task.job == "backend":
            arguments += ["--knobs", str(self.knobs(task)), "--cpu-ms-per-request", f"{BACKEND_CPU_MS:g}"]
            arguments += ["--cpu-cores", f"{BACKEND_CPU_CORES:g}"]
        return ProcessSpec(task.label, f"examples.shakespeare.{task.job}", tuple(arguments))

    # -- what others can script against ------------------------------------------------------------------------------

    async def state(self) -> dict[str, object]:
        """Every address and pid."""
        leader = await self.leader()
        pid = self.supervisor.pid
        return {
            "dns": self.dns_servers,
            "dns_explain": [frontend.grpc for frontend in self.dns],
            "control": [
                {"addr": r.address, "http": r.http, "pid": pid(r.label), "leader": r is leader} for r in self.replicas
            ],
            "etcd": {"addr": self.etcd.address, "pid": self.etcd.pid},
            "datacenters": {
                site.name: {
                    "gfe": self.tasks_of(site.name, "gfe")[0].address,
                    "agent_pid": pid(f"{site.name}-agent"),
                    "agent_socket": str(self.socket(site)),
                    "agent_http": self.agent_http[site.name],
                    "tasks": [
                        {"bns": t.name, "addr": t.address, "http": t.http, "pid": pid(t.label)}
                        for t in self.tasks
                        if t.site is site
                    ],
                }
                for site in SITES
            },
            "logs": str(self.directory / "logs"),
        }


def _place(site: Site, job: str, index: int, gfe_port: int) -> TaskPlace:
    host = site.task_address(job, index)
    http_port = ports.any_free(host)
    port = gfe_port if job == "gfe" else ports.any_free(host)
    return TaskPlace(site, job, index, port, http_port)
