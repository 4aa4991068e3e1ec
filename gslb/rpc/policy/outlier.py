"""Tasks that fail much more than the others of their service are left out for a while, with a ceiling. PURE.

Errors that count as load (`gslb.rpc.policy.errors`) take nearly all requests off a task that fails fast, and go on asking
it; one that fails slowly, or fails a third of what it gets, keeps its share. Those are found by comparison: in a window,
a task whose error rate is TIMES the median of all and at least LEAST above it is ejected, for longer each time. When many
fail alike it is the service that fails, and leaving out tasks would only crush those that are left: never more than
EJECT_TASKS_MAX_FRACTION of the tasks are out, the worst first, and one task alone never is.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from statistics import median_low
from typing import Final

from gslb.model import limits

TIMES: Final = 3.0
LEAST: Final = 0.1
# Fewer requests than this in a window say nothing.
REQUESTS_MIN: Final = 10


@dataclass(slots=True)
class _Seen:
    requests: int = 0
    errors: int = 0
    ejections: int = 0  # lately; one is forgiven for each window without a reason
    until_s: float = 0.0

    @property
    def rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0


@dataclass(slots=True)
class Outliers:
    """What one channel saw of its tasks in this window. Guarded by its lock; times are monotonic seconds."""

    _seen: dict[str, _Seen] = field(default_factory=dict)
    since_s: float | None = None

    def ended(self, task: str, now_s: float, *, error: bool) -> bool:
        """An attempt is over. `error`: of the server's making, a refusal for overload not among them.

        Whether the window is over, and `look` has something to do.
        """
        seen = self._seen.get(task)
        if seen is None:
            seen = self._seen[task] = _Seen()
        seen.requests += 1
        seen.errors += error
        if self.since_s is None:
            self.since_s = now_s
        return now_s - self.since_s >= limits.EJECT_WINDOW_S

    def look(self, tasks: Collection[str], now_s: float) -> frozenset[str]:
        """Ends the window; the tasks of `tasks` that are out from now on."""
        self.since_s = now_s
        for gone in [task for task in self._seen if task not in tasks]:
            del self._seen[gone]
        room = max(int(limits.EJECT_TASKS_MAX_FRACTION * len(tasks)), int(len(tasks) > 1))
        room -= len(self.ejected(now_s))
        for task in self._suspects(now_s):
            if room <= 0:
                break
            seen = self._seen[task]
            seen.ejections += 1
            seen.until_s = now_s + min(limits.EJECT_MAX_S, limits.EJECT_BASE_S * 2.0 ** (seen.ejections - 1))
            room -= 1
        for seen in self._seen.values():
            if seen.until_s <= now_s and seen.requests >= REQUESTS_MIN and seen.ejections:
                seen.ejections -= 1
            seen.requests = seen.errors = 0
        return self.ejected(now_s)

    def ejected(self, now_s: float) -> frozenset[str]:
        """The tasks that are out."""
        return frozenset(task for task, seen in self._seen.items() if seen.until_s > now_s)

    def _suspects(self, now_s: float) -> list[str]:
        """Worst first."""
        judged = [(seen.rate, task) for task, seen in self._seen.items() if seen.requests >= REQUESTS_MIN]
        if not judged:
            return []
        usual = median_low(rate for rate, _ in judged)
        found = [
            (rate, task)
            for rate, task in judged
            if rate >= usual + LEAST and rate >= TIMES * usual and self._seen[task].until_s <= now_s
        ]
        return [task for _, task in sorted(found, reverse=True)]
