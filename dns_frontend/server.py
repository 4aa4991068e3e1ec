"""The composition root of `gslb dns`: sockets, clocks and seeds meet the rest here.

Order of a start: the snapshot first, so that the first query finds an answer; then the sockets; then the control plane.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import grpc.aio
from prometheus_client import CollectorRegistry, ProcessCollector

from bns.transport import Tls, add_port, server_options
from dns_frontend.control_port import Age, DnsFrontendServicer
from dns_frontend.hardening import Hardened
from dns_frontend.holder import Held, Holder, Origin
from dns_frontend.limits import QUERY_LOG_EVERY, STALE_CHECK_S, ZONES_MEASURED_MAX
from dns_frontend.local import NO_FILES, Files, Local, load_files, load_first, served_zones
from dns_frontend.metrics import Counters, FrontendCollector
from dns_frontend.native import NoDataPlaneError, load_library
from dns_frontend.plane import DataPlane
from dns_frontend.privileges import Account, drop
from dns_frontend.prober import Prober
from dns_frontend.querylog import QueryLog
from dns_frontend.reporter import DemandReporter
from dns_frontend.responder.guard import Hardening
from dns_frontend.responder.respond import Network, Responder
from dns_frontend.siblings import Siblings
from dns_frontend.snapshot import SnapshotError, SnapshotWriter, load
from dns_frontend.sockets import Listening, listen, raise_file_limit
from dns_frontend.subscriber import Subscriber, Upstream
from dns_frontend.tcp import TcpServer
from dns_frontend.udp import UdpListener
from dns_frontend.zone.name import to_text
from dns_frontend.zone.records import soa_serial
from gslb.ops.http import OpsServer
from gslb.v1 import dns_pb2_grpc
from gslb.wire.reader import ReaderView

log = logging.getLogger(__name__)

_EXPLAIN_GRACE_S = 0.5
_STATUS_ROWS = 200
_WARNINGS_LOGGED = 20  # of one zone


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    name: str
    control: tuple[str, ...]  # empty: this machine's files say everything
    listen: tuple[str, ...]
    grpc: str | None = None
    http: str | None = None
    snapshot: Path | None = None
    default_locality: str = ""
    tls: Tls | None = None
    threads: int = 0  # of the data plane, for each address; 0: the reference answers everything
    processes: int = 1  # that answer where there is no data plane
    files: Files = NO_FILES
    bns_zones: tuple[bytes, ...] = ()  # origins, in lower case
    transfer: tuple[Network, ...] = ()  # who may have whole zones
    hardening: Hardening = field(default_factory=Hardening)
    cookie_secrets: Path | None = None
    query_log: Path | None = None
    query_log_every: int = QUERY_LOG_EVERY
    account: Account | None = None  # who to become once the ports are bound


@dataclass(slots=True)
class Addresses:
    """Where the parts of one frontend listen, as bound."""

    dns: list[str] = field(default_factory=list)
    grpc: str = ""
    http: str = ""


class Frontend:
    """One DNS frontend. `start` binds everything or raises; `run` serves until `stop`."""

    def __init__(
        self, settings: Settings, inherited: Sequence[Listening] = (), secrets: tuple[bytes, ...] = ()
    ) -> None:
        """`inherited`: sockets of the process that started this one, which has the snapshot and reports the demand."""
        self._settings = settings
        self._inherited = inherited
        self._secrets = secrets
        self._siblings: Siblings | None = None
        rng = random.Random()
        self.counters = Counters()
        self._hardened = Hardened(settings.hardening, settings.cookie_secrets, self.counters)
        guard = self._hardened.guard
        self._responder = Responder(self.counters, settings.default_locality, settings.transfer, guard)
        self._querylog = self._query_log()
        self._writer = SnapshotWriter(settings.snapshot) if settings.snapshot and not inherited else None
        self.plane, self.why_no_plane = self._data_plane()
        prepare = self.plane.advance if self.plane else lambda _: None
        self.holder = Holder(self.counters, self._changed, prepare, settings.bns_zones)
        self.local = Local()
        self._reloading = asyncio.Lock()
        upstream = Upstream(settings.name, settings.control, settings.tls, settings.default_locality)
        self.subscriber = Subscriber(
            upstream,
            take=self.holder.take,
            known=lambda: self.holder.held.view.services,
            connected=self._set_connected,
            rng=rng,
        )
        self.prober = Prober(
            views=lambda: self.holder.held.view.services,
            connected=lambda: self.holder.connected,
            lose=self.holder.lose,
            rng=rng,
        )
        self._reporter = DemandReporter(upstream, self._take_demand, lambda: self.answered_by, rng)
        self._tcp = TcpServer(self._responder, self.counters, self._querylog)
        self._udp: list[UdpListener] = []
        self._grpc: grpc.aio.Server | None = None
        self._ops: OpsServer | None = None
        self._reloads: set[asyncio.Task[Local]] = set()
        self._stopping = asyncio.Event()
        self._begin_s = time.monotonic()
        self.addresses = Addresses()

    async def start(self) -> None:
        """Binds every port. Raises FrontendError, BnsError or OpsListenError, each one clear line."""
        raise_file_limit()
        self._hardened.load(self._secrets)
        self.local = await asyncio.to_thread(load_first, self._settings.files)
        self._warn(self.local)
        self.holder.begin(self.local, alone=not self._settings.control)
        if self._settings.control:
            self._restore()
        sockets = self.threads or self._settings.processes
        listening = self._inherited or [listen(address, sockets) for address in self._settings.listen]
        for each in listening:
            self._listen(each)
        if self.plane is not None:
            self.plane.start(listening)
        elif self._settings.processes > 1:
            self._hardened.guard.divide(self._settings.processes)
            self._siblings = Siblings(self._settings, listening, self._own_secrets, self._listener, self.counters)
        if self._settings.grpc:
            server = grpc.aio.server(options=server_options())
            self.addresses.grpc = add_port(server, self._settings.grpc, self._settings.tls)
            servicer = DnsFrontendServicer(
                lambda: self.holder.held,
                self._settings.default_locality,
                self.reload,
                lambda: Age(self.holder.age_s, self._hardened.stale_text),
            )
            dns_pb2_grpc.add_DnsFrontendServicer_to_server(servicer, server)
            await server.start()
            self._grpc = server
        if self._settings.http:
            self._ops = self._debug_pages()
            self.addresses.http = self._ops.start(self._settings.http)
        self._become()
        log.info(
            "%s: DNS on %s, explain on %s, debug pages on %s",
            self._settings.name,
            ", ".join(self.addresses.dns),
            self.addresses.grpc or "no port",
            self.addresses.http or "no port",
        )
        log.info("UDP is answered by %s", self.answered_by)

    async def run(self) -> None:
        """Serves until `stop`; then closes everything, the newest state on disk."""
        jobs = [self.holder.run(), self.prober.run(), self._watch_age()]
        if self._settings.control:
            jobs.append(self.subscriber.run())
        if self._settings.control and not self._inherited:
            jobs.append(self._reporter.run())
        if self._siblings is not None:
            jobs.append(self._siblings.run())
        if self._writer is not None:
            jobs.append(self._writer.run())
        if self.plane is not None:
            jobs.append(self.plane.run())
        tasks = [asyncio.create_task(job) for job in jobs]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _become(self) -> None:
        """Leaves root, if told whom to become."""
        if self._settings.account is not None:
            drop(self._settings.account)
        elif os.geteuid() == 0 and not self._inherited:
            log.warning("running as root: give --user, or let the service manager choose a user")

    async def _watch_age(self) -> None:
        """Has answers say that they are old once they are."""
        while True:
            self._hardened.mark(self.holder.age_s, time.time())
            await asyncio.sleep(STALE_CHECK_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """None of them ends by itself: this one broke. Better a supervisor restarts us from the snapshot than half a life."""
        if not task.cancelled():
            log.error("a part of the frontend broke: %s", task.exception())
            self.stop()

    async def reload(self) -> Local:
        """Reads this machine's files anew and serves what they say; what is bad in them stays as it was."""
        async with self._reloading:
            local = await asyncio.to_thread(load_files, self._settings.files, self.local)
            self.local = replace(local, problems=local.problems + self._hardened.reload())
            self._warn(self.local)
            await self.holder.reload(self.local)
            if self._siblings is not None:
                self._siblings.reload()
            log.info("read %d zones from files; %d problems", len(self.local.zones), len(self.local.problems))
            return self.local

    def reload_soon(self) -> None:
        """The same without waiting for it; from the event loop (SIGHUP)."""
        task = asyncio.create_task(self.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def _warn(self, local: Local) -> None:
        for problem in local.problems:
            log.warning("%s; what was served before is served on", problem)
        for zone in local.zones.values():
            for warning in zone.warnings[:_WARNINGS_LOGGED]:
                log.info("%s", warning)

    def stop(self) -> None:
        """Ends `run`; from the event loop."""
        self._stopping.set()

    async def close(self) -> None:
        """Closes what `start` opened; safe to call after a start that failed half-way."""
        for listener in self._udp:
            listener.close()
        if self.plane is not None:
            self.plane.close()
        self._tcp.close()
        if self._querylog is not None:
            self._querylog.close()
        if self._grpc is not None:
            await self._grpc.stop(_EXPLAIN_GRACE_S)
        if self._ops is not None:
            await asyncio.to_thread(self._ops.close)
        if self._writer is not None:
            await self._writer.flush()

    def _restore(self) -> None:
        path = self._settings.snapshot
        if path is None:
            return
        try:
            found = load(path)
        except SnapshotError as error:
            log.warning("%s; going on without it", error)
            return
        if found is None:
            log.info("no snapshot at %s yet", path)
            return
        view, written_s, problems = found
        if not view.synced:
            log.warning("snapshot %s is of an incomplete state; going on without it", path)
            return
        self.holder.restore(view, written_s, problems)
        log.info("serving %d services from snapshot %s, %.0f s old", len(view.services), path, self.holder.age_s)

    def _listen(self, listening: Listening) -> None:
        if not self._inherited:
            self._tcp.start(listening)
        if self.plane is None and not self._inherited:
            self._listener(listening).start()
        self.addresses.dns.append(listening.address)

    @property
    def ready(self) -> bool:
        """Whether there is something to answer from."""
        return self.holder.held.serving.ready

    def join(self) -> None:
        """Answers on the inherited sockets, where others answered so far."""
        for each in self._inherited:
            self._tcp.start(each)
            self._listener(each).start()

    def _listener(self, listening: Listening) -> UdpListener:
        """One that is closed with the frontend."""
        made = UdpListener(listening, self._responder, self.counters, self._querylog)
        self._udp.append(made)
        return made

    def _own_secrets(self) -> tuple[bytes, ...]:
        """Those that other processes of this frontend are to have from us."""
        cookies = self._hardened.guard.cookies
        return cookies.secrets if cookies is not None else ()

    @property
    def connections(self) -> int:
        """TCP connections of all processes."""
        return self._tcp.connections + (self._siblings.connections if self._siblings is not None else 0)

    def _query_log(self) -> QueryLog | None:
        """Of this process alone: two cannot turn over one file."""
        path = self._settings.query_log
        return QueryLog(path, self._settings.query_log_every, self._responder) if path and not self._inherited else None

    def _data_plane(self) -> tuple[DataPlane | None, str]:
        """The data plane, or why there is none."""
        if not self._settings.threads:
            return None, "--threads 0 was given"
        try:
            library = load_library()
        except NoDataPlaneError as error:
            return None, str(error)
        guard, locality = self._hardened.guard, self._settings.default_locality
        return DataPlane(library, self._responder, self.counters, locality, guard, self._querylog), ""

    @property
    def threads(self) -> int:
        """Of the data plane, for each address; 0 without it."""
        return self._settings.threads if self.plane is not None else 0

    @property
    def answered_by(self) -> str:
        """Who answers over UDP, for people."""
        if self.plane is None:
            return f"the Python responder, in {self._settings.processes} process(es): {self.why_no_plane}"
        return f"the data plane (Rust), {self.threads} thread(s) an address"

    def _take_demand(self) -> Mapping[tuple[str, str], int]:
        if self.plane is not None:
            self.plane.collect()
        return self.counters.take_demand()

    def _changed(self, held: Held) -> None:
        self._responder.serving = held.serving
        if self._writer is not None and held.origin is Origin.LIVE:
            self._writer.offer(held.view)

    def _debug_pages(self) -> OpsServer:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(FrontendCollector(self.counters, self._gauges, self._serials))
        return OpsServer(
            f"DNS frontend {self._settings.name}", registry=registry, ready=self._ready, status=self._status
        )

    def _ready(self) -> tuple[bool, str]:
        if self.ready:
            return True, "ok"
        return False, "nothing heard yet from a control plane, and no snapshot to start from"

    def _set_connected(self, connected: bool) -> None:
        self.holder.set_connected(connected)
        self.prober.wake()

    def _serials(self) -> list[tuple[str, int]]:
        zones = islice(self.holder.held.serving.table.zones.items(), ZONES_MEASURED_MAX)
        return [(to_text(origin), soa_serial(zone.soa)) for origin, zone in zones]

    def _gauges(self) -> Mapping[str, tuple[str, float]]:
        held = self.holder.held
        writer = self._writer
        return {
            "gslb_dns_age_seconds": (
                "Seconds since a control plane last vouched for what is served; 0 while one does.",
                self.holder.age_s,
            ),
            "gslb_dns_connected": ("Whether a control plane feeds this frontend.", float(self.holder.connected)),
            "gslb_dns_from_snapshot": (
                "Whether what is served was read from disk and nothing live came since.",
                float(held.origin is Origin.SNAPSHOT),
            ),
            "gslb_dns_names": ("Names in the table.", len(held.serving.table.nodes)),
            "gslb_dns_zones": ("Zones in the table.", len(held.serving.table.zones)),
            "gslb_dns_services": ("Services that are served by name.", len(held.serving.services)),
            "gslb_dns_problems": ("What of the catalog is not served as written now.", len(held.serving.problems)),
            **self._plane_gauges(),
            "gslb_dns_tcp_connections": ("TCP connections.", self.connections),
            "gslb_dns_rate_limit_buckets": ("Buckets of the rate limit that are kept.", self._hardened.guard.buckets),
            "gslb_dns_stale": (
                "Whether answers by the plan say that no control plane was heard for long (extended error 3).",
                float(bool(self._hardened.guard.stale)),
            ),
            "gslb_dns_snapshot_written_seconds": (
                "When this process last wrote the snapshot, seconds since the epoch; 0: never.",
                writer.written_s if writer else 0.0,
            ),
            "gslb_dns_snapshot_failures": ("Failed writes of the snapshot.", writer.failures if writer else 0),
        }

    def _plane_gauges(self) -> Mapping[str, tuple[str, float]]:
        seen = self.plane.statistics if self.plane is not None else None
        return {
            "gslb_dns_data_plane_threads": (
                "Threads of the data plane for each address; 0: the Python responder answers everything.",
                self.threads,
            ),
            "gslb_dns_data_plane_asked": (
                "Messages that the data plane left to the Python responder.",
                seen.asked if seen else 0,
            ),
            "gslb_dns_data_plane_dropped": (
                "Messages for the Python responder that found no room in its queue.",
                seen.dropped if seen else 0,
            ),
        }

    def _control(self) -> str:
        if not self._settings.control:
            return "none: this machine's files say everything"
        return self.subscriber.address or f"none of {', '.join(self._settings.control)} answers"

    def _geo_status(self) -> str:
        geo = self.local.geo
        return f"{geo.name}: {geo.networks} networks" if geo is not None else "none"

    def _status(self) -> Mapping[str, object]:
        held = self.holder.held
        return {
            "UDP is answered by": self.answered_by,
            "name": self._settings.name,
            "up_s": time.monotonic() - self._begin_s,
            "listening": {"dns": self.addresses.dns, "grpc": self.addresses.grpc, "http": self.addresses.http},
            "control plane": self._control(),
            "source": held.origin.value,
            "datacenters that do not answer": ", ".join(sorted(self.prober.absence.lost)) or "none",
            "age_s": self.holder.age_s,
            "snapshot": str(self._settings.snapshot or "none"),
            "geo database": self._geo_status(),
            "problems": [*self.local.problems, *held.serving.problems][:100],
            "zones": [
                {"zone": zone.origin, "serial": zone.serial, "from": zone.source, "names": zone.names}
                for zone in served_zones(held.serving, self.local)[:_STATUS_ROWS]
            ],
            "services": _services(held.view),
        }


def _services(view: ReaderView) -> list[dict[str, object]]:
    shown = [name for name, service in view.services.items() if service.service and service.service.dns_names]
    rows: list[dict[str, object]] = []
    for name in sorted(shown)[:_STATUS_ROWS]:
        service = view.services[name]
        rows.append(
            {
                "service": name,
                "names": ", ".join(service.service.dns_names) if service.service else "",
                "plan": str(tuple(service.plan.stamp)) if service.plan else "none",
                "endpoints": len(service.endpoints),
                "serving": ", ".join(f"{dc}: {len(members)}" for dc, members in service.serving.items()),
                "panic": service.panic,
            }
        )
    return rows
