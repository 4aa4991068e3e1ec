"""A drain that would leave less capacity than demand is refused: exit code 1, rule and numbers, and nothing changes.

Datacenters are drained one after the other, as an operator would who does not look; sooner or later one must be refused.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gslb.demo.checks.bench import Bench, Command
from gslb.demo.checks.verdict import Rule, at_most, conclude
from gslb.model.limits import DRAIN_HEADROOM_FRACTION
from gslb.v1 import admin_pb2

ORDER = ("southamerica-east1", "asia-east1", "europe-west1", "us-east1")
REASON = "demo check"
# The control plane's demand and capacity move a little between our look and its decision.
NUMBERS_TOLERANCE = 0.15
_NUMBERS = re.compile(r"service (\S+): demand ([\d.]+) rps > ([\d.]+) rps that remain")


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt to drain: demand and what would remain of the service that a refusal names, as status showed them
    before, and what was said."""

    datacenter: str
    demand_rps: float
    remaining_rps: float  # with headroom
    code: int
    said: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the check saw."""

    tries: Sequence[Try]
    unchanged: bool  # drains and plan after the refusal were those before
    serves_on: bool  # the datacenter that was not drained
    failures: int


def verdict(seen: Seen) -> dict[str, object]:
    """The last was refused by the rule, with its numbers; those before it were in their right."""
    refused = seen.tries[-1] if seen.tries else None
    found = _NUMBERS.search(refused.said) if refused else None
    right = found is not None and refused is not None and _near(float(found[2]), refused.demand_rps)
    right = right and found is not None and refused is not None and _near(float(found[3]), refused.remaining_rps)
    return conclude(
        Rule(refused is not None and refused.code == 1, f"exit code {refused.code if refused else '-'} (1 wanted)"),
        Rule(found is not None, f"message: {refused.said.strip().splitlines()[-1][:200] if refused else '-'}"),
        Rule(
            right,
            f"by status {refused.demand_rps:.4g} > {refused.remaining_rps:.4g} rps" if refused else "nothing was tried",
        ),
        Rule(all(one.code == 0 for one in seen.tries[:-1]), f"{len(seen.tries) - 1} drains before it were admitted"),
        Rule(seen.unchanged, "drains and plan " + ("as before" if seen.unchanged else "changed by a refused drain")),
        Rule(seen.serves_on, "it serves on" if seen.serves_on else "it serves no more"),
        at_most("failed requests", seen.failures, 0),
    )


def _near(value: float, expected: float) -> bool:
    return abs(value - expected) <= NUMBERS_TOLERANCE * max(expected, 1.0)


async def check_refusal(bench: Bench) -> dict[str, Any]:
    """Drain until it is refused, and undo what was not."""
    start_s = time.monotonic()
    tries: list[Try] = []
    unchanged = serves_on = False
    try:
        for datacenter in ORDER:
            before = await _desired(bench)
            numbers = await _numbers(bench, datacenter)
            done = await drain(bench, datacenter, "--for", "5m")
            named = _NUMBERS.search(done.err)
            demand_rps, remaining_rps = numbers.get(named[1], (0.0, 0.0)) if named else (0.0, 0.0)
            tries.append(Try(datacenter, demand_rps, remaining_rps, done.code, done.err))
            if done.code != 0:
                unchanged = await _desired(bench) == before
                serves_on = (await bench.served_over(4.0))[datacenter] > 0 and await _desired(bench) == before
                break
    finally:
        for one in tries:
            if one.code == 0:
                await bench.gslb("undrain", "datacenter", one.datacenter)
    seen = Seen(tries, unchanged, serves_on, bench.failures(start_s))
    return {
        **verdict(seen),
        "tries": [f"{one.datacenter}: exit code {one.code}: {one.said.strip()}" for one in tries],
        "failures": seen.failures,
        "failed": bench.failures_shown(start_s),
    }


async def drain(bench: Bench, datacenter: str, *options: str) -> Command:
    """`gslb drain datacenter ...`, as a user types it."""
    return await bench.gslb("drain", "datacenter", datacenter, *options, "--reason", REASON, "--author", "demo")


async def _numbers(bench: Bench, drained: str) -> dict[str, tuple[float, float]]:
    """(demand, what would remain with headroom) of every service if this datacenter were drained too."""
    numbers: dict[str, tuple[float, float]] = {}
    for service in (await bench.planet.status()).services:
        demand = sum(locality.demand_rps for locality in service.localities)
        remaining = sum(b.capacity_rps for b in service.backends if b.datacenter != drained and not b.drain)
        numbers[service.service] = demand, remaining * (1 - DRAIN_HEADROOM_FRACTION)
    return numbers


async def _desired(bench: Bench) -> list[str]:
    """Every drain that there is and every datacenter that a plan knows as drained."""
    admin = bench.planet.admin(bench.planet.replicas[0])
    drains = (await admin.Get(admin_pb2.GetRequest(kind="drain"), timeout=5.0)).resources
    status = await bench.planet.status()
    shown = {f"{s.service}@{b.datacenter}: {b.drain}" for s in status.services for b in s.backends if b.drain}
    return sorted({f"{one.meta.name} {one.drain.target}" for one in drains} | shown)
