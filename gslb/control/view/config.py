"""Desired state as this replica holds it: every resource under /gslb/config/, the bad ones quarantined one by one.

What was good once is kept: a record that turned bad, or vanished without the tombstone that a deletion leaves, goes on
being served as it was, and is shown by `gslb check`. Only a tombstone takes a name away (invariants 2 and 8).
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from bns.etcd.ops import KeyValue
from gslb.control import keys
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.resources import Catalog, ClientArea, Datacenter, Resource, Zone, kind_of
from gslb.wire.codec import resource_from_bytes

log = logging.getLogger(__name__)

CATALOG_FIELDS: Mapping[str, str] = MappingProxyType(
    {"datacenter": "datacenters", "area": "areas", "service": "services", "drain": "drains", "zone": "zones"}
)

_FOR_READERS = (Datacenter, ClientArea, Zone)


@dataclass(frozen=True, slots=True)
class Stored:
    """One resource and where it lies in etcd."""

    key: bytes
    resource: Resource
    value: bytes  # as stored
    mod_revision: int

    @property
    def deleted(self) -> bool:
        return self.resource.meta.deleted_at is not None


@dataclass(frozen=True, slots=True)
class Config:
    """All desired state at one moment. `stored` has tombstones too; `catalog` does not."""

    stored: Mapping[bytes, Stored] = field(default_factory=dict)
    quarantined: Mapping[bytes, str] = field(default_factory=dict)  # key -> why
    vanished: frozenset[bytes] = frozenset()  # went without a tombstone, served on
    catalog: Catalog = field(default_factory=Catalog)

    def for_readers(self) -> list[Resource]:
        """What a reader is told of the catalog: places and zones, and as tombstones those that were deleted last."""
        catalog = self.catalog
        alive: list[Resource] = [*catalog.datacenters.values(), *catalog.areas.values(), *catalog.zones.values()]
        names = {(kind_of(resource), resource.meta.name) for resource in alive}
        gone = sorted(
            (one for one in self.stored.values() if one.deleted and isinstance(one.resource, _FOR_READERS)),
            key=lambda one: (one.mod_revision, one.key),
        )
        tombstones = [one.resource for one in gone if (kind_of(one.resource), one.resource.meta.name) not in names]
        return alive + tombstones[-limits.TOMBSTONES_TOLD_MAX :]


def parse_stored(kv: KeyValue) -> Stored:
    """A stored resource whose key and value agree. Raises InvalidValueError."""
    resource = resource_from_bytes(kv.value)
    expected = keys.config_key(kind_of(resource), resource.meta)
    if kv.key != expected:
        raise InvalidValueError(f"the record says that it belongs under {keys.shown(expected)}")
    return Stored(kv.key, resource, kv.value, kv.mod_revision)


def catalog_of(stored: Iterable[Stored]) -> Catalog:
    """The catalog of what is not deleted. Of two owners' resources of one name the one that was written first wins."""
    found: dict[str, dict[str, Resource]] = {attribute: {} for attribute in CATALOG_FIELDS.values()}
    for one in sorted(stored, key=lambda item: item.key):
        if not one.deleted:
            found[CATALOG_FIELDS[kind_of(one.resource)]].setdefault(one.resource.meta.name, one.resource)
    return Catalog(**found)  # type: ignore[arg-type]  # each dictionary holds the kind of its field


class ConfigFolder:
    """Folds what etcd says into a Config."""

    def __init__(self) -> None:
        self._stored: dict[bytes, Stored] = {}
        self._quarantined: dict[bytes, str] = {}
        self._vanished: set[bytes] = set()
        self.config = Config()

    def put(self, kv: KeyValue) -> None:
        """A record was written; one that is bad leaves the last good one in its place."""
        self._vanished.discard(kv.key)
        try:
            self._stored[kv.key] = parse_stored(kv)
        except InvalidValueError as error:
            if self._quarantined.get(kv.key) != str(error):
                log.warning("quarantined %s: %s", keys.shown(kv.key), error)
            self._quarantined[kv.key] = str(error)
        else:
            if self._quarantined.pop(kv.key, None) is not None:
                log.info("%s is good again", keys.shown(kv.key))

    def delete(self, key: bytes) -> None:
        """A key went. Of a live resource that is nobody's wish: deletions write tombstones first."""
        self._quarantined.pop(key, None)
        held = self._stored.get(key)
        if held is None:
            return
        if held.deleted:
            del self._stored[key]
        elif key not in self._vanished:
            self._vanished.add(key)
            # Whoever writes it again finds no such key.
            self._stored[key] = replace(held, mod_revision=0)
            log.error("%s vanished from etcd without being deleted: it is served as it was", keys.shown(key))

    def snapshot(self, kvs: Iterable[KeyValue]) -> None:
        """Everything that etcd has now."""
        present = set()
        for kv in kvs:
            present.add(kv.key)
            held = self._stored.get(kv.key)
            if held is None or held.mod_revision != kv.mod_revision or held.value != kv.value:
                self.put(kv)
        for key in [key for key in (*self._stored, *self._quarantined) if key not in present]:
            self.delete(key)

    def seal(self) -> Config:
        """The Config after everything folded in so far."""
        self.config = Config(
            dict(self._stored), dict(self._quarantined), frozenset(self._vanished), catalog_of(self._stored.values())
        )
        return self.config
