"""The mirror of everything under /bns/ and /bns-agent/ that each replica keeps.

Readers take `view`, an immutable snapshot, and never wait for etcd; while etcd is away they go on with the last one. A
record that cannot be read is quarantined by itself. That the watch told the truth is checked by `bns.etcd.mirror`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bns.codec import parse_agent_bytes, parse_task_bytes
from bns.errors import BadRecordError, UnavailableError
from bns.etcd.client import Client
from bns.etcd.errors import EtcdError
from bns.etcd.ops import KeyValue
from bns.etcd.v3 import rpc_pb2 as pb
from bns.etcd.watch import Batch
from bns.keys import EVERYTHING, agent_key, is_ours
from bns.view import AGENT_ROOT, BnsView, Change, Unreadable, fold

log = logging.getLogger(__name__)

Subscriber = Callable[[frozenset[str], BnsView], None]
"""Called in the event loop with the names of the tasks that changed (none: only agents did) and the new view."""

RESTART_DELAY_S = 1.0


@dataclass(slots=True)
class StoreCounters:
    """Since the start of this process."""

    snapshots: int = 0
    events: int = 0
    quarantines: int = 0


class BnsStore:
    """See the module. `run()` keeps the mirror; everything else only reads it."""

    def __init__(self, etcd: Client) -> None:
        self.etcd = etcd
        self._subscribers: list[Subscriber] = []
        self._revisions: dict[str, int] = {}  # key -> mod revision of what is in the view
        self._advanced = asyncio.Event()
        self.view = BnsView()
        self.counters = StoreCounters()
        self.synced = asyncio.Event()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Calls `callback` after each change from now on; the result ends that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def run(self) -> None:
        """Mirrors until cancelled. Nothing that etcd does or holds ends it."""
        while True:
            try:
                await self.etcd.mirror(EVERYTHING, self._on_snapshot, self._on_batch)
            except EtcdError as error:
                # A closed client: going on with the last view is better than going down.
                log.error("the BNS mirror cannot follow etcd and tries again: %s", error)
            await asyncio.sleep(RESTART_DELAY_S)

    async def wait_for_revision(self, revision: int, timeout_s: float) -> BnsView:
        """The first view at or after `revision`. Raises UnavailableError after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.synced.is_set() or self.view.revision < revision:
                    self._advanced.clear()
                    await self._advanced.wait()
        except TimeoutError as error:
            raise UnavailableError(
                f"this replica has seen etcd's revision {self.view.revision} and not yet {revision}; try again"
            ) from error
        return self.view

    def _on_snapshot(self, kvs: Sequence[KeyValue], revision: int) -> None:
        """Only what differs from the mirror is read: after a long absence of etcd that is little."""
        listed = {kv.key.decode("utf-8", "replace"): kv for kv in kvs if is_ours(kv.key)}
        changes = [Change(key, None) for key in self._revisions if key not in listed]
        # After a restore from a backup etcd's revisions start again lower, and then mean something else.
        known = self._revisions if revision >= self.view.revision else {}
        revisions = {}
        for key, kv in listed.items():
            if known.get(key) == kv.mod_revision:
                revisions[key] = kv.mod_revision
                continue
            change = self._read(key, kv)
            changes.append(change)
            revisions[change.key] = kv.mod_revision  # the record's own name: one string of it is enough
        self._revisions = revisions
        self.counters.snapshots += 1
        # A list is the truth, whatever its number.
        self.view = replace(self.view, revision=0)
        first = not self.synced.is_set()
        self.synced.set()
        self._apply(changes, revision, always=first)

    def _on_batch(self, batch: Batch) -> None:
        changes = []
        for event in batch.events:
            if not is_ours(event.kv.key):
                continue
            key = event.kv.key.decode("utf-8", "replace")
            if event.type == pb.Event.DELETE:
                self._revisions.pop(key, None)
                changes.append(Change(key, None))
            else:
                change = self._read(key, event.kv)
                self._revisions[change.key] = event.kv.mod_revision
                changes.append(change)
        self.counters.events += len(changes)
        self._apply(changes, batch.revision)

    def _read(self, key: str, kv: KeyValue) -> Change:
        change = read_record(key, kv.value)
        if isinstance(change.value, Unreadable) and self.view.quarantined.get(key) != change.value.reason:
            self.counters.quarantines += 1
            log.warning("etcd's %r is quarantined: %s", key[:200], change.value.reason)
        return change

    def _apply(self, changes: Sequence[Change], revision: int, *, always: bool = False) -> None:
        self.view, names = fold(self.view, changes, revision)
        self._advanced.set()
        if not changes and not always:
            return
        for callback in tuple(self._subscribers):
            try:
                callback(names, self.view)
            except Exception:  # one reader's mistake must not stop the mirror of all
                log.exception("a subscriber of the BNS store failed")


def read_record(key: str, value: bytes) -> Change:
    """A stored record, whatever it holds: a bad one becomes Unreadable."""
    try:
        if key.startswith(AGENT_ROOT):
            agent = parse_agent_bytes(value)
            if agent_key(agent.datacenter, agent.name).decode() != key:
                raise BadRecordError(f"the record under {key[:200]!r} is of agent {agent.datacenter}/{agent.name}")
            return Change(key, agent)
        task = parse_task_bytes(value)
        if task.name != key:
            raise BadRecordError(f"the record under {key[:200]!r} is of task {task.name}")
        return Change(task.name, task)
    except BadRecordError as error:
        return Change(key, Unreadable(str(error)))
