"""A backend task answers errors at once: being fast, it must not become everybody's choice; users notice nothing."""

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gslb.demo.checks.bench import Bench
from gslb.demo.checks.verdict import at_least, at_most, conclude
from gslb.demo.layout import BACKEND_SERVICE, TaskPlace

DATACENTER = "europe-west1"
KNOBS = {"cpu_ms": 0, "error_rate": 1.0, "error_code": "INTERNAL"}
BEFORE_S = 8.0
# The server reads its knobs each second.
TURNED_S = 1.5
WATCH_S = 20.0
RETURN_TIMEOUT_S = 25.0
RETURN_POLL_S = 3.0
CAPACITY_NOISE = 1.05
LEARNED_TIMEOUT_S = 60.0
PLACED_NOISE_RPS = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """What the check saw. Shares are of the attempts on the datacenter's tasks."""

    share_before: float
    share_during: float
    errors: int
    capacity_before_rps: float
    capacity_during_rps: float
    twins_grew: float  # how much more the other datacenters, of the same make, were found to serve meanwhile
    placed_before_rps: float  # what the plan sends there, of the demand before
    placed_during_rps: float
    failures: int
    share_returned_s: float | None


def verdict(seen: Seen) -> dict[str, object]:
    """Neither clients nor the balancer gave it more than it had, and no user saw an error."""
    return conclude(
        at_least("errors answered", seen.errors, 1),
        at_most("its share of attempts", 100 * seen.share_during, 100 * seen.share_before, "%"),
        at_most(
            "load placed there meanwhile", seen.placed_during_rps, seen.placed_before_rps + PLACED_NOISE_RPS, "rps"
        ),
        # What a request costs on this machine moves with whatever else runs on it, for all datacenters alike.
        at_most(
            "capacity learned meanwhile",
            seen.capacity_during_rps,
            CAPACITY_NOISE * max(1.0, seen.twins_grew) * seen.capacity_before_rps,
            "rps",
        ),
        at_most("failed requests", seen.failures, 0),
        at_most("well again, half of its share was back after", seen.share_returned_s, RETURN_TIMEOUT_S, "s"),
    )


async def check_sinkhole(bench: Bench) -> dict[str, Any]:
    """Let one task fail, watch who is asked, and cure it."""
    await bench.learned(BACKEND_SERVICE, LEARNED_TIMEOUT_S)
    start_s = time.monotonic()
    sick, *others = bench.planet.tasks_of(DATACENTER, "backend")
    share_before, _ = await _share(bench, sick, others, BEFORE_S)
    before, demand = await _capacities(bench), await bench.demand(BACKEND_SERVICE)
    placed_before_rps = await bench.placed(BACKEND_SERVICE, DATACENTER, demand)
    retries = await _retries(bench)
    bench.turn(sick, KNOBS)
    try:
        await asyncio.sleep(TURNED_S)
        share_during, errors = await _share(bench, sick, others, WATCH_S)
        during = await _capacities(bench)
        placed_during_rps = await bench.placed(BACKEND_SERVICE, DATACENTER, demand)
    finally:
        bench.turn(sick, None)
    cured_s = time.monotonic()

    async def back() -> bool:
        return (await _share(bench, sick, others, RETURN_POLL_S))[0] > share_before / 2

    returned = await bench.until(back, RETURN_TIMEOUT_S)
    seen = Seen(
        share_before, share_during, errors, before[DATACENTER], during[DATACENTER], _grew(before, during),
        placed_before_rps, placed_during_rps, bench.failures(start_s),
        None if returned is None else round(time.monotonic() - cured_s, 1),
    )  # fmt: skip
    return {
        **verdict(seen),
        "share_before": round(share_before, 3),
        "share_during": round(share_during, 3),
        "errors_answered": errors,
        "retries": await _retries(bench) - retries,
        "capacity_rps_before": _rounded(before),
        "capacity_rps_during": _rounded(during),
        "placed_rps_before": round(placed_before_rps, 1),
        "placed_rps_during": round(placed_during_rps, 1),
        "share_returned_after_s": seen.share_returned_s,
        "failures": seen.failures,
        "failed": bench.failures_shown(start_s),
    }


async def _share(bench: Bench, sick: TaskPlace, others: list[TaskPlace], seconds: float) -> tuple[float, int]:
    """(part of the datacenter's attempts that the task got, errors it answered) over `seconds` from now."""
    before = await bench.outcomes([sick]), await bench.outcomes(others)
    await asyncio.sleep(seconds)
    mine, theirs = await bench.outcomes([sick]) - before[0], await bench.outcomes(others) - before[1]
    total = mine.total() + theirs.total()
    return (mine.total() / total if total else 0.0), mine["error"]


async def _capacities(bench: Bench) -> dict[str, float]:
    """What each datacenter's backends are taken to serve."""
    return {backend.datacenter: backend.capacity_rps for backend in (await bench.service(BACKEND_SERVICE)).backends}


def _grew(before: Mapping[str, float], during: Mapping[str, float]) -> float:
    """By which factor the middle one of the other datacenters grew."""
    others = [during.get(name, 0.0) / rps for name, rps in before.items() if name != DATACENTER and rps > 0]
    return statistics.median(others) if others else 1.0


def _rounded(rps: Mapping[str, float]) -> dict[str, float]:
    """For people."""
    return {name: round(value, 1) for name, value in rps.items()}


async def _retries(bench: Bench) -> int:
    """Second and third attempts of all frontends, since they started."""
    frontends = [place for place in bench.planet.tasks if place.job == "frontend"]
    return sum([int((await bench.channel(place)).get("retries", 0)) for place in frontends])
