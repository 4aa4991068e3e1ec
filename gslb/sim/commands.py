"""The commands of a story. First the planet is described; the first command that needs it running starts it."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import (
    Backend,
    CapacityMode,
    Catalog,
    ClientArea,
    Datacenter,
    DemandSource,
    DrainScope,
    Link,
    Objective,
    Service,
)
from gslb.sim import expect, views
from gslb.sim.control import utc
from gslb.sim.drains import drain_of
from gslb.sim.errors import StoryError
from gslb.sim.faults import FAULTS
from gslb.sim.setup import REJECTION_COST, Call, Knobs, Overload, Setup, Work
from gslb.sim.words import Words, number, words_of
from gslb.sim.world import World

Lines = Iterable[str]


@dataclass(slots=True)
class Stage:
    """A story being played."""

    setup: Setup = field(default_factory=Setup)
    knobs: Knobs = field(default_factory=Knobs)
    demand: dict[tuple[str, str], float] = field(default_factory=dict)
    cores: dict[str, float] = field(default_factory=dict)
    mark_s: float = 0.0
    missed: int = 0  # expectations that did not hold
    _world: World | None = None

    @property
    def world(self) -> World:
        """The running planet."""
        if self._world is None:
            # Seeded: the same story comes out the same.
            self._world = World(self.setup, self.knobs, random.Random(self.knobs.seed))  # noqa: S311
            self._world.demand = self.demand
            self._world.cores = self.cores
        return self._world

    @property
    def running(self) -> bool:
        return self._world is not None

    def execute(self, text: str) -> list[str]:
        """One command; what it prints. Raises StoryError."""
        words = words_of(text)
        command = COMMANDS.get(words.command)
        if command is None:
            command = COMMANDS[words_of(f"help {words.command}").known(0, "command", COMMANDS)]
        printed = list(command(self, words))
        if self.running and words.command in EVENTS:
            self.world.meters.events.append((self.world.now_s, text))
        return printed

    def catalog(self) -> Catalog:
        return self._world.catalog if self._world else self.setup.catalog

    def declare(self, catalog: Catalog) -> None:
        """Adds to the planet, which must not run yet."""
        if self.running:
            raise StoryError("the planet is running: describe all of it before the first `run`")
        self.setup = replace(self.setup, catalog=catalog)


def _place(words: Words) -> Coordinates:
    latitude, _, longitude = words.option("at", "").partition(",")
    return Coordinates(number(latitude, "at=LATITUDE,LONGITUDE"), number(longitude, "at=LATITUDE,LONGITUDE"))


def _datacenter(stage: Stage, words: Words) -> Lines:
    name = words.name(0, "NAME")
    catalog = stage.setup.catalog
    cores = words.number_of("cores", 0.0)
    limits_of = (words.number_of("uplink_mbps", 0.0), cores)
    one = Datacenter(Meta(name), words.option("region", name), _place(words), *limits_of)
    words.finish(1)
    if cores > 0:
        stage.cores[name] = cores
    stage.declare(replace(catalog, datacenters={**catalog.datacenters, name: one}))
    return ()


def _link(stage: Stage, words: Words) -> Lines:
    """link LOCALITY DATACENTER mbps=N: what the path carries, of all services together"""
    catalog = stage.setup.catalog
    locality = words.known(0, "locality", {**catalog.datacenters, **catalog.areas})
    one = catalog.datacenters[words.known(1, "datacenter", catalog.datacenters)]
    link = Link(locality, words.number_of("mbps", 0.0))
    words.finish(2)
    if link.mbps <= 0:
        raise StoryError("link: mbps= is missing: give what the path carries")
    more = replace(one, links=(*one.links, link))
    stage.declare(replace(catalog, datacenters={**catalog.datacenters, one.name: more}))
    return ()


def _area(stage: Stage, words: Words) -> Lines:
    name = words.name(0, "NAME")
    catalog = stage.setup.catalog
    one = ClientArea(Meta(name), _place(words))
    words.finish(1)
    stage.declare(replace(catalog, areas={**catalog.areas, name: one}))
    return ()


def _service(stage: Stage, words: Words) -> Lines:
    name = words.name(0, "NAME")
    catalog = stage.setup.catalog
    try:
        source = DemandSource(words.option("source", "rpc"))
        overload = Overload(words.option("overload", "shed"))
        objective = Objective(words.option("objective", "latency"))
    except ValueError as error:
        choices = "source= is rpc, edge or dns, overload= is shed, queue or crash, objective= is latency or throughput"
        raise StoryError(f"service: {error}; {choices}") from None
    classes = [number(part, "classes") for part in words.option("classes", "0,1,0,0").split(",")]
    if len(classes) != 4 or abs(sum(classes) - 1) > 1e-9:
        raise StoryError("service: classes= are four parts that sum to 1, most critical first")
    work = Work(
        words.number_of("serves", 100.0),
        words.number_of("idle", 0.0),
        words.number_of("rejection_cost", REJECTION_COST),
        words.number_of("size_kbit", 0.0),
        words.number_of("deadline", 1.0),
        overload,
        (classes[0], classes[1], classes[2], classes[3]),
    )
    ttl_s = int(words.number_of("ttl", 30))
    one = Service(Meta(name), (), source, words.number_of("max", 0.8), (), ttl_s, objective=objective)
    words.finish(1)
    stage.declare(replace(catalog, services={**catalog.services, name: one}))
    stage.setup = replace(stage.setup, work={**stage.setup.work, name: work})
    return ()


def _backend(stage: Stage, words: Words) -> Lines:
    """backend SERVICE DATACENTER tasks=N [rps=N] [mode=utilization] [target=80%] [guaranteed=N]"""
    catalog = stage.setup.catalog
    service = catalog.services[words.known(0, "service", catalog.services)]
    datacenter = words.known(1, "datacenter", catalog.datacenters)
    job = f"/bns/{datacenter}/sim/{service.name}"
    try:
        mode = CapacityMode(words.option("mode", "rate"))
    except ValueError as error:
        raise StoryError(f"backend: {error}; mode= is rate or utilization") from None
    work = stage.setup.work[service.name]
    backend = Backend(
        job,
        words.number_of("rps", work.serves_rps),
        mode,
        words.number_of("target", 0.8),
        request_cpu_s=1 / work.serves_rps,
        request_mbit=work.size_kbit / 1000,
        guaranteed_rps=words.number_of("guaranteed", 0.0),
    )
    tasks = int(words.number_of("tasks", 1))
    words.finish(2)
    more = replace(service, backends=(*service.backends, backend))
    stage.declare(replace(catalog, services={**catalog.services, service.name: more}))
    stage.setup = replace(stage.setup, tasks={**stage.setup.tasks, job: tasks})
    return ()


def _call(stage: Stage, words: Words) -> Lines:
    """call CALLER CALLEE ratio=R"""
    services = stage.setup.catalog.services
    call = Call(words.known(0, "service", services), words.known(1, "service", services), words.number_of("ratio", 1.0))
    words.finish(2)
    stage.declare(stage.setup.catalog)
    stage.setup = replace(stage.setup, calls=(*stage.setup.calls, call))
    return ()


def _demand(stage: Stage, words: Words) -> Lines:
    """demand SERVICE LOCALITY RPS; demand SERVICE x2"""
    catalog = stage.catalog()
    service = words.known(0, "service", catalog.services)
    if len(words.positions) == 2:
        factor = number(words.name(1, "xFACTOR"), "demand: factor")
        for key in [key for key in stage.demand if key[0] == service]:
            stage.demand[key] *= factor
        words.finish(2)
        return ()
    locality = words.known(1, "locality", {**catalog.datacenters, **catalog.areas})
    stage.demand[service, locality] = number(words.name(2, "RPS"), "demand: rps")
    words.finish(3)
    return ()


# option -> field of Knobs
_SETTINGS: Final = MappingProxyType(
    {
        "tick": "tick_s",
        "plan": "plan_period_s",
        "report": "report_period_s",
        "age": "report_age_s",
        "noise": "noise",
        "day": "day_s",
        "ignore_ttl": "ignore_ttl",
    }
)


def _set(stage: Stage, words: Words) -> Lines:
    """set seed=N tick=1s plan=5s report=5s age=0s noise=10% day=24h ignore_ttl=10%"""
    for name, attribute in _SETTINGS.items():
        setattr(stage.knobs, attribute, words.number_of(name, getattr(stage.knobs, attribute)))
    stage.knobs.seed = int(words.number_of("seed", stage.knobs.seed))
    words.finish(0)
    return ()


def _run(stage: Stage, words: Words) -> Lines:
    """run DURATION"""
    for_s = number(words.name(0, "DURATION"), "run")
    words.finish(1)
    world = stage.world
    before_s = world.now_s
    world.run(for_s)
    return [views.window(world, before_s)]


def _mark(stage: Stage, words: Words) -> Lines:
    """mark: windows of expectations begin here"""
    words.finish(0)
    stage.mark_s = stage.world.now_s
    return ()


def _expect(stage: Stage, words: Words) -> Lines:
    """expect METRIC at-most|at-least VALUE [service=] [dc=] [locality=]"""
    held, line = expect.judge(stage.world, words, stage.mark_s)
    stage.missed += not held
    return [line]


def _show(stage: Stage, words: Words) -> Lines:
    """show [SERVICE]: every datacenter"""
    services = stage.catalog().services
    name = words.known(0, "service", services) if words.positions else ""
    words.finish(1)
    return views.sites(stage.world, name)


def _plan(stage: Stage, words: Words) -> Lines:
    """plan [SERVICE]: shares by locality, notes"""
    services = stage.catalog().services
    name = words.known(0, "service", services) if words.positions else ""
    words.finish(1)
    return views.plans(stage.world, name)


def _drain(stage: Stage, words: Words) -> Lines:
    """drain SCOPE TARGET [for=8h]"""
    try:
        scope = DrainScope(words.name(0, "SCOPE"))
    except ValueError as error:
        raise StoryError(f"drain: {error}; scopes are {', '.join(each.value for each in DrainScope)}") from None
    target = words.name(1, "TARGET")
    for_s = words.number_of("for", 8 * 3600.0)
    words.finish(2)
    one = drain_of(scope, target, utc(stage.world.now_s), for_s)
    catalog = stage.world.catalog
    stage.world.control.set_catalog(replace(catalog, drains={**catalog.drains, one.name: one}))
    return ()


def _undrain(stage: Stage, words: Words) -> Lines:
    """undrain SCOPE TARGET"""
    name = f"{words.name(0, 'SCOPE')}-{words.name(1, 'TARGET')}"
    words.finish(2)
    catalog = stage.world.catalog
    if name not in catalog.drains:
        raise StoryError(f"undrain: {name} is not drained; there are: {', '.join(catalog.drains) or 'no drains'}")
    left = {key: one for key, one in catalog.drains.items() if key != name}
    stage.world.control.set_catalog(replace(catalog, drains=left))
    return ()


def _fault(stage: Stage, words: Words) -> Lines:
    return FAULTS[words.command](stage.world, words)


# What a picture marks: all that is done to a planet that runs.
EVENTS: Final = frozenset({*FAULTS, "drain", "undrain", "demand", "set"})

COMMANDS: Final[Mapping[str, Callable[[Stage, Words], Lines]]] = MappingProxyType(
    {
        "datacenter": _datacenter,
        "link": _link,
        "area": _area,
        "service": _service,
        "backend": _backend,
        "call": _call,
        "demand": _demand,
        "set": _set,
        "run": _run,
        "mark": _mark,
        "expect": _expect,
        "show": _show,
        "plan": _plan,
        "drain": _drain,
        "undrain": _undrain,
        **dict.fromkeys(FAULTS, _fault),
    }
)
