"""Reads desired state through etcd's quorum and writes it back in one transaction, or not at all.

Whoever changes anything changes the guard key too, and compares it: what was checked as a whole is written only if
nothing else was written meanwhile, by whichever replica. A change that loses that race is checked again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from bns.etcd.client import Client
from bns.etcd.errors import EtcdError, OutcomeUnknown
from bns.etcd.ops import compare_mod, op_put
from gslb.control import keys
from gslb.control.view.config import Stored, catalog_of, parse_stored
from gslb.control.view.mirror import GslbMirror
from gslb.model import limits
from gslb.model.errors import GslbError, InvalidValueError, RefusedError
from gslb.model.meta import Meta
from gslb.model.resources import Catalog, Resource, kind_of
from gslb.wire.codec import resource_to_bytes

log = logging.getLogger(__name__)

TRIES = 8
RETRY_S = 0.005
CATCH_UP_S = 1.0

T = TypeVar("T")


class ConflictError(GslbError):
    """Others changed desired state again and again while this change was checked."""


class UncertainError(GslbError):
    """etcd's answer to a write was lost, and it cannot be asked what became of it."""


class _LostRaceError(Exception):
    """Something else was written first: read and check again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All desired state at one revision. `stored` has tombstones too."""

    stored: Mapping[bytes, Stored]
    catalog: Catalog
    guard: int  # mod revision of the guard key; 0: it does not exist
    now: datetime

    def find(self, kind: str, name: str, owner: str = "") -> Stored | None:
        """The live resource of this name, else its tombstone, else None."""
        if owner:
            return self.stored.get(keys.config_key(kind, Meta(name, owner)))
        found = [
            one for one in self.stored.values() if kind_of(one.resource) == kind and one.resource.meta.name == name
        ]
        return min(found, key=lambda one: (one.deleted, one.key), default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """A resource as it will be written; `action`: created, changed, unchanged (then nothing is), deleted."""

    resource: Resource
    action: str


class Desk:
    """Where admin calls read and write."""

    def __init__(self, etcd: Client, mirror: GslbMirror) -> None:
        self._etcd = etcd
        self._mirror = mirror
        self._turn = asyncio.Lock()

    async def read(self) -> Snapshot:
        """Desired state as of now. Raises EtcdError."""
        guard = await self._etcd.get(keys.CONFIG_GUARD)
        kvs, _ = await self._etcd.scan(keys.CONFIG)
        mirrored = self._mirror.config.stored
        stored: dict[bytes, Stored] = {}
        for kv in kvs:
            known = mirrored.get(kv.key)
            if known is not None and known.mod_revision == kv.mod_revision:
                # The same object that the balancer has planned with: nothing has to be solved anew for it.
                stored[kv.key] = known
                continue
            try:
                stored[kv.key] = parse_stored(kv)
            except InvalidValueError as error:
                log.debug("%s is not read: %s", keys.shown(kv.key), error)
                if known is not None:
                    stored[kv.key] = replace(known, mod_revision=kv.mod_revision)
        return Snapshot(
            stored,
            catalog_of(stored.values()),
            guard.mod_revision if guard else 0,
            datetime.now(UTC).replace(microsecond=0),
        )

    async def read_or_mirror(self) -> Snapshot:
        """As `read`; while etcd is away what this replica holds."""
        try:
            return await self.read()
        except EtcdError as error:
            if not self._mirror.synced:
                raise
            log.info("answering from the mirror: %s", error)
            config = self._mirror.config
            return Snapshot(config.stored, config.catalog, -1, datetime.now(UTC))

    async def change(self, work: Callable[[Snapshot], Awaitable[tuple[Sequence[Change], T]]]) -> T:
        """Lets `work` decide from a snapshot what to write, and writes it in one transaction.

        `work` is called again when something else was written first. Raises what it raises, EtcdError, UncertainError
        and ConflictError.
        """
        # Those of one replica take turns, so that only other replicas are raced with.
        async with self._turn:
            for attempt in range(TRIES):
                snapshot = await self.read()
                changes, result = await work(snapshot)
                try:
                    await self.write(snapshot, changes)
                except _LostRaceError:
                    await asyncio.sleep(random.uniform(0.0, RETRY_S * 2**attempt))
                    continue
                return result
        raise ConflictError("others keep changing the configuration: try again")

    async def write(self, snapshot: Snapshot, changes: Iterable[Change]) -> None:
        """One transaction. Raises _LostRaceError, RefusedError when it is too large, UncertainError, EtcdError."""
        due = [change.resource for change in changes if change.action != "unchanged"]
        if not due:
            return
        check_size(due)
        compares = [compare_mod(keys.CONFIG_GUARD, "==", snapshot.guard)]
        ops = [op_put(keys.CONFIG_GUARD, f"{time.time():.3f}".encode())]
        for resource in due:
            key = keys.config_key(kind_of(resource), resource.meta)
            held = snapshot.stored.get(key)
            if held is not None:
                compares.append(compare_mod(key, "==", held.mod_revision))
            ops.append(op_put(key, resource_to_bytes(resource)))
        try:
            response = await self._etcd.txn(compares, ops)
        except OutcomeUnknown as error:
            if await self._written(due):
                return
            raise _LostRaceError from error
        if not response.succeeded:
            raise _LostRaceError
        # Whoever asks this replica next sees what was written.
        await self._mirror.reached(response.header.revision, CATCH_UP_S)

    async def _written(self, due: Iterable[Resource]) -> bool:
        """Whether etcd has what was to be written, after an answer was lost. Raises UncertainError."""
        try:
            for resource in due:
                kv = await self._etcd.get(keys.config_key(kind_of(resource), resource.meta))
                if kv is None or kv.value != resource_to_bytes(resource):
                    return False
        except EtcdError as error:
            raise UncertainError(
                f"etcd fell silent in the middle of the change: look with `gslb get` whether it was made ({error})"
            ) from error
        return True


def check_size(due: Sequence[Resource]) -> None:
    """Raises RefusedError when one transaction cannot hold these."""
    size = sum(len(resource_to_bytes(resource)) for resource in due)
    if len(due) >= limits.TXN_OPS_MAX or size > limits.TXN_BYTES_MAX:
        raise RefusedError(
            f"{len(due)} changed resources of {size} bytes: at most {limits.TXN_OPS_MAX - 1} and {limits.TXN_BYTES_MAX}"
            " bytes are changed in one call; apply them in parts, or `gslb import` them"
        )
