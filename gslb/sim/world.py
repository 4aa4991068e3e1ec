"""The planet: one seeded virtual clock that turns clients, resolvers, servers, agents and the control plane.

A tick: browsers and callers send, by what they knew when it began; servers take what they can; what failed is noticed;
agents and clients report; the control plane judges, plans and publishes; from the next tick on readers know.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from gslb.balancer.demand import DemandReport, DemandRow
from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.model.geography import distance_km
from gslb.model.resources import Catalog, DemandSource
from gslb.sim.agents import Agent, AgentReport
from gslb.sim.clients import Contact, RpcClient
from gslb.sim.control import Control
from gslb.sim.errors import StoryError
from gslb.sim.frontends import Frontend
from gslb.sim.meters import Meters, ServiceTick, SiteTick
from gslb.sim.paths import CONTROL, Paths
from gslb.sim.pipes import Pipes
from gslb.sim.resolvers import Resolvers
from gslb.sim.servers import Job, fresh_job
from gslb.sim.setup import Knobs, Setup
from gslb.steer.view import ServiceView

TICKS_MAX: Final = 200_000
# As agents do: each task is probed from this many other datacenters.
WITNESSES: Final = 2
NIGHT: Final = 0.4  # demand at the quietest hour, of the peak


@dataclass(slots=True)
class _Message:
    """A report under way."""

    arrives_s: float
    agent: AgentReport | None = None
    demand: DemandReport | None = None
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Arrivals:
    """First attempts of one reporter since its last report: sums of rps * s by (service, locality, caller or nobody)."""

    source: DemandSource
    place: str  # where the reporter is, to know whether it reaches the control plane
    sums: dict[tuple[str, str, str], float] = field(default_factory=dict)


class World:
    """See the module. Change `demand`, `paths`, `jobs`, `knobs` and the catalog between runs."""

    def __init__(self, setup: Setup, knobs: Knobs, rng: random.Random) -> None:
        self.setup = setup
        self.knobs = knobs
        self.now_s = 0.0
        self.rng = rng
        self.paths = Paths()
        self.demand: dict[tuple[str, str], float] = {}  # rps asked for by (service, locality), before noise and day
        self.jobs: dict[str, Job] = {}
        self._job_at: dict[tuple[str, str], Job] = {}
        for name, service in setup.catalog.services.items():
            for backend in service.backends:
                job = fresh_job(backend.job, name, setup.work[name], setup.tasks.get(backend.job, 0))
                self.jobs[backend.job] = self._job_at[name, backend.datacenter] = job
        self._servers = {task.name: (job.datacenter, task) for job in self.jobs.values() for task in job.tasks}
        self.cores: dict[str, float] = {}  # by datacenter: what all its jobs share; absent: each has its own
        self.pipes = Pipes.of(setup.catalog.datacenters)
        self.meters = Meters()
        self.control = Control(setup, knobs)
        self._clients: dict[tuple[str, str], RpcClient] = {}
        self._resolvers: dict[tuple[str, str], Resolvers] = {}
        self._frontends: dict[str, Frontend] = {}
        # Of their own, so that what frontends draw does not change what everybody else does.
        self._dns_rng = random.Random(knobs.seed)  # noqa: S311
        self._agents = {
            name: Agent(name, 0.0, [job for job in self.jobs.values() if job.datacenter == name])
            for name in setup.catalog.datacenters
        }
        self._witnesses = _witnesses(tuple(setup.catalog.datacenters))
        self._views: dict[str, dict[str, ServiceView]] = {}  # by place that could not be told of newer ones
        self._mail: list[_Message] = []
        self._arrivals: dict[str, _Arrivals] = {}
        self._reported_s = 0.0
        self._noise: dict[tuple[str, str], float] = {}
        self._noise_s = -math.inf
        self._order = _callers_first(setup)
        self._begun = False

    @property
    def catalog(self) -> Catalog:
        return self.control.catalog

    def agent(self, datacenter: str) -> Agent:
        return self._agents[datacenter]

    def run(self, for_s: float) -> None:
        """Turns the clock. Raises StoryError for a time that is no use."""
        ticks = round(for_s / self.knobs.tick_s)
        if not 0 < ticks <= TICKS_MAX - len(self.meters.times):
            raise StoryError(f"run {for_s:g}s is {ticks} ticks: a story has 1..{TICKS_MAX}; use `set tick=`")
        if not self._begun:
            self._begin()
        for _ in range(ticks):
            self._tick()

    def _begin(self) -> None:
        """As if the planet had been running for a while: agents have reported and demand is known."""
        self._begun = True
        for agent in self._agents.values():
            report = agent.report(0.0, self.knobs.report_period_s, 0.0, self.rng)
            # Agents do not all report at the same moment.
            agent.due_s = self.rng.uniform(0, self.knobs.report_period_s)
            if report is not None:
                self.control.hear_agent(report, 0.0)
        for (service, locality), _ in sorted(self.demand.items()):
            self._arrive(service, locality, locality, self._wanted(service, locality))
        for service, locality, rps, caller in self._calls_at_first():
            self._arrive(service, locality, locality, rps, caller)
        for message in self._demand_messages(self.knobs.tick_s):
            if message.demand is not None:
                self.control.hear_demand(message.demand, {}, 0.0)
        self.control.tick(0.0)

    def _calls_at_first(self) -> Iterable[tuple[str, str, float, str]]:
        """Calls (callee, locality, rps, caller) are known only when there was traffic: each locality's nearest
        datacenter stands in."""
        for call in self.setup.calls:
            for (service, locality), _ in sorted(self.demand.items()):
                if service == call.caller and self.setup.service(call.callee).source is DemandSource.RPC:
                    place = self._nearest(service, locality)
                    yield call.callee, place, self._wanted(service, locality) * call.ratio, call.caller

    def _nearest(self, service: str, locality: str) -> str:
        catalog = self.catalog
        here = catalog.coordinates_of(locality)
        places = [backend.datacenter for backend in catalog.services[service].backends]
        if here is None:
            return places[0]
        return min(places, key=lambda name: distance_km(here, catalog.datacenters[name].coordinates))

    # One tick

    def _tick(self) -> None:
        knobs = self.knobs
        self.now_s += knobs.tick_s
        self._draw_noise()
        self.pipes.turn()
        for job in self.jobs.values():
            job.turn(self.now_s, knobs.tick_s, self.rng)
        self._share_cores()
        services: dict[str, ServiceTick] = {}
        served: dict[tuple[str, str], float] = {}
        for name in self._order:
            services[name] = self._serve(name, served)
        self._measure(services)
        self._report()
        if knobs.control_up:
            self._deliver()
            self.control.tick(self.now_s)

    def _serve(self, service: str, served: dict[tuple[str, str], float]) -> ServiceTick:
        """One service's tick; `served` gets what it served, by (service, datacenter)."""
        offered: dict[str, float] = {}
        failed = total = 0.0
        for locality, rps, caller in self._sources(service, served):
            if locality in self.paths.lost or rps <= 0:
                continue
            total += rps
            failed += self._send(service, locality, rps, offered, caller)
        return self._take(service, offered, total, failed, served)

    def _sources(self, service: str, served: dict[tuple[str, str], float]) -> Iterable[tuple[str, float, str]]:
        """(locality, rps, caller or nobody) of everybody who asks `service` now."""
        for name, locality in sorted(self.demand):
            if name == service:
                yield locality, self._wanted(name, locality), ""
        for call in self.setup.calls:
            if call.callee == service:
                for (caller, datacenter), rps in sorted(served.items()):
                    if caller == call.caller:
                        yield datacenter, rps * call.ratio, caller

    def _send(self, service: str, locality: str, rps: float, offered: dict[str, float], caller: str) -> float:
        """Adds to `offered` by job what arrives; returns what failed on the way."""
        sent: dict[str, float] = {}
        failed = self._aim(service, locality, rps, sent, caller)
        for name, flow in sent.items():
            carried = self._carried(locality, self.jobs[name], flow)
            failed += flow - carried
            offered[name] = offered.get(name, 0.0) + carried
        return failed

    def _aim(self, service: str, locality: str, rps: float, offered: dict[str, float], caller: str) -> float:
        """Adds to `offered` by job what is sent there; returns what failed at once."""
        definition = self.setup.service(service)
        if definition.source is not DemandSource.RPC and locality in self.catalog.areas:
            return self._browse(service, locality, rps, offered)
        self._arrive(service, locality, locality, rps, caller)
        client = self._clients.get((service, locality))
        if client is None:
            client = self._clients[service, locality] = RpcClient(service, locality)
        view = self._views_at(locality).get(service)
        if view is None:
            return rps
        catalog = self.catalog

        def contact(task: str) -> str:
            return self._contact(locality, task)

        client.hold(view, catalog, self.now_s)
        client.probe(contact, catalog, self.now_s, self.rng)
        sent = client.send(rps, contact, catalog, self.now_s, self.rng)
        for task, flow in sent.by_task.items():
            job = task.rpartition("/")[0]
            offered[job] = offered.get(job, 0.0) + flow
        return sent.failed_rps

    def _browse(self, service: str, area: str, rps: float, offered: dict[str, float]) -> float:
        """The same for browsers, who go where their resolvers say."""
        crowd = self._resolvers.get((service, area))
        if crowd is None:
            crowd = self._resolvers[service, area] = Resolvers.of(service, area, self.knobs.ignore_ttl, self.rng)
        view = self._answering(area).view(self._views_at(area), service)
        if view is None:
            return rps
        failed = 0.0
        for datacenter, part in crowd.split(view, self.catalog, self.now_s, self.rng).items():
            job = self._job_at.get((service, datacenter))
            if job is None or not job.up or not self.paths.reaches(area, datacenter):
                failed += rps * part
                continue
            offered[job.name] = offered.get(job.name, 0.0) + rps * part
            self._arrive(service, area, datacenter, rps * part)
        return failed

    def _answering(self, area: str) -> Frontend:
        """The DNS frontends of `area`, which have had their look at what answers."""
        frontend = self._frontends.setdefault(area, Frontend())
        connected = self.knobs.control_up and self.paths.reaches(area, CONTROL)
        views = {
            name: view
            for name, view in self._views_at(area).items()
            if self.setup.service(name).source is not DemandSource.RPC
        }
        frontend.look(
            views,
            lambda task: self._contact(area, task) == Contact.OK,
            self.now_s,
            self._dns_rng,
            connected=connected,
        )
        return frontend

    def _take(
        self, service: str, offered: dict[str, float], total: float, failed: float, served: dict[tuple[str, str], float]
    ) -> ServiceTick:
        """The servers' part."""
        work = self.setup.work[service]
        ok = shed = critical = 0.0
        for job in self.jobs.values():
            if job.service != service:
                continue
            rps = self._carried("", job, offered.get(job.name, 0.0))
            failed += offered.get(job.name, 0.0) - rps
            outcome = job.serve([rps * part for part in work.classes], self.knobs.tick_s)
            if job.datacenter in self.paths.lost:
                continue
            ok += outcome.ok_rps
            shed += outcome.shed_rps
            critical += outcome.ok[Criticality.CRITICAL] + outcome.ok[Criticality.CRITICAL_PLUS]
            failed += outcome.errors_rps
            served[service, job.datacenter] = outcome.ok_rps
        wanted = total * (work.classes[0] + work.classes[1])
        return ServiceTick(total, ok, shed, failed, wanted, critical)

    def _carried(self, locality: str, job: Job, rps: float) -> float:
        """What of `rps` the path from `locality` lets through, or, of the empty locality, the datacenter's uplink."""
        mbps = rps * job.work.size_kbit / 1000
        return rps * self.pipes.carry((locality, job.datacenter), job.service, mbps)

    def _share_cores(self) -> None:
        """Where jobs share the cores of a datacenter, each gets its part of what they asked for in the last tick."""
        for datacenter, cores in self.cores.items():
            jobs = [job for job in self.jobs.values() if job.datacenter == datacenter and job.up]
            wanted = sum(job.served.utilization * len(job.up) * job.cpu_budget for job in jobs)
            for job in jobs:
                part = fraction_of(job, wanted)
                job.cpu_budget = min(1.0, max(part * cores / len(job.up), 1e-3)) if wanted > cores else 1.0

    # What is asked

    def _wanted(self, service: str, locality: str) -> float:
        """Demand now: the base rate, the sun, the noise."""
        rps = self.demand[service, locality] * (1 + self._noise.get((service, locality), 0.0))
        place = self.catalog.coordinates_of(locality)
        if self.knobs.day_s <= 0 or place is None:
            return rps
        # Peak at 20 h local solar time.
        hour = (24 * self.now_s / self.knobs.day_s + place.longitude / 15) % 24
        return rps * (NIGHT + (1 - NIGHT) * (1 + math.cos(2 * math.pi * (hour - 20) / 24)) / 2)

    def _draw_noise(self) -> None:
        """Held for a plan period, so that it does not average out within a report."""
        if self.knobs.noise <= 0 or self.now_s - self._noise_s < self.knobs.plan_period_s:
            return
        self._noise_s = self.now_s
        self._noise = {key: self.rng.uniform(-self.knobs.noise, self.knobs.noise) for key in sorted(self.demand)}

    def _contact(self, locality: str, task: str) -> str:
        datacenter, server = self._servers[task]
        if not self.paths.reaches(locality, datacenter):
            return Contact.REFUSED if self.paths.refused(datacenter) else Contact.SILENT
        return Contact.OK if server.up else Contact.REFUSED

    # What is reported

    def _arrive(self, service: str, locality: str, at: str, rps: float, caller: str = "") -> None:
        """A first attempt is counted by the client's own process, or where it arrived (source edge)."""
        source = self.setup.service(service).source
        arrivals = self._arrivals.setdefault(f"{source.value}-{at}", _Arrivals(source, at))
        key = (service, locality, caller)
        arrivals.sums[key] = arrivals.sums.get(key, 0.0) + rps * self.knobs.tick_s

    def _report(self) -> None:
        """Reports that are due go out; they arrive `report_age_s` later, if their sender reaches the control plane."""
        knobs = self.knobs
        messages = []
        for name, agent in self._agents.items():
            agent.measure()
            report = agent.report(self.now_s, knobs.report_period_s, knobs.noise, self.rng)
            if report is not None and self.paths.reaches(name, CONTROL):
                messages.append(_Message(0.0, agent=replace(report, probes=self._probes(name))))
        if self.now_s - self._reported_s >= limits.DEMAND_REPORT_PERIOD_S - 1e-9:
            messages += self._demand_messages(self.now_s - self._reported_s)
            self._reported_s = self.now_s
        for message in messages:
            message.arrives_s = self.now_s + knobs.report_age_s
            self._mail.append(message)

    def _probes(self, datacenter: str) -> dict[str, bool]:
        """What the agent of `datacenter` sees of the tasks elsewhere that it is a witness of."""
        return {
            task.name: self._contact(datacenter, task.name) == Contact.OK
            for job in self.jobs.values()
            if datacenter in self._witnesses[job.datacenter]
            for task in job.tasks
        }

    def _demand_messages(self, period_s: float) -> list[_Message]:
        messages = []
        counts: dict[str, dict[str, tuple[int, int]]] = {}
        for (_, locality), client in self._clients.items():
            counts.setdefault(locality, {}).update(client.take_counts())
        for reporter, arrivals in sorted(self._arrivals.items()):
            sums, arrivals.sums = arrivals.sums, {}
            if not self.paths.reaches(arrivals.place, CONTROL):
                continue
            rows = tuple(
                DemandRow(service, locality, round(total), caller)
                for (service, locality, caller), total in sorted(sums.items())
            )
            report = DemandReport(reporter, "boot", int(1000 * self.now_s) + 1, period_s, arrivals.source, rows)
            seen = counts.get(arrivals.place, {}) if arrivals.source is DemandSource.RPC else {}
            messages.append(_Message(0.0, demand=report, counts=seen))
        return messages

    def _deliver(self) -> None:
        arrived = [message for message in self._mail if message.arrives_s <= self.now_s]
        self._mail = [message for message in self._mail if message.arrives_s > self.now_s]
        for message in arrived:
            if message.agent is not None:
                self.control.hear_agent(message.agent, self.now_s)
            if message.demand is not None:
                self.control.hear_demand(message.demand, message.counts, self.now_s)

    def _views_at(self, place: str) -> dict[str, ServiceView]:
        """What readers there know: the newest views, or those of the moment when they lost the control plane."""
        if self.knobs.control_up and self.paths.reaches(place, CONTROL):
            self._views.pop(place, None)
            return self.control.views
        return self._views.setdefault(place, dict(self.control.views))

    def _measure(self, services: dict[str, ServiceTick]) -> None:
        sites = {}
        for job in self.jobs.values():
            lost = job.datacenter in self.paths.lost
            capacity = self.control.capacity_rps(job.service, job.datacenter)
            served = job.served
            offered = served.ok_rps + served.shed_rps + served.errors_rps
            sites[job.service, job.datacenter] = SiteTick(
                0.0 if lost else offered, 0.0 if lost else served.utilization, capacity, 0 if lost else len(job.up)
            )
        self.meters.add(self.now_s, services, sites, self._uses())

    def _uses(self) -> dict[tuple[str, str, str], float]:
        """What is asked of everything that is shared, over what there is."""
        uses = {("path" if pipe[0] else "uplink", *pipe): part for pipe, part in self.pipes.uses().items()}
        for datacenter, cores in self.cores.items():
            jobs = [job for job in self.jobs.values() if job.datacenter == datacenter and job.up]
            asked = sum(job.served.utilization * len(job.up) * job.cpu_budget for job in jobs)
            uses["cpu", "", datacenter] = 0.0 if datacenter in self.paths.lost else asked / cores
        return uses


def fraction_of(job: Job, wanted: float) -> float:
    """The job's part of the cores that were asked for."""
    return job.served.utilization * len(job.up) * job.cpu_budget / wanted if wanted > 0 else 0.0


def _witnesses(datacenters: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Which others probe each datacenter."""
    twice = (*datacenters, *datacenters)
    count = min(WITNESSES, len(datacenters) - 1)
    return {name: frozenset(twice[i + 1 : i + 1 + count]) for i, name in enumerate(datacenters)}


def _callers_first(setup: Setup) -> list[str]:
    """Services so that who calls comes before who is called. Raises StoryError for a circle."""
    order: list[str] = []
    left = list(setup.catalog.services)
    while left:
        ready = [name for name in left if not any(call.callee == name and call.caller in left for call in setup.calls)]
        if not ready:
            raise StoryError(f"services {', '.join(left)} call each other in a circle: take one `call` out")
        order += ready
        left = [name for name in left if name not in ready]
    return order
