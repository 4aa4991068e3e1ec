"""Runs the probe schedule: probes what is due, a bounded number at a time, and hands the results on."""

import asyncio
import logging
import time
from collections.abc import Callable

from agents import limits
from agents.health.probes import ProbeResult, Probes
from agents.health.schedule import Rng, Schedule
from bns.model import Task

log = logging.getLogger(__name__)

# name -> the task as it is to be probed now and seconds until the probe after, None: not looked after any more
TaskOf = Callable[[str], tuple[Task, float] | None]
# task as it was probed, what came out
OnResult = Callable[[Task, ProbeResult], None]


class Prober:
    """Probes every task that was added until it is removed."""

    def __init__(self, task_of: TaskOf, on_result: OnResult, rng: Rng) -> None:
        self._task_of = task_of
        self._on_result = on_result
        self._schedule = Schedule(rng)
        self._probes = Probes()
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def add(self, name: str, interval_s: float) -> None:
        """Begins to probe `name`."""
        self._schedule.add(name, time.monotonic(), interval_s)
        self._wake.set()

    def remove(self, name: str) -> None:
        """Ends probing `name`."""
        self._schedule.remove(name)
        self._probes.forget(name)

    def hurry(self, name: str) -> None:
        """Probes `name` now."""
        self._schedule.hurry(name, time.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Probes for ever; cancel it to end."""
        try:
            while True:
                self._wake.clear()
                room = limits.PROBES_IN_FLIGHT_MAX - len(self._running)
                for name in self._schedule.take(time.monotonic(), room):
                    running = asyncio.create_task(self._probe(name))
                    self._running.add(running)
                    running.add_done_callback(self._ended)
                await self._until_due()
        finally:
            for running in list(self._running):
                running.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await self._probes.close()

    async def _until_due(self) -> None:
        due = self._schedule.next_due()
        full = len(self._running) >= limits.PROBES_IN_FLIGHT_MAX
        timeout_s = None if due is None or full else max(due - time.monotonic(), 0.0)
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        self._wake.set()
        if not running.cancelled() and running.exception() is not None:
            log.error("a probe failed in an unforeseen way", exc_info=running.exception())

    async def _probe(self, name: str) -> None:
        found = self._task_of(name)
        if found is None:
            self._schedule.remove(name)
            return
        started = time.monotonic()
        interval_s = found[1]
        try:
            self._on_result(found[0], await self._probes.probe(found[0]))
        finally:
            found = self._task_of(name)
            if found is not None:
                interval_s = found[1]
            # From start to start, whatever the probe took.
            self._schedule.done(name, time.monotonic(), max(interval_s - (time.monotonic() - started), 0.01))
