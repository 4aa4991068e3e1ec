"""Subsets: connections per task, and connections made after tasks or clients came or went, over the least possible."""

import random
import statistics
from collections.abc import Callable, Mapping
from typing import Final

from bench.rows import Row
from bench.rpc.confidence import interval
from bench.stage import progress
from gslb.rpc.policy.subset import SIZE
from gslb.sim.replicas.connections import Connections

EVEN_GOAL: Final = 1.05
CHURN_GOAL: Final = 1.5


def rows(quick: bool) -> list[Row]:
    """All of them, for as many clients as tasks."""
    seeds, count = (2, 40) if quick else (10, 300)
    progress(f"subsets of {count} tasks for {count} clients")
    worst: list[float] = []
    churn: dict[str, list[float]] = {}
    for seed in range(seeds):
        fleet = Connections(random.Random(seed))
        fleet.set_tasks(_names("t", count))
        fleet.add_clients(_names("c", count))
        fleet.settle()
        worst.append(max(fleet.counts()) / fleet.mean())
        for name, change in _changes(fleet, count).items():
            churn.setdefault(name, []).append(_made_over_least(fleet, change))
            worst[-1] = max(worst[-1], max(fleet.counts()) / fleet.mean())
    what = f"subsets of {SIZE}, {count} clients x {count} tasks"
    even = Row(
        f"{what}: most connections of a task over the mean, worst of start and all changes",
        max(worst),
        "times",
        interval(worst),
        at_most=EVEN_GOAL,
    )
    return [
        even,
        *(
            Row(f"{what}: connections made over the least possible, {name}", statistics.fmean(found), "times",
                interval(found), at_most=CHURN_GOAL)
            for name, found in churn.items()
        ),
    ]  # fmt: skip


def _names(letter: str, count: int, first: int = 0) -> list[str]:
    return [f"{letter}{i}" for i in range(first, first + count)]


def _changes(fleet: Connections, count: int) -> Mapping[str, Callable[[], int]]:
    """What happens, one after the other; each gives the connections that must be made besides those that it counts."""
    tenth = count // 10

    def tasks(number: int) -> int:
        fleet.set_tasks(_names("t", number))
        fleet.hold()
        fleet.set_tasks(_names("t", number))
        return 0

    def clients_go(number: int) -> int:
        fleet.remove_clients(list(fleet.clients)[:number])
        return 0

    def clients_come(number: int, first: int) -> int:
        fleet.add_clients(_names("d", number, first))
        return 0

    def rolling() -> int:
        """Each task restarts within the hold: at the least, all connections are made once."""
        everybody = set(fleet.tasks)
        for task in sorted(everybody):
            fleet.set_tasks(everybody - {task})
            fleet.set_tasks(everybody)
        return len(fleet.clients) * SIZE

    return {
        "one task more": lambda: tasks(count + 1),
        "one task less": lambda: tasks(count),
        "10 % more tasks": lambda: tasks(count + tenth),
        "10 % fewer tasks": lambda: tasks(count),
        "one client less": lambda: clients_go(1),
        "one client more": lambda: clients_come(1, 0),
        "10 % fewer clients": lambda: clients_go(tenth),
        "10 % more clients": lambda: clients_come(tenth, 1),
        "rolling restart of all tasks": rolling,
    }


def _made_over_least(fleet: Connections, change: Callable[[], int]) -> float:
    fleet.made = 0
    least = change() + fleet.excess()
    fleet.settle()
    return fleet.made / least if least else 1.0 + fleet.made
