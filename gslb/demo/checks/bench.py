"""What the checks share: the planet, its traffic, and ways to look at both."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from prometheus_client.parser import text_string_to_metric_families

from gslb.demo.layout import SITES, TaskPlace
from gslb.demo.planet import Planet
from gslb.demo.traffic import Traffic
from gslb.v1 import admin_pb2, config_pb2

REQUESTS_MIN = 2_000
FAILURES_SHOWN = 10
METRICS_TIMEOUT_S = 2.0
_ADMIN_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Bench:
    """The planet under test."""

    planet: Planet
    traffic: Traffic
    texts: Path
    http: aiohttp.ClientSession

    # -- traffic ---------------------------------------------------------------------------------------------------

    async def at_least(self, requests: int, since_s: float) -> None:
        """Waits until so many requests have ended since `since_s`."""
        while len(self.traffic.since(since_s)) < requests:
            await asyncio.sleep(0.2)

    def failures(self, since_s: float) -> int:
        """Failed requests that ended since `since_s`."""
        return sum(1 for outcome in self.traffic.since(since_s) if outcome.error)

    def failures_shown(self, since_s: float) -> list[str]:
        """The first few of them, with their time."""
        failed = [outcome for outcome in self.traffic.since(since_s) if outcome.error]
        return [f"+{o.ended_s - since_s:.2f} s {o.area} via {o.datacenter}: {o.error}" for o in failed[:FAILURES_SHOWN]]

    # -- counters --------------------------------------------------------------------------------------------------

    async def samples(self, http: str, metric: str) -> list[tuple[dict[str, str], float]]:
        """Every sample of a metric (full sample name) on a process's /metrics; [] when it does not answer."""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.http.get(f"http://{http}/metrics") as reply:
                text = await reply.text()
            return [
                (sample.labels, sample.value)
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == metric
            ]
        return []

    async def picks(self, client: TaskPlace, task: str) -> int:
        """How often a frontend has tried a backend task, by its own count; 0 when it does not answer."""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.http.get(f"http://{client.http}/statusz?format=json") as reply:
                status = await reply.json()
            return sum(int(e["picks"]) for e in status["backends"]["endpoints"] if e["task"] == task)
        return 0

    async def rpcs_by_caller(self, tasks: Iterable[TaskPlace]) -> Counter[str]:
        """How many RPCs these backends have seen, by the caller's datacenter."""
        counts: Counter[str] = Counter()
        for task in tasks:
            for labels, value in await self.samples(task.http, "shakespeare_rpcs_total"):
                counts[labels["caller_datacenter"]] += int(value)
        return counts

    async def served_by_datacenter(self, job: str = "backend") -> Counter[str]:
        """How many RPCs each datacenter's tasks of a job have seen."""
        counts: Counter[str] = Counter()
        for site in SITES:
            counts[site.name] = sum((await self.rpcs_by_caller(self.planet.tasks_of(site.name, job))).values())
        return counts

    async def served_over(self, seconds: float) -> dict[str, float]:
        """Requests per second that each datacenter's backends served, measured over `seconds` from now."""
        before, start_s = await self.served_by_datacenter(), time.monotonic()
        await asyncio.sleep(seconds)
        after, took_s = await self.served_by_datacenter(), time.monotonic() - start_s
        return {name: round((after[name] - before[name]) / took_s, 1) for name in after}

    # -- the control plane -----------------------------------------------------------------------------------------

    async def until(
        self, condition: Callable[[], Awaitable[bool]], timeout_s: float, poll_s: float = 0.1
    ) -> float | None:
        """Seconds until `condition` held, or None when it did not within `timeout_s`. An unreachable replica is False."""
        start_s = time.monotonic()
        while time.monotonic() - start_s < timeout_s:
            with suppress(grpc.aio.AioRpcError):
                if await condition():
                    return round(time.monotonic() - start_s, 2)
            await asyncio.sleep(poll_s)
        return None

    async def service(self, name: str) -> admin_pb2.ServiceStatus:
        """One service's status. Raises AioRpcError, StopIteration."""
        status = await self.planet.status()
        return next(service for service in status.services if service.service == name)

    async def backend_status(self, service: str, datacenter: str) -> admin_pb2.BackendStatus:
        """One backend's status."""
        return next(b for b in (await self.service(service)).backends if b.datacenter == datacenter)

    @asynccontextmanager
    async def drained(self, datacenter: str, reason: str) -> AsyncIterator[admin_pb2.DrainResponse]:
        """A datacenter drained within the block."""
        admin = self.planet.admin(self.planet.replicas[0])
        scope: Any = config_pb2.DRAIN_SCOPE_DATACENTER
        request = admin_pb2.DrainRequest(scope=scope, target=datacenter, duration_s=600, reason=reason, author="demo")
        drain = await admin.Drain(request, timeout=_ADMIN_TIMEOUT_S)
        try:
            yield drain
        finally:
            await admin.Undrain(admin_pb2.UndrainRequest(scope=scope, target=datacenter), timeout=_ADMIN_TIMEOUT_S)

    async def healthy(self, names: Iterable[str]) -> bool:
        """Whether these tasks are HEALTHY in the eyes of a replica."""
        status = await self.planet.status()
        health = {task.task: int(task.health) for task in status.tasks}
        return all(health.get(name) == 1 for name in names)
