"""The published plans as this replica holds them: they only advance, whatever happens to etcd."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bns.etcd.ops import KeyValue
from gslb.control import keys
from gslb.model.errors import InvalidValueError
from gslb.model.plan import Plan
from gslb.wire.codec import plan_from_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """A plan and the bytes that it is stored and sent as."""

    plan: Plan
    value: bytes


class PlanFolder:
    """Folds what etcd says. `plans` is what is served; `mod_revision` is what the next write of a plan must compare."""

    def __init__(self) -> None:
        self._plans: dict[str, Published] = {}
        self._mod_revisions: dict[str, int] = {}
        self.quarantined: dict[bytes, str] = {}

    @property
    def plans(self) -> Mapping[str, Published]:
        return self._plans

    def mod_revision(self, service: str) -> int:
        """Of the plan's key as last seen; 0: there is none."""
        return self._mod_revisions.get(service, 0)

    def put(self, kv: KeyValue) -> str:
        """A plan was written. The service's name if what is served changed, else empty."""
        service = kv.key[len(keys.PLANS) :].decode("utf-8", "replace")
        if kv.mod_revision <= self._mod_revisions.get(service, 0):
            return ""  # we wrote it ourselves, and knew before etcd's watch did
        self._mod_revisions[service] = kv.mod_revision
        try:
            published = self._parse(service, kv.value)
        except InvalidValueError as error:
            log.warning("quarantined %s: %s", keys.shown(kv.key), error)
            self.quarantined[kv.key] = str(error)
            return ""
        self.quarantined.pop(kv.key, None)
        held = self._plans.get(service)
        if held is not None and published.plan.stamp <= held.plan.stamp:
            if published.plan.stamp < held.plan.stamp:
                log.error(
                    "plan of %s in etcd went back from %s to %s: the newer one is served on",
                    service,
                    tuple(held.plan.stamp),
                    tuple(published.plan.stamp),
                )
            return ""
        self._plans[service] = published
        return service

    @staticmethod
    def _parse(service: str, value: bytes) -> Published:
        plan = plan_from_bytes(value)
        if plan.service != service:
            raise InvalidValueError(f"the plan is of service {plan.service!r}")
        return Published(plan, value)

    def delete(self, key: bytes) -> None:
        """The key went; the plan is served on as long as its service is there."""
        self._mod_revisions.pop(key[len(keys.PLANS) :].decode("utf-8", "replace"), None)
        self.quarantined.pop(key, None)

    def snapshot(self, kvs: Iterable[KeyValue]) -> set[str]:
        """Everything that etcd has now; the services whose served plan changed."""
        listed = {kv.key: kv for kv in kvs}
        known = {keys.plan_key(service) for service in self._mod_revisions}
        for key in known - listed.keys():
            self.delete(key)
        # After a restore from a backup etcd counts its revisions anew: a list is the truth, whatever its numbers.
        self._mod_revisions.clear()
        return {name for kv in listed.values() if (name := self.put(kv))}
