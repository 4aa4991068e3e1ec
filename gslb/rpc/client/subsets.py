"""Which tasks of a large datacenter a channel connects to: some twenty, found by asking them (`gslb.rpc.policy.subset`).

A channel of up to SIZE tasks in a datacenter uses them all, and nothing here costs anything. In a larger one it takes some
at random first, so that no call waits, asks others how many clients they have, settles on those with the fewest, and goes
on comparing now and then. What it settles on has been dialled by then; what it leaves is told so and closed when its
calls have ended. A datacenter whose tasks do not say how many clients they have is served by the random ones.

`narrow` runs under the core's lock, rounds on the timers' thread; times are monotonic seconds.
"""

import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

import grpc

from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.client.link import Link
from gslb.rpc.policy.choice import Rng
from gslb.rpc.policy.clients import HOLD, LEAVE, LOOK, question
from gslb.rpc.policy.report import decode
from gslb.rpc.policy.subset import COMPARE_SOON_S, SIZE, Subset
from gslb.rpc.policy.suspicion import sample

L = TypeVar("L", bound=Link)
Serving = Mapping[str, Sequence[ServiceEndpoint]]
# Equals are taken in random order, or all clients that start at once would choose alike.
_JITTER: Final = 1e-6


@dataclass(slots=True)
class _Place:
    """One datacenter."""

    subset: Subset = field(default_factory=Subset)
    stopgap: tuple[str, ...] = ()  # in use while nobody is chosen for their places
    asked: set[str] = field(default_factory=set)  # and not closed since
    heard: dict[str, float] = field(default_factory=dict)  # connections, in this round

    def tasks(self, known: Sequence[str], rng: Rng, now_s: float) -> frozenset[str]:
        """The tasks to use."""
        self.subset.tasks(known, now_s)
        usable = self.subset.usable
        missing = min(self.subset.size, len(known)) - len(usable)
        there = set(known) - usable
        kept = [task for task in self.stopgap if task in there][: max(0, missing)]
        if len(kept) < missing:
            kept += sample(sorted(there.difference(kept)), rng, missing - len(kept))
        self.stopgap = tuple(kept)
        return usable.union(kept)


class Subsets(Generic[L]):
    """Of one channel. `renew(task)` puts a link that was never dialled in the place of one, under the lock; what is idle
    of the old one is to be shut. `refresh()` has the table built anew, without it."""

    def __init__(
        self,
        lock: threading.Lock,
        after: Callable[[float, Callable[[], None]], bool],
        refresh: Callable[[], None],
        renew: Callable[[str], Sequence[L]],
        rng: Rng = random.random,
    ) -> None:
        self._lock = lock
        self._after = after
        self._refresh = refresh
        self._renew = renew
        self._rng = rng
        self._client = f"{random.getrandbits(64):016x}"
        self._places: dict[str, _Place] = {}
        self._links: Mapping[str, L] = {}
        self._used: frozenset[str] = frozenset()  # by the present table, of large datacenters
        self._planned = False
        self._round = 0  # the number of the one that is under way, or comes next
        self._unheard = 0  # questions of it without an answer
        # Clients that start together do not all ask at once; the stopgaps serve.
        self._pause_s = COMPARE_SOON_S * rng()

    def narrow(self, serving: Serving, links: Mapping[str, L], now_s: float) -> Mapping[str, L]:
        """The links to choose among: of large datacenters some, else all. Under the lock."""
        large = {datacenter: group for datacenter, group in serving.items() if len(group) > SIZE}
        if not large and not self._places:
            return links
        self._links = links
        self._places = {datacenter: self._places.get(datacenter) or _Place() for datacenter in large}
        used: set[str] = set()
        for datacenter, group in large.items():
            known = [endpoint.task for endpoint in group if endpoint.task in links]
            used |= self._places[datacenter].tasks(known, self._rng, now_s)
        self._used = frozenset(used)
        self._plan()
        return {
            task: link for task, link in links.items() if link.endpoint.datacenter not in large or task in self._used
        }

    def _plan(self) -> None:
        """Has the next round begin after a while; under the lock."""
        if self._places and not self._planned:
            self._planned = self._after(self._pause_s, self._ask)

    # A round: ask, hear, settle, leave

    def _ask(self) -> None:
        asks: list[tuple[L, _Place, str]] = []
        with self._lock:
            number = self._round
            for place in self._places.values():
                place.heard.clear()
                names = [*place.subset.ask(self._rng), *place.subset.usable]
                place.asked.update(names)
                asks += [
                    (link, place, HOLD if link.endpoint.task in place.subset.chosen else LOOK)
                    for link in self._found(names)
                ]
            self._unheard = len(asks)
        # Whoever has not answered by then has no say.
        self._after(limits.SUBSET_ASK_TIMEOUT_S, partial(self._settle, number))
        for link, place, word in asks:
            said = partial(self._said, number, place, link.endpoint.task)
            link.ask_load(limits.SUBSET_ASK_TIMEOUT_S, said, question(word, self._client))

    def _said(self, number: int, place: _Place, task: str, code: grpc.StatusCode, line: bytes) -> None:
        report = decode(line) if code is grpc.StatusCode.OK else None
        with self._lock:
            if number != self._round:
                return
            if report is not None and report.clients >= 1.0:
                # It counts us; where we are none of its clients, it has one less.
                ours = task in place.subset.chosen
                place.heard[task] = report.clients if ours else report.clients - 1.0 - _JITTER * self._rng()
            self._unheard -= 1
            done = self._unheard == 0
        if done:
            self._after(0.0, partial(self._settle, number))

    def _settle(self, number: int) -> None:
        joined: list[L] = []
        left: list[L] = []
        with self._lock:
            if number != self._round:
                return
            self._round += 1
            changes = [place.subset.decide(place.heard) for place in self._places.values()]
            pauses_s = [Subset.next_s(change, self._rng) for change in changes]
            if not all(place.asked for place in self._places.values()):
                # A datacenter that has become large during this round.
                pauses_s.append(COMPARE_SOON_S)
            # Not before what this round leaves is closed.
            self._pause_s = max(2 * limits.LOAD_PROBE_TIMEOUT_S, min(pauses_s, default=0.0))
            self._planned = False
            for change in changes:
                joined += self._found(change.join)
                left += self._found(change.leave)
        self._refresh()
        for links, word in ((joined, HOLD), (left, LEAVE)):
            for link in links:
                link.ask_load(limits.LOAD_PROBE_TIMEOUT_S, _ignore, question(word, self._client))
        self._after(limits.LOAD_PROBE_TIMEOUT_S, self._close_unused)

    def _found(self, tasks: Iterable[str]) -> list[L]:
        return [self._links[task] for task in tasks if task in self._links]

    def _close_unused(self) -> None:
        """Closes what was dialled and is not in use: what was left, and what was asked in vain."""
        idle: list[L] = []
        with self._lock:
            for datacenter, place in self._places.items():
                dialled = place.asked.union(
                    task for task, link in self._links.items() if link.picks and link.endpoint.datacenter == datacenter
                )
                unused = dialled - self._used - place.subset.chosen
                place.asked -= unused
                for task in unused & self._links.keys():
                    idle += self._renew(task)
        for link in idle:
            self._after(0.0, link.shut)

    def uses(self, link: Link) -> bool:
        """Whether calls may go there; under the lock."""
        return link.endpoint.datacenter not in self._places or link.endpoint.task in self._used

    def describe(self) -> dict[str, list[str]]:
        """The tasks in use of each large datacenter."""
        with self._lock:
            return {
                datacenter: sorted(place.subset.usable.union(place.stopgap))
                for datacenter, place in self._places.items()
            }


def _ignore(code: grpc.StatusCode, line: bytes) -> None:
    """What is said in answer to what needs no answer."""
    del code, line
