"""What readers may know of one service, and the difference between any earlier state of it and now.

A stream remembers only the revision up to which it is served. The record answers with what changed after it, from a
bounded log of who changed last when; where the log does not reach back, with everything.
"""

from collections import OrderedDict
from collections.abc import Mapping

from gslb.control.fanout.encoding import SERVICE_CONFIG, SERVICE_PLAN, endpoint_field, field
from gslb.model.endpoint import ServiceEndpoint
from gslb.v1 import discovery_pb2

_LOG_MIN = 256


class ServiceRecord:
    """One service; revisions are the hub's, and grow."""

    def __init__(self, name: str, born: int) -> None:
        self.name = name
        self.revision = born
        self.held = False  # the last change would have emptied the endpoints, and was not taken
        self._config: tuple[int, bytes] = (0, b"")
        self._plan: tuple[int, bytes] = (0, b"")
        self._endpoints: dict[str, ServiceEndpoint] = {}
        self._encoded: dict[str, bytes] = {}
        self._log: OrderedDict[str, int] = OrderedDict()  # task -> revision of its last change, oldest first
        # Changes at or below this revision are not in the log. A reader of an earlier service of this name gets all.
        self._log_floor = born
        self._shared: dict[int, bytes] = {}

    @property
    def endpoints(self) -> Mapping[str, ServiceEndpoint]:
        return self._endpoints

    def set_config(self, serialised: bytes, revision: int) -> bool:
        """A gslb.v1.Service; whether it differs from the one before."""
        if serialised == self._config[1] and self._config[0]:
            return False
        self._config = (revision, serialised)
        self._changed(revision)
        return True

    def set_plan(self, serialised: bytes, revision: int) -> bool:
        """A gslb.v1.Plan, already found to be newer than the one before."""
        if serialised == self._plan[1]:
            return False
        self._plan = (revision, serialised)
        self._changed(revision)
        return True

    def set_endpoints(self, endpoints: Mapping[str, ServiceEndpoint], revision: int) -> bool:
        """All endpoints; whether anything differs. Nothing is taken that would empty a service that had some.

        Only the deletion of the service by an operator ends its endpoints (invariant 2): no data is not no servers.
        """
        self.held = not endpoints and bool(self._endpoints)
        if self.held:
            return False
        touched = [task for task, endpoint in endpoints.items() if self._endpoints.get(task) != endpoint]
        touched += [task for task in self._endpoints if task not in endpoints]
        return self._touch(dict(endpoints), touched, revision)

    def update_endpoints(self, changes: Mapping[str, ServiceEndpoint | None], revision: int) -> bool:
        """Some endpoints, None for one that went; else as `set_endpoints`."""
        touched = [task for task, endpoint in changes.items() if self._endpoints.get(task) != endpoint]
        if not touched:
            return False
        merged = {**self._endpoints, **{task: one for task in touched if (one := changes[task]) is not None}}
        for task in touched:
            if changes[task] is None:
                del merged[task]
        self.held = not merged and bool(self._endpoints)
        return not self.held and self._touch(merged, touched, revision)

    def _touch(self, endpoints: dict[str, ServiceEndpoint], touched: list[str], revision: int) -> bool:
        if not touched:
            return False
        self._endpoints = endpoints
        for task in touched:
            self._encoded.pop(task, None)
            self._log[task] = revision
            self._log.move_to_end(task)
        room = max(_LOG_MIN, 2 * len(endpoints))
        while len(self._log) > room:
            self._log_floor = self._log.popitem(last=False)[1]
        self._changed(revision)
        return True

    def _changed(self, revision: int) -> None:
        self.revision = revision
        self._shared.clear()

    def since(self, cursor: int) -> bytes:
        """A serialised ServiceUpdate that takes a reader from revision `cursor` (0: nothing yet) to now."""
        known = self._shared.get(cursor)
        if known is None:
            known = self._shared[cursor] = self._assemble(cursor)
        return known

    def _assemble(self, cursor: int) -> bytes:
        parts = []
        head = discovery_pb2.ServiceUpdate(service=self.name)
        if self._config[0] > cursor:
            parts.append(field(SERVICE_CONFIG, self._config[1]))
        if self._plan[0] > cursor:
            parts.append(field(SERVICE_PLAN, self._plan[1]))
        tasks = None if cursor == 0 or cursor < self._log_floor else self._touched_since(cursor)
        if tasks is None or len(tasks) > len(self._endpoints):
            head.endpoints_snapshot = True
            tasks = set(self._endpoints)
        head.removed.extend(sorted(task for task in tasks if task not in self._endpoints))
        parts.extend(self._encode(task) for task in sorted(tasks) if task in self._endpoints)
        return head.SerializeToString() + b"".join(parts)

    def _touched_since(self, cursor: int) -> set[str]:
        touched = set()
        for task, revision in reversed(self._log.items()):
            if revision <= cursor:
                break
            touched.add(task)
        return touched

    def _encode(self, task: str) -> bytes:
        encoded = self._encoded.get(task)
        if encoded is None:
            encoded = self._encoded[task] = endpoint_field(self._endpoints[task])
        return encoded
