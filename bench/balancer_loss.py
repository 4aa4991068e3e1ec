"""The loss of the largest datacenter in the simulator, reports 10 s old: how soon its load is elsewhere, and how full that is.

Planets as for quietness; those that cannot lose their largest datacenter within capacity are left out.
"""

from dataclasses import dataclass

from bench.balancer_quiet import NAME, TASK_RPS, planet
from bench.rows import Row, median_row
from bench.stage import progress
from gslb.sim.meters import WINDOW_S
from gslb.sim.world import World

AGE_S = 10.0
BY_PLAN_GOAL_S = 15.0
BY_CONTINGENCY_GOAL_S = 1.0
# Tasks are whole and demand is sampled in whole requests: a planet with less room than this is not feasible.
ROOM_FRACTION = 0.01
LONGEST_S = 90


@dataclass(frozen=True, slots=True)
class _Loss:
    """Seconds after the loss; utilization in percent, 5 s windows: `worst` from the second plan on (without plans: from
    10 s on), `first` before that. `overshoots`: how often a survivor went beyond 100 %, all of them together.
    """

    by_plan_s: float
    served_s: float
    failed_percent: float
    worst: float
    first: float
    overshoots: int


def rows(*, quick: bool) -> list[Row]:
    """With the control plane alive, and with every control plane dead."""
    progress("loss of the largest datacenter")
    wanted = 2 if quick else 20
    worlds = 0
    alive, dead = [], []
    seed = 0
    while worlds < wanted:
        if _feasible(planet(seed, AGE_S, 0.0)):
            worlds += 1
            alive.append(_lost(seed, control_up=True))
            dead.append(_lost(seed, control_up=False))
        seed += 1
    what = f"largest datacenter lost, reports {AGE_S:g} s old"
    return [
        median_row(f"{what}: until the plan has nothing there", [one.by_plan_s for one in alive], "s", BY_PLAN_GOAL_S),
        median_row(f"{what}: fullest survivor, from the second plan on", [one.worst for one in alive], "%", 100.0),
        median_row(f"{what}: fullest survivor before that", [one.first for one in alive], "%", 100.0),
        median_row(f"{what}: survivors beyond 100 %, times", [float(one.overshoots) for one in alive], "", 1.0),
        median_row(
            f"{what}, no control plane: until nothing fails", [one.served_s for one in dead], "s", BY_CONTINGENCY_GOAL_S
        ),
        median_row(f"{what}, no control plane: failed in the first minute", [one.failed_percent for one in dead], "%"),
        median_row(
            f"{what}, no control plane: fullest survivor", [max(one.first, one.worst) for one in dead], "%", 100.0
        ),
    ]


def _largest(world: World) -> str:
    return max(world.jobs.values(), key=lambda job: len(job.tasks)).datacenter


def _feasible(world: World) -> bool:
    rest = sum(len(job.tasks) for job in world.jobs.values() if job.datacenter != _largest(world)) * TASK_RPS
    return rest * (1 - ROOM_FRACTION) >= sum(world.demand.values())


def _lost(seed: int, *, control_up: bool) -> _Loss:
    world = planet(seed, AGE_S, 0.0)
    world.run(60)
    lost = _largest(world)
    world.knobs.control_up = control_up
    world.paths.lost.add(lost)
    began_s = world.now_s
    by_plan_s = served_s = float(LONGEST_S)
    second_s = began_s + 10.0
    for second in range(1, LONGEST_S + 1):
        world.run(1.0)
        plan = world.control.views[NAME].plan
        assert plan is not None
        if by_plan_s == LONGEST_S and not any(shares.get(lost) for shares in plan.shares.values()):
            by_plan_s = float(second)
            second_s = world.now_s + world.knobs.plan_period_s if control_up else second_s
        if served_s == LONGEST_S and world.meters.services[NAME][-1].failed <= 0:
            # Nothing failed in this tick: what had to move had moved before it.
            served_s = float(second - 1)
    ticks = list(world.meters.ticks(began_s))[:60]
    failed = 100 * sum(tick.failed for tick in ticks) / sum(tick.demand for tick in ticks)
    return _Loss(
        by_plan_s,
        served_s,
        failed,
        100 * world.meters.worst_utilization(second_s),
        max(100 * max(_windows(world, name, began_s, second_s), default=0.0) for name in _survivors(world)),
        sum(_excursions(_windows(world, name, began_s, world.now_s)) for name in _survivors(world)),
    )


def _survivors(world: World) -> list[str]:
    return [name for name in world.catalog.datacenters if name not in world.paths.lost]


def _windows(world: World, datacenter: str, since_s: float, until_s: float) -> list[float]:
    """Mean utilization of the datacenter in every window that lies between the two moments."""
    series = [
        site.utilization
        for at_s, site in zip(world.meters.times, world.meters.sites[NAME, datacenter], strict=True)
        if since_s < at_s <= until_s
    ]
    size = round(WINDOW_S / world.knobs.tick_s)
    return [sum(series[i : i + size]) / size for i in range(len(series) - size + 1)]


def _excursions(windows: list[float]) -> int:
    """How often it rises above 1; rounding is no excursion."""
    above = [used > 1 + 1e-3 for used in windows]
    return sum(now and not before for before, now in zip([False, *above], above, strict=False))
