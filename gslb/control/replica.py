"""One replica's parts and how they hang together; the process around it is in `server`.

Everything runs in one event loop: what etcd, agents and clients say comes in by callbacks, is noted, and worked off
together a moment later. Only the balancer's step has a thread of its own.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from typing_extensions import override

from bns.errors import TlsError
from bns.etcd.client import Client
from bns.registry import BnsRegistry
from bns.server import BnsServicer
from bns.store import BnsStore
from bns.transport import channel_credentials
from gslb.balancer.coverage import full_coverage
from gslb.balancer.demand import DemandFold
from gslb.control.fanout.hub import Hub
from gslb.control.ingest import demand as demand_report
from gslb.control.ingest.board import HealthBoard
from gslb.control.ingest.frontends import Frontends
from gslb.control.ingest.load import AgentKey
from gslb.control.ingest.refusals import Refusals
from gslb.control.ingest.servicer import Intake
from gslb.control.janitor import Janitor
from gslb.control.leader import Elector
from gslb.control.planner import Planner, Sources
from gslb.control.publish import Publisher
from gslb.control.quotas import QuotaDesk
from gslb.control.recorder import Recorder
from gslb.control.settings import EtcdSettings, Settings
from gslb.control.tasks import end_all, for_ever
from gslb.control.view.mirror import Changes, GslbMirror
from gslb.control.view.world import World
from gslb.model.errors import InvalidValueError
from gslb.v1 import discovery_pb2, report_pb2
from gslb.wire.codec import encode_resource, encode_service

if TYPE_CHECKING:
    from bns.view import BnsView
    from gslb.model.resources import Service

log = logging.getLogger(__name__)

FLUSH_DELAY_S = 0.01
TICK_S = 0.25
# A tick that comes this late means that the process stood still.
FROZEN_S = 1.5
DEMAND_LOOK_S = 1.0
TIDY_S = 30.0
COMPLAIN_S = 5.0


def connect(settings: EtcdSettings) -> Client:
    """A client of etcd. Raises TlsError."""
    credentials = channel_credentials(settings.tls) if settings.tls else None
    if settings.tls and settings.tls.ca is None:
        raise TlsError("etcd over TLS needs --etcd-ca, the authority of its certificates")
    return Client(
        settings.endpoints, credentials=credentials, user=settings.user, password=settings.password, timeout_s=3.0
    )


class Replica(Intake):
    """`address` is what others find this replica at. Start it with `run`."""

    def __init__(self, settings: Settings, address: str) -> None:
        self.settings = settings
        self.address = address
        self.etcd = connect(settings.etcd)
        self.hub = Hub(settings.replica)
        self.store = BnsStore(self.etcd)
        self.board = HealthBoard(lambda: self.store.view.tasks)
        self.world = World(self.hub, self.board, lambda: self.store.view)
        self.demand = DemandFold()
        self.refusals = Refusals()
        self.frontends = Frontends()
        self.quotas = QuotaDesk(time.monotonic())
        self.mirror = GslbMirror(self.etcd, self._on_changes)
        self.elector = Elector(self.etcd, settings.replica, address, self._on_leadership)
        self.publisher = Publisher(self.etcd, self.mirror.plans, self._tell_plans)
        sources = Sources(self.mirror, self.world, self.board, self.demand)
        self.planner = Planner(sources, self.elector, self.publisher, settings.plan_period_s)
        self.recorder = (
            Recorder(settings.recorder, settings.recorder_bounds, settings.replica) if settings.recorder else None
        )
        self.planner.recorder = self.recorder
        self.registry = BnsRegistry(self.etcd, self.store, settings.replica)
        self.bns = BnsServicer(self.store, self.registry, self.world.health_of, ready=lambda: self.warm)
        self.janitor = Janitor(self.etcd, self.mirror, self.registry, self.elector)
        self.store.subscribe(self._on_bns)
        self.warmed = asyncio.Event()
        self.why_cold = self._no_etcd()
        self.etcd_silent_s: float | None = None  # as of the last tick, for threads that have no event loop
        self.strange_rows = 0  # of demand for services or from localities that nobody knows
        self._told: dict[str, Service] = {}
        self._mirrored_s: float | None = None
        self._flushing = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def warm(self) -> bool:
        """Whether this replica answers readers; once it does, for ever."""
        return self.warmed.is_set()

    async def run(self) -> None:
        """Until cancelled; then leadership is given up and every stream ended."""
        for name, loop in (("mirror", self.mirror.run), ("bns", self.store.run), ("ticks", self._tick_for_ever)):
            self._start(name, loop)
        try:
            await asyncio.Event().wait()
        finally:
            await self._stop()

    def _start(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(for_ever(name, loop), name=f"control-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop(self) -> None:
        self.hub.close()
        await end_all(self._tasks)
        self.planner.close()
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)
        await self.bns.close()
        await self.etcd.close()

    # What etcd says

    def _on_changes(self, changes: Changes) -> None:
        if changes.config:
            self._on_config()
        self._tell_plans(changes.plans)
        if changes.incarnation:
            self.planner.kick()

    def _tell_plans(self, services: Iterable[str]) -> None:
        for name in services:
            self.hub.set_plan(name, self.mirror.plans.plans[name].value)

    def _on_config(self) -> None:
        config = self.mirror.config
        self.world.set_config(config)
        catalog = config.catalog
        self.quotas.set_services(catalog.services)
        for name, service in catalog.services.items():
            if self._told.get(name) is service:
                continue
            self._told[name] = service
            self.hub.set_config(name, encode_service(service).SerializeToString(deterministic=True))
            plan = self.mirror.plans.plans.get(name)
            if plan is not None:
                self.hub.set_plan(name, plan.value)
        for name in self._told.keys() - catalog.services.keys():
            del self._told[name]
        message = discovery_pb2.Catalog(resources=[encode_resource(resource) for resource in config.for_readers()])
        self.hub.set_catalog(message.SerializeToString(deterministic=True))
        self._look_at_drains()
        self._note()
        self.planner.kick()

    def _on_bns(self, names: frozenset[str], _: "BnsView") -> None:
        if names:
            self.world.registered(names)
            self._judged(self.board.registered(names, time.monotonic()))

    def _on_leadership(self) -> None:
        self.janitor.wake()
        self.planner.kick()

    # What agents and clients say

    @override
    def take_load(self, report: report_pb2.LoadReport) -> None:
        self._judged(self.board.fold(report, time.monotonic()))

    @override
    def take_demand(self, report: report_pb2.DemandReport) -> None:
        demand, probes = demand_report.decode(report)
        now_s = time.monotonic()
        catalog = self.world.catalog
        known = tuple(
            row
            for row in demand.rows
            if row.service in catalog.services
            and (row.locality in catalog.areas or row.locality in catalog.datacenters)
        )
        self.strange_rows += len(demand.rows) - len(known)
        refusal = self.demand.accept(demand_report.only(demand, known), now_s=now_s)
        if refusal:
            raise InvalidValueError(refusal)
        if report.dns_responder:
            self.frontends.note(report.reporter, report.dns_responder, now_s)
        self._judged(self.board.observe(report.datacenter, probes, now_s))

    @override
    def refused(self, reporter: str, reason: str) -> None:
        self.refusals.note(reporter, reason, time.monotonic())

    @override
    def agent_connected(self, key: AgentKey) -> None:
        self.board.loads.stream_opened(key)

    @override
    def agent_disconnected(self, key: AgentKey) -> None:
        self.board.loads.stream_closed(key)

    # What follows

    def _judged(self, names: frozenset[str]) -> None:
        if names:
            self.world.judged(names)
            self.bns.health_changed(names)
        self._note()

    def _note(self) -> None:
        if self.world.pending and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(FLUSH_DELAY_S, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        touched = self.world.flush(time.monotonic())
        if touched:
            self.planner.kick(touched)

    def _look_at_drains(self) -> None:
        catalog = self.world.catalog
        changed = self.world.set_coverage(full_coverage(catalog, time.time()))
        if changed is not None:
            self.bns.health_changed(changed)
            self.planner.kick()

    # Time

    async def _tick_for_ever(self) -> None:
        last_s = demand_s = tidy_s = complained_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            if now_s - last_s > FROZEN_S:
                log.warning("this process stood still for %.1f s", now_s - last_s)
                self.board.loads.thaw(now_s, now_s - last_s)
                self.quotas.thaw(now_s - last_s)
            last_s = now_s
            self.etcd_silent_s = self.etcd.silent_s()
            self._judged(self.board.sweep(now_s))
            self.quotas.tick(now_s)
            self._look_at_drains()
            self.world.look_at_held()
            self._note()
            if not self.warmed.is_set():
                self._warm_up(now_s)
                if self.why_cold and now_s - complained_s >= COMPLAIN_S:
                    complained_s = now_s
                    log.warning("not serving yet: %s", self.why_cold)
            elif now_s - demand_s >= DEMAND_LOOK_S:
                demand_s = now_s
                self.planner.look_at_demand()
            if now_s - tidy_s >= TIDY_S:
                tidy_s = now_s
                self.board.tidy(self.store.view.agents, now_s)
                self.board.rtt.tidy(self.world.catalog.datacenters, now_s)

    def _warm_up(self, now_s: float) -> None:
        """A replica answers nobody until it has desired state, registrations, and heard the agents or waited for them.

        What it was told in between stands, and once it is warm it stays so.
        """
        if not (self.mirror.synced and self.store.synced.is_set()):
            self.why_cold = self._no_etcd()
            return
        if self._mirrored_s is None:
            self._mirrored_s = now_s
        missing = self._unheard()
        left_s = self._mirrored_s + self.settings.report_period_s + 1.0 - now_s
        if missing and left_s > 0:
            self.why_cold = f"{len(missing)} agents have not reported yet, such as {'/'.join(missing[0])}"
            return
        self._flush()
        self.warmed.set()
        self.why_cold = ""
        log.info(
            "warm: %d services, %d tasks, %d agents",
            len(self.world.catalog.services),
            len(self.store.view.tasks),
            len(self.store.view.agents),
        )
        self.hub.open()
        self._start("planner", self.planner.run)
        if "global" in self.settings.roles:
            self._start("elector", self.elector.run)
            self._start("janitor", self.janitor.run)

    def _no_etcd(self) -> str:
        return f"etcd at {', '.join(self.etcd.endpoints)} has not answered yet"

    def _unheard(self) -> list[AgentKey]:
        """Agents that hold tasks and have not sent a whole report."""
        return [key for key in self.store.view.tasks.owners if key[1] and not self.board.loads.reported(key)]

    def ready(self) -> tuple[bool, str]:
        """Whether readers are served, and if not, why. Once warm, losing etcd changes nothing about it."""
        return self.warm, "" if self.warm else f"warming up: {self.why_cold}"

    def stale_agents(self) -> Iterable[AgentKey]:
        """Agents that hold tasks and are silent."""
        now_s = time.monotonic()
        return [key for key in self.store.view.tasks.owners if key[1] and self.board.loads.silent(key, now_s)]
