"""How still plans are, in the simulator: traffic moved per plan period at constant demand, and what comes back.

The planets: 8 datacenters and 24 client areas at random, one service, 85 % load, +-10 % noise that holds for a whole plan
period, reports of several ages.
"""

import random
from dataclasses import replace

from bench.rows import Row, median_row
from bench.stage import progress
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Service
from gslb.sim.control import utc
from gslb.sim.drains import drained
from gslb.sim.setup import Knobs, Setup, Work
from gslb.sim.world import World

AGES_S = (0.0, 1.0, 5.0, 10.0, 30.0)
MOVED_GOAL_PERCENT = 0.1
BACK_GOAL_PERCENT = 99.0
LOAD = 0.85
TASK_RPS = 100.0
NAME = "web"


def planet(seed: int, age_s: float, noise: float, *, areas: int = 24, datacenters: int = 8) -> World:
    """A running planet."""
    rng = random.Random(seed)

    def place() -> Coordinates:
        return Coordinates(rng.uniform(-50, 65), rng.uniform(-180, 180))

    sites = {f"dc{i}": Datacenter(Meta(f"dc{i}"), f"region{i % 4}", place()) for i in range(datacenters)}
    crowds = {f"area{i}": ClientArea(Meta(f"area{i}"), place()) for i in range(areas)}
    jobs = {name: f"/bns/{name}/bench/{NAME}" for name in sites}
    tasks = {job: round(10 * rng.lognormvariate(0, 0.6)) + 2 for job in jobs.values()}
    service = Service(Meta(NAME), tuple(Backend(job, TASK_RPS) for job in jobs.values()))
    world = World(
        Setup(Catalog(sites, crowds, {NAME: service}), tasks, {NAME: Work(TASK_RPS)}),
        Knobs(report_age_s=age_s, noise=noise),
        rng,
    )
    wanted = {name: rng.paretovariate(1.2) for name in crowds}
    unit = LOAD * TASK_RPS * sum(tasks.values()) / sum(wanted.values())
    world.demand = {(NAME, name): unit * weight for name, weight in wanted.items()}
    return world


def rows(*, quick: bool) -> list[Row]:
    """Movement at constant demand by report age; what is back after a drain."""
    planets = 2 if quick else 10
    found = []
    for age_s in AGES_S[:2] if quick else AGES_S:
        progress(f"constant demand, reports {age_s:g} s old")
        moved = [_moved(seed, age_s, 60.0 if quick else 200.0) for seed in range(planets)]
        found.append(
            median_row(
                f"traffic moved per period, constant demand, +-10 % noise, reports {age_s:g} s old",
                moved,
                "%",
                MOVED_GOAL_PERCENT,
            )
        )
    progress("drain and undrain")
    back = [_back(seed) for seed in range(planets)]
    return [
        *found,
        median_row("load not back at its optimum 10 min after an undrain", back, "%", 100 - BACK_GOAL_PERCENT),
    ]


def _moved(seed: int, age_s: float, for_s: float) -> float:
    """Mean percent of the demand that a plan period moves, once the beginning is over."""
    world = planet(seed, age_s, 0.1)
    world.run(120 + age_s)
    since_s = world.now_s
    world.run(for_s)
    total = sum(each.moved for each in world.control.published if each.at_s > since_s)
    return 100 * total / (for_s / world.knobs.plan_period_s)


def _back(seed: int) -> float:
    """Percent of the demand that is not where it was planned before a drain of a datacenter of middling size."""
    world = planet(seed, 0.0, 0.0)
    world.run(900)
    before = world.control.views[NAME].plan
    assert before is not None
    sizes = sorted(world.catalog.datacenters, key=lambda name: before.load_rps.get(name, 0.0))
    target = sizes[len(sizes) // 3]
    catalog = world.catalog
    world.control.set_catalog(replace(catalog, drains=drained(target, utc(world.now_s), 300.0)))
    world.run(300)
    world.control.set_catalog(replace(catalog, drains={}))
    world.run(600)
    after = world.control.views[NAME].plan
    assert after is not None
    away = sum(
        rps * max(0.0, share - after.shares[locality].get(name, 0.0))
        for locality, rps in after.demand_rps.items()
        for name, share in before.shares[locality].items()
    )
    return 100 * away / sum(after.demand_rps.values())
