"""Plan time: the balancer's step on one core, cold and after one service changed."""

from dataclasses import dataclass

from bench.rows import Row, median_row
from bench.stage import Stage, Worker, progress

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
        cold_s = [
            await _seconds(
                worker,
                "cold",
                seed=seed,
                services=size.services,
                datacenters=size.datacenters,
                localities=size.localities,
            )
            for seed in range(size.cold_runs)
        ]
        changed_ms = [1e3 * await _seconds(worker, "change") for _ in range(size.changes)]
        moved_s = [await _seconds(worker, "moved") for _ in range(size.cold_runs)]
        kept_mb = float(str((await worker.ask("kept"))["mb"]))
    return [
        median_row(f"{what}: cold", cold_s, "s", COLD_GOAL_S),
        median_row(f"{what}: one service changed", changed_ms, "ms", CHANGE_GOAL_MS),
        median_row(f"{what}: all demand moved by 5 %", moved_s, "s"),
        Row(f"{what}: memory kept", kept_mb, "MB", "n=1"),
    ]


async def _seconds(worker: Worker, do: str, **arguments: object) -> float:
    return float(str((await worker.ask(do, **arguments))["s"]))
