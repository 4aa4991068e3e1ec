"""TCP connections to the endpoints that answers lead to: often while no control plane is heard, seldom otherwise.

The seldom ones only learn which datacenters can be reached from here at all; see `gslb.steer.absence`.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping

from dns_frontend.limits import (
    PROBE_AGAIN_S,
    PROBE_BASELINE_S,
    PROBE_NEW_S,
    PROBE_PERIOD_S,
    PROBE_TIMEOUT_S,
    PROBES_AT_ONCE,
    PROBES_PER_DATACENTER,
)
from gslb.model.endpoint import ServiceEndpoint
from gslb.steer.absence import Absence, Outcome
from gslb.steer.view import ServiceView

log = logging.getLogger(__name__)


class Prober:
    """`views`: the services held; `connected`: whether a control plane is heard; `lose` is told of every change."""

    def __init__(
        self,
        views: Callable[[], Mapping[str, ServiceView]],
        connected: Callable[[], bool],
        lose: Callable[[frozenset[str]], None],
        rng: random.Random,
    ) -> None:
        self._views = views
        self._connected = connected
        self._lose = lose
        self._rng = rng
        self._gate = asyncio.Semaphore(PROBES_AT_ONCE)
        self._baseline_s = -PROBE_BASELINE_S
        self._looked_s = -PROBE_NEW_S
        self._wake = asyncio.Event()
        self.absence = Absence()

    def wake(self) -> None:
        """Looks at once: what tells about health was heard a moment ago, or is not heard any more."""
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            # Of clients that are sent to a datacenter that is gone every tenth of a second counts.
            pause_s = PROBE_AGAIN_S if self.absence.suspected else PROBE_PERIOD_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * self._rng.uniform(0.75, 1.25)):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._turn()
            except Exception:
                # A bug of ours must not take the frontend down: it serves what it holds.
                log.exception("a round of probes failed")

    async def _turn(self) -> None:
        connected = self._connected()
        if connected and not self.absence.lost and not self._baseline_due(time.monotonic()):
            return
        outcomes = await self._round()
        if connected and outcomes:
            self._baseline_s = time.monotonic()
        # The control plane may have come back, or gone, meanwhile.
        after = self.absence.baseline(outcomes) if self._connected() else self.absence.after(outcomes)
        if after.lost != self.absence.lost:
            log.warning(
                "datacenters that do not answer, and that get no answers while no control plane is heard: %s",
                ", ".join(sorted(after.lost)) or "none any more",
            )
            self._lose(after.lost)
        self.absence = after

    def _baseline_due(self, now_s: float) -> bool:
        """Whether it is time for a round while a control plane is heard: soon when a datacenter is new.

        One that dies before it was ever reached from here is never taken to be lost.
        """
        if now_s - self._baseline_s >= PROBE_BASELINE_S:
            return True
        if now_s - self._looked_s < PROBE_NEW_S:
            return False
        self._looked_s = now_s
        served = {name for view in self._views().values() if _is_asked_for(view) for name in view.serving}
        return not served <= self.absence.reached

    async def _round(self) -> dict[str, Outcome]:
        chosen = self._chosen()
        answers = await asyncio.gather(*(self._takes(endpoint) for endpoint in chosen))
        outcomes: dict[str, Outcome] = {}
        for endpoint, answered in zip(chosen, answers, strict=True):
            before = outcomes.get(endpoint.datacenter, Outcome(0, 0))
            outcomes[endpoint.datacenter] = Outcome(before.answered + answered, before.silent + (not answered))
        return outcomes

    def _chosen(self) -> list[ServiceEndpoint]:
        """A few endpoints of each datacenter, of all services that have names."""
        by_datacenter: dict[str, list[ServiceEndpoint]] = {}
        for view in self._views().values():
            if _is_asked_for(view):
                for datacenter, members in view.serving.items():
                    by_datacenter.setdefault(datacenter, []).extend(one for one in members if one.port)
        return [
            endpoint
            for members in by_datacenter.values()
            for endpoint in self._rng.sample(members, min(PROBES_PER_DATACENTER, len(members)))
        ]

    async def _takes(self, endpoint: ServiceEndpoint) -> bool:
        """Whether it takes a TCP connection in time."""
        async with self._gate:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    _, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
            except (OSError, TimeoutError):
                return False
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return True


def _is_asked_for(view: ServiceView) -> bool:
    """Whether answers lead to it."""
    return view.service is not None and bool(view.service.dns_names)
