"""What only the leader does beside planning: first writes, ends of drains, old tombstones, reaping, compaction.

Every write is fenced by the leader's key and compares what it replaces, so that a janitor that was paused tidies
nothing away that is in use again.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bns.etcd.client import Client
from bns.etcd.election import Leadership
from bns.etcd.errors import Compacted, EtcdError
from bns.etcd.ops import compare_create, compare_mod, op_delete, op_put
from bns.registry import BnsRegistry, ReapReport
from gslb.control import keys
from gslb.control.leader import Elector
from gslb.control.view.config import Stored
from gslb.control.view.mirror import GslbMirror
from gslb.model import limits
from gslb.model.resources import Drain, Service
from gslb.wire.codec import resource_to_bytes

log = logging.getLogger(__name__)

ROUND_S = 2.0
COMPACT_EVERY_S = 60.0
AUTHOR = "gslb"


class Janitor:
    """`reaped`: what the last round of reaping found."""

    def __init__(self, etcd: Client, mirror: GslbMirror, registry: BnsRegistry, elector: Elector) -> None:
        self._etcd = etcd
        self._mirror = mirror
        self._registry = registry
        self._elector = elector
        self._history: deque[tuple[float, int]] = deque(maxlen=int(limits.HISTORY_KEEP_S / COMPACT_EVERY_S) + 2)
        self._compacted = 0
        self._wake = asyncio.Event()
        self.reaped: ReapReport | None = None

    def wake(self) -> None:
        """A term began: do not wait for the next round."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            leadership = self._elector.leadership
            if leadership is not None and self._mirror.synced:
                try:
                    await self.round(leadership, time.time())
                except EtcdError as error:
                    log.debug("tidying waits for etcd: %s", error)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_S):
                    await self._wake.wait()

    async def round(self, leadership: Leadership, utc_s: float) -> None:
        """One round. Raises EtcdError."""
        if not self._mirror.incarnation:
            await self.ensure_incarnation(leadership)
        now = datetime.fromtimestamp(utc_s, UTC)
        for stored in list(self._mirror.config.stored.values()):
            if stored.mod_revision == 0:
                continue  # vanished: not ours to touch
            resource = stored.resource
            if stored.deleted:
                if resource.meta.deleted_at and now - resource.meta.deleted_at > _TOMBSTONE_KEEP:
                    await self._purge(stored, leadership)
            elif isinstance(resource, Drain) and resource.expires_at <= now:
                await self._end(stored, resource, leadership, now)
        self.reaped = await self._registry.reap(time.monotonic(), [leadership.fence()])
        await self._compact()

    async def ensure_incarnation(self, leadership: Leadership) -> None:
        """The first leader of a new etcd writes incarnation 1. Raises EtcdError."""
        await self._etcd.txn(
            [leadership.fence(), compare_create(keys.INCARNATION, "==", 0)], [op_put(keys.INCARNATION, b"1")]
        )

    async def _end(self, stored: Stored, drain: Drain, leadership: Leadership, now: datetime) -> None:
        """An expired drain becomes a tombstone; it drains nothing since it expired."""
        meta = replace(
            drain.meta, generation=drain.meta.generation + 1, updated_at=now, deleted_at=now, principal=AUTHOR
        )
        value = resource_to_bytes(replace(drain, meta=meta))
        response = await self._etcd.txn(
            [leadership.fence(), compare_mod(stored.key, "==", stored.mod_revision)], [op_put(stored.key, value)]
        )
        if response.succeeded:
            log.info("drain %s has expired", drain.name)

    async def _purge(self, stored: Stored, leadership: Leadership) -> None:
        """A tombstone that nobody needs any more goes, and with a service's its plan, which nobody serves any more."""
        compares = [leadership.fence(), compare_mod(stored.key, "==", stored.mod_revision)]
        ops = [op_delete(stored.key)]
        name = stored.resource.meta.name
        alive = name in self._mirror.config.catalog.services
        if isinstance(stored.resource, Service) and not alive:
            ops.append(op_delete(keys.plan_key(name)))
        await self._etcd.txn(compares, ops)

    async def _compact(self) -> None:
        """Keeps HISTORY_KEEP_S of etcd's history, for watches that resume."""
        now_s = time.monotonic()
        if self._history and now_s - self._history[-1][0] < COMPACT_EVERY_S:
            return
        self._history.append((now_s, self._mirror.revision))
        old = [revision for at_s, revision in self._history if now_s - at_s >= limits.HISTORY_KEEP_S]
        if old and old[-1] > self._compacted:
            try:
                await self._etcd.compact(old[-1])
            except Compacted:
                log.debug("etcd had compacted revision %d already", old[-1])
            self._compacted = old[-1]


_TOMBSTONE_KEEP = timedelta(seconds=limits.TOMBSTONE_KEEP_S)
