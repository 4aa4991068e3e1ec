"""Plan time: the balancer's step on one core, cold and after one service changed."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.rows import Json, Row, figure, median_row
from bench.stage import Stage, progress

COLD_GOAL_S = 5.0
CHANGE_GOAL_MS = 50.0


@dataclass(frozen=True, slots=True)
class Size:
    services: int
    datacenters: int
    localities: int
    cold_runs: int
    changes: int


FULL = Size(services=1000, datacenters=8, localities=40, cold_runs=5, changes=100)
QUICK = Size(services=50, datacenters=4, localities=10, cold_runs=2, changes=10)


async def rows(size: Size) -> list[Row]:
    what = f"plan, {size.services} services x {size.datacenters} datacenters x {size.localities} localities, one core"
    progress(what)
    async with Stage("planning") as stage:
        worker = await stage.worker("planning", "bench.load.planning")
        shape = {"services": size.services, "datacenters": size.datacenters, "localities": size.localities}
        cold = [await worker.ask("cold", seed=seed, **shape) for seed in range(size.cold_runs)]
        changed = [await worker.ask("change") for _ in range(size.changes)]
        moved = [await worker.ask("moved") for _ in range(size.cold_runs)]
        kept_mb = float(str((await worker.ask("kept"))["mb"]))
    return [
        _row(f"{what}: cold", cold, "s", COLD_GOAL_S),
        _row(f"{what}: one service changed", changed, "ms", CHANGE_GOAL_MS),
        _row(f"{what}: all demand moved by 5 %", moved, "s"),
        Row(f"{what}: memory kept", kept_mb, "MB", "n=1"),
    ]


def _row(name: str, took: Sequence[Json], unit: str, at_most: float | None = None) -> Row:
    """The median time and its range; the median CPU time beside it, which is the time on a core that nobody else uses."""
    scale = 1e3 if unit == "ms" else 1.0
    row = median_row(name, [scale * float(str(one["s"])) for one in took], unit, at_most)
    cpu = statistics.median(scale * float(str(one["cpu_s"])) for one in took)
    return replace(row, spread=f"{row.spread}; CPU {figure(cpu)}")
