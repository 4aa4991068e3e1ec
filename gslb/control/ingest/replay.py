"""Refusal of replayed and reordered reports by (reporter, boot, sequence), in bounded memory. PURE.

A reporter's sequence grows within a boot. A new boot starts over, and reports of boots before it are refused, so that a
recorded stream cannot be played back. The reporters longest unheard are forgotten first when there are too many.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

BOOTS_KEPT = 4


@dataclass(slots=True)
class _Reporter:
    boot: str
    seq: int
    earlier: list[str] = field(default_factory=list)


class ReplayGuard:
    """The last sequence seen of each of at most `limit` reporters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: OrderedDict[str, _Reporter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def admit(self, reporter: str, boot: str, seq: int) -> str:
        """Empty when the report is new, and then it is remembered; else why it is refused."""
        known = self._seen.get(reporter)
        if known is None:
            self._seen[reporter] = _Reporter(boot, seq)
            if len(self._seen) > self._limit:
                self._seen.popitem(last=False)
            return ""
        if boot == known.boot:
            if seq <= known.seq:
                return f"replay: seq {seq} of {reporter} is not above {known.seq}"
        elif boot in known.earlier:
            return f"replay: {reporter} has a newer boot than {boot}"
        else:
            known.earlier = [*known.earlier, known.boot][-BOOTS_KEPT:]
            known.boot = boot
        known.seq = seq
        self._seen.move_to_end(reporter)
        return ""
