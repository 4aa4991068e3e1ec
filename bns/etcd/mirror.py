"""List, then watch, for ever: the way every process holds a copy of a prefix.

etcd promises much for reads and less for watches, so the mirror trusts and verifies: an event at or below the revision
it already holds is dropped and counted; when history was compacted it lists anew; and now and then, and after every
interruption, it compares a digest of what it holds with a fresh list. Whatever does not fit ends in a new list, never
in an error: a mirror goes on until it is cancelled, also when etcd is away from the start.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from bns.etcd.backoff import Backoff
from bns.etcd.digest import Comparison, Held, digest_of
from bns.etcd.errors import Compacted, EtcdError
from bns.etcd.ops import Event, KeyValue, prefix_range
from bns.etcd.pool import Pool
from bns.etcd.scan import scan
from bns.etcd.watch import Batch, Watcher, WatchSpec

log = logging.getLogger(__name__)

OnSnapshot = Callable[[Sequence[KeyValue], int], None]
OnBatch = Callable[[Batch], None]

RETRY_MAX_S = 5.0
# A comparison remembers so many events at most; one that takes longer is given up and tried again later.
HISTORY_MAX = 200_000


@dataclass(frozen=True, slots=True)
class MirrorSpec:
    """What to mirror, and how carefully. `check_interval_s`: between comparisons with a fresh list."""

    prefix: bytes
    heartbeat_s: float = 2.0
    check_interval_s: float = 300.0


@dataclass(slots=True)
class MirrorStats:
    """What happened so far, for metrics and tests."""

    lists: int = 0
    failures: int = 0
    compactions: int = 0
    rejected_events: int = 0
    checks: int = 0
    mismatches: int = 0


class _DivergedError(Exception):
    """What we hold is not what etcd holds: list anew."""


@dataclass(frozen=True, slots=True)
class _FreshList:
    """A list read beside the watch. `deadline_s` (loop clock): the watch must have caught up with it by then."""

    revision: int
    digest: int
    deadline_s: float


class Mirror:
    """One prefix, mirrored into two callbacks. They run in the loop's thread and should be short."""

    def __init__(self, pool: Pool, spec: MirrorSpec, on_snapshot: OnSnapshot, on_batch: OnBatch) -> None:
        self._pool = pool
        self._spec = spec
        self._on_snapshot = on_snapshot
        self._on_batch = on_batch
        self._held = Held(())
        self._revision = 0
        self._comparison: Comparison | None = None
        self._check: asyncio.Task[_FreshList | None] | None = None
        self._next_check_s = 0.0
        self._away = False
        self.stats = MirrorStats()

    async def run(self) -> None:
        """Until cancelled, or the client is closed (EtcdError)."""
        backoff = Backoff(self._pool.rng, first_s=0.1, most_s=RETRY_MAX_S)
        while True:
            try:
                await self._list()
                backoff.reset()
                await self._follow()
            except Compacted:
                self.stats.compactions += 1
                log.info("etcd compacted what the mirror of %r had not seen: listing anew", self._spec.prefix)
            except _DivergedError as error:
                self.stats.mismatches += 1
                log.warning("the mirror of %r differs from etcd (%s): listing anew", self._spec.prefix, error)
            except EtcdError as error:
                self._pool.check_open()
                self.stats.failures += 1
                # Once per outage, however long it lasts.
                level = logging.DEBUG if self._away else logging.WARNING
                self._away = True
                log.log(level, "the mirror of %r goes on with what it has: %s", self._spec.prefix, error)
                await asyncio.sleep(backoff.next_s())
            finally:
                self._drop_check()

    async def _list(self) -> None:
        kvs, revision = await scan(self._pool, self._spec.prefix)
        self.stats.lists += 1
        self._away = False
        self._held = Held(kvs)
        self._revision = revision
        self._next_check_s = self._now_s() + self._spec.check_interval_s * self._pool.rng.uniform(0.75, 1.25)
        self._on_snapshot(kvs, revision)

    async def _follow(self) -> None:
        """Raises Compacted, _DivergedError, EtcdError."""
        key, end = prefix_range(self._spec.prefix)
        spec = WatchSpec(key, end, self._revision + 1, self._spec.heartbeat_s)
        async with aclosing(Watcher(self._pool, spec).batches()) as batches:
            async for batch in batches:
                if batch.events:
                    self._take(batch)
                if batch.resumed:
                    # Whoever was away may have come back as another: restored from a backup, or emptied.
                    self._next_check_s = min(self._next_check_s, self._now_s())
                self._verify()

    def _take(self, batch: Batch) -> None:
        events: list[Event] = []
        floor = self._revision
        for event in batch.events:
            revision = event.kv.mod_revision
            if revision <= floor:
                self.stats.rejected_events += 1
                log.warning("etcd sent %r at revision %d again, dropped", event.kv.key[:200], revision)
                continue
            self._held.apply(event)
            if self._comparison is not None:
                self._comparison.applied(revision, self._held.digest)
            events.append(event)
        if events:
            self._revision = events[-1].kv.mod_revision
            self._on_batch(batch if len(events) == len(batch.events) else replace(batch, events=events))

    # The comparison with a fresh list ----------------------------------------------------------------------------

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _verify(self) -> None:
        """Begin a comparison when it is time; conclude one when its list is there. Raises _DivergedError."""
        if self._check is None:
            if self._now_s() >= self._next_check_s:
                self._next_check_s = self._now_s() + self._spec.check_interval_s
                self._comparison = Comparison(self._revision, self._held.digest)
                self._check = asyncio.create_task(self._list_again(), name="etcd-mirror-check")
        elif self._check.done():
            self._conclude(self._check)

    async def _list_again(self) -> _FreshList | None:
        try:
            kvs, revision = await scan(self._pool, self._spec.prefix, keys_only=True)
        except EtcdError as error:
            log.info("the mirror of %r could not be compared with a fresh list: %s", self._spec.prefix, error)
            return None
        # Events up to `revision` may still be on their way: two heartbeats are enough for them.
        return _FreshList(revision, digest_of(kvs), self._now_s() + 2 * self._spec.heartbeat_s)

    def _conclude(self, check: asyncio.Task[_FreshList | None]) -> None:
        fresh = None if check.cancelled() else check.result()
        if fresh is None or self._comparison is None or len(self._comparison) > HISTORY_MAX:
            self._drop_check()
            self._next_check_s = min(self._next_check_s, self._now_s() + RETRY_MAX_S)
            return
        overdue = self._now_s() >= fresh.deadline_s
        verdict = self._comparison.verdict(fresh.revision, fresh.digest, overdue=overdue)
        if verdict is None:
            return
        self.stats.checks += 1
        self._drop_check()
        if not verdict:
            raise _DivergedError(f"at revision {fresh.revision}, {len(self._held)} keys held")

    def _drop_check(self) -> None:
        if self._check is not None:
            self._check.cancel()
        self._check = None
        self._comparison = None
