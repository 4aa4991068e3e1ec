"""Writes plans into etcd, fenced: one transaction compares the leader's key and each plan's last revision.

A leader that was paused and wakes up finds its key gone and writes nothing; a plan that somebody else wrote meanwhile
is left alone. What is written is served at once, here too, but nothing is served that is not written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bns.etcd.client import Client
from bns.etcd.election import Leadership
from bns.etcd.ops import KeyValue, compare_mod, op_put, op_range
from bns.etcd.v3 import rpc_pb2
from gslb.control import keys
from gslb.control.view.plans import PlanFolder
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.plan import ZERO_STAMP, Plan, Stamp
from gslb.wire.codec import plan_to_bytes


@dataclass(frozen=True, slots=True)
class _Write:
    service: str
    key: bytes
    value: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one publication. `deposed`: etcd says that we do not lead any more."""

    published: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)  # service -> why it was not written
    deposed: bool = False


def next_stamp(held: Plan | None, incarnation: int, epoch: int) -> Stamp:
    """The stamp behind the one that is held: the version grows by one and never goes back."""
    before = held.stamp if held else ZERO_STAMP
    return Stamp(incarnation, epoch, before.version + 1)


class Publisher:
    """Counts what it wrote in `total`. `on_published`: called with the services whose plans are in force now."""

    def __init__(self, etcd: Client, plans: PlanFolder, on_published: Callable[[frozenset[str]], None]) -> None:
        self._etcd = etcd
        self._plans = plans
        self._on_published = on_published
        self.total = 0

    async def publish(self, plans: Iterable[Plan], leadership: Leadership, incarnation: int, now_s: float) -> Outcome:
        """Stamps and writes these plans; `now_s` is UTC. Raises EtcdError when etcd does not answer."""
        writes, refused = self._prepare(plans, leadership, incarnation, now_s)
        published: set[str] = set()
        for chunk in _chunks(writes):
            response = await self._write(chunk, leadership)
            if response is None:
                return Outcome(frozenset(published), refused, deposed=True)
            if response.succeeded:
                published |= self._note(chunk, response.header.revision)
            elif len(chunk) > 1:
                # One plan that somebody else wrote must not keep the others back.
                for write in chunk:
                    alone = await self._write([write], leadership)
                    if alone is None:
                        return Outcome(frozenset(published), refused, deposed=True)
                    if alone.succeeded:
                        published |= self._note([write], alone.header.revision)
                    else:
                        refused[write.service] = _CHANGED
            else:
                refused[chunk[0].service] = _CHANGED
        return Outcome(frozenset(published), refused)

    def _prepare(
        self, plans: Iterable[Plan], leadership: Leadership, incarnation: int, now_s: float
    ) -> tuple[list[_Write], dict[str, str]]:
        writes = []
        refused = {}
        for plan in plans:
            held = self._plans.plans.get(plan.service)
            stamp = next_stamp(held.plan if held else None, incarnation, leadership.revision)
            if held is not None and stamp <= held.plan.stamp:
                refused[plan.service] = (
                    f"stamp {tuple(stamp)} would not be above {tuple(held.plan.stamp)}, which readers hold: etcd was"
                    " restored or lost; `gslb import --new-incarnation` makes them take new plans"
                )
                continue
            try:
                value = plan_to_bytes(replace(plan, stamp=stamp, computed_at_s=now_s))
            except InvalidValueError as error:
                refused[plan.service] = str(error)
                continue
            writes.append(
                _Write(plan.service, keys.plan_key(plan.service), value, self._plans.mod_revision(plan.service))
            )
        return writes, refused

    async def _write(self, chunk: Sequence[_Write], leadership: Leadership) -> rpc_pb2.TxnResponse | None:
        """etcd's answer; None when we do not lead."""
        response = await self._etcd.txn(
            [leadership.fence(), *(compare_mod(write.key, "==", write.mod_revision) for write in chunk)],
            [op_put(write.key, write.value) for write in chunk],
            [op_range(leadership.key)],
        )
        if not response.succeeded:
            kvs = response.responses[0].response_range.kvs
            if not kvs or kvs[0].create_revision != leadership.revision:
                return None
        return response

    def _note(self, chunk: Iterable[_Write], revision: int) -> set[str]:
        written = set()
        for write in chunk:
            self._plans.put(KeyValue(key=write.key, value=write.value, mod_revision=revision))
            written.add(write.service)
        self.total += len(written)
        # The watch will bring the same record again, and it will be known by then.
        self._on_published(frozenset(written))
        return written


_CHANGED = "its record in etcd was changed by another meanwhile: it is planned again in the next period"


def _chunks(writes: Iterable[_Write]) -> Iterator[list[_Write]]:
    chunk: list[_Write] = []
    size = 0
    for write in writes:
        if chunk and (len(chunk) >= limits.TXN_OPS_MAX or size + len(write.value) > limits.TXN_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(write)
        size += len(write.value)
    if chunk:
        yield chunk
