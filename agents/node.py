"""The node agent: puts its parts together and runs them. One per machine.

tasks file ─┐                      ┌─ Register: one replica ── BNS
local socket ─┼─▶ Keeper ── Ledger ─┘
BNS (adopted) ─┘    │ ▲
      probes, processes, CPU ─▶ LoadReport ─▶ every replica of the cell
                    remote probes ─┘
"""

import asyncio
import contextlib
import logging
import random
import socket
import time
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from agents import config, limits, memory, status
from agents.errors import ConfigError
from agents.health.probes import ProbeResult
from agents.keeper import Keeper, Origin
from agents.load.cpu import CpuMeter, MachineLoad
from agents.load.listeners import listeners
from agents.load.report import Sender, pack
from agents.local import socket as local_socket
from agents.local.servicer import NodeAgentServicer
from agents.metrics import Metrics
from agents.registration.ledger import Ledger, Outcome
from agents.registration.session import Session
from agents.remote.directory import Directory
from agents.remote.witness import Witness
from agents.replicas import Replica
from agents.reporting import ReportStream, Sequence64
from bns.model import HealthStatus, Task
from bns.transport import Tls, aio_channel
from bns.v1 import agent_pb2_grpc, bns_pb2
from gslb.ops.http import OpsServer
from gslb.v1 import report_pb2

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NO_MACHINE = MachineLoad(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent is started with."""

    name: str
    datacenter: str
    control: Sequence[str]
    socket: Path
    machine_id: str
    machine_cpu: bool = True  # whether the whole machine's CPU is reported
    http: str | None = None
    config: Path | None = None
    state: Path | None = None
    period_s: float = 5.0
    remote_probes: int = limits.REMOTE_PROBES_DEFAULT
    tls: Tls | None = None


class Agent:
    """A running agent. start() raises what makes starting pointless; run() goes on until stop()."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        rng = random.Random()
        self._rng = rng
        self._boot_id = boot_id()
        self.keeper = Keeper(settings.name, settings.datacenter, settings.machine_id, self, rng)
        self.ledger = Ledger()
        self.metrics = Metrics(self.keeper.all)
        self.keeper.on_probe = self._count_probe
        self._replicas = [Replica(address, aio_channel(address, settings.tls)) for address in settings.control]
        self.session = Session(self._hello(), rng.sample(self._replicas, len(self._replicas)), self.ledger, self, rng)
        self.streams = [ReportStream(replica, self._report, self.metrics, rng) for replica in self._replicas]
        own = (settings.datacenter, settings.name)
        # Each agent in an order of its own, so that their watches spread over the replicas.
        order = rng.sample(self._replicas, len(self._replicas))
        self._directory = Directory(settings.datacenter, order, self._directory_changed, rng)
        self.witness = Witness(own, settings.remote_probes, self._directory.all, self._remote_failed, rng)
        self._sender = Sender(settings.name, settings.datacenter, self._boot_id, settings.period_s)
        self._seq = Sequence64()
        self._cpu = CpuMeter()
        self._machine = _NO_MACHINE
        self._server: grpc.aio.Server | None = None
        self._ops: OpsServer | None = None
        self._stop = asyncio.Event()
        self._save_due = asyncio.Event()
        self.http_address: str | None = None

    # From outside.

    async def start(self) -> None:
        """Reads the tasks, binds the socket and the debug pages.

        Raises ConfigError, SocketError or OpsListenError; then nothing is left behind.
        """
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise

    async def _start(self) -> None:
        settings = self._settings
        configured = config.load(settings.config, settings.datacenter) if settings.config else []
        if settings.state is not None:
            for item in memory.load(settings.state, self._boot_id):
                self.keeper.adopt(item.task, Origin.CONFIG if item.origin is Origin.CONFIG else Origin.ADOPTED)
        self.keeper.configure(configured)
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", limits.LOCAL_MESSAGE_MAX_BYTES)],
            maximum_concurrent_rpcs=limits.LOCAL_STREAMS_MAX,
        )
        servicer = NodeAgentServicer(settings.name, settings.datacenter, self.keeper, self.session)
        agent_pb2_grpc.add_NodeAgentServicer_to_server(servicer, server)
        local_socket.listen(server, settings.socket)
        self._server = server
        await server.start()
        if settings.http:
            self._ops = OpsServer(
                f"gslb agent {settings.datacenter}/{settings.name}",
                registry=self.metrics.registry,
                ready=lambda: status.ready(self.session),
                status=self._status,
            )
            self.http_address = self._ops.start(settings.http)

    def stop(self) -> None:
        """Makes run() deregister everything and return."""
        self._stop.set()

    def reload(self) -> None:
        """Reads the tasks file again; a bad one changes nothing."""
        if self._settings.config is None:
            log.warning("nothing to reload: the agent was started without --config")
            return
        try:
            configured = config.load(self._settings.config, self._settings.datacenter)
        except ConfigError as error:
            self.metrics.config_reloads.labels("refused").inc()
            for problem in error.problems:
                log.error("keeping the old tasks: %s", problem)
            return
        self.metrics.config_reloads.labels("taken").inc()
        self.keeper.configure(configured)
        log.info("reloaded %s: %d tasks", self._settings.config, len(configured))

    async def run(self) -> None:
        """Works until stop(). Whatever fails inside is started again; tasks never notice."""
        parts: list[tuple[str, Coroutine[object, object, None]]] = [
            ("probing", self.keeper.prober.run()),
            ("processes", self.keeper.processes.run()),
            ("registration", self.session.run()),
            ("sampling", self._sample_each_period()),
            ("finding processes", self._find_processes()),
            ("housekeeping", self._keep_house()),
            ("reports", self._report_to_all()),
        ]
        if self._settings.remote_probes:
            parts += [("watching other datacenters", self._directory.run()), ("remote probes", self.witness.run())]
        running = {asyncio.create_task(part, name=name) for name, part in parts}
        stopping = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait({*running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                # Each part lives as long as the agent: an agent without one of them is worse than one that is
                # restarted and adopts its tasks.
                raise RuntimeError(f"{task.get_name()} ended") from task.exception()
            await self._say_goodbye()
        finally:
            for task in {*running, stopping}:
                task.cancel()
            await asyncio.gather(*running, stopping, return_exceptions=True)
            await self._close()

    # What the keeper tells.

    def wanted(self, task: Task) -> None:
        """`task` is to be in BNS as it is here."""
        self.ledger.want(task, time.monotonic())
        self.session.changed()
        self._save_due.set()

    def unwanted(self, name: str) -> None:
        """The task `name` is to leave BNS."""
        self.ledger.unwant(name, time.monotonic())
        self.session.changed()
        self._save_due.set()

    def health_changed(self, name: str, before: HealthStatus, after: HealthStatus, why: str) -> None:
        """For a report at once."""
        log.info("%s: %s -> %s: %s", name, before.name, after.name, why)
        self.metrics.health_changes.labels(after.name).inc()
        for stream in self.streams:
            stream.changed([name])

    # What the session tells.

    def adopted(self, tasks: Sequence[Task]) -> None:
        """BNS holds these for this agent, and nobody here knows them."""
        for task in tasks:
            self.keeper.adopt(task)

    def settled(self, outcome: Outcome) -> None:
        """BNS answered a request."""
        if outcome.removed:
            if outcome.code:
                log.warning("BNS did not deregister %s: %s", outcome.name, outcome.message)
        elif outcome.code == 0:
            self.keeper.registered(outcome.name)
        elif not outcome.transient:
            self.keeper.refused(outcome.name, outcome.code, outcome.message)

    # Inside.

    def _hello(self) -> bns_pb2.RegisterHello:
        return bns_pb2.RegisterHello(
            agent=self._settings.name,
            datacenter=self._settings.datacenter,
            machine_id=self._settings.machine_id,
            boot_id=self._boot_id,
            session_id=uuid.uuid4().hex,
        )

    def _report(self, names: frozenset[str] | None, remote_since_s: float) -> report_pb2.LoadReport | None:
        rows = self.keeper.rows(names)
        remote = self.witness.rows(remote_since_s)
        if names is not None and not rows and not remote:
            return None
        return pack(self._sender, self._seq.next(), rows, remote, self._machine, partial=names is not None)

    def _count_probe(self, task: Task, result: ProbeResult) -> None:
        kind = task.probe.kind.name.lower()
        self.metrics.probes.labels(kind, "ok" if result.ok else "failed").inc()
        self.metrics.probe_seconds.labels(kind).observe(result.rtt_ms / 1000.0)

    def _directory_changed(self) -> None:
        self.witness.changed()

    def _remote_failed(self) -> None:
        for stream in self.streams:
            stream.changed([])

    async def _report_to_all(self) -> None:
        """Opens the report streams once there is something whole to say."""
        await self._first_verdicts()
        async with asyncio.TaskGroup() as group:
            for stream in self.streams:
                group.create_task(stream.run())

    async def _first_verdicts(self) -> None:
        """Waits a moment for the tasks that BNS holds for this agent, and for a verdict on each."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.FIRST_REPORT_WAIT_S):
                await self.session.welcomed.wait()
                await self.keeper.until_judged()

    async def _sample_each_period(self) -> None:
        """Measures and reports, each period from a random start on, so that agents do not report in step."""
        period_s = self._settings.period_s
        await self._sample()
        due = time.monotonic() + self._rng.uniform(0.2, 1.0) * period_s
        while True:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            await self._sample()
            for stream in self.streams:
                stream.full()
            due = max(due + period_s, time.monotonic() + period_s / 2.0)

    async def _sample(self) -> None:
        with self.metrics.sample_seconds.time():
            sample = await asyncio.to_thread(self._cpu.sample, self.keeper.subjects())
        self._machine = sample.machine if self._settings.machine_cpu else _NO_MACHINE
        self.metrics.machine_utilization.set(sample.machine.utilization)
        self.metrics.registered.set(self.session.replica is not None)
        self.keeper.sampled(sample.tasks)

    async def _find_processes(self) -> None:
        """For tasks that nobody named a process of."""
        while True:
            started = time.monotonic()
            if self.keeper.without_process():
                self.keeper.find_processes(await asyncio.to_thread(listeners))
            rest_s = limits.PID_DISCOVERY_REST_FACTOR * (time.monotonic() - started)
            await asyncio.sleep(max(limits.PID_DISCOVERY_S if self.keeper.all_judged() else 1.0, rest_s))

    async def _keep_house(self) -> None:
        """Saves the state when it changed, and lets go of what is long dead."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.PROCESS_POLL_S * 20.0):
                    await self._save_due.wait()
            self.keeper.forget_dead()
            if self._save_due.is_set():
                self._save_due.clear()
                await self._save()
                await asyncio.sleep(limits.PROCESS_POLL_S)

    async def _save(self) -> None:
        if self._settings.state is not None:
            content = memory.dump(self._boot_id, self.keeper.all())
            await asyncio.to_thread(memory.save, self._settings.state, content)

    async def _say_goodbye(self) -> None:
        if await self.session.goodbye():
            log.info("deregistered all tasks")
            if self._settings.state is not None:
                memory.save(self._settings.state, memory.dump(self._boot_id, []))
        else:
            log.warning("no replica took our goodbye (%s): the tasks stay in BNS", self.session.problem or "timeout")
            await self._save()

    async def _close(self) -> None:
        if self._ops is not None:
            await asyncio.to_thread(self._ops.close)
        if self._server is not None:
            await self._server.stop(0.2)
            # Without a server of our own, what is there is somebody else's.
            self._settings.socket.unlink(missing_ok=True)
        self.keeper.processes.close()
        for replica in self._replicas:
            await replica.channel.close(None)

    def _status(self) -> dict[str, object]:
        settings = self._settings
        about: dict[str, object] = {
            "name": settings.name,
            "datacenter": settings.datacenter,
            "machine": settings.machine_id,
            "boot": self._boot_id,
            "socket": str(settings.socket),
            "tasks file": str(settings.config or "none"),
            "period_s": settings.period_s,
        }
        registration = (self.session, self.ledger)
        return status.status(about, self.keeper, registration, self.streams, (self.witness, self._machine))


def boot_id() -> str:
    """The kernel's, new with each boot."""
    return _BOOT_ID.read_text().strip()


def default_machine_id() -> str:
    """The machine's own, else its host name."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        with contextlib.suppress(OSError):
            text = path.read_text().strip()
            if text:
                return text
    return socket.gethostname()
