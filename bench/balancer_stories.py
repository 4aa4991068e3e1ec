"""Three stories of `gslb sim` with many seeds: cheap errors, twice the capacity, two services on one datacenter's CPU.

The planets are those of tests/golden/stories, where each story's course can be read.
"""

import statistics
from collections.abc import Callable
from pathlib import Path

from bench.rows import Row, median_row
from bench.stage import progress
from gslb.sim.commands import Stage

STORIES = Path(__file__).parents[1] / "tests" / "golden" / "stories"
PERIOD_S = 5.0
WITHIN = 0.1
PERIODS_GOAL = 3.0
SPREAD_GOAL_PERCENT = 1.0
NOT_SERVED_GOAL_PERCENT = 0.1
CPU_GOAL_PERCENT = 100.0


def rows(*, quick: bool) -> list[Row]:
    """Medians and ranges over the seeds."""
    seeds = range(1, 3 if quick else 11)
    progress("cheap errors, twice the capacity, a shared CPU")
    spread, critical = zip(*(_overload(seed) for seed in seeds), strict=True)
    return [
        median_row(
            f"Dressy, one of three regions errs cheaply: periods until all are within {100 * WITHIN:g} % of their mean",
            [_dressy(seed) for seed in seeds],
            "",
            PERIODS_GOAL,
        ),
        median_row("demand twice the capacity: busiest less idlest datacenter", list(spread), "%", SPREAD_GOAL_PERCENT),
        # As what is not served, so that the goal is one that can be read off: 99.9 % are served.
        median_row(
            "demand twice the capacity: CRITICAL (0.9 of capacity) not served",
            list(critical),
            "%",
            NOT_SERVED_GOAL_PERCENT,
        ),
        median_row(
            "two services on one datacenter's CPU, largest lost and back: fullest CPU",
            [_shared_cpu(seed) for seed in seeds],
            "%",
            CPU_GOAL_PERCENT,
        ),
    ]


def _stage(story: str, seed: int) -> tuple[Stage, Callable[..., None]]:
    """The story's planet, not yet running, and a way to tell it what happens."""
    stage = Stage()

    def tell(*commands: str) -> None:
        for command in commands:
            stage.execute(command)

    for line in (STORIES / f"{story}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("run "):
            break
        if line and not line.startswith("#"):
            tell(line)
    tell(f"set seed={seed}")
    return stage, tell


def _dressy(seed: int) -> float:
    """Periods after the errors began until no region is farther than WITHIN from the mean of all, for good."""
    stage, tell = _stage("dressy", seed)
    tell("run 5m", "errors dressy region-b 80%")
    world, late = stage.world, 0
    for period in range(1, 61):
        began_s = world.now_s
        world.run(PERIOD_S)
        first = world.meters.first(began_s)
        loads = [statistics.fmean(site.offered for site in series[first:]) for series in world.meters.sites.values()]
        mean = statistics.fmean(loads)
        if max(abs(load / mean - 1) for load in loads) > WITHIN:
            late = period
    return float(late)


def _overload(seed: int) -> tuple[float, float]:
    """Percent between the busiest and the idlest datacenter, and of CRITICAL requests that were not served."""
    stage, tell = _stage("overload", seed)
    tell("run 120s")
    world = stage.world
    began_s = world.now_s
    world.run(120.0)
    used = [series[-1].utilization for series in world.meters.sites.values()]
    ticks = list(world.meters.ticks(began_s))
    served = sum(tick.critical_ok for tick in ticks) / sum(tick.critical_demand for tick in ticks)
    return 100 * (max(used) - min(used)), max(0.0, 100 * (1 - served))


def _shared_cpu(seed: int) -> float:
    """Percent of a datacenter's CPU that was asked for, at most, in 5 s; from the loss on, until all is back."""
    stage, tell = _stage("shared-cpu", seed)
    tell("run 120s")
    world = stage.world
    began_s = world.now_s
    tell("lose us-central", "run 2m", "return us-central", "run 15m")
    return 100 * world.meters.worst_use(began_s, "cpu")
