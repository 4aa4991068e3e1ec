"""What the checks share: the planet, its traffic, and ways to look at both."""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from prometheus_client.parser import text_string_to_metric_families

from gslb.demo.checks.verdict import History, Readings
from gslb.demo.layout import SITE_OF_AREA, SITES, TaskPlace
from gslb.demo.planet import Planet
from gslb.demo.traffic import Traffic
from gslb.v1 import admin_pb2, config_pb2

REQUESTS_MIN = 2_000
FAILURES_SHOWN = 10
METRICS_TIMEOUT_S = 2.0
READING_S = 0.4
LEARNED_FRACTION = 0.02
LEARNED_S = 12.0
HOME_SHARE = 0.98
GUESTS_RPS = 1.0
_ADMIN_TIMEOUT_S = 5.0
_COMMAND_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Command:
    """How a command ended: its exit code, stdout, stderr."""

    code: int
    out: str
    err: str


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
            # The parser is slow; of a page with hundreds of lines it is to see a few.
            lines = "\n".join(line for line in text.splitlines() if line.startswith(metric))
            return [
                (sample.labels, sample.value)
                for family in text_string_to_metric_families(lines)
                for sample in family.samples
                if sample.name == metric
            ]
        return []

    async def channel(self, client: TaskPlace) -> dict[str, Any]:
        """What a frontend's channel to the backends explains; empty when it does not answer."""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.http.get(f"http://{client.http}/statusz?format=json") as reply:
                return dict((await reply.json())["backends"])
        return {}

    async def picks(self, client: TaskPlace, task: str) -> int:
        """How often a frontend has tried a backend task, by its own count; 0 when it does not answer."""
        endpoints = (await self.channel(client)).get("endpoints", ())
        return sum(int(endpoint["picks"]) for endpoint in endpoints if endpoint["task"] == task)

    async def outcomes(self, tasks: Iterable[TaskPlace]) -> Counter[str]:
        """How many RPCs these backends have answered, by `ok` and `error`."""
        counts: Counter[str] = Counter()
        for task in tasks:
            for labels, value in await self.samples(task.http, "shakespeare_rpcs_total"):
                counts[labels["outcome"]] += int(value)
        return counts

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

    async def history(self, seconds: float, since_s: float | None = None) -> History:
        """RPCs served by each datacenter's backends, read about twice a second until `seconds` after `since_s`."""
        until_s = (time.monotonic() if since_s is None else since_s) + seconds
        readings = await asyncio.gather(*(self._readings(site.name, until_s) for site in SITES))
        return {site.name: one for site, one in zip(SITES, readings, strict=True)}

    async def _readings(self, datacenter: str, until_s: float) -> Readings:
        """A datacenter's readings; one to which not every backend contributed is none."""
        readings: list[tuple[float, int]] = []
        places = [task.http for task in self.planet.tasks_of(datacenter, "backend")]
        while (begin_s := time.monotonic()) < until_s:
            pages = await asyncio.gather(*(self.samples(http, "shakespeare_rpcs_total") for http in places))
            if all(pages):
                served = sum(int(value) for page in pages for _, value in page)
                readings.append(((begin_s + time.monotonic()) / 2, served))
            await asyncio.sleep(READING_S)
        return readings

    # -- knobs and commands ----------------------------------------------------------------------------------------

    def turn(self, task: TaskPlace, knobs: dict[str, object] | None) -> None:
        """Turns a backend's knobs; None: as it was started. It looks at them each second."""
        file = self.planet.knobs(task)
        if knobs is None:
            file.unlink(missing_ok=True)
            return
        part = file.with_name(file.name + ".part")
        part.write_text(json.dumps(knobs))
        part.replace(file)

    async def gslb(self, *arguments: str) -> Command:
        """Runs `gslb ARGUMENTS` as a user does. Raises TimeoutError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gslb",
            *arguments,
            env={**os.environ, "GSLB_CONTROL": self.planet.control},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), _COMMAND_TIMEOUT_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Command(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))

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

    async def drain_of(self, datacenter: str) -> config_pb2.Drain | None:
        """The drain of a datacenter that is listed now. Raises AioRpcError."""
        admin = self.planet.admin(self.planet.replicas[0])
        reply = await admin.Get(admin_pb2.GetRequest(kind="drain"), timeout=_ADMIN_TIMEOUT_S)
        return next((one.drain for one in reply.resources if one.drain.target == datacenter), None)

    async def drain_began_s(self, datacenter: str) -> float:
        """When the drain of a datacenter began, in seconds since the epoch. Raises RuntimeError if there is none."""
        drain = await self.drain_of(datacenter)
        if drain is None:
            raise RuntimeError(f"no drain of {datacenter} is listed")
        return drain.starts_at.ToNanoseconds() / 1e9

    async def demand(self, service: str) -> dict[str, float]:
        """Demand of each locality in rps, as the plan knows it."""
        return {one.locality: one.demand_rps for one in (await self.service(service)).localities}

    async def placed(self, service: str, datacenter: str, demand_rps: Mapping[str, float]) -> float:
        """What the plan's shares would send to a datacenter if demand were this: it moves with the plan only."""
        placed_rps = 0.0
        for one in (await self.service(service)).localities:
            share = dict(zip(one.datacenters, one.share, strict=True)).get(datacenter, 0.0)
            placed_rps += share * demand_rps.get(one.locality, 0.0)
        return placed_rps

    async def settled(self, timeout_s: float) -> float | None:
        """Waits until no plan is on its way to another one, and nobody is a guest elsewhere, as after earlier checks.

        Seconds; None: it is still.
        """

        async def at_rest() -> bool:
            services = (await self.planet.status()).services
            ramps = any(note.startswith("ramp:") for service in services for note in service.notes)
            return not ramps and not any(_guests(service) for service in services)

        return await self.until(at_rest, timeout_s, poll_s=0.5)

    async def learned(self, service: str, timeout_s: float) -> bool:
        """Waits until no capacity of a service has moved by more than a hair for a while; False: one still does."""
        until_s, still_s, before = time.monotonic() + timeout_s, time.monotonic(), dict[str, float]()
        while time.monotonic() < until_s:
            now = {backend.datacenter: backend.capacity_rps for backend in (await self.service(service)).backends}
            if any(abs(rps - before.get(name, 0.0)) > LEARNED_FRACTION * rps for name, rps in now.items()):
                before, still_s = now, time.monotonic()
            if time.monotonic() - still_s >= LEARNED_S:
                return True
            await asyncio.sleep(1.0)
        return False

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


def _guests(service: admin_pb2.ServiceStatus) -> bool:
    """Whether a part of what a datacenter, or the area next to it, asks for is served in another one."""
    places = {backend.datacenter for backend in service.backends}
    return any(
        dict(zip(one.datacenters, one.share, strict=True)).get(home, 0.0) < HOME_SHARE
        for one in service.localities
        if (home := _home(one.locality)) in places and one.demand_rps > GUESTS_RPS
    )


def _home(locality: str) -> str:
    """The datacenter that serves a locality on a planet at rest."""
    return SITE_OF_AREA[locality].name if locality in SITE_OF_AREA else locality
