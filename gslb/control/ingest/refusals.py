"""Which reports were refused lately and why, for `gslb check`: of each reporter the last reason. Bounded."""

from dataclasses import dataclass
from typing import Final

REPORTERS_MAX: Final = 200
KEPT_S: Final = 120.0
# A report that was sent twice, as happens when a stream breaks, is nobody's mistake.
HARMLESS: Final = "replay"


@dataclass(frozen=True, slots=True)
class Refusal:
    """`count` reports of one reporter in a row, the last one at `at_s` (monotonic)."""

    reason: str
    count: int
    at_s: float


class Refusals:
    """The last refusal of each reporter; of too many the longest ago is forgotten."""

    def __init__(self) -> None:
        self._last: dict[str, Refusal] = {}

    def note(self, reporter: str, reason: str, now_s: float) -> None:
        """A report was refused."""
        if reason.startswith(HARMLESS):
            return
        before = self._last.pop(reporter, None)
        if len(self._last) >= REPORTERS_MAX:
            self._last.pop(next(iter(self._last)))
        self._last[reporter] = Refusal(reason, 1 + (before.count if before else 0), now_s)

    def recent(self, now_s: float) -> dict[str, Refusal]:
        """By reporter, the latest last."""
        self._last = {name: one for name, one in self._last.items() if now_s - one.at_s <= KEPT_S}
        return dict(self._last)
