"""Which DNS frontends reported lately, and what answers there, for `gslb check`. Bounded, in memory."""

from dataclasses import dataclass
from typing import Final

FRONTENDS_MAX: Final = 1000
RESPONDER_MAX_CHARS: Final = 200
# One that is silent for so long is told as such, and forgotten after so long.
SILENT_S: Final = 15.0
KEPT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Frontend:
    """What one frontend said last, `at_s` (monotonic)."""

    responder: str
    at_s: float

    def silent_s(self, now_s: float) -> float:
        """Seconds without a report, if they are too many; else 0."""
        silent_s = now_s - self.at_s
        return silent_s if silent_s > SILENT_S else 0.0


class Frontends:
    """The last word of each frontend; of too many the one that was silent longest is forgotten."""

    def __init__(self) -> None:
        self._last: dict[str, Frontend] = {}

    def note(self, reporter: str, responder: str, now_s: float) -> None:
        """A frontend reported. What is no text is made one: words for people are no reason to refuse demand."""
        said = "".join(c if c.isprintable() else " " for c in responder[:RESPONDER_MAX_CHARS])
        self._last.pop(reporter, None)
        if len(self._last) >= FRONTENDS_MAX:
            self._last.pop(next(iter(self._last)))
        self._last[reporter] = Frontend(said, now_s)

    def recent(self, now_s: float) -> dict[str, Frontend]:
        """By name."""
        self._last = {name: one for name, one in self._last.items() if now_s - one.at_s <= KEPT_S}
        return dict(sorted(self._last.items()))
