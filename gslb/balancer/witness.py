"""What clients and remote probes saw of each task, in short windows that follow each other. PURE.

Bounded: only tasks that BNS knows are counted (the caller sees to it), and what is older than the windows is gone.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from gslb.balancer.verdict import Votes, Witness, deserted
from gslb.model import limits

_NO_VOTES = Votes()
# All windows together say what is seen of one task. What befell all tasks of an agent shows in the newest ones.
WINDOWS: Final = 8
NEWEST: Final = 2


class WitnessStand:
    """Votes per task and window, the running window first."""

    def __init__(self, window_s: float = limits.WITNESS_WINDOW_S) -> None:
        self._window_s = window_s
        self._started_s = 0.0
        self._windows: deque[dict[str, Votes]] = deque(({} for _ in range(WINDOWS)), WINDOWS)

    def __len__(self) -> int:
        """Tasks with votes."""
        return len(set().union(*self._windows))

    def add(self, task: str, ok: int, failed: int, now_s: float) -> None:
        """One report of one observer."""
        self._turn(now_s)
        running = self._windows[0]
        running[task] = running.get(task, _NO_VOTES).add(ok, failed)

    def witness(self, task: str, now_s: float, *, deserted: bool = False, out: bool = False) -> Witness:
        """What the votes on a task amount to.

        `deserted`: the newest votes alone count, for a loss may lie between them and the others. `out`: the task is
        TIMEOUT; that it serves again must be what all votes say and the newest too, or it would be back and forth.
        """
        self._turn(now_s)
        whole = self._votes(task, NEWEST if deserted else WINDOWS).witness
        return self._votes(task, NEWEST).witness if out and whole is Witness.SERVING else whole

    def deserted(self, tasks: Iterable[str], now_s: float) -> bool:
        """Whether nearly all of `tasks`, all that one agent speaks for, have failed lately."""
        self._turn(now_s)
        return deserted([self._votes(task, NEWEST) for task in tasks])

    def _votes(self, task: str, newest: int) -> Votes:
        votes = _NO_VOTES
        for number in range(newest):
            more = self._windows[number].get(task)
            if more is not None:
                votes += more
        return votes

    def _turn(self, now_s: float) -> None:
        passed = (now_s - self._started_s) / self._window_s
        if passed < 1:
            return
        for _ in range(min(int(passed), WINDOWS)):
            self._windows.appendleft({})
        self._started_s += int(passed) * self._window_s
