"""Runs the balancer: each period, and at once when something happened that cannot wait.

Every replica computes, with the published plans as the previous ones, so that whoever leads next plans the same. Only
the leader publishes. The step runs on a thread of its own: a long one must not hold up the lease that makes us leader.
"""

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bns.etcd.election import Leadership
from bns.etcd.errors import EtcdError
from gslb.balancer.demand import DemandFold
from gslb.balancer.inputs import Callers, Deleted, Inputs
from gslb.balancer.outstanding import by_dns
from gslb.balancer.state import BalancerState, Decision
from gslb.balancer.step import step
from gslb.control.ingest.board import HealthBoard
from gslb.control.leader import Elector
from gslb.control.publish import Publisher
from gslb.control.recorder import Recorder
from gslb.control.view.config import Stored
from gslb.control.view.mirror import GslbMirror
from gslb.control.view.world import World
from gslb.model import limits
from gslb.model.resources import CapacityMode, Catalog, ClientArea, Datacenter, DemandSource, Service
from gslb.recorder.frames import Step

log = logging.getLogger(__name__)

# A rise of a service's demand beyond this since its last plan is planned at once.
JUMP_FRACTION = 0.25
JUMP_RPS = 2.0
STATES_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class Sources:
    """What the planner reads."""

    mirror: GslbMirror
    world: World
    board: HealthBoard
    demand: DemandFold


class Planner:
    """`inputs`, `state` and `decision` are those of the last step, for explanations and checks."""

    def __init__(self, sources: Sources, elector: Elector, publisher: Publisher, period_s: float) -> None:
        self._sources = sources
        self._elector = elector
        self._publisher = publisher
        self._period_s = period_s
        self._urgent = asyncio.Event()
        self._touched: set[str] = set()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="planner")
        self._planned_rps: dict[str, float] = {}
        self.demand: Mapping[str, Mapping[str, float]] = {}  # smoothed, rps by service and locality
        self.callers: Callers = {}  # who asks for it, as of the last periodic round
        self._complained = ""
        self.inputs = Inputs(sources.world.catalog)
        self.state = BalancerState()
        self.decision = Decision()
        self.refused: Mapping[str, str] = {}  # service -> why its plan was not published
        self.steps = 0
        self.step_s = 0.0  # how long the last one took
        self.recorder: Recorder | None = None

    def kick(self, services: Iterable[str] = ()) -> None:
        """Something happened that these services' plans should follow at once."""
        self._touched.update(services)
        self._urgent.set()

    async def run(self) -> None:
        """Until cancelled. Whatever goes wrong in one round, there is a next one."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            periodic = await self._wait(next_s)
            if periodic:
                next_s = max(next_s + self._period_s, loop.time())
            else:
                await asyncio.sleep(limits.PLAN_COALESCE_S)
            await self._round(periodic=periodic)

    def close(self) -> None:
        """No further step is begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _wait(self, until_s: float) -> bool:
        """Whether the period is over; else something urgent happened."""
        left_s = until_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            return True
        try:
            async with asyncio.timeout(left_s):
                await self._urgent.wait()
        except TimeoutError:
            return True
        return False

    async def _round(self, *, periodic: bool) -> None:
        try:
            await self.plan(periodic=periodic)
        except EtcdError as error:
            # One line per outage: plans in force go on being served.
            if not self._complained:
                log.warning("plans are computed and not published: %s", error)
            self._complained = str(error)
        except Exception:
            log.exception("a planning round failed; the plans in force are served on")
            await asyncio.sleep(limits.PLAN_COALESCE_S)
        else:
            if self._complained:
                log.info("plans are published again")
            self._complained = ""

    async def plan(self, *, periodic: bool) -> None:
        """One round. Raises EtcdError when what was computed could not be published."""
        self._urgent.clear()
        touched, self._touched = frozenset(self._touched), set()
        self._refresh_demand()
        if periodic:
            self.callers = self._sources.demand.callers(self._demand_sources(), now_s=time.monotonic())
            await self._refresh_states()
        inputs = self.gather(None if periodic else touched)
        before, now_s, started_s = self.state, time.time(), time.perf_counter()
        self.state, self.decision = await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: step(before, inputs, now_s=now_s)
        )
        self.step_s = time.perf_counter() - started_s
        self.steps += 1
        if self.recorder is not None:
            self.recorder.offer(Step(self.steps, now_s, before, inputs, self.decision))
        self.inputs = inputs
        self._planned_rps = _totals(inputs.demand)
        leadership = self._elector.leadership
        if leadership is not None:
            await self._publish(leadership)

    async def _refresh_states(self) -> None:
        """The newest load of the tasks whose capacity, or whose DNS answers' late tail, follows from it.

        Others get their turn in between.

        The capacity of the rest was declared: making 100,000 tasks anew each period would change no plan.
        """
        world = self._sources.world
        done = 0
        for name, service in list(world.catalog.services.items()):
            if not by_dns(service) and all(backend.mode is CapacityMode.RATE for backend in service.backends):
                continue
            done += len(world.states_of(name, time.monotonic(), fresh=True))
            if done >= STATES_AT_ONCE:
                done = 0
                await asyncio.sleep(0)

    def gather(self, touched: frozenset[str] | None) -> Inputs:
        """The balancer's inputs as of now. `touched`: services whose tasks may have changed; None: any."""
        mirror, world, now_s = self._sources.mirror, self._sources.world, time.monotonic()
        deleted = _deleted(mirror.config.stored.values(), world.catalog)
        services = world.catalog.services
        return Inputs(
            catalog=world.catalog,
            tasks={name: world.states_of(name, now_s) for name in services},
            demand=self.demand,
            rtt_ms=self._sources.board.rtt.snapshot(),
            previous={
                name: published.plan
                for name, published in mirror.plans.plans.items()
                if name in services or name not in deleted.services
            },
            callers=self.callers,
            deleted=deleted,
            changed=touched,
        )

    def look_at_demand(self) -> None:
        """To be called about once a second: a jump of demand is planned for at once."""
        self._refresh_demand()
        jumped = [
            name
            for name, rps in _totals(self.demand).items()
            if rps > self._planned_rps.get(name, 0.0) * (1 + JUMP_FRACTION) + JUMP_RPS
        ]
        if jumped:
            self.kick(jumped)

    def _refresh_demand(self) -> None:
        self.demand = self._sources.demand.demand(self._demand_sources(), now_s=time.monotonic())

    def _demand_sources(self) -> Mapping[str, DemandSource]:
        return {name: service.source for name, service in self._sources.world.catalog.services.items()}

    async def _publish(self, leadership: Leadership) -> None:
        mirror = self._sources.mirror
        incarnation = mirror.incarnation
        if not incarnation:
            return  # the leader writes it when its term begins; it arrives with the mirror
        due = [
            each.plan
            for name, each in self.decision.services.items()
            if each.plan is not None and name in self.inputs.catalog.services and self._due(name, changed=each.changed)
        ]
        outcome = await self._publisher.publish(due, leadership, incarnation, time.time())
        for service, reason in outcome.refused.items():
            if self.refused.get(service) != reason:
                log.error("the plan of %s is not published: %s", service, reason)
        self.refused = dict(outcome.refused)
        if outcome.deposed:
            self._elector.deposed()

    def _due(self, service: str, *, changed: bool) -> bool:
        """Whether it has to be written: a share moved, or the one in etcd is missing or of another incarnation."""
        mirror = self._sources.mirror
        held = mirror.plans.plans.get(service)
        missing = held is None or not mirror.plans.mod_revision(service)
        return changed or missing or (held is not None and held.plan.stamp.incarnation != mirror.incarnation)


def _deleted(stored: Iterable[Stored], catalog: Catalog) -> Deleted:
    """What operators deleted, by the tombstones; of a name that another owner has given again nothing is gone."""
    gone = [one.resource for one in stored if one.deleted]
    services = {one.meta.name for one in gone if isinstance(one, Service)}
    localities = {one.meta.name for one in gone if isinstance(one, Datacenter | ClientArea)}
    return Deleted(
        frozenset(services - catalog.services.keys()),
        frozenset(localities - catalog.datacenters.keys() - catalog.areas.keys()),
    )


def _totals(demand: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {service: math.fsum(localities.values()) for service, localities in demand.items()}
