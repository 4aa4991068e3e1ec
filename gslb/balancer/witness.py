"""What clients and remote probes saw of each task, in two windows that follow each other. PURE.

Bounded: only tasks that BNS knows are counted (the caller sees to it), and what is older than two windows is gone.
"""

from gslb.balancer.verdict import Votes, Witness
from gslb.model import limits

_NO_VOTES = Votes()


class WitnessStand:
    """Votes per task: those of the running window and of the one before it."""

    def __init__(self, window_s: float = limits.WITNESS_WINDOW_S) -> None:
        self._window_s = window_s
        self._started_s = 0.0
        self._running: dict[str, Votes] = {}
        self._before: dict[str, Votes] = {}

    def add(self, task: str, ok: int, failed: int, now_s: float) -> None:
        """One report of one observer."""
        self._turn(now_s)
        self._running[task] = self._running.get(task, _NO_VOTES).add(ok, failed)

    def witness(self, task: str, now_s: float) -> Witness:
        """What the votes of the last one to two windows amount to."""
        self._turn(now_s)
        return (self._running.get(task, _NO_VOTES) + self._before.get(task, _NO_VOTES)).witness

    def _turn(self, now_s: float) -> None:
        past_s = now_s - self._started_s
        if past_s < self._window_s:
            return
        self._before = self._running if past_s < 2 * self._window_s else {}
        self._running = {}
        self._started_s = now_s
