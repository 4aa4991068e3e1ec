"""All keys under a prefix, at one revision, in pages."""

from bns.etcd.errors import Compacted
from bns.etcd.methods import RANGE
from bns.etcd.ops import KeyValue, prefix_range
from bns.etcd.pool import Pool
from bns.etcd.v3 import rpc_pb2 as pb

PAGE = 1000
# Compactions come minutes apart: one may fall into a scan, a second one into its repetition is bad luck already.
TRIES = 3


async def scan(
    pool: Pool, prefix: bytes, *, page: int = PAGE, revision: int = 0, keys_only: bool = False
) -> tuple[list[KeyValue], int]:
    """-> (keys in order, the revision they were read at). `revision` 0: now.

    Raises Compacted when the revision asked for is gone, and EtcdError.
    """
    for left in reversed(range(TRIES)):
        try:
            return await _scan_once(pool, prefix, page=page, revision=revision, keys_only=keys_only)
        except Compacted:
            if revision or not left:
                raise
    raise AssertionError("the last try returns or raises")


async def _scan_once(
    pool: Pool, prefix: bytes, *, page: int, revision: int, keys_only: bool
) -> tuple[list[KeyValue], int]:
    key, end = prefix_range(prefix)
    request = pb.RangeRequest(key=key, range_end=end, limit=page, revision=revision, keys_only=keys_only)
    kvs: list[KeyValue] = []
    while True:
        response = await pool.call(RANGE, request, idempotent=True)
        request.revision = request.revision or response.header.revision
        kvs.extend(response.kvs)
        if not response.more:
            return kvs, request.revision
        request.key = response.kvs[-1].key + b"\0"
