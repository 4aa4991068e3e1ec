"""Clients that find their subsets (`gslb.rpc.policy.subset`) while tasks and clients come and go: who is connected to whom.

Clients act one after the other, in random order, once a round; a task's number is as of the moment it is asked.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gslb.rpc.policy.subset import ABOVE, BELOW, HOLD_S, SIZE, Subset

ROUND_S: Final = 1.0
_ROUNDS_MAX: Final = 300
# Rounds without a move after which all is taken to be even; each compares every client with a few tasks.
_QUIET: Final = 5


@dataclass(slots=True)
class Connections:
    """The fleet; `made` counts connections made since it was reset."""

    rng: random.Random
    size: int = SIZE
    now_s: float = 0.0
    tasks: set[str] = field(default_factory=set)
    clients: dict[str, Subset] = field(default_factory=dict)
    per_task: Counter[str] = field(default_factory=Counter)
    made: int = 0

    def add_clients(self, names: Iterable[str]) -> None:
        for name in names:
            self.clients[name] = Subset(self.size)
            self.clients[name].tasks(self.tasks, self.now_s)

    def remove_clients(self, names: Iterable[str]) -> None:
        for name in names:
            self.per_task.subtract(self.clients.pop(name).usable)

    def set_tasks(self, tasks: Iterable[str]) -> None:
        """Tasks come and go; the connections of those that came back within the hold are made again at once."""
        after = set(tasks)
        back, lost = after - self.tasks, self.tasks - after
        self.tasks = after
        for task in lost:
            del self.per_task[task]
        for client in self.clients.values():
            client.tasks(after, self.now_s)
            for task in back & client.chosen:
                self.per_task[task] += 1
                self.made += 1

    def settle(self) -> int:
        """Rounds until nobody has moved for some; how many there were."""
        quiet = 0
        for number in range(_ROUNDS_MAX):
            self.now_s += ROUND_S
            quiet = 0 if self._round() else quiet + 1
            if quiet == _QUIET:
                return number + 1 - _QUIET
        return _ROUNDS_MAX

    def _round(self) -> int:
        moves = 0
        order = list(self.clients.values())
        self.rng.shuffle(order)
        for client in order:
            client.tasks(self.tasks, self.now_s)
            heard = [*client.ask(self.rng.random), *client.usable]
            change = client.decide({task: self.per_task[task] for task in heard})
            self.per_task.update(change.join)
            self.per_task.subtract(change.leave)
            self.made += len(change.join)
            moves += len(change.join) + len(change.leave)
        return moves

    def hold(self) -> None:
        """Lets the places of vanished tasks expire."""
        self.now_s += HOLD_S

    def counts(self) -> Sequence[int]:
        """Clients of each task."""
        return [self.per_task[task] for task in self.tasks]

    def mean(self) -> float:
        return len(self.clients) * min(self.size, len(self.tasks)) / len(self.tasks)

    def excess(self) -> int:
        """The least number of connections that must be made now: vacancies, and what is above an even share.

        Even is what is within one connection of the mean, or what clients leave in peace. A vacancy may be filled where
        there is too little, so the two are not added.
        """
        vacancies = sum(client.vacancies for client in self.clients.values())
        mean, counts = self.mean(), self.counts()
        most = max(math.ceil(mean), math.floor((1 + ABOVE) * mean))
        least = min(math.floor(mean), math.ceil((1 - BELOW) * mean))
        above = sum(max(0, count - most) for count in counts)
        below = sum(max(0, least - count) for count in counts)
        return max(vacancies + above, below)
