"""Tasks and datacenters that do not answer: who is asked whether he is there, and what follows.

Three kinds of silence. A connection that breaks or is refused: the task is `down`, and probed until it answers. A task
that takes requests and says nothing (`gslb.rpc.policy.stall`): while calls are under way somebody listens, and asks whoever
is silent for too long. Several tasks of one datacenter at once (`gslb.rpc.policy.suspicion`): others there are asked, and
if they say nothing either, all of them are down.

What is marked so runs under the core's lock; probes answer on any thread, and the listening is the timers'.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gslb.model import limits
from gslb.rpc.client.link import Link
from gslb.rpc.policy.failure import ANSWERS, Failure
from gslb.rpc.policy.stall import leaves_out, overdue
from gslb.rpc.policy.suspicion import Suspicion, Verdict, sample

log = logging.getLogger(__name__)

L = TypeVar("L", bound=Link)


class Channel(Protocol):
    """What the core does for its doubts."""

    closed: bool

    def after(self, delay_s: float, callback: Callable[[], None]) -> bool:
        """On the timers' thread; False: never."""

    def uses(self, link: Link) -> bool:
        """Whether calls may go there; under the lock."""

    def rebuilt(self) -> Iterable[Callable[[], None]]:
        """Builds the table anew, under the lock; whom to call back without it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the end of a call has shown. `follow` is for when the lock is free."""

    changed: bool  # the table must be built anew
    follow: Callable[[], None]


class Doubts(Generic[L]):
    """Of one channel; `links` are the tasks that it knows, by name, as they come and go."""

    def __init__(self, service: str, lock: threading.Lock, links: Mapping[str, L], channel: Channel) -> None:
        self._service = service
        self._lock = lock
        self._links = links
        self._channel = channel
        self._suspicion = Suspicion()
        self.cases = self._suspicion.cases  # without any, and of a task that is not left out, a response tells nothing
        self._rng = random.random
        self.listening = False  # somebody is going to look at who is silent

    def ended(self, link: L, failure: Failure | None) -> Finding | None:
        """What the end of an attempt on `link` shows (None: a response, which shows nothing); under the lock."""
        falls = link.note(failure)
        if failure in ANSWERS:
            if self._suspicion.cases:
                self._suspicion.answered(link.endpoint.datacenter)
            return self._back(link) if link.stalled else None
        verdict, fallen = self._judge(link, failure)
        doubted = failure is Failure.TIMED_OUT and not (link.doubted or link.down or link.leaving)
        link.doubted = link.doubted or doubted

        def follow() -> None:
            if falls and failure is not None and not link.leaving:
                self._plan_probe(link, failure)
            elif doubted:
                self._question(link)
            self._follow(verdict, link.endpoint.datacenter, fallen)

        return Finding(falls or bool(fallen), follow)

    def _back(self, link: L) -> Finding:
        """A task that was left out for its silence has answered a request after all."""
        link.stalled = link.doubted = False
        return Finding(True, lambda: None)

    # A task that cannot be reached

    def _plan_probe(self, link: L, failure: Failure) -> None:
        delay_s = link.retry_in_s(failure, self._rng())
        log.info("%s: %s at %s: %s; trying again in %.2f s", self._service, link.endpoint.task, link.target,
                 failure.value, delay_s)  # fmt: skip
        self._probe_in(link, delay_s)

    def _probe_in(self, link: L, delay_s: float) -> None:
        if not self._channel.after(delay_s, lambda: self.probe(link)):
            # Nobody is left who could probe it: let calls find out.
            with self._lock:
                link.down = False
                self._channel.rebuilt()

    def probe(self, link: L) -> None:
        """Asks a task that is down whether it is back."""
        if link.leaving or not link.down or self._channel.closed:
            return
        link.probe(limits.CONNECT_PROBE_TIMEOUT_S, lambda ok: self._probed(link, ok))

    def _probed(self, link: L, ok: bool) -> None:
        with self._lock:
            if link.leaving or self._channel.closed or not link.down:
                return
            link.probed(ok=ok)
            if ok:
                self._suspicion.answered(link.endpoint.datacenter)
            waiting = self._channel.rebuilt() if ok else []
        if not ok:
            self._plan_probe(link, Failure.NEVER_SENT)
        for callback in waiting:
            callback()

    # A task that keeps callers waiting

    def listen(self) -> None:
        """Has somebody look soon at who is silent; under the lock."""
        self.listening = self._channel.after(limits.STALL_LOOK_S, self._look)

    def _look(self) -> None:
        """Asks those who are silent for too long; looks again as long as calls are under way."""
        now_s = time.monotonic()
        silent: list[L] = []
        with self._lock:
            self.listening = False
            if self._channel.closed:
                return
            for link in self._links.values():
                if overdue(link, now_s):
                    link.doubted = True
                    silent.append(link)
            if any(link.in_flight for link in self._links.values()):
                self.listen()
        for link in silent:
            self._question(link)

    def _question(self, link: L) -> None:
        """Asks a task marked `doubted` whether it is there."""
        asked_s = time.monotonic()
        # An answer to anybody else's call is one to the question, too.
        link.probe(
            limits.SUSPECT_PROBE_TIMEOUT_S,
            lambda ok: self._questioned(link, ok or link.heard_s > asked_s),
            patient=False,
        )

    def _question_again(self, link: L) -> None:
        if link.stalled:
            self._question(link)

    def _questioned(self, link: L, ok: bool) -> None:
        with self._lock:
            if link.leaving or self._channel.closed:
                return
            if ok:
                link.is_there(time.monotonic())
            verdict = Verdict.NOTHING
            fallen: list[L] = []
            # Of one that has never answered anything nobody knows how long it takes: that is no word on its datacenter.
            if ok or link.proved:
                verdict, fallen = self._judge(link, None if ok else Failure.NEVER_SENT)
            # One that is down is probed until it is back, anyway.
            stalled = not ok and not link.down and leaves_out(link, self._links.values())
            changed = stalled != link.stalled or bool(fallen)
            link.stalled = link.doubted = stalled
            waiting = self._channel.rebuilt() if changed else []
        if stalled and not self._channel.after(limits.STALL_AGAIN_S, lambda: self._question_again(link)):
            link.stalled = link.doubted = False
        for callback in waiting:
            callback()
        self._follow(verdict, link.endpoint.datacenter, fallen)

    # A datacenter that does not answer

    def _judge(self, link: L, failure: Failure | None) -> tuple[Verdict, list[L]]:
        """What the end of an attempt says about the task's whole datacenter, and who is down for it; under the lock."""
        datacenter = link.endpoint.datacenter
        if failure in ANSWERS:
            self._suspicion.answered(datacenter)
            return Verdict.NOTHING, []
        unreached = failure is not Failure.TIMED_OUT
        verdict = self._suspicion.failed(datacenter, link.endpoint.task, time.monotonic(), unreached=unreached)
        fallen = self._others(datacenter) if verdict is Verdict.GONE else []
        for other in fallen:
            other.down = True
            other.failures += 1
        return verdict, fallen

    def _others(self, datacenter: str) -> list[L]:
        """The tasks of a datacenter that are used and taken to answer; under the lock."""
        here = [link for link in self._links.values() if link.endpoint.datacenter == datacenter and not link.down]
        return [link for link in here if self._channel.uses(link)]

    def _follow(self, verdict: Verdict, datacenter: str, fallen: list[L]) -> None:
        """Asks others of a datacenter under suspicion, or probes all that fell with it."""
        if fallen:
            log.warning("%s: datacenter %s does not answer: its share goes elsewhere, by the plan's contingency",
                        self._service, datacenter)  # fmt: skip
            for link in fallen:
                self._probe_in(link, link.retry_in_s(Failure.NEVER_SENT, self._rng()))
        elif verdict is Verdict.ASK:
            with self._lock:
                asked = sample(self._others(datacenter), self._rng)
            for link in asked:
                self._ask(link)

    def _ask(self, link: L) -> None:
        link.probe(limits.SUSPECT_PROBE_TIMEOUT_S, lambda ok: self._asked(link, ok), patient=False)

    def _asked(self, link: L, ok: bool) -> None:
        with self._lock:
            if link.leaving or self._channel.closed:
                return
            found = self.ended(link, None if ok else Failure.NEVER_SENT)
            waiting = self._channel.rebuilt() if found is not None and found.changed else []
        for callback in waiting:
            callback()
        if found is not None:
            found.follow()
