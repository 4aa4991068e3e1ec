"""One list and one watch of /gslb/ a replica: config, plans, leaders and the incarnation, at one revision."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bns.etcd.client import Client
from bns.etcd.ops import KeyValue
from bns.etcd.v3 import rpc_pb2
from bns.etcd.watch import Batch
from gslb.control import keys
from gslb.control.view.config import Config, ConfigFolder
from gslb.control.view.leaders import LeaderFolder
from gslb.control.view.plans import PlanFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch changed."""

    config: bool = False
    plans: frozenset[str] = frozenset()
    leader: bool = False
    incarnation: bool = False


OnChanges = Callable[[Changes], None]


class GslbMirror:
    """Everything that the control plane reads from etcd, but for BNS. While etcd is away it stays as it was."""

    def __init__(self, etcd: Client, on_changes: OnChanges) -> None:
        self._etcd = etcd
        self._on_changes = on_changes
        self._config = ConfigFolder()
        self.plans = PlanFolder()
        self.leaders = LeaderFolder()
        self.incarnation = 0
        self.highest_incarnation = 0
        self._advanced = asyncio.Event()
        self.revision = 0
        self.synced = False

    @property
    def config(self) -> Config:
        return self._config.config

    async def run(self) -> None:
        """Until cancelled."""
        await self._etcd.mirror(keys.ROOT, self._on_snapshot, self._on_batch)

    async def reached(self, revision: int, timeout_s: float) -> bool:
        """Waits until the mirror is at `revision`; False when that took too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.revision < revision:
                    self._advanced.clear()
                    await self._advanced.wait()
        return self.revision >= revision

    def _on_snapshot(self, kvs: Sequence[KeyValue], revision: int) -> None:
        config = [kv for kv in kvs if kv.key.startswith(keys.CONFIG)]
        self._config.snapshot(config)
        self._config.seal()
        plans = self.plans.snapshot(kv for kv in kvs if kv.key.startswith(keys.PLANS))
        self.leaders.snapshot(kv for kv in kvs if kv.key.startswith(keys.LEADERS))
        for kv in kvs:
            if kv.key == keys.INCARNATION:
                self._set_incarnation(kv)
        self.revision = revision
        self.synced = True
        self._advanced.set()
        self._on_changes(Changes(config=True, plans=frozenset(plans), leader=True, incarnation=True))

    def _on_batch(self, batch: Batch) -> None:
        config = leader = incarnation = False
        plans: set[str] = set()
        for event in batch.events:
            key = event.kv.key
            deleted = event.type == rpc_pb2.Event.DELETE
            if key.startswith(keys.CONFIG):
                config = True
                self._config.delete(key) if deleted else self._config.put(event.kv)
            elif key.startswith(keys.PLANS):
                plans |= self._fold_plan(event.kv, deleted=deleted)
            elif key.startswith(keys.LEADERS):
                leader = True
                self.leaders.delete(key) if deleted else self.leaders.put(event.kv, time.time())
            elif key == keys.INCARNATION and not deleted:
                incarnation = True
                self._set_incarnation(event.kv)
        self.revision = batch.revision
        if config:
            self._config.seal()
        self._advanced.set()
        self._on_changes(Changes(config, frozenset(plans), leader, incarnation))

    def _fold_plan(self, kv: KeyValue, *, deleted: bool) -> set[str]:
        if deleted:
            self.plans.delete(kv.key)
            return set()
        name = self.plans.put(kv)
        return {name} if name else set()

    def _set_incarnation(self, kv: KeyValue) -> None:
        text = kv.value[:20]
        if not text.isdigit() or int(text) < 1:
            log.error("%s holds %r, which is no number from 1 on: ignored", keys.shown(kv.key), text)
            return
        if int(text) < self.incarnation:
            log.error(
                "the incarnation in etcd went back from %d to %s: was etcd restored? `gslb import --new-incarnation`",
                self.incarnation,
                text.decode(),
            )
        self.incarnation = int(text)
        self.highest_incarnation = max(self.incarnation, self.highest_incarnation)
