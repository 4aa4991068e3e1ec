"""A backend task answers errors at once: being fast, it must not become everybody's choice; users notice nothing."""

import asyncio
import time
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


@dataclass(frozen=True, slots=True)
class Seen:
    """What the check saw. Shares are of the attempts on the datacenter's tasks."""

    share_before: float
    share_during: float
    errors: int
    capacity_before_rps: float
    capacity_during_rps: float
    failures: int
    share_returned_s: float | None


def verdict(seen: Seen) -> dict[str, object]:
    """Neither clients nor the balancer gave it more than it had, and no user saw an error."""
    return conclude(
        at_least("errors answered", seen.errors, 1),
        at_most("its share of attempts", 100 * seen.share_during, 100 * seen.share_before, "%"),
        at_most(
            "capacity learned meanwhile", seen.capacity_during_rps, CAPACITY_NOISE * seen.capacity_before_rps, "rps"
        ),
        at_most("failed requests", seen.failures, 0),
        at_most("well again, half of its share was back after", seen.share_returned_s, RETURN_TIMEOUT_S, "s"),
    )


async def check_sinkhole(bench: Bench) -> dict[str, Any]:
    """Let one task fail, watch who is asked, and cure it."""
    start_s = time.monotonic()
    sick, *others = bench.planet.tasks_of(DATACENTER, "backend")
    share_before, _ = await _share(bench, sick, others, BEFORE_S)
    before = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
    retries = await _retries(bench)
    bench.turn(sick, KNOBS)
    try:
        await asyncio.sleep(TURNED_S)
        share_during, errors = await _share(bench, sick, others, WATCH_S)
        during = await bench.backend_status(BACKEND_SERVICE, DATACENTER)
    finally:
        bench.turn(sick, None)
    cured_s = time.monotonic()

    async def back() -> bool:
        return (await _share(bench, sick, others, RETURN_POLL_S))[0] > share_before / 2

    returned = await bench.until(back, RETURN_TIMEOUT_S)
    seen = Seen(
        share_before, share_during, errors, before.capacity_rps, during.capacity_rps, bench.failures(start_s),
        None if returned is None else round(time.monotonic() - cured_s, 1),
    )  # fmt: skip
    return {
        **verdict(seen),
        "share_before": round(share_before, 3),
        "share_during": round(share_during, 3),
        "errors_answered": errors,
        "retries": await _retries(bench) - retries,
        "capacity_rps_before": round(before.capacity_rps, 1),
        "capacity_rps_during": round(during.capacity_rps, 1),
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


async def _retries(bench: Bench) -> int:
    """Second and third attempts of all frontends, since they started."""
    frontends = [place for place in bench.planet.tasks if place.job == "frontend"]
    return sum([int((await bench.channel(place)).get("retries", 0)) for place in frontends])
