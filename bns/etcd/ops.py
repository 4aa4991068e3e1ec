"""Parts that transactions are made of: comparisons and operations."""

from enum import Enum

from bns.etcd.v3 import rpc_pb2 as pb

KeyValue = pb.KeyValue
Event = pb.Event


class Relation(Enum):
    """How a comparison of a transaction compares."""

    EQUAL = "=="
    GREATER = ">"
    LESS = "<"
    NOT_EQUAL = "!="


_RESULTS = {
    Relation.EQUAL: pb.Compare.EQUAL,
    Relation.GREATER: pb.Compare.GREATER,
    Relation.LESS: pb.Compare.LESS,
    Relation.NOT_EQUAL: pb.Compare.NOT_EQUAL,
}


def prefix_end(prefix: bytes) -> bytes:
    """The end of the key range that holds exactly the keys that start with `prefix`.

    >>> prefix_end(b"/bns/")
    b'/bns0'
    """
    end = bytearray(prefix)
    while end:
        if end[-1] < 0xFF:
            end[-1] += 1
            return bytes(end)
        end.pop()
    return b"\0"  # nothing but 0xff: everything from the key on


def prefix_range(prefix: bytes) -> tuple[bytes, bytes]:
    """(key, end) of all keys that start with `prefix`; etcd knows no empty key, so for "" it begins at the first."""
    return prefix or b"\0", prefix_end(prefix)


def compare_mod(key: bytes, relation: str, revision: int) -> pb.Compare:
    """The key's last change happened at `revision` (0: the key does not exist). `relation`: == > < !="""
    return pb.Compare(result=_RESULTS[Relation(relation)], target=pb.Compare.MOD, key=key, mod_revision=revision)


def compare_create(key: bytes, relation: str, revision: int) -> pb.Compare:
    """The key was created at `revision` (0: the key does not exist)."""
    return pb.Compare(result=_RESULTS[Relation(relation)], target=pb.Compare.CREATE, key=key, create_revision=revision)


def compare_version(key: bytes, relation: str, version: int) -> pb.Compare:
    """The key was written `version` times since its creation (0: the key does not exist)."""
    return pb.Compare(result=_RESULTS[Relation(relation)], target=pb.Compare.VERSION, key=key, version=version)


def compare_value(key: bytes, relation: str, value: bytes) -> pb.Compare:
    """The key's value; false when the key does not exist."""
    return pb.Compare(result=_RESULTS[Relation(relation)], target=pb.Compare.VALUE, key=key, value=value)


def compare_lease(key: bytes, relation: str, lease: int) -> pb.Compare:
    """The lease the key hangs on (0: none)."""
    return pb.Compare(result=_RESULTS[Relation(relation)], target=pb.Compare.LEASE, key=key, lease=lease)


def op_put(key: bytes, value: bytes, lease: int = 0) -> pb.RequestOp:
    """Write one key."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))


def op_delete(key: bytes, end: bytes = b"") -> pb.RequestOp:
    """Delete one key, or all in [key, end)."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end))


def op_range(key: bytes, end: bytes = b"", *, limit: int = 0, keys_only: bool = False) -> pb.RequestOp:
    """Read one key, or all in [key, end)."""
    return pb.RequestOp(
        request_range=pb.RangeRequest(key=key, range_end=end, limit=limit, keys_only=keys_only),
    )
