"""The leading replica is killed with -9, then (another time) stopped for 15 s and woken: no reader notices."""

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from gslb.demo.checks.bench import Bench
from gslb.demo.planet import Replica
from gslb.v1 import admin_pb2

TAKEOVER_GOAL_S = 5.0
STOPPED_S = 15.0
WARM_TIMEOUT_S = 30.0
NUDGE_RPS = 8.0

Stamp = tuple[int, int, int]


@dataclass(slots=True)
class Stamps:
    """The stamps that each replica showed, and every time one went back."""

    last: dict[tuple[str, str], Stamp] = field(default_factory=dict)
    seen: int = 0
    went_back: list[str] = field(default_factory=list)

    def look(self, replica: str, status: admin_pb2.StatusResponse) -> None:
        """Notes one replica's plans."""
        for service in status.services:
            stamp = (service.stamp.incarnation, service.stamp.epoch, service.stamp.version)
            before = self.last.get((replica, service.service), (0, 0, 0))
            if stamp < before and any(stamp):
                self.went_back.append(f"{replica} {service.service}: {before} -> {stamp}")
            self.seen += stamp != before
            self.last[replica, service.service] = max(stamp, before)


async def check_leader(bench: Bench) -> dict[str, Any]:
    """Both faults, with demand that changes meanwhile, so that there is something to publish."""
    start_s = time.monotonic()
    stamps = Stamps()
    watcher = asyncio.create_task(_watch(bench, stamps))
    nudger = asyncio.create_task(_nudge(bench))
    try:
        killed_s = await _kill_leader(bench)
        stopped_s, woken_leads = await _stop_leader(bench)
    finally:
        watcher.cancel()
        nudger.cancel()
        await asyncio.gather(watcher, nudger, return_exceptions=True)
    failures = bench.failures(start_s)
    return {
        "ok": failures == 0
        and killed_s is not None
        and killed_s <= TAKEOVER_GOAL_S
        and stopped_s is not None
        and stopped_s <= TAKEOVER_GOAL_S
        and not woken_leads
        and not stamps.went_back
        and stamps.seen > 0,
        "failures": failures,
        "failed": bench.failures_shown(start_s),
        "takeover_after_kill_s": killed_s,
        "takeover_after_stop_s": stopped_s,
        "woken_replica_leads": woken_leads,
        "plan_versions_seen": stamps.seen,
        "versions_went_back": stamps.went_back,
    }


async def _leader(bench: Bench) -> Replica:
    for _ in range(100):
        leader = await bench.planet.leader()
        if leader is not None:
            return leader
        await asyncio.sleep(0.1)
    raise RuntimeError("no replica leads")


def _other(bench: Bench, replica: Replica) -> Replica:
    return next(other for other in bench.planet.replicas if other is not replica)


async def _leads(bench: Bench, replica: Replica) -> bool:
    return (await bench.planet.status([replica])).leading


async def _warm(bench: Bench, replica: Replica) -> bool:
    return (await bench.planet.status([replica])).warm


async def _kill_leader(bench: Bench) -> float | None:
    leader = await _leader(bench)
    other = _other(bench, leader)
    await bench.planet.supervisor.kill(leader.label)
    took_s = await bench.until(lambda: _leads(bench, other), 20.0, poll_s=0.05)
    await asyncio.sleep(3.0)
    bench.planet.supervisor.restart(leader.label)
    if await bench.until(lambda: _warm(bench, leader), WARM_TIMEOUT_S) is None:
        raise RuntimeError(f"{leader.label} did not get warm again")
    await asyncio.sleep(3.0)
    return took_s


async def _stop_leader(bench: Bench) -> tuple[float | None, bool]:
    leader = await _leader(bench)
    other = _other(bench, leader)
    bench.planet.supervisor.signal(leader.label, signal.SIGSTOP)
    start_s = time.monotonic()
    took_s = await bench.until(lambda: _leads(bench, other), STOPPED_S, poll_s=0.05)
    await asyncio.sleep(max(0.0, STOPPED_S - (time.monotonic() - start_s)))
    bench.planet.supervisor.signal(leader.label, signal.SIGCONT)
    await asyncio.sleep(5.0)
    return took_s, await _leads(bench, leader)


async def _watch(bench: Bench, stamps: Stamps) -> None:
    while True:
        for replica in bench.planet.replicas:
            with suppress(grpc.aio.AioRpcError):
                status = await bench.planet.admin(replica).Status(admin_pb2.StatusRequest(), timeout=0.5)
                stamps.look(replica.label, status)
        await asyncio.sleep(0.1)


async def _nudge(bench: Bench) -> None:
    """Demand that goes up and down a little for as long as it runs."""
    rates = bench.traffic.rate_rps
    base = dict(rates)
    try:
        while True:
            for step in (NUDGE_RPS, 0.0):
                for area in rates:
                    rates[area] = base[area] + step
                await asyncio.sleep(4.0)
    finally:
        rates.update(base)
