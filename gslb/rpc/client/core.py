"""What one channel knows and decides, the same for sync and asyncio: picks, retries, back-off, counts.

The hot path (`pick`, `begin`, `finish`) reads one immutable table and takes one lock for the counters. Everything rare
rebuilds the table: a new view from the control plane, a task that stops answering or answers again.
"""

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Generic, Protocol, TypeVar

import grpc

from bns.model import HealthStatus
from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.resources import Catalog
from gslb.rpc.client.chooser import Chooser, chooser_for, policy_of, report_in
from gslb.rpc.client.doubts import Doubts
from gslb.rpc.client.link import Link
from gslb.rpc.client.protection import Outcome, Protection, Retry
from gslb.rpc.client.settings import Settings
from gslb.rpc.client.subsets import Subsets
from gslb.rpc.client.tally import Counts, Tally
from gslb.rpc.client.timers import Timers
from gslb.rpc.context import Metadatum
from gslb.rpc.policy.budget import RetryBudget
from gslb.rpc.policy.errors import LOOK_S
from gslb.rpc.policy.failure import Failure, Refusal
from gslb.rpc.policy.hedge import Hedging
from gslb.rpc.policy.presence import Presence
from gslb.rpc.policy.rules import RING_HASH
from gslb.rpc.policy.slow_start import weigh
from gslb.rpc.policy.table import PickTable, build_table, sights_of
from gslb.steer.view import ServiceView

log = logging.getLogger(__name__)

L = TypeVar("L", bound=Link)


class Feed(Protocol):
    """Where views come from and reports go: the control connection."""

    @property
    def timers(self) -> Timers: ...
    def attach(self, core: "ServiceCore[L]") -> None: ...
    def detach(self, core: "ServiceCore[L]") -> None: ...
    def describe(self) -> str: ...
    def unknown(self, service: str) -> bool: ...


class ServiceCore(Generic[L]):
    """One service as one channel uses it."""

    def __init__(self, settings: Settings, feed: Feed, make_link: Callable[[ServiceEndpoint], L]) -> None:
        self.settings = settings
        self.table: PickTable[L] | None = None
        self.counts = Counts()
        self.closed = False
        self.listening = False  # whether reports that come with answers are of use
        self.ranks = settings.hedging  # whether calls need a trace id of our own
        self._feed = feed
        self._make_link = make_link
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._waiting: dict[int, Callable[[], None]] = {}
        self._tickets = itertools.count(1)
        self._links: dict[str, L] = {}
        self._leaving: set[L] = set()
        self._view: ServiceView | None = None
        self._catalog = Catalog()
        self._budget = RetryBudget()
        self._protection = Protection(Hedging() if settings.hedging else None)
        self._presence = Presence()
        self._chooser: Chooser[L] | None = None  # None: the table alone chooses
        self._warming = False  # a look at tasks that are new is due
        self._ticking = False  # a look at datacenters that return is due
        self._tally = Tally()
        self._rng = random.random
        self.subsets: Subsets[L] = Subsets(self._lock, self.after, self._refresh, self._renew)
        self._doubts: Doubts[L] = Doubts(settings.service, self._lock, self._links, self)
        feed.attach(self)

    # The hot path

    def pick(self) -> L | None:
        """The task for the next request; None while there is nobody. Counts nothing."""
        table, chooser = self.table, self._chooser
        if table is not None and chooser is not None:
            with self._lock:
                return self._chosen([], "", time.monotonic())
        return table.pick(self._rng) if table is not None else None

    def begin(self, tried: list[L], key: str = "") -> L | None:
        """Picks a task, another one than those tried, and counts a request in flight there; None: nobody to ask.

        `key`: of affinity, for the policy that goes by it.
        """
        if self._chooser is not None:
            return self._begin_by_rule(tried, key)
        while (table := self.table) is not None:
            link = table.pick_again(tried, self._rng) if tried else table.pick(self._rng)
            now_s = time.monotonic()
            with self._lock:
                # A link that left between the two lines above may be closed by now; the table is a new one then.
                if not link.leaving:
                    self._given(link, now_s)
                    return link
        return None

    def _given(self, link: L, now_s: float) -> None:
        """Counts a request that goes there; under the lock."""
        link.in_flight += 1
        link.picks += 1
        if link.in_flight == 1:
            link.waiting_s = now_s
        if not self._doubts.listening:
            self._doubts.listen()

    def _begin_by_rule(self, tried: list[L], key: str) -> L | None:
        now_s = time.monotonic()
        with self._lock:
            link = self._chosen(tried, key, now_s)
            if link is None or self._chooser is None:
                return None
            self._given(link, now_s)
            asked = self._chooser.to_ask(link, self._rng, now_s)
            self.counts.probes += len(asked)
        if asked:
            # Not here: the request goes first.
            self.after(0.0, lambda: self._ask_loads(asked))
        return link

    def _chosen(self, tried: list[L], key: str, now_s: float) -> L | None:
        """The rule's choice; under the lock, as the links are that it chooses from."""
        table, chooser = self.table, self._chooser
        if table is None or chooser is None:
            return None
        return chooser.pick(table, tried, key, self._rng, now_s)

    def finish(self, link: L, outcome: Outcome) -> None:
        """The attempt on `link` ended."""
        failure, cancelled, now_s = outcome.failure, outcome.cancelled, time.monotonic()
        refused = outcome.refused is not Refusal.NO
        with self._lock:
            link.in_flight -= 1
            if self._chooser is not None and not cancelled:
                self._chooser.ended(link, now_s - outcome.sent_s, now_s, ok=failure in {None, Failure.ANSWERED})
            found = None
            if failure is None and not (cancelled or link.stalled or self._doubts.cases):
                link.answered(now_s)
            elif not cancelled:
                found = self._doubts.ended(link, failure)
                if link.charge(failure, now_s, refused=refused):
                    self._plan_relief(link)
            changed = found is not None and found.changed
            if not cancelled and self._protection.ended(link.endpoint.task, outcome, now_s):
                changed = self._compare(now_s) or changed
            closing = link.leaving and link.in_flight == 0
            if closing:
                self._leaving.discard(link)
                self._tally.departs(link)
            waiting = self.rebuilt() if changed else []
        if closing:
            # Not here: gRPC's own thread may be calling, and closing waits for it.
            self._feed.timers.after(0.0, link.shut)
        for callback in waiting:
            callback()
        if found is not None:
            found.follow()

    def _compare(self, now_s: float) -> bool:
        """Holds the tasks' errors against one another; whether others are left out now. Under the lock."""
        if not self._protection.look(self._links, now_s):
            return False
        for task, known in self._links.items():
            known.ejected = task in self._protection.ejected
        log.info("%s: left out for failing more than others: %s", self.settings.service,
                 ", ".join(sorted(self._protection.ejected)) or "nobody any more")  # fmt: skip
        return True

    def count(self, criticality: Criticality, trace_id: str, now_s: float) -> str:
        """Counts one logical first attempt, whatever becomes of it; why it must not be made, empty: it may."""
        with self._lock:
            self._tally.attempts[criticality] += 1
            self.counts.requests += 1
            self._budget.request(now_s)
            protection = self._protection
            admitted = protection.admit(criticality, trace_id, self._rng, now_s)
            # Some calls are held back by it, or two copies of one must have the same.
            self.ranks = self.settings.hedging or protection.quota is not None or not protection.throttle.whole
            if admitted:
                return ""
            return self._protection.why_held_back(criticality)

    def hedge_in_s(self, left_s: float | None) -> float | None:
        """After how many seconds a call is late, so that a second copy may go out; None: never."""
        with self._lock:
            return self._protection.hedge_in_s(left_s, time.monotonic())

    def take_hedge(self, tried: list[L], *, overdue: bool) -> bool:
        """Takes a second copy of a call from the budget of hedges, or of retries for one that is `overdue`.

        False: it is spent, or there is nobody but those tried.
        """
        now_s = time.monotonic()
        with self._lock:
            table = self.table
            if table is None or not table.has_others(tried):
                return False
            if self._protection.take_hedge(now_s):
                return True
            if not overdue or not self._budget.take(now_s):
                return False
            self.counts.retries += 1
            return True

    def may_retry(self, failure: Failure) -> Retry:
        """Takes a retry from the budget.

        A request that was never sent has put no load on anybody: while there is a task that answers, it goes there for
        nothing. When there is none, the budget holds as for all.
        """
        with self._lock:
            table = self.table
            if failure is Failure.NEVER_SENT and table is not None and not table.panic:
                self.counts.retries += 1
                return Retry.FREE
            if self._budget.take(time.monotonic()):
                self.counts.retries += 1
                return Retry.PAID
            self.counts.retries_refused += 1
            return Retry.NO

    def retried_in_vain(self) -> None:
        """A retry out of the budget failed like the attempt before it."""
        with self._lock:
            self._budget.in_vain(time.monotonic())

    # Waiting for a first plan

    def wait_ready(self, timeout_s: float) -> bool:
        """Blocks until there is somebody to pick, at most `timeout_s`."""
        with self._ready:
            return self._ready.wait_for(lambda: self.table is not None or self.closed, timeout_s) and not self.closed

    def on_ready(self, callback: Callable[[], None]) -> int:
        """Calls back, from any thread, when there is somebody to pick or the channel was closed; perhaps at once.

        The number is for `forget`.
        """
        with self._lock:
            ticket = next(self._tickets)
            if self.table is None and not self.closed:
                self._waiting[ticket] = callback
                return ticket
        callback()
        return ticket

    def forget(self, ticket: int) -> None:
        """The callback of `on_ready` is not wanted any more."""
        with self._lock:
            self._waiting.pop(ticket, None)

    def after(self, delay_s: float, callback: Callable[[], None]) -> bool:
        """Runs `callback` on the timers' thread; False: the control connection was closed, it will not run."""
        return self._feed.timers.after(delay_s, callback)

    def reason(self) -> str:
        """Why there is nobody to pick, in one line."""
        view, service = self._view, self.settings.service
        if self._feed.unknown(service):
            return (
                f"unknown service {service!r}: the control plane has none of that name; `gslb get service` lists them"
            )
        if view is None or view.plan is None:
            return f"no plan yet for service {service!r}: {self._feed.describe()}"
        return (
            f"service {service!r} has no endpoint: none of its backends' tasks is registered; {self._feed.describe()}"
        )

    # Changes

    def on_view(self, view: ServiceView | None, catalog: Catalog) -> None:
        """The control plane's newest word on the service; None: there is no such service (any more)."""
        idle: list[L] = []
        again: list[L] = []
        now_s = time.monotonic()
        with self._lock:
            if self.closed:
                return
            self._view, self._catalog = view, catalog
            endpoints = view.endpoints if view is not None else {}
            for task, endpoint in endpoints.items():
                link = self._links.get(task)
                if link is not None and link.target == endpoint.target:
                    recovered = endpoint.health is HealthStatus.HEALTHY is not link.endpoint.health
                    link.update(endpoint, now_s)
                    if link.down and recovered:
                        again.append(link)
                    continue
                if link is not None:
                    idle += self._leave(link)
                made = self._links[task] = self._make_link(endpoint)
                made.known_s = now_s
            for task in [task for task in self._links if task not in endpoints]:
                idle += self._leave(self._links.pop(task))
            waiting = self.rebuilt()
        for link in idle:
            self._feed.timers.after(0.0, link.shut)
        for link in again:
            self._doubts.probe(link)
        for callback in waiting:
            callback()

    def _leave(self, link: L) -> list[L]:
        """Marks a link as leaving; the link if it can be closed at once, else nothing. Under the lock."""
        link.leaving = True
        if link.in_flight == 0:
            self._tally.departs(link)
            return [link]
        self._leaving.add(link)
        return []

    def _renew(self, task: str) -> list[L]:
        """A link that was never dialled in the place of one that is not in use; what can be shut. Under the lock."""
        link = self._links[task]
        made = self._links[task] = self._make_link(link.endpoint)
        made.known_s, made.weight = link.known_s, link.weight
        return self._leave(link)

    def uses(self, link: Link) -> bool:
        """Whether calls may go there, as far as subsets say; under the lock."""
        return self.subsets.uses(link)

    def rebuilt(self) -> list[Callable[[], None]]:
        """Builds the table anew, under the lock; whom to call back without it."""
        view = self._view
        built = None
        if view is not None:
            self._plan_warm_up(weigh(self._links.values(), time.monotonic(), time.time()))
            policy = policy_of(self.settings.policy, view.service)
            # A key has one home for all clients, so all of them know all tasks.
            large = {} if policy == RING_HASH else view.serving
            members = self.subsets.narrow(large, self._links, time.monotonic())
            kept = self._presence.look(sights_of(view, members), time.monotonic())
            built = build_table(view, members, self.settings.locality, self._catalog, kept)
            self._plan_look()
        self.table = built
        if view is None or built is None:
            return []
        self._chooser = chooser_for(policy_of(self.settings.policy, view.service), self._chooser)
        if self._chooser is not None:
            self._chooser.assign(built, view.by_datacenter, time.monotonic())
            self.listening = self._chooser.listens
        self._ready.notify_all()
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())

    # A task that is new

    def _plan_warm_up(self, some_are_new: bool) -> None:
        """Has tasks weighed again after a while; under the lock."""
        if not some_are_new or self._warming:
            return
        self._warming = self.after(limits.SLOW_START_STEP_S, self._warm_up)
        if not self._warming:
            # Nobody is left who could raise them.
            for link in self._links.values():
                link.weight = link.endpoint.weight

    def _warm_up(self) -> None:
        self._warming = False
        self._refresh()

    def _refresh(self) -> None:
        """Builds the table anew because time has passed."""
        with self._lock:
            waiting = [] if self.closed else self.rebuilt()
        for callback in waiting:
            callback()

    # What tasks say of their load

    def hear(self, link: L, trailers: Iterable[Metadatum]) -> None:
        """Takes in a report that came with an answer."""
        report = report_in(trailers)
        if report is None:
            return
        with self._lock:
            self.counts.reports += 1
            if self._chooser is not None:
                self._chooser.reported(link, report, time.monotonic())

    def _ask_loads(self, links: Iterable[L]) -> None:
        for link in links:
            link.ask_load(limits.LOAD_PROBE_TIMEOUT_S, partial(self._load_said, link))

    def _load_said(self, link: L, code: grpc.StatusCode, line: bytes) -> None:
        with self._lock:
            if self._chooser is None or not self._chooser.answered(link, code, line, self._rng, time.monotonic()):
                self.counts.probes_failed += 1

    def policy(self) -> str:
        """The policy in force."""
        with self._lock:
            chooser, service = self._chooser, self._view.service if self._view is not None else None
            return chooser.policy if chooser is not None else policy_of(self.settings.policy, service)

    def knows(self, link: L) -> Mapping[str, float]:
        """What the policy's rule goes by for a task."""
        with self._lock:
            return self._chooser.knows(link, time.monotonic()) if self._chooser is not None else {}

    # A task that answers errors

    def _plan_relief(self, link: L) -> None:
        """Looks again, soon and as long as need be, at a burden that nobody may add to; under the lock."""
        if not self.after(LOOK_S, lambda: self._relieve(link)):
            # Nobody is left who could take it off.
            link.burden = 0.0

    def _relieve(self, link: L) -> None:
        with self._lock:
            if link.relieve(time.monotonic()) and not link.leaving and not self.closed:
                self._plan_relief(link)

    # A datacenter that returns

    def _plan_look(self) -> None:
        """Has another look soon at datacenters that get their share back; under the lock."""
        if not self._presence.rising or self._ticking:
            return
        self._ticking = self.after(limits.RETURN_TICK_S, self._look)
        if not self._ticking:
            # Nobody is left who could raise them.
            self._presence = Presence()

    def _look(self) -> None:
        self._ticking = False
        self._refresh()

    def kept(self) -> dict[str, float]:
        """The datacenters that keep only this part of their share, because too few of their tasks answer, or did."""
        with self._lock:
            return dict(self._presence.kept)

    # Reports

    def take_attempts(self) -> list[int]:
        """Logical first attempts since the last call, by criticality."""
        with self._lock:
            return self._tally.take_attempts()

    def take_observations(self) -> list[tuple[str, int, int]]:
        """(task, ok, failed) of every task asked since the last call."""
        with self._lock:
            return self._tally.take_observations([*self._links.values(), *self._leaving])

    def total_attempts(self) -> list[int]:
        """Logical first attempts since the channel was made, by criticality."""
        with self._lock:
            return self._tally.total_attempts

    def links(self) -> list[L]:
        """The tasks known now, by name."""
        with self._lock:
            return [self._links[task] for task in sorted(self._links)]

    def protection(self) -> Protection:
        """For those who look: what is held back, left out and sent twice."""
        return self._protection

    def view(self) -> ServiceView | None:
        """The view that the table was built from."""
        return self._view

    def feed_state(self) -> str:
        """How the control connection fares, in one line."""
        return self._feed.describe()

    def close(self, *, shut: bool = True) -> list[L]:
        """No further calls; ends those under way and all connections if `shut`. The links that there were."""
        with self._lock:
            if self.closed:
                return []
            self.closed = True
            self.table = None
            links = [*self._links.values(), *self._leaving]
            waiting, self._waiting = self._waiting, {}
            self._ready.notify_all()
        self._feed.detach(self)
        for link in links:
            link.leaving = True
            if shut:
                link.shut()
        for callback in waiting.values():
            callback()
        return links
