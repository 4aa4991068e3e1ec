"""What a mirror believes to hold, small enough to compare: a sum of hashes over (key, revision of its last change).

A sum, so that one event changes it in constant time whatever the size. The hash is keyed afresh in every process: this
finds mistakes of the watch, not forgeries.
"""

from bisect import bisect_right
from collections.abc import Iterable

from bns.etcd.ops import Event, KeyValue
from bns.etcd.v3 import rpc_pb2 as pb

_MASK = (1 << 64) - 1


def _part(key: bytes, mod_revision: int) -> int:
    return hash((key, mod_revision)) & _MASK


def digest_of(kvs: Iterable[KeyValue]) -> int:
    """The digest of a list."""
    return sum(_part(kv.key, kv.mod_revision) for kv in kvs) & _MASK


class Held:
    """The keys that a mirror holds, with the digest kept up to date."""

    def __init__(self, kvs: Iterable[KeyValue]) -> None:
        self._mod_revisions = {kv.key: kv.mod_revision for kv in kvs}
        self.digest = sum(_part(key, revision) for key, revision in self._mod_revisions.items()) & _MASK

    def __len__(self) -> int:
        return len(self._mod_revisions)

    def apply(self, event: Event) -> None:
        """A key was put or deleted."""
        key = event.kv.key
        before = self._mod_revisions.pop(key, 0)
        if before:
            self.digest = (self.digest - _part(key, before)) & _MASK
        if event.type == pb.Event.PUT:
            self._mod_revisions[key] = event.kv.mod_revision
            self.digest = (self.digest + _part(key, event.kv.mod_revision)) & _MASK


class Comparison:
    """Compares a mirror with a list that is read while the mirror goes on changing.

    It is begun before the list is read, and remembers every digest from then on, so that the one at the list's revision
    is at hand wherever the mirror has got to meanwhile.
    """

    def __init__(self, revision: int, digest: int) -> None:
        self._revisions = [revision]
        self._digests = [digest]

    def __len__(self) -> int:
        return len(self._revisions)

    def applied(self, revision: int, digest: int) -> None:
        """The mirror applied an event of `revision` and has `digest` now."""
        self._revisions.append(revision)
        self._digests.append(digest)

    def verdict(self, revision: int, digest: int, *, overdue: bool) -> bool | None:
        """Does the mirror agree with a list of `digest` read at `revision`? None: events may still be on their way.

        `overdue`: they would have come by now.
        """
        if revision < self._revisions[0]:
            return False  # etcd went back behind what it once told us
        if self._revisions[-1] > revision:
            return self._digests[bisect_right(self._revisions, revision) - 1] == digest
        if self._digests[-1] == digest:
            return True
        return False if overdue else None
