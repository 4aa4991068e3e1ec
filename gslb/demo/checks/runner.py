"""Runs the demo's checks one after the other under load, and says what each saw."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gslb.demo.checks.agent import check_agent
from gslb.demo.checks.bench import REQUESTS_MIN, Bench
from gslb.demo.checks.contingency import check_contingency
from gslb.demo.checks.cost import check_cost
from gslb.demo.checks.dns import check_dns
from gslb.demo.checks.drain import check_drain
from gslb.demo.checks.etcd import check_etcd
from gslb.demo.checks.expiry import check_expiry
from gslb.demo.checks.kill import check_kill
from gslb.demo.checks.leader import check_leader
from gslb.demo.checks.overload import check_overload
from gslb.demo.checks.ramped import check_ramped
from gslb.demo.checks.refusal import check_refusal
from gslb.demo.checks.search import check_search
from gslb.demo.checks.sinkhole import check_sinkhole
from gslb.demo.checks.stolen import STALLED, WINDOW_S, StolenTime
from gslb.demo.layout import BACKEND_SERVICE

__all__ = ["CHECKS", "Bench", "run_checks"]

Check = Callable[[Bench], Awaitable[Mapping[str, Any]]]
CHECKS: Mapping[str, Check] = {
    "dns": check_dns,
    "search": check_search,
    "drain": check_drain,
    "kill": check_kill,
    "agent": check_agent,
    "leader": check_leader,
    "etcd": check_etcd,
    "overload": check_overload,
    # Each in turn in other datacenters, so that loads return while others are looked at.
    "sinkhole": check_sinkhole,
    "cost": check_cost,
    "expiry": check_expiry,
    "ramped": check_ramped,
    "refusal": check_refusal,
    "contingency": check_contingency,
}
WARM_UP_S = 8.0
# How often a check is run again that failed while this machine stood still (gslb.demo.checks.stolen).
REPEATS_MAX = 2
SETTLED_TIMEOUT_S = 90.0
LEARNED_TIMEOUT_S = 40.0


async def run_checks(bench: Bench, only: tuple[str, ...], say: Callable[[str], None]) -> dict[str, Any]:
    """Every check (or `only` those): `{"ok": ..., "checks": {NAME: {"ok", "requests", "seconds", ...}}}`."""
    await asyncio.sleep(WARM_UP_S)
    checks: dict[str, Any] = {}
    stolen = StolenTime()
    try:
        for name, check in CHECKS.items():
            if only and name not in only:
                continue
            say(f"check {name} ...")
            checks[name] = await _run(bench, name, check, stolen, say)
    finally:
        stolen.close()
    return {"ok": all(seen["ok"] for seen in checks.values()), "checks": checks}


async def _run(bench: Bench, name: str, check: Check, stolen: StolenTime, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs a check, and again if it failed while the host withheld the machine; what failed is reported with it."""
    repeated: list[dict[str, Any]] = []
    while True:
        start_s = time.monotonic()
        seen = await _run_one(bench, check)
        seen["cpu_stolen"] = round(stolen.worst_since(start_s), 2)
        again = not seen["ok"] and seen["cpu_stolen"] >= STALLED and len(repeated) < REPEATS_MAX
        verdict = "ok" if seen["ok"] else "FAILED"
        say(f"check {name}: {verdict}, {seen['requests']} requests in {seen['seconds']:.0f} s, {_short(seen)}")
        if not again:
            return {**seen, "repeated": repeated} if repeated else seen
        say(f"check {name}: the host withheld {seen['cpu_stolen']:.0%} of the CPU in {WINDOW_S:g} s: once more ...")
        repeated.append(seen)
        # What it failed on may not be over yet.
        await bench.settled(SETTLED_TIMEOUT_S)
        await bench.learned(BACKEND_SERVICE, LEARNED_TIMEOUT_S)


async def _run_one(bench: Bench, check: Check) -> dict[str, Any]:
    start_s = time.monotonic()
    try:
        seen = dict(await check(bench))
    except Exception as error:  # noqa: BLE001 - a check that breaks is a failed check; the others still run
        seen = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    await bench.at_least(REQUESTS_MIN, start_s)
    outcomes = bench.traffic.since(start_s)
    seconds = time.monotonic() - start_s
    seen |= {"requests": len(outcomes), "seconds": round(seconds, 1), "rps": round(len(outcomes) / seconds, 1)}
    seen["ok"] = bool(seen["ok"]) and len(outcomes) >= REQUESTS_MIN
    seen.setdefault("failures", bench.failures(start_s))
    return seen


def _short(seen: Mapping[str, Any]) -> str:
    hidden = {"ok", "requests", "seconds", "rps"}
    return ", ".join(
        f"{key} {value}"
        for key, value in seen.items()
        if key not in hidden and isinstance(value, str | int | float | bool)
    )
