"""What can go wrong on the planet, and how it is put right: one command each."""

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from gslb.model.geography import floor_rtt_ms
from gslb.sim.errors import StoryError
from gslb.sim.paths import CONTROL
from gslb.sim.servers import Job
from gslb.sim.words import Words, number
from gslb.sim.world import World

Lines = Iterable[str]


def _job(world: World, words: Words) -> Job:
    """The job of SERVICE in DATACENTER."""
    service = words.known(0, "service", world.catalog.services)
    here = {job.datacenter: job for job in world.jobs.values() if job.service == service}
    return here[words.known(1, "datacenter of the service", here)]


def _datacenters(world: World, words: Words) -> list[str]:
    if words.name(0, "DATACENTER") == "all":
        return list(world.catalog.datacenters)
    return [words.known(0, "datacenter", world.catalog.datacenters)]


def _kill(world: World, words: Words) -> Lines:
    """kill SERVICE DATACENTER N"""
    job = _job(world, words)
    count = int(number(words.name(2, "N"), "kill: number of tasks"))
    words.finish(3)
    if count > len(job.up):
        raise StoryError(f"kill: {len(job.up)} tasks of {job.name} are up, not {count}")
    for task in job.up[:count]:
        task.up = False
    return ()


def _restart(world: World, words: Words) -> Lines:
    """restart SERVICE DATACENTER"""
    job = _job(world, words)
    words.finish(2)
    for task in job.tasks:
        task.up, task.back_s = True, math.inf
    return ()


def _lose(world: World, words: Words) -> Lines:
    """lose DATACENTER: no power; its servers, agents and internal clients are gone"""
    world.paths.lost.update(_datacenters(world, words))
    words.finish(1)
    return ()


def _return(world: World, words: Words) -> Lines:
    """return DATACENTER"""
    world.paths.lost.difference_update(_datacenters(world, words))
    words.finish(1)
    return ()


def _silence(world: World, words: Words) -> Lines:
    """silence DATACENTER|all: agents say nothing, tasks serve on"""
    for name in _datacenters(world, words):
        world.agent(name).silent = True
    words.finish(1)
    return ()


def _speak(world: World, words: Words) -> Lines:
    """speak DATACENTER|all"""
    for name in _datacenters(world, words):
        world.agent(name).silent = False
    words.finish(1)
    return ()


def _pair(world: World, words: Words) -> frozenset[str]:
    places: Mapping[str, object] = {**world.catalog.datacenters, **world.catalog.areas, CONTROL: None}
    pair = frozenset({words.known(0, "place", places), words.known(1, "place", places)})
    words.finish(2)
    return pair


def _cut(world: World, words: Words) -> Lines:
    """cut PLACE PLACE: packets between them vanish; `control` is a place"""
    world.paths.cuts.add(_pair(world, words))
    return ()


def _heal(world: World, words: Words) -> Lines:
    """heal PLACE PLACE"""
    world.paths.cuts.discard(_pair(world, words))
    return ()


def _slow(world: World, words: Words) -> Lines:
    """slow LOCALITY DATACENTER add=100ms: the link takes longer, and clients measure it"""
    catalog = world.catalog
    locality = words.known(0, "locality", {**catalog.datacenters, **catalog.areas})
    datacenter = words.known(1, "datacenter", catalog.datacenters)
    added_ms = 1000 * words.number_of("add", 0.0)
    words.finish(2)
    here, there = catalog.coordinates_of(locality), catalog.datacenters[datacenter].coordinates
    assert here is not None
    measured = floor_rtt_ms(here, there) + added_ms
    world.control.rtt_ms = {**world.control.rtt_ms, (locality, datacenter): measured}
    return ()


def _control(world: World, words: Words) -> Lines:
    """control up|down"""
    state = words.known(0, "state", {"up": None, "down": None})
    words.finish(1)
    world.knobs.control_up = state == "up"
    return ()


def _cost(world: World, words: Words) -> Lines:
    """cost SERVICE DATACENTER x2: CPU of each request"""
    _job(world, words).cost_factor = number(words.name(2, "xFACTOR"), "cost")
    words.finish(3)
    return ()


def _errors(world: World, words: Words) -> Lines:
    """errors SERVICE DATACENTER 90%: this part of the requests is answered by a cheap error"""
    _job(world, words).errors = number(words.name(2, "PART"), "errors")
    words.finish(3)
    return ()


def _lie(world: World, words: Words) -> Lines:
    """lie SERVICE DATACENTER cpu=0 (nan, 5, ...; none: the truth again)"""
    job = _job(world, words)
    text = words.option("cpu", "none")
    words.finish(2)
    job.lie = None if text == "none" else number(text, "lie: cpu")
    return ()


def _flap(world: World, words: Words) -> Lines:
    """flap SERVICE DATACENTER N every=5s: the health checks of N tasks change their mind; every=0s: no more"""
    job = _job(world, words)
    count = int(number(words.name(2, "N"), "flap: number of tasks"))
    period_s = words.number_of("every", 5.0)
    words.finish(3)
    for task in job.tasks[:count]:
        task.flaps_s = period_s
    return ()


FAULTS: Final[Mapping[str, Callable[[World, Words], Lines]]] = MappingProxyType(
    {
        "kill": _kill,
        "restart": _restart,
        "lose": _lose,
        "return": _return,
        "silence": _silence,
        "speak": _speak,
        "cut": _cut,
        "heal": _heal,
        "slow": _slow,
        "control": _control,
        "cost": _cost,
        "errors": _errors,
        "lie": _lie,
        "flap": _flap,
    }
)
