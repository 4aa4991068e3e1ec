"""Where changes meet readers: one record a service, one latest-wins slot a stream.

A stream's slot is the set of services that changed since it was served; what it is sent is worked out when it can be
sent, against the state of that moment. A slow reader therefore costs a set of names, never a backlog, and gets the
newest state when it reads again.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping

from gslb.control.fanout.encoding import UPDATE_CATALOG, UPDATE_SERVICES, field
from gslb.control.fanout.record import ServiceRecord
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.errors import InvalidValueError
from gslb.v1 import discovery_pb2

MESSAGE_BYTES = 1_000_000  # a first synchronisation is cut into messages of about this size
STREAMS_MAX = 20_000


class Subscriber:
    """One stream: what it asked for, how far it is served, what has changed since."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._wake = asyncio.Event()
        self._dirty: set[str] = set()
        self._cursors: dict[str, int] = {}
        self._catalog_cursor = 0
        self._pending = False  # an update is owed, even an empty one
        self.request = discovery_pb2.SubscribeRequest()
        self.services: frozenset[str] = frozenset()
        self.subscribed = False
        self.refusal = ""

    def subscribe(self, request: discovery_pb2.SubscribeRequest) -> None:
        """Replaces what the stream asks for. Raises InvalidValueError."""
        if len(request.services) > limits.SERVICES_MAX:
            raise InvalidValueError(f"{len(request.services)} services subscribed: at most {limits.SERVICES_MAX}")
        for name in request.services:
            if not 1 <= len(name) <= limits.NAME_MAX_CHARS:
                raise InvalidValueError(f"service {name[:80]!r}: a name has 1 to {limits.NAME_MAX_CHARS} characters")
        self.request, self.services, self.subscribed = request, frozenset(request.services), True
        wanted = self._hub.names() if request.all_services else self.services
        for name in [name for name in self._cursors if name not in wanted]:
            del self._cursors[name]
        self._dirty = {name for name in wanted if name not in self._cursors}
        self._dirty |= {name for name in self._cursors if self._cursors[name] < self._hub.revision_of(name)}
        if not request.catalog:
            self._catalog_cursor = 0
        self._pending = True
        self._wake.set()

    def wants(self, name: str) -> bool:
        return self.request.all_services or name in self.services

    def mark(self, name: str) -> None:
        """A service changed; an empty name: the catalog did."""
        if name:
            self._dirty.add(name)
        self._wake.set()

    def refuse(self, reason: str) -> None:
        """The stream is to end with this reason."""
        self.refusal = reason
        self._wake.set()

    async def changed(self) -> None:
        """Waits until there may be something to send."""
        await self._wake.wait()
        self._wake.clear()

    def wake(self) -> None:
        self._wake.set()

    def messages(self) -> Iterator[bytes]:
        """Serialised Updates from what the reader has to now; none when there is nothing new. Lazily: take all."""
        hub = self._hub
        parts: list[bytes] = []
        size = 0
        owed, self._pending = self._pending, False
        dirty, self._dirty = self._dirty, set()
        if self.request.catalog and self._catalog_cursor < hub.catalog_revision:
            self._catalog_cursor = hub.catalog_revision
            parts.append(hub.catalog_field)
            size += len(hub.catalog_field)
        for name in sorted(dirty):
            update = self._advance(name)
            if not update:
                owed = owed or name in self.services
                continue
            if size + len(update) > MESSAGE_BYTES and parts:
                yield hub.head(synced=False, unknown=()) + b"".join(parts)
                parts, size = [], 0
            parts.append(field(UPDATE_SERVICES, update))
            size += len(update)
        if parts or owed:
            unknown = [name for name in self.services if not hub.knows(name)]
            yield hub.head(synced=True, unknown=sorted(unknown)) + b"".join(parts)

    def _advance(self, name: str) -> bytes:
        """The serialised ServiceUpdate of one service; empty when there is none to send."""
        if not self.wants(name):
            return b""
        record = self._hub.record(name)
        if record is None:
            if self._cursors.pop(name, None) is None:
                return b""
            return discovery_pb2.ServiceUpdate(service=name, deleted=True).SerializeToString()
        cursor = self._cursors.get(name, 0)
        if cursor >= record.revision:
            return b""
        self._cursors[name] = record.revision
        return record.since(cursor)


class Hub:
    """All records and all streams of this replica. Closed to readers until `open` (a cold replica answers nobody)."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._revision = 0
        self._records: dict[str, ServiceRecord] = {}
        self._streams: set[Subscriber] = set()
        self._of_service: dict[str, set[Subscriber]] = {}
        self._of_all: set[Subscriber] = set()
        self._warm = False
        self.closed = False
        self.catalog_revision = 0
        self.catalog_field = b""

    # What streams ask

    def names(self) -> Collection[str]:
        return self._records.keys()

    def knows(self, name: str) -> bool:
        return name in self._records

    def record(self, name: str) -> ServiceRecord | None:
        return self._records.get(name)

    def revision_of(self, name: str) -> int:
        """Of a service that is gone: above every cursor, so that its going is told."""
        record = self._records.get(name)
        return record.revision if record else self._revision + 1

    def head(self, *, synced: bool, unknown: Collection[str]) -> bytes:
        return discovery_pb2.Update(replica=self._replica, synced=synced, unknown_services=unknown).SerializeToString()

    @property
    def warm(self) -> bool:
        return self._warm

    @property
    def streams(self) -> Collection[Subscriber]:
        return self._streams

    def attach(self) -> Subscriber:
        """A new stream. Raises InvalidValueError when there are too many."""
        if len(self._streams) >= STREAMS_MAX:
            raise InvalidValueError(f"{STREAMS_MAX} streams are open here already: use another replica")
        subscriber = Subscriber(self)
        self._streams.add(subscriber)
        return subscriber

    def subscribe(self, subscriber: Subscriber, request: discovery_pb2.SubscribeRequest) -> None:
        """Raises InvalidValueError; then the stream keeps what it had."""
        before = subscriber.services
        subscriber.subscribe(request)
        for name in before - subscriber.services:
            self._unlink(name, subscriber)
        for name in subscriber.services - before:
            self._of_service.setdefault(name, set()).add(subscriber)
        if request.all_services:
            self._of_all.add(subscriber)
        else:
            self._of_all.discard(subscriber)

    def detach(self, subscriber: Subscriber) -> None:
        self._streams.discard(subscriber)
        self._of_all.discard(subscriber)
        for name in subscriber.services:
            self._unlink(name, subscriber)

    def _unlink(self, name: str, subscriber: Subscriber) -> None:
        members = self._of_service.get(name)
        if members is not None:
            members.discard(subscriber)
            if not members:
                del self._of_service[name]

    # What the replica tells

    def open(self) -> None:
        """The replica is warm: from now on, and for ever, readers are served."""
        self._warm = True
        self._wake_all()

    def close(self) -> None:
        """Ends every stream: their readers go to another replica."""
        self.closed = True
        self._wake_all()

    def _wake_all(self) -> None:
        for subscriber in self._streams:
            subscriber.wake()

    def set_catalog(self, serialised: bytes) -> None:
        """A gslb.v1.Catalog: every datacenter, client area and zone."""
        encoded = field(UPDATE_CATALOG, serialised)
        if encoded == self.catalog_field:
            return
        self._revision += 1
        self.catalog_revision, self.catalog_field = self._revision, encoded
        for subscriber in self._streams:
            if subscriber.request.catalog:
                subscriber.mark("")

    def set_config(self, name: str, serialised: bytes) -> None:
        self._change(name, lambda record, revision: record.set_config(serialised, revision))

    def set_plan(self, name: str, serialised: bytes) -> None:
        """Ignored for a service that is not there: its plan waits in etcd."""
        if name in self._records:
            self._change(name, lambda record, revision: record.set_plan(serialised, revision))

    def set_endpoints(self, name: str, endpoints: Mapping[str, ServiceEndpoint]) -> None:
        self._change(name, lambda record, revision: record.set_endpoints(endpoints, revision))

    def update_endpoints(self, name: str, changes: Mapping[str, ServiceEndpoint | None]) -> None:
        """Only some endpoints, None for one that went."""
        self._change(name, lambda record, revision: record.update_endpoints(changes, revision))

    def delete(self, name: str) -> None:
        """An operator deleted the service: the only way that a name goes."""
        if self._records.pop(name, None) is not None:
            self._revision += 1
            self._mark(name)

    def _change(self, name: str, change: Callable[[ServiceRecord, int], bool]) -> None:
        record = self._records.get(name)
        self._revision += 1
        if record is None:
            record = self._records[name] = ServiceRecord(name, self._revision)
            self._revision += 1
        if change(record, self._revision):
            self._mark(name)

    def _mark(self, name: str) -> None:
        for subscriber in self._of_service.get(name, ()):
            subscriber.mark(name)
        for subscriber in self._of_all:
            subscriber.mark(name)
