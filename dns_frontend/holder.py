"""The view this process holds, and the `Serving` made from it.

Updates are folded and laid out in a worker thread, one after another: however large an update is, the event loop goes
on answering from what it has, and swaps to the new state between two queries.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from dns_frontend.limits import PROBLEMS_LOGGED_MAX, REBUILD_COALESCE_S
from dns_frontend.local import Local
from dns_frontend.metrics import Counters
from dns_frontend.table.serving import Serving
from dns_frontend.zone.records import ZoneData
from gslb.geo.places import GeoDatabase
from gslb.model import limits
from gslb.steer.absence import without
from gslb.v1 import discovery_pb2
from gslb.wire.reader import ReaderView, fold

log = logging.getLogger(__name__)


class Origin(Enum):
    """Where what is served came from."""

    NOTHING = "nothing"
    SNAPSHOT = "snapshot"
    LIVE = "live"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class Held:
    """One state of the holder: a view and what is served from it."""

    view: ReaderView
    serving: Serving
    origin: Origin


class Holder:
    """Holds the newest view.

    `prepare` is called with what shall be served, in a worker thread once the loop runs; then `on_change` in the loop.
    """

    def __init__(
        self,
        counters: Counters,
        on_change: Callable[[Held], None],
        prepare: Callable[[Serving], None] = lambda _: None,
        bns_origins: tuple[bytes, ...] = (),
    ) -> None:
        self._prepare = prepare
        self.held = Held(ReaderView(), Serving(bns_origins=bns_origins), Origin.NOTHING)
        self._view = self.held.view  # folded, perhaps not laid out yet
        self._counters = counters
        self._on_change = on_change
        self._live_synced = False
        self._dirty = asyncio.Event()
        self._problems: frozenset[str] = frozenset()
        self._logged: set[str] = set()
        self._confirmed_s = 0.0  # since the epoch: when the data was last known to be fresh
        self._lost: frozenset[str] = frozenset()
        self.connected = False
        self._zones: Mapping[bytes, ZoneData] = {}
        self._geo: GeoDatabase | None = None
        self._waiting: list[asyncio.Event] = []

    def begin(self, local: Local, *, alone: bool) -> None:
        """What this machine's files say, before anything else is heard; `alone`: nothing else will be."""
        self._view = ReaderView(synced=True) if alone else self._view
        self._take_local(local)
        if alone:
            self._install(Held(self._view, self._advanced(self._view), Origin.FILES))

    async def reload(self, local: Local) -> None:
        """Serves what the files say now; returns when that is done, or when there is nothing yet to serve it with."""
        self._take_local(local)
        if not self.held.serving.ready:
            return
        served = asyncio.Event()
        self._waiting.append(served)
        self._dirty.set()
        await served.wait()

    def _take_local(self, local: Local) -> None:
        self._zones = {origin: zone.data for origin, zone in local.zones.items()}
        self._geo = local.geo
        if local.view is not None:
            self._view = local.view

    def _advanced(self, view: ReaderView) -> Serving:
        services = without(view.services, self._lost)
        serving = self.held.serving.advance(view.catalog, services, self._zones, self._geo)
        self._prepare(serving)
        return serving

    def restore(self, view: ReaderView, written_s: float, problems: Iterable[str]) -> None:
        """Serves a snapshot from disk, until something live arrives."""
        self._view = view
        self._confirmed_s = written_s
        self._complain(problems)
        self._install(Held(view, self._advanced(view), Origin.SNAPSHOT))

    async def take(self, update: discovery_pb2.Update) -> None:
        """Folds one update from a control plane; it is served a moment later."""
        view, problems = await asyncio.to_thread(fold, self._view, update)
        if update.synced:
            view, more = forget_unknown(view)
            problems += more
            self._live_synced = True
        self._view = view
        self._complain(problems)
        if self._live_synced or self.held.serving.ready:
            self._dirty.set()

    async def run(self) -> None:
        """Lays out what was folded, for ever; updates that come together are laid out once."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(REBUILD_COALESCE_S)
            self._dirty.clear()
            view = self._view
            waiting, self._waiting = self._waiting, []
            try:
                serving = await asyncio.to_thread(self._advanced, view)
            except Exception:
                # A bug of ours met this state: what is served stays, and the next update is another chance.
                self._counters.bugs += 1
                log.exception("cannot serve what was sent or read; the state before stays")
                continue
            finally:
                for served in waiting:
                    served.set()
            self._install(Held(view, serving, Origin.LIVE if self._live_synced else self.held.origin))

    def lose(self, lost: frozenset[str]) -> None:
        """These datacenters get no answers from now on, wherever there are others."""
        self._lost = lost
        if self.held.serving.ready:
            self._dirty.set()

    def set_connected(self, connected: bool) -> None:
        """Whether a control plane feeds us now: then the data is as fresh as can be."""
        if self.connected:
            self._confirmed_s = time.time()
        self.connected = connected

    @property
    def age_s(self) -> float:
        """Seconds since a control plane last vouched for what is served; 0 while one does."""
        if self.connected or not self._confirmed_s:
            return 0.0
        return max(0.0, time.time() - self._confirmed_s)

    def _install(self, held: Held) -> None:
        self.held = held
        found = frozenset(held.serving.problems)
        fresh = found - self._problems
        self._problems = found
        self._counters.zone_problems += len(fresh)
        self._log(sorted(fresh))
        self._on_change(held)

    def _complain(self, problems: Iterable[str]) -> None:
        refused = list(problems)
        self._counters.bad_updates += len(refused)
        self._log(refused)

    def _log(self, problems: Iterable[str]) -> None:
        """Each line once, and a bounded number of lines: the counters tell the rest."""
        for problem in problems:
            if problem not in self._logged and len(self._logged) < PROBLEMS_LOGGED_MAX:
                self._logged.add(problem)
                log.warning("%s", problem)


def forget_unknown(view: ReaderView) -> tuple[ReaderView, list[str]]:
    """Drops services that a synced control plane says it does not know: deleted while nobody told us.

    Within the removal budget only: a control plane that has lost half of the world is more likely wrong than right, and
    names that had answers keep them (invariants 2 and 3).
    """
    gone = view.unknown & view.services.keys()
    if not gone:
        return view, []
    budget = max(1.0, len(view.services) * limits.REMOVAL_BUDGET_FRACTION)
    if len(gone) > budget:
        problem = (
            f"the control plane knows no more of {len(gone)} of {len(view.services)} services, such as {min(gone)!r}:"
            f" more than {limits.REMOVAL_BUDGET_FRACTION:.0%} at once is not believed, they are served as before"
        )
        return view, [problem]
    return replace(view, services={name: kept for name, kept in view.services.items() if name not in gone}), []
