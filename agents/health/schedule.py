"""When each task is probed next. PURE: takes `now` (seconds, monotonic) and an `rng`.

A heap of due times. Starts are spread over a fraction of a second and every later probe is jittered, so that a thousand
tasks that appeared together are not probed together for ever. A task is never probed twice at the same time: what is
asked for during a probe happens right after it.
"""

import heapq
from dataclasses import dataclass
from typing import Protocol

from agents import limits


class Rng(Protocol):
    """What is needed of random.Random."""

    def uniform(self, a: float, b: float) -> float: ...


@dataclass(slots=True)
class _Entry:
    ticket: int  # of its valid place in the heap; older places are void
    probing: bool = False
    again: bool = False


class Schedule:
    """Due times of names."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._heap: list[tuple[float, int, str]] = []
        self._entries: dict[str, _Entry] = {}
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def add(self, name: str, now: float, interval_s: float) -> None:
        """Begins with `name`, soon. A name that is there already stays as it is."""
        if name not in self._entries:
            self._entries[name] = _Entry(ticket=0)
            self._push(name, now + self._rng.uniform(0.0, min(interval_s, limits.PROBE_START_SPREAD_S)))

    def remove(self, name: str) -> None:
        """Forgets `name`."""
        self._entries.pop(name, None)

    def hurry(self, name: str, now: float) -> None:
        """Makes `name` due now, or right after the probe that runs."""
        entry = self._entries.get(name)
        if entry is None:
            return
        if entry.probing:
            entry.again = True
        else:
            self._push(name, now)

    def take(self, now: float, room: int) -> list[str]:
        """Up to `room` names that are due; each stays out of the schedule until done() is called for it."""
        taken: list[str] = []
        while self._heap and len(taken) < room:
            due, ticket, name = self._heap[0]
            entry = self._entries.get(name)
            if entry is None or entry.ticket != ticket:
                heapq.heappop(self._heap)
                continue
            if due > now:
                break
            heapq.heappop(self._heap)
            entry.probing, entry.ticket = True, 0
            taken.append(name)
        return taken

    def done(self, name: str, now: float, interval_s: float) -> None:
        """`name` was probed; `interval_s` until the next, counted from now."""
        entry = self._entries.get(name)
        if entry is None:
            return
        jitter = limits.PROBE_JITTER_FRACTION
        delay_s = 0.0 if entry.again else interval_s * self._rng.uniform(1.0 - jitter, 1.0 + jitter)
        entry.probing = entry.again = False
        self._push(name, now + delay_s)

    def next_due(self) -> float | None:
        """When take() has something, None while nothing is scheduled."""
        while self._heap:
            due, ticket, name = self._heap[0]
            entry = self._entries.get(name)
            if entry is not None and entry.ticket == ticket:
                return due
            heapq.heappop(self._heap)
        return None

    def _push(self, name: str, due: float) -> None:
        self._tickets += 1
        self._entries[name].ticket = self._tickets
        heapq.heappush(self._heap, (due, self._tickets, name))
