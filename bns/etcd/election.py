"""Leadership: of all keys under a prefix, the one that was created first leads.

The revision of its creation is the fencing token. Being elected authorises nothing by itself: whoever is elected puts
`Leadership.fence()` into each of its transactions, so that etcd refuses what a deposed leader still sends.
"""

from contextlib import aclosing
from dataclasses import dataclass

from bns.etcd.errors import Compacted, EtcdError, LeaseLost
from bns.etcd.methods import RANGE, TXN
from bns.etcd.ops import compare_create, op_delete, op_put, op_range, prefix_end
from bns.etcd.pool import Pool
from bns.etcd.v3 import rpc_pb2 as pb
from bns.etcd.watch import Watcher, WatchSpec


@dataclass(frozen=True, slots=True)
class Leadership:
    """`revision`, at which the leader's key was created, grows from leader to leader: the fencing token."""

    key: bytes
    revision: int
    value: bytes = b""

    def fence(self) -> pb.Compare:
        """True exactly as long as this leadership lasts: compare it in every transaction."""
        return compare_create(self.key, "==", self.revision)


async def campaign(pool: Pool, prefix: bytes, value: bytes, lease: int) -> Leadership:
    """Wait until we lead. Raises LeaseLost when the lease ends first, and EtcdError."""
    key = prefix + b"%016x" % lease
    revision = await _enter(pool, key, value, lease)
    while True:
        predecessor, read_at = await _predecessor(pool, prefix, key, revision, lease)
        if predecessor is None:
            return Leadership(key, revision, value)
        await _wait_for_end(pool, predecessor, read_at + 1)


async def _enter(pool: Pool, key: bytes, value: bytes, lease: int) -> int:
    """Create our key, or find it. -> its create revision"""
    request = pb.TxnRequest(
        compare=[compare_create(key, "==", 0)], success=[op_put(key, value, lease)], failure=[op_range(key)]
    )
    try:
        # Sent twice, it finds what the first one wrote.
        response = await pool.call(TXN, request, idempotent=True)
    except EtcdError as error:
        if "lease not found" in str(error):
            raise LeaseLost(lease) from error
        raise
    if response.succeeded:
        return response.header.revision
    return response.responses[0].response_range.kvs[0].create_revision


async def _predecessor(pool: Pool, prefix: bytes, key: bytes, revision: int, lease: int) -> tuple[bytes | None, int]:
    """The key that was created last before ours, and the revision of this look. Raises LeaseLost."""
    before = pb.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        max_create_revision=revision - 1,
        sort_order=pb.RangeRequest.DESCEND,
        sort_target=pb.RangeRequest.CREATE,
        keys_only=True,
    )
    # In one look: a lease that ended while we waited took our own key with it, and then nobody before us means nothing.
    request = pb.TxnRequest(compare=[compare_create(key, "==", revision)], success=[pb.RequestOp(request_range=before)])
    response = await pool.call(TXN, request, idempotent=True)
    if not response.succeeded:
        raise LeaseLost(lease)
    kvs = response.responses[0].response_range.kvs
    return (kvs[0].key if kvs else None), response.header.revision


async def _wait_for_end(pool: Pool, key: bytes, start_revision: int) -> None:
    """Until `key` is deleted, or its history is compacted and it has to be looked at again."""
    watcher = Watcher(pool, WatchSpec(key, start_revision=start_revision, heartbeat_s=1.0, deletes_only=True))
    try:
        async with aclosing(watcher.batches()) as batches:
            async for batch in batches:
                if batch.events:
                    return
    except Compacted:
        return


async def resign(pool: Pool, leadership: Leadership) -> bool:
    """Give up at once. -> False when somebody else led already."""
    request = pb.TxnRequest(compare=[leadership.fence()], success=[op_delete(leadership.key)])
    response = await pool.call(TXN, request, idempotent=True)
    return response.succeeded


async def leader(pool: Pool, prefix: bytes) -> Leadership | None:
    """Who leads now."""
    request = pb.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=pb.RangeRequest.ASCEND,
        sort_target=pb.RangeRequest.CREATE,
    )
    response = await pool.call(RANGE, request, idempotent=True)
    if not response.kvs:
        return None
    kv = response.kvs[0]
    return Leadership(kv.key, kv.create_revision, kv.value)
