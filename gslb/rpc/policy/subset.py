"""Which tasks a client keeps connections to: some twenty of them, evenly spread, and moved as little as can be. PURE.

Clients have no numbers. (With dense numbers a shuffled list cut into slices is even, SRE book chapter 20, but a task more
moves a third of all connections; with hashes alone, whatever the hash, connections per task scatter like sqrt(mean).) So a
subset is found by asking: a task says how many clients it has.

- A vacancy is filled by the least connected of CANDIDATES tasks drawn at random: the gap between the fullest task and
  the mean is then a connection or two, however many there are (Berenbrink et al. 2006).
- From time to time, and soon after a change, a client compares its fullest task with some others, and moves one
  connection if they differ by two or more and the fuller is more than ABOVE beyond the mean (of all it heard from), or
  the other more than BELOW short of it. A task that is too full is what there must not be; one that has a connection or
  two less than others harms nobody, and as tight a bound for it moved half as much again when a task came or went.
  Each such move lessens the sum of squares, so moves end; nothing moves for any other reason. Who finds no place for a
  connection that is too many asks more tasks the next time.
- A task that vanished keeps its place for HOLD_S: after a restart its clients come back to it.

A task's number is as of the moment it was asked. Clients ask at random times, so two seldom act on the same number; when
they do, the next comparison mends it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gslb.rpc.policy.choice import Rng
from gslb.rpc.policy.suspicion import sample

SIZE: Final = 20
# How many are asked for each vacancy, and for each comparison; and when the last one found no place for what is too many.
CANDIDATES: Final = 8
# Each that is asked is dialled: a client that knows nobody asks no more than these.
ASKED_MOST: Final = 100
COMPARED: Final = 4
COMPARED_CROWDED: Final = 20
# A task whose connections are within these of the mean is left in peace.
# At sizes of twenty, 21 for a mean of 20 is to be in peace and 19 for one of 18 is not: ABOVE lies between the two.
ABOVE: Final = 0.053
BELOW: Final = 0.10
HOLD_S: Final = 60.0
# Mean time between a client's comparisons while all is even, and the least, which follows each move.
COMPARE_S: Final = 30.0
COMPARE_SOON_S: Final = 1.0


class Change(NamedTuple):
    """Tasks to connect to and, once those are warm, to take leave of."""

    join: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()


@dataclass(slots=True)
class Subset:
    """One client's, of one service in one datacenter. Times are monotonic seconds."""

    size: int = SIZE
    chosen: set[str] = field(default_factory=set)  # those on hold included
    crowded: bool = False  # one of them has too many clients, and no better one was found
    _known: frozenset[str] = frozenset()
    _missing_s: dict[str, float] = field(default_factory=dict)  # since when a chosen task is not there

    def tasks(self, known: Collection[str], now_s: float) -> tuple[str, ...]:
        """The tasks that there are now; the chosen ones that were given up, being away for too long."""
        self._known = frozenset(known)
        self._missing_s = {task: self._missing_s.get(task, now_s) for task in self.chosen - self._known}
        gone = tuple(sorted(task for task, since_s in self._missing_s.items() if now_s - since_s >= HOLD_S))
        for task in gone:
            self.chosen.discard(task)
            del self._missing_s[task]
        return gone

    @property
    def usable(self) -> frozenset[str]:
        """The chosen tasks that are there."""
        return self._known & self.chosen

    @property
    def vacancies(self) -> int:
        """Connections that it should have and does not; a task on hold counts as one until it is given up.

        When more than half are away at once, nothing is held: a client must not live on a few connections for HOLD_S.
        """
        held = self.chosen if 2 * len(self._missing_s) <= self.size else self.usable
        return max(0, min(self.size, len(self._known)) - len(held))

    def ask(self, rng: Rng) -> list[str]:
        """Whom to ask now for the number of their clients: for every vacancy some others, or some to compare with."""
        others = sorted(self._known - self.chosen)
        vacancies = self.vacancies
        return sample(others, rng, self._questions(vacancies))

    def _questions(self, vacancies: int) -> int:
        if vacancies:
            return min(CANDIDATES * vacancies, ASKED_MOST)
        return COMPARED_CROWDED if self.crowded else COMPARED

    def decide(self, connections: Mapping[str, float]) -> Change:
        """Fills vacancies, or makes one move, by the connections that tasks said to have; no word, no move.

        `connections` has those asked and the chosen ones, whose numbers come with every answer of theirs.
        """
        self.crowded = False
        others = sorted((count, task) for task, count in connections.items() if task in self._known - self.chosen)
        if vacancies := self.vacancies:
            join = tuple(task for _, task in others[:vacancies])
            self.chosen.update(join)
            return Change(join)
        ours = max(((count, task) for task, count in connections.items() if task in self.usable), default=None)
        if len(self.usable) > self.size and ours is not None:
            # Held tasks came back after their places were filled.
            return self._left(ours[1])
        if not others or ours is None:
            return Change()
        mean = sum(connections.values()) / len(connections)
        self.crowded = ours[0] > (1 + ABOVE) * mean
        if ours[0] - others[0][0] < 2 or not (self.crowded or others[0][0] < (1 - BELOW) * mean):
            return Change()
        join = (others[0][1],)
        self.chosen.update(join)
        return Change(join, self._left(ours[1]).leave)

    def _left(self, task: str) -> Change:
        self.chosen.discard(task)
        return Change((), (task,))

    @staticmethod
    def next_s(change: Change, rng: Rng) -> float:
        """When to ask again, at random: soon after a change, seldom while all is even."""
        return (COMPARE_SOON_S if change != Change() else COMPARE_S) * (0.5 + rng())
