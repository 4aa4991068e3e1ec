"""The tasks of all other datacenters, as BNS shows them: what the second witness may probe.

Follows bns.v1.Bns.Watch of one replica, the next one when it fails. Holds an address per task and nothing else. While
no replica answers, what was known stays.
"""

import logging
from collections.abc import Callable, Sequence

from agents import limits
from agents.backoff import Backoff
from agents.health.schedule import Rng
from agents.remote.spread import Target
from agents.replicas import Replica, connect, converse
from bns.codec import decode_task
from bns.errors import BadRecordError
from bns.names import ROOT
from bns.v1 import bns_pb2, bns_pb2_grpc

log = logging.getLogger(__name__)


class Directory:
    """Mirrors the targets outside `datacenter`; calls `on_change` after each change."""

    def __init__(self, datacenter: str, replicas: Sequence[Replica], on_change: Callable[[], None], rng: Rng) -> None:
        self._datacenter = datacenter
        self._replicas = list(replicas)
        self._on_change = on_change
        self._backoff = Backoff(rng)
        self._turn = 0
        self._complained = ""
        self.targets: dict[str, Target] = {}
        self.synced = False

    def all(self) -> list[Target]:
        """A copy."""
        return list(self.targets.values())

    async def run(self) -> None:
        """Watches for ever; cancel it to end."""
        await converse(self._attempt, self._failed, self._backoff)

    def _failed(self, problem: str) -> None:
        address = self._replicas[self._turn % len(self._replicas)].address
        self._turn += 1
        if problem != self._complained:
            self._complained = problem
            log.info("watching other datacenters' tasks at %s: %s; trying the next", address, problem)

    async def _attempt(self) -> bool:
        """One watch, until it ends."""
        replica = self._replicas[self._turn % len(self._replicas)]
        await connect(replica, limits.CONNECT_TIMEOUT_S)
        call = bns_pb2_grpc.BnsStub(replica.channel).Watch(bns_pb2.WatchRequest(prefix=ROOT))
        try:
            async for response in call:
                self._backoff.reset()
                self._complained = ""
                self._apply(response)
        finally:
            call.cancel()
        return False

    def _apply(self, response: bns_pb2.WatchResponse) -> None:
        changed = response.snapshot
        if response.snapshot:
            self.targets.clear()
        for name in response.removed:
            changed |= self.targets.pop(name, None) is not None
        for endpoint in response.upserted:
            target = self._target(endpoint.task)
            if target is not None and len(self.targets) < limits.REMOTE_TASKS_MAX:
                changed |= self.targets.get(target.name) != target
                self.targets[target.name] = target
        self.synced = True
        # Most of what a watch brings is health, which changes nothing here.
        if changed:
            self._on_change()

    def _target(self, record: bns_pb2.TaskRecord) -> Target | None:
        """None for a task of our own datacenter, or one that cannot be probed."""
        try:
            task = decode_task(record)
        except BadRecordError as error:
            log.debug("not probing a bad record: %s", error)
            return None
        if task.datacenter == self._datacenter:
            return None
        return Target(task.name, task.address, task.port, task.agent)
