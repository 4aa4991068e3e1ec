"""Who leads, and who would: the election's keys as this replica sees them.

Each candidate writes its name, its address and its clock into its key once, when it enters. The others compare the
clock with their own as they see the key appear: an alarm for skewed clocks that costs no write.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bns.etcd.ops import KeyValue
from gslb.control import keys

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica in the election. `skew_s`: its clock minus ours when it entered; None: we did not see it enter."""

    replica: str
    address: str
    create_revision: int
    skew_s: float | None = None


def encode_candidate(replica: str, address: str, utc_s: float) -> bytes:
    """What a replica writes into its key."""
    return json.dumps({"replica": replica, "address": address, "utc_s": round(utc_s, 3)}).encode()


def _parse(kv: KeyValue, utc_s: float | None) -> Candidate:
    try:
        said: object = json.loads(kv.value[:4096])
    except ValueError:
        said = None
    said = said if isinstance(said, dict) else {}
    written_s = said.get("utc_s")
    skew_s = None
    if utc_s is not None and isinstance(written_s, int | float):
        skew_s = written_s - utc_s
    return Candidate(str(said.get("replica", ""))[:100], str(said.get("address", ""))[:300], kv.create_revision, skew_s)


class LeaderFolder:
    """Folds the keys under /gslb/leader/."""

    def __init__(self) -> None:
        self._candidates: dict[bytes, Candidate] = {}

    @property
    def candidates(self) -> Mapping[bytes, Candidate]:
        return self._candidates

    @property
    def leader(self) -> Candidate | None:
        """The candidate that entered first."""
        return min(self._candidates.values(), key=lambda one: one.create_revision, default=None)

    def put(self, kv: KeyValue, utc_s: float | None) -> None:
        """A candidate entered; `utc_s`: our clock as we saw it happen, None when it was there already."""
        if kv.key.startswith(keys.LEADERS):
            self._candidates[kv.key] = _parse(kv, utc_s)

    def delete(self, key: bytes) -> None:
        self._candidates.pop(key, None)

    def snapshot(self, kvs: Iterable[KeyValue]) -> None:
        before = self._candidates
        self._candidates = {}
        for kv in kvs:
            known = before.get(kv.key)
            if known is not None and known.create_revision == kv.create_revision:
                self._candidates[kv.key] = known
            else:
                self.put(kv, None)
