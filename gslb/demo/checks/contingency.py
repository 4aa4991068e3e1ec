"""Every control plane and the largest datacenter die together: requests go where there is room, by the plan they hold.

Two kinds of clients are looked at: an RPC client that is at home in the lost datacenter, and the browsers next to it, which
find their way through DNS. Afterwards all is started again, and load returns little by little.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gslb.demo.asker import rounds
from gslb.demo.checks import rpc_client
from gslb.demo.checks.bench import Bench
from gslb.demo.checks.rpc_client import Answer, answers_of
from gslb.demo.checks.verdict import (
    Rule,
    at_least,
    at_most,
    conclude,
    rate_rps,
    series_rps,
    since,
    utilization,
    worst_window,
)
from gslb.demo.layout import BACKEND_SERVICE, SITE_NAMED, WEB_NAME, site_of_address
from gslb.demo.supervisor import ProcessSpec

ASKER = "asker"
# So many that its part in EARLY_S is a part, and not one draw or another.
CLIENT_RPS = 20.0
REHOMED_GOAL_S = 1.0
WINDOW_S = 5.0
WATCH_S = 12.0
SETTLED_TIMEOUT_S = 90.0
KNOWN_PART = 0.7
KNOWN_TIMEOUT_S = 20.0
PLANNED_S = 5.0
HEALTHY_TIMEOUT_S = 30.0
RETURN_TIMEOUT_S = 45.0
RETURNED = 0.75
# Browsers return as their resolvers' caches end, one by one over a TTL of 5 s; the RPC client, which saw it gone, by a tenth
# of its share a second.
RETURN_MIN_S = 3.0
EARLY_S = 2.0
EARLY_PART_MAX = 0.5
RATE_OVER_S = 2.0
BEFORE_S = 4.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the check saw; times in seconds after the kill, or after the restart."""

    lost: str
    asked: int  # requests of the RPC client after the kill
    rpc_failed_s: float  # its last failure; 0: none
    rpc_left: bool  # whether the lost datacenter's share went elsewhere at all
    browser_failed_s: float  # the browsers' last failure
    dns_s: float | None  # when every frontend answered otherwise
    heirs: Sequence[str]  # whom they answered with
    worst_window: float
    worst_at: str
    demand_rps: float
    remaining_rps: float
    healthy_s: float | None
    first_back_s: float | None
    whole_back_s: float | None
    rpc_early: (
        float | None
    )  # the RPC client's part that went there in the first EARLY_S of its return; None: it did not
    failures_on_return: int
    used: Mapping[str, float] = field(default_factory=dict)  # load over capacity of the survivors


def verdict(seen: Seen) -> dict[str, object]:
    """Re-homed in a second, to where there is room, and back gradually."""
    suffices = seen.demand_rps <= seen.remaining_rps
    gradual_s = (
        None
        if seen.first_back_s is None or seen.whole_back_s is None
        else round(seen.whole_back_s - seen.first_back_s, 1)
    )
    roomy = bool(seen.heirs) and all(seen.used.get(name, float("inf")) <= 1.0 for name in seen.heirs)
    return conclude(
        Rule(suffices, f"demand {seen.demand_rps:.4g} rps, survivors' capacity {seen.remaining_rps:.4g} rps"),
        at_least("requests of the RPC client", seen.asked, CLIENT_RPS * WATCH_S / 2),
        Rule(seen.rpc_left, f"RPC client {'left' if seen.rpc_left else 'did not leave'} {seen.lost}"),
        at_most("its last failure", seen.rpc_failed_s, REHOMED_GOAL_S, "s"),
        at_most("last failure of a browser", seen.browser_failed_s, REHOMED_GOAL_S, "s"),
        at_most("DNS answered otherwise after", seen.dns_s, REHOMED_GOAL_S, "s"),
        Rule(roomy, f"DNS answered with {', '.join(seen.heirs) or 'nobody'}: room {'there' if roomy else 'missing'}"),
        at_most(f"fullest survivor in {WINDOW_S:g} s ({seen.worst_at})", 100 * seen.worst_window, 100, "%"),
        at_most("all healthy again after", seen.healthy_s, HEALTHY_TIMEOUT_S, "s"),
        at_most(f"{RETURNED:.0%} of the load back after", seen.whole_back_s, RETURN_TIMEOUT_S, "s"),
        at_least("time that the return took", gradual_s, RETURN_MIN_S, "s"),
        at_most(f"RPC client's part there in {EARLY_S:g} s", seen.rpc_early, EARLY_PART_MAX),
        at_most("failed requests on return", seen.failures_on_return, 0),
    )


def returned(history: Sequence[tuple[float, int]], wanted_rps: float) -> tuple[float | None, float | None]:
    """(first request, first moment at `wanted_rps` over RATE_OVER_S) in a history of a counter that began at zero."""
    first = next((at_s for at_s, count in history if count > 0), None)
    for i, (to_s, last) in enumerate(history):
        before = next(((at_s, count) for at_s, count in reversed(history[:i]) if to_s - at_s >= RATE_OVER_S), None)
        if before is not None and (last - before[1]) / (to_s - before[0]) >= wanted_rps:
            return first, to_s
    return first, None


def early(answers: Sequence[Answer], lost: str) -> float | None:
    """Which part of the client's requests the datacenter got in the EARLY_S after its first; None: it got none."""
    first_s = next((answer.ended_s for answer in answers if answer.datacenter == lost), None)
    if first_s is None:
        return None
    window = [answer for answer in answers if first_s <= answer.ended_s <= first_s + EARLY_S]
    return round(sum(answer.datacenter == lost for answer in window) / len(window), 2)


async def check_contingency(bench: Bench) -> dict[str, Any]:
    """Kill, watch, start again, watch."""
    await bench.settled(SETTLED_TIMEOUT_S)
    start_s = time.monotonic()
    lost, out = await _prepared(bench)
    asked = await _start_asker(bench, lost)
    before = await bench.served_over(BEFORE_S)
    capacity = await bench.planet.backend_capacity()
    survivors = {name: rps for name, rps in capacity.items() if name != lost}
    killed_s = time.monotonic()
    await bench.planet.supervisor.kill_all(_labels(bench, lost))
    gone_s = time.monotonic() - killed_s
    history = await bench.history(WATCH_S, since_s=killed_s)
    await bench.planet.supervisor.terminate(ASKER)
    # From the moment of the kill on: to see that all those processes are gone takes longer than DNS may.
    dns_s, heirs = dns_changed(asked.read_text(), lost, killed_s)
    restarted_s = time.monotonic()
    healthy_s, first_s, whole_s = await _started_again(bench, lost, restarted_s, RETURNED * before[lost])
    await bench.planet.supervisor.terminate(rpc_client.LABEL)
    answers = [answer for answer in answers_of(out.read_text()) if answer.ended_s >= killed_s]
    browsers = [outcome.ended_s - killed_s for outcome in bench.traffic.since(killed_s) if outcome.error]
    rpcs = [answer.ended_s - killed_s for answer in answers if answer.error]
    until_s = restarted_s - killed_s
    settled = [answer for answer in answers if REHOMED_GOAL_S < answer.ended_s - killed_s < until_s]
    judged = since(history, killed_s + REHOMED_GOAL_S)
    worst, worst_at = worst_window(judged, survivors, WINDOW_S, killed_s)
    seen = Seen(
        lost=lost,
        asked=len(answers),
        rpc_failed_s=round(max((s for s in rpcs if s < until_s), default=0.0), 2),
        rpc_left=bool(settled) and all(answer.datacenter != lost for answer in settled),
        browser_failed_s=round(max((s for s in browsers if s < until_s), default=0.0), 2),
        dns_s=dns_s,
        heirs=heirs,
        worst_window=round(worst, 3),
        worst_at=worst_at,
        demand_rps=sum(before.values()),
        remaining_rps=sum(survivors.values()),
        healthy_s=healthy_s,
        first_back_s=first_s,
        whole_back_s=whole_s,
        rpc_early=early([answer for answer in answers if answer.ended_s >= restarted_s], lost),
        failures_on_return=sum(1 for s in [*rpcs, *browsers] if s >= until_s),
        used={name: utilization(rate_rps(judged[name]), rps) for name, rps in survivors.items()},
    )
    return {
        **verdict(seen),
        "lost": lost,
        "processes_gone_after_s": round(gone_s, 2),
        "rehomed_after_s": max(seen.rpc_failed_s, seen.browser_failed_s),
        "rpc_requests": seen.asked,
        "rpc_failures": len(rpcs),
        "rpc_by_datacenter": dict(Counter(answer.datacenter for answer in settled)),
        "dns_changed_after_s": dns_s,
        "dns_heirs": list(heirs),
        "worst_window_utilization": seen.worst_window,
        "worst_window_at": worst_at,
        "capacity_rps": capacity,
        "rps_before": before,
        "rps_in_windows": series_rps(since(history, killed_s), WINDOW_S),
        "healthy_again_after_s": healthy_s,
        "first_request_back_after_s": first_s,
        "load_back_after_s": whole_s,
        "rpc_part_in_first_seconds_back": seen.rpc_early,
        "failures": bench.failures(start_s),
        "failures_after": sum(1 for s in [*rpcs, *browsers] if s > REHOMED_GOAL_S),
        "failed": bench.failures_shown(start_s),
    }


def _labels(bench: Bench, lost: str) -> list[str]:
    """Every control plane, the agent and every task of the datacenter."""
    tasks = [task.label for task in bench.planet.tasks if task.site.name == lost]
    return [*(replica.label for replica in bench.planet.replicas), f"{lost}-agent", *tasks]


async def _prepared(bench: Bench) -> tuple[str, Path]:
    """The datacenter to lose, and the output of an RPC client at home there, of which the plan knows."""
    service = await bench.service(BACKEND_SERVICE)
    lost = max(service.backends, key=lambda backend: backend.load_rps).datacenter
    usual_rps = (await bench.demand(BACKEND_SERVICE)).get(lost, 0.0)
    out = await rpc_client.start(bench, lost, CLIENT_RPS)
    # What is solved beforehand is solved for demand that is known.
    await bench.until(lambda: _known(bench, lost, usual_rps + KNOWN_PART * CLIENT_RPS), KNOWN_TIMEOUT_S)
    await asyncio.sleep(PLANNED_S)
    return lost, out


async def _started_again(
    bench: Bench, lost: str, restarted_s: float, wanted_rps: float
) -> tuple[float | None, float | None, float | None]:
    """Starts everything again; seconds until all is healthy, the first request, and most of the load is back."""
    for label in _labels(bench, lost):
        bench.planet.supervisor.restart(label)
    back = asyncio.create_task(_returned(bench, lost, restarted_s, wanted_rps))
    names = [task.name for task in bench.planet.tasks if task.site.name == lost]
    healthy_s = await bench.until(lambda: bench.healthy(names), HEALTHY_TIMEOUT_S)
    first_s, whole_s = await back
    return healthy_s, first_s, whole_s


async def _known(bench: Bench, locality: str, wanted_rps: float) -> bool:
    """Whether the plan knows of so much demand from a locality."""
    return (await bench.demand(BACKEND_SERVICE)).get(locality, 0.0) >= wanted_rps


def dns_changed(text: str, lost: str, killed_s: float) -> tuple[float | None, list[str]]:
    """From what the asker wrote: (seconds until every frontend answers with another datacenter, which those are)."""
    for ended_s, addresses in rounds(text):
        places = {site_of_address(address) for address in addresses}
        if ended_s >= killed_s and lost not in places:
            return round(ended_s - killed_s, 2), sorted(places)
    return None, []


async def _start_asker(bench: Bench, lost: str) -> Path:
    """Starts what asks both DNS frontends for a browser next to the datacenter, and waits for its first answers."""
    out = bench.planet.directory / "asker.out"
    out.unlink(missing_ok=True)
    servers, subnet = ",".join(bench.planet.dns_servers), SITE_NAMED[lost].client_subnet(0)
    options = ("--servers", servers, "--name", WEB_NAME, "--subnet", subnet, "--out", str(out))
    bench.planet.supervisor.start(ProcessSpec(ASKER, "gslb.demo.asker", options))
    for _ in range(100):
        if out.exists() and rounds(out.read_text()):
            return out
        await asyncio.sleep(0.1)
    raise RuntimeError(f"no DNS frontend answered; its log is {bench.planet.supervisor.log(ASKER)}")


async def _returned(bench: Bench, lost: str, since_s: float, wanted_rps: float) -> tuple[float | None, float | None]:
    """When the datacenter that was started again served its first request, and when most of its load was back."""
    history: list[tuple[float, int]] = []
    tasks = bench.planet.tasks_of(lost, "backend")
    while (at_s := time.monotonic() - since_s) < RETURN_TIMEOUT_S:
        history.append((round(at_s, 2), (await bench.rpcs_by_caller(tasks)).total()))
        found = returned(history, wanted_rps)
        if found[1] is not None:
            return found
        await asyncio.sleep(0.4)
    return returned(history, wanted_rps)
