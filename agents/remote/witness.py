"""Probes a few tasks of other datacenters: whether they can be reached from here, and the round-trip time.

The control plane believes that a datacenter died only when its agents are silent AND somebody else sees it failing;
this is one such somebody. A failure is tried again soon and told at once.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents import limits
from agents.health.probes import ProbeResult, tcp_rtt_ms
from agents.health.schedule import Rng, Schedule
from agents.load.report import RemoteRow
from agents.remote.spread import Target, choose

# Changes that arrive together are spread together; and spreading 100,000 tasks takes a second of a worker thread, which
# is not to be busy with it all the time.
SPREAD_DELAY_S = 0.3
SPREAD_REST_FACTOR = 20.0


@dataclass(slots=True)
class _Seen:
    ok: bool
    rtt_ms: float
    at_s: float
    detail: str


class Witness:
    """Probes, of what `targets` gives, the share of the agent `own` (datacenter, name), at most `limit` tasks.

    `on_failure` is called when a task that answered does no longer.
    """

    def __init__(
        self,
        own: tuple[str, str],
        limit: int,
        targets: Callable[[], Sequence[Target]],
        on_failure: Callable[[], None],
        rng: Rng,
    ) -> None:
        self._own = own
        self._limit = limit
        self._targets = targets
        self._changed = asyncio.Event()
        self._on_failure = on_failure
        self._schedule = Schedule(rng)
        self._chosen: dict[str, Target] = {}
        self._seen: dict[str, _Seen] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def changed(self) -> None:
        """The targets changed: the share is taken anew."""
        self._changed.set()

    def rows(self, since_s: float) -> list[RemoteRow]:
        """The newest result of each target that was probed after `since_s` (monotonic) and is still fresh.

        Each probe is told once: who hears of an old success again and again believes it against a new failure. A failure
        has no round-trip time.
        """
        since_s = max(since_s, time.monotonic() - 2.0 * limits.REMOTE_INTERVAL_S)
        return [
            RemoteRow(name, seen.ok, seen.rtt_ms if seen.ok else 0.0)
            for name, seen in sorted(self._seen.items())
            if seen.at_s > since_s
        ]

    def status(self) -> list[dict[str, object]]:
        """For a person."""
        return [
            {"task": name, "ok": seen.ok, "rtt_ms": round(seen.rtt_ms, 3), "seen": seen.detail}
            for name, seen in sorted(self._seen.copy().items())
        ]

    async def run(self) -> None:
        """Probes for ever; cancel it to end."""
        spreading = asyncio.create_task(self._spread())
        try:
            while True:
                self._wake.clear()
                room = limits.PROBES_IN_FLIGHT_MAX - len(self._running)
                for name in self._schedule.take(time.monotonic(), room):
                    running = asyncio.create_task(self._probe(name))
                    self._running.add(running)
                    running.add_done_callback(self._ended)
                due = self._schedule.next_due()
                timeout_s = None if due is None or room <= 0 else max(due - time.monotonic(), 0.0)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await self._wake.wait()
        finally:
            waiting = [spreading, *self._running]
            for running in waiting:
                running.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _spread(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(SPREAD_DELAY_S)
            self._changed.clear()
            started = time.monotonic()
            chosen = await asyncio.to_thread(choose, self._targets(), self._own, self._limit)
            self._take({target.name: target for target in chosen})
            await asyncio.sleep(SPREAD_REST_FACTOR * (time.monotonic() - started))

    def _take(self, chosen: dict[str, Target]) -> None:
        for name, target in self._chosen.items():
            if chosen.get(name) != target:
                self._schedule.remove(name)
                self._seen.pop(name, None)
        self._chosen = chosen
        for name in chosen:
            self._schedule.add(name, time.monotonic(), limits.REMOTE_INTERVAL_S)
        self._wake.set()

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        self._wake.set()

    async def _probe(self, name: str) -> None:
        target = self._chosen.get(name)
        if target is None:
            self._schedule.remove(name)
            return
        result = await tcp_rtt_ms(target.address, target.port, limits.REMOTE_TIMEOUT_S)
        self._note(target, result)
        interval_s = limits.REMOTE_INTERVAL_S if result.ok else limits.REMOTE_RETRY_S
        self._schedule.done(name, time.monotonic(), interval_s)

    def _note(self, target: Target, result: ProbeResult) -> None:
        if self._chosen.get(target.name) != target:
            return
        before = self._seen.get(target.name)
        self._seen[target.name] = _Seen(result.ok, result.rtt_ms, time.monotonic(), result.detail)
        if not result.ok and (before is None or before.ok):
            self._on_failure()
