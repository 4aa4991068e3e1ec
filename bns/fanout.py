"""Spreads changes to many watchers: encoded once for each watched prefix, and only the newest state for a slow reader.

Changes are gathered for `WATCH_COALESCE_S`, then each prefix that is watched and touched gets one delta, whose bytes
all of its watchers share. A watcher that has not yet taken the delta before does not queue a second one: it remembers
the names that changed, and when it comes it gets their state at that time.

Positions in time are etcd revisions. A change of health has none, so it counts as happening at the view's revision, and
for `HEALTH_OVERLAP_S` it is also told to whoever resumes from a later one: another replica may have heard it later.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bns import limits
from bns.codec import encode_endpoint
from bns.model import Endpoint, HealthStatus, Task
from bns.store import BnsStore
from bns.v1 import bns_pb2
from bns.view import BnsView

HealthOf = Callable[[str], HealthStatus]

HISTORY_NAMES_MAX = 200_000
HEALTH_OVERLAP_S = 60.0
# More names than this in one go are told as a snapshot, which is encoded piece by piece beside other work.
DELTA_NAMES_MAX = 5_000
SNAPSHOT_PIECE = 500


@dataclass(slots=True)
class FanoutCounters:
    """Since the start of this process."""

    encoded: int = 0  # deltas and snapshots that were encoded
    sent: int = 0  # messages handed to watchers
    endpoints_sent: int = 0  # endpoints and removals in them
    merged: int = 0  # deltas that a slow reader never saw because a newer state replaced them
    snapshots: int = 0  # of the sent messages


@dataclass(frozen=True, slots=True)
class Delta:
    """An encoded WatchResponse and how many endpoints and removals it holds."""

    data: bytes
    size: int
    snapshot: bool = False


@dataclass(slots=True, eq=False)
class Slot:
    """What one watcher has not been told yet: everything, some names, or nothing."""

    prefix: str
    wants_snapshot: bool
    pending: set[str] = field(default_factory=set)
    shared: Delta | None = None  # exactly `pending`, encoded; None once a later change was merged in
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Topic:
    """One watched prefix."""

    slots: set[Slot] = field(default_factory=set)
    snapshot: Delta | None = None
    changes: int = 0  # deltas so far: a snapshot that took longer than that to encode is not kept
    encoding: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class _HistoryEntry:
    revision: int
    at_s: float
    names: frozenset[str]
    health: bool


class Fanout:
    """Lives in the event loop. A watcher `open`s a slot, `take`s from it again and again, and `shut`s it."""

    def __init__(self, store: BnsStore, health_of: HealthOf, coalesce_s: float = limits.WATCH_COALESCE_S) -> None:
        self._store = store
        self._health_of = health_of
        self._coalesce_s = coalesce_s
        self._topics: dict[str, _Topic] = {}
        self._dirty: set[str] = set()
        self._flush: asyncio.TimerHandle | None = None
        self._history: deque[_HistoryEntry] = deque()
        self._history_names = 0
        # Whoever resumes from before this revision needs a snapshot; -1: nothing is known yet.
        self._floor = store.view.revision if store.synced.is_set() else -1
        self._unsubscribe = store.subscribe(self._on_store)
        self.counters = FanoutCounters()

    @property
    def watchers(self) -> int:
        """Slots that are open now."""
        return sum(len(topic.slots) for topic in self._topics.values())

    def close(self) -> None:
        """No further change is passed on."""
        self._unsubscribe()
        if self._flush is not None:
            self._flush.cancel()

    def health_changed(self, names: Iterable[str]) -> None:
        """The health of these tasks is another one now."""
        known = frozenset(name for name in names if name in self._store.view.tasks)
        if known:
            self._note(known, self._store.view.revision, health=True)

    # ---- changes come in -------------------------------------------------------------------------------------

    def _on_store(self, names: frozenset[str], view: BnsView) -> None:
        if self._floor < 0 or view.revision < self._floor:
            # The first view, or an etcd that was restored: what was before is unknown here.
            self._floor = view.revision
            self._history.clear()
            self._history_names = 0
        if names:
            self._note(names, view.revision, health=False)

    def _note(self, names: frozenset[str], revision: int, *, health: bool) -> None:
        loop = asyncio.get_running_loop()
        self._history.append(_HistoryEntry(revision, loop.time(), names, health))
        self._history_names += len(names)
        while self._history_names > HISTORY_NAMES_MAX:
            dropped = self._history.popleft()
            self._history_names -= len(dropped.names)
            self._floor = max(self._floor, dropped.revision + 1)
        self._dirty |= names
        if self._flush is None:
            self._flush = loop.call_later(self._coalesce_s, self._spread)

    def _spread(self) -> None:
        self._flush = None
        dirty, self._dirty = self._dirty, set()
        touched: dict[str, set[str]] = {}
        for name in dirty:
            for prefix in prefixes_of(name):
                if prefix in self._topics:
                    touched.setdefault(prefix, set()).add(name)
        for prefix, names in touched.items():
            topic = self._topics[prefix]
            topic.snapshot = None
            topic.changes += 1
            delta = self._encode_names(names) if len(names) <= DELTA_NAMES_MAX else None
            for slot in topic.slots:
                self._offer(slot, names, delta)

    def _offer(self, slot: Slot, names: set[str], delta: Delta | None) -> None:
        slot.changed.set()
        if slot.wants_snapshot:
            return
        if slot.pending:
            self.counters.merged += 1
            slot.pending |= names
            slot.shared = None
        else:
            slot.pending, slot.shared = set(names), delta
        if len(slot.pending) > DELTA_NAMES_MAX:
            slot.wants_snapshot, slot.pending, slot.shared = True, set(), None

    # ---- and go out ------------------------------------------------------------------------------------------

    def open(self, prefix: str, start_revision: int = 0) -> Slot:
        """A watcher of a prefix that `names.check_prefix` made, which knows everything up to `start_revision`."""
        missed = self._missed(prefix, start_revision)
        slot = Slot(prefix, wants_snapshot=missed is None, pending=missed or set())
        if slot.wants_snapshot or slot.pending:
            slot.changed.set()
        self._topics.setdefault(prefix, _Topic()).slots.add(slot)
        return slot

    def shut(self, slot: Slot) -> None:
        """The watcher is gone."""
        topic = self._topics[slot.prefix]
        topic.slots.discard(slot)
        if not topic.slots:
            del self._topics[slot.prefix]

    async def take(self, slot: Slot) -> Delta:
        """Waits for news; what is taken counts as told."""
        await slot.changed.wait()
        wants_snapshot, pending, shared = slot.wants_snapshot, slot.pending, slot.shared
        # Cleared first: what changes while a snapshot is encoded comes as the next delta.
        slot.wants_snapshot, slot.pending, slot.shared = False, set(), None
        slot.changed.clear()
        delta = await self._snapshot(slot.prefix) if wants_snapshot else shared or self._encode_names(pending)
        self.counters.sent += 1
        self.counters.endpoints_sent += delta.size
        self.counters.snapshots += int(delta.snapshot)
        return delta

    def _missed(self, prefix: str, start_revision: int) -> set[str] | None:
        """The names under `prefix` that changed after `start_revision`; None: that history is not known here."""
        if start_revision <= 0 or not 0 <= self._floor <= start_revision <= self._store.view.revision:
            return None
        recent_s = asyncio.get_running_loop().time() - HEALTH_OVERLAP_S
        found: set[str] = set()
        for entry in self._history:
            if entry.health:
                known = entry.revision < start_revision and entry.at_s < recent_s
            else:
                known = entry.revision <= start_revision
            if not known:
                found.update(name for name in entry.names if _is_under(name, prefix))
        return found

    async def _snapshot(self, prefix: str) -> Delta:
        """Of a thousand watchers that come at once, the first encodes it for all."""
        topic = self._topics[prefix]
        async with topic.encoding:
            if topic.snapshot is not None:
                return topic.snapshot
            changes, view = topic.changes, self._store.view
            tasks = view.tasks.under(prefix)
            # Encoded messages may be concatenated: repeated fields add up.
            pieces = [bns_pb2.WatchResponse(revision=view.revision, snapshot=True).SerializeToString()]
            for start in range(0, len(tasks), SNAPSHOT_PIECE):
                pieces.append(self._encode(tasks[start : start + SNAPSHOT_PIECE]).SerializeToString())
                await asyncio.sleep(0)
            delta = Delta(b"".join(pieces), len(tasks), snapshot=True)
            self.counters.encoded += 1
            if topic.changes == changes:
                topic.snapshot = delta
            return delta

    def _encode_names(self, names: Iterable[str]) -> Delta:
        view = self._store.view
        ordered = sorted(names)
        response = self._encode([view.tasks[name] for name in ordered if name in view.tasks])
        response.removed.extend(name for name in ordered if name not in view.tasks)
        response.revision = view.revision
        self.counters.encoded += 1
        return Delta(response.SerializeToString(), len(response.upserted) + len(response.removed))

    def _encode(self, tasks: Sequence[Task]) -> bns_pb2.WatchResponse:
        return bns_pb2.WatchResponse(
            upserted=[encode_endpoint(Endpoint(task, self._health_of(task.name))) for task in tasks]
        )


def prefixes_of(name: str) -> Iterator[str]:
    """Every prefix under which a task can be watched.

    >>> list(prefixes_of("/bns/a/b/c/0"))
    ['/bns/a/b/c/0', '/bns/a/b/c/', '/bns/a/b/', '/bns/a/', '/bns/']
    """
    yield name
    end = len(name)
    for _ in range(4):
        end = name.rindex("/", 0, end)
        yield name[: end + 1]


def _is_under(name: str, prefix: str) -> bool:
    return name.startswith(prefix) if prefix.endswith("/") else name == prefix
