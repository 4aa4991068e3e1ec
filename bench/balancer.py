"""`python -m bench balancer`: what plans cost, what they move, and how long they take, beside simpler ways.

Definitions (facts: balancing): an instance is feasible when it can lose its largest datacenter; cost is round-trip time
only; moved is half of sum |x' - x| over what the lost datacenter carried, which is the least that must move. Medians and
ranges are over the feasible instances of successive seeds.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from bench import balancer_loss, balancer_quiet, balancer_stories, recorder
from bench.balancer_rivals import Instance, Matrix, Vector, edge_first, instance, plain_lp, waterfall
from bench.planet import planning
from bench.rows import Row, median_row
from bench.stage import progress
from gslb.balancer.assignment import Problem, assign
from gslb.model import limits

COST_GOAL_PERCENT = 1.5
MOVED_GOAL = 1.3
SCRATCH_GOAL_MS = 100.0
CHANGE_GOAL_MS = 25.0
MAX_UTILIZATION = limits.MAX_UTILIZATION_DEFAULT

Rival = Callable[[Matrix, Vector, Vector], Matrix]
RIVALS: tuple[tuple[str, Rival], ...] = (
    ("pro-rata waterfall", waterfall),
    ("cheapest edge first", edge_first),
    ("plain LP", plain_lp),
)


@dataclass(slots=True)
class _Found:
    """One list entry an instance; percent, ratios and ms."""

    over_same: list[float] = field(default_factory=list)
    over_plain: dict[str, list[float]] = field(default_factory=dict)
    moved: dict[str, list[float]] = field(default_factory=dict)
    scratch_ms: list[float] = field(default_factory=list)
    lost_ms: list[float] = field(default_factory=list)
    change_ms: list[float] = field(default_factory=list)

    def rival(self, name: str, over_plain: float, moved: float) -> None:
        self.over_plain.setdefault(name, []).append(over_plain)
        self.moved.setdefault(name, []).append(moved)


async def rows(only: frozenset[str], *, quick: bool) -> list[Row]:
    """All of them; `only` has no parts here."""
    found: list[Row] = []
    for localities, datacenters in ((60, 8),) if quick else ((200, 20), (1000, 40)):
        found += await asyncio.to_thread(_assignments, localities, datacenters, 3 if quick else 20)
    found += await asyncio.to_thread(balancer_quiet.rows, quick=quick)
    found += await asyncio.to_thread(balancer_loss.rows, quick=quick)
    found += await asyncio.to_thread(balancer_stories.rows, quick=quick)
    size = planning.Size(20, 10, 10, 1, 3) if quick else planning.Size(1000, 60, 60, 3, 50)
    found += [_goal(row) for row in await planning.rows(size)]
    return [*found, *await asyncio.to_thread(recorder.rows, quick=quick)]


def _goal(row: Row) -> Row:
    """The goals of 60 x 60."""
    goals = {"cold": 5.0, "one service changed": 6.0, "memory kept": 300.0}
    return next((replace(row, at_most=most) for what, most in goals.items() if f": {what}" in row.name), row)


def _assignments(localities: int, datacenters: int, wanted: int) -> list[Row]:
    what = f"{localities} x {datacenters}"
    progress(f"assignment, {what}")
    found = _Found()
    seed = 0
    while len(found.over_same) < wanted:
        one = instance(seed, localities, datacenters)
        seed += 1
        if one.capacity.sum() - one.capacity.max() >= one.demand.sum():
            _compare(one, found)
    lost = f"{what}, largest datacenter lost"
    made = [
        median_row(f"{lost}: cost over mu = 0", found.over_same, "%", COST_GOAL_PERCENT),
        median_row(f"{lost}: moved / least", found.moved["ours"], "x", MOVED_GOAL),
    ]
    for name in found.moved:
        made.append(median_row(f"{lost}: cost over plain LP, {name}", found.over_plain[name], "%"))
        made.append(median_row(f"{lost}: moved / least, {name}", found.moved[name], "x"))
    goals = (SCRATCH_GOAL_MS, CHANGE_GOAL_MS) if localities == 1000 else (None, None)
    return [
        *made,
        median_row(f"{what}: plan from scratch, CPU", found.scratch_ms, "ms", goals[0]),
        median_row(f"{what}: re-plan, largest datacenter lost, CPU", found.lost_ms, "ms", goals[0]),
        median_row(f"{what}: re-plan, a datacenter's capacity -10 %, CPU", found.change_ms, "ms", goals[1]),
    ]


def _compare(one: Instance, found: _Found) -> None:
    """Everybody plans the whole planet, loses its largest datacenter, and plans again."""
    largest = int(one.capacity.argmax())
    after = one.capacity.copy()
    after[largest] = 0.0
    nothing = np.zeros_like(one.cost_ms)
    shares, scratch_ms = _timed(one, one.capacity, nothing, 0.0)
    sticky, lost_ms = _timed(one, after, shares, limits.STICKINESS_MS)
    free, _ = _timed(one, after, nothing, 0.0)
    found.scratch_ms.append(scratch_ms)
    found.lost_ms.append(lost_ms)
    found.over_same.append(100 * (_cost(one, sticky) / _cost(one, free) - 1))
    best = plain_lp(one.cost_ms, one.demand, after)
    plain = float((best * one.cost_ms).sum())
    found.rival("ours", 100 * (_cost(one, sticky) / plain - 1), _moved(one, shares, sticky, largest))
    for name, rival in RIVALS:
        before = rival(one.cost_ms, one.demand, one.capacity) / one.demand[:, None]
        then = rival(one.cost_ms, one.demand, after) / one.demand[:, None]
        found.rival(name, 100 * (_cost(one, then) / plain - 1), _moved(one, before, then, largest))
    smaller = one.capacity.copy()
    smaller[int(np.argsort(one.capacity)[len(smaller) // 2])] *= 0.9
    _, change_ms = _timed(one, smaller, shares, limits.STICKINESS_MS)
    found.change_ms.append(change_ms)


def _timed(one: Instance, capacity: Vector, previous: Matrix, mu: float) -> tuple[Matrix, float]:
    """Shares, and CPU time in ms: what else the machine does is no cost of ours."""
    problem = Problem(one.demand, one.cost_ms, capacity, MAX_UTILIZATION, previous, mu)
    started_s = time.process_time()
    shares = assign(problem).shares
    return shares, 1000 * (time.process_time() - started_s)


def _cost(one: Instance, shares: Matrix) -> float:
    return float((shares * one.demand[:, None] * one.cost_ms).sum())


def _moved(one: Instance, before: Matrix, after: Matrix, lost: int) -> float:
    moved = float(np.abs((after - before) * one.demand[:, None]).sum()) / 2
    return moved / float((before[:, lost] * one.demand).sum())
