"""This process's connection to the control plane, shared by all of its channels.

One Discovery stream brings plans and endpoints, one report stream to every replica carries demand and observations
away. They run on sync gRPC in daemon threads, so that sync and asyncio channels share them and no event loop is needed.
With the control plane gone, everything goes on from the last view, for ever.
"""

import itertools
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from bns.transport import Tls, sync_channel
from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.model.errors import InvalidValueError
from gslb.model.resources import Catalog
from gslb.rpc.client import rtt
from gslb.rpc.client.core import L, ServiceCore
from gslb.rpc.client.discovery import Discovery
from gslb.rpc.client.link import Link
from gslb.rpc.client.reports import DemandKey, Reporter, ReportMaker, Seen, Tally, demand_rows, observation_rows
from gslb.rpc.client.timers import Timers
from gslb.steer.view import ServiceView
from gslb.v1 import discovery_pb2
from gslb.wire.reader import ReaderView, fold
from gslb.wire.snapshot import from_bytes, to_bytes

log = logging.getLogger(__name__)

# How often it is looked whether the replica listened to is still the right one, and how late a snapshot may be written.
_CARE_PERIOD_S = 0.5
_SNAPSHOT_DELAY_S = 1.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is to the control plane."""

    locality: str = ""  # where it runs: a datacenter, or empty for outside
    service: str = ""  # what it serves itself; the caller in demand reports
    tls: Tls | None = None


class ControlConnection:
    """Use `gslb.rpc.control()` to get the shared one. All methods are safe from any thread."""

    def __init__(
        self,
        addresses: Sequence[str],
        identity: Identity | None = None,
        *,
        snapshot_path: Path | None = None,
        report_period_s: float = limits.DEMAND_REPORT_PERIOD_S,
    ) -> None:
        self.addresses = tuple(addresses)
        self.identity = identity or Identity()
        self.timers = Timers("gslb-rpc-timers")
        self._rtt = rtt.RttMeter(self._channel_views, rtt.PERIOD_S)
        self.closed = False
        self.problems = 0  # parts of updates that were refused
        self.updates = 0
        self._snapshot_path = snapshot_path
        self._snapshot_due = False
        self._period_s = report_period_s
        self._lock = threading.Lock()
        # Held while channels are told of a view, so that none is told of an older one afterwards.
        self._telling = threading.RLock()
        self._view = ReaderView()
        self._changed_s = 0.0  # monotonic; when an update last arrived
        self._cores: weakref.WeakSet[ServiceCore[Link]] = weakref.WeakSet()
        self._listeners: list[Callable[[ReaderView], None]] = []
        self._closers: list[Callable[[], None]] = []
        self._edge = Tally()
        self._leftovers = Tally()
        self._left_seen: list[Seen] = []
        self._reported_s = time.monotonic()
        process = f"{socket.gethostname()}/{os.getpid()}/{next(_numbers)}"
        self._maker = ReportMaker(process, uuid.uuid4().hex)
        self._discovery = Discovery(self.addresses, self.dial, process, self.identity.locality, self._on_update)
        self._reporters = [Reporter(address, self.dial) for address in self.addresses]
        self._restore()
        self._discovery.start()
        for reporter in self._reporters:
            reporter.start()
        self.timers.after(self._period_s, self._report)
        self.timers.after(_CARE_PERIOD_S, self._care)

    def dial(self, address: str) -> grpc.Channel:
        """A channel to one replica; the caller closes it."""
        # A channel of its own for each stream: what one of them suffers must not reach the others.
        return sync_channel(address, self.identity.tls, [("grpc.use_local_subchannel_pool", 1)])

    # What is known

    def reader_view(self) -> ReaderView:
        """Everything known now; immutable."""
        return self._view

    def catalog(self) -> Catalog:
        """Datacenters, client areas and zones; empty before the first contact. A new object with each change."""
        return self._view.catalog

    def view(self, service: str) -> ServiceView | None:
        """What is known of `service`, which is subscribed to from now on; None: nothing yet."""
        self._discovery.subscribe(service)
        return self._view.services.get(service)

    def unknown(self, service: str) -> bool:
        """Whether the control plane said that it knows no such service."""
        return service in self._view.unknown

    def on_change(self, listener: Callable[[ReaderView], None]) -> None:
        """Calls `listener` with each new view, from the connection's thread; it must be short."""
        with self._lock:
            self._listeners.append(listener)
            view = self._view
        listener(view)

    def on_close(self, closer: Callable[[], None]) -> None:
        """Calls `closer` when the connection is closed: it ends the streams that it opened by `dial`."""
        with self._lock:
            self._closers.append(closer)

    def describe(self) -> str:
        """How the connection fares, in one line."""
        replica = self._discovery.address
        if replica and not self._discovery.error:
            return f"listening to control replica {replica}"
        return f"no contact with the control plane at {','.join(self.addresses)} ({self._discovery.error})"

    def age_s(self) -> float | None:
        """Seconds since the control plane last said something; None: never."""
        return time.monotonic() - self._changed_s if self._changed_s else None

    def explain(self) -> dict[str, object]:
        """State of the connection, for /statusz."""
        now_s = time.monotonic()
        return {
            "addresses": list(self.addresses),
            "replica": self._discovery.address,
            "error": self._discovery.error,
            "age_s": self.age_s(),
            "synced": self._view.synced,
            "updates": self.updates,
            "problems": self.problems,
            "reports": [
                {
                    "replica": reporter.target,
                    "error": reporter.error,
                    "silent_s": reporter.silent_s(now_s),
                    "refused": reporter.refused,
                    "refusal": reporter.refusal,
                }
                for reporter in self._reporters
            ],
        }

    # What channels and edges say

    def attach(self, core: ServiceCore[L]) -> None:
        """From now on `core` hears of its service and its counts are reported."""
        service = core.settings.service
        self._discovery.subscribe(service)
        with self._telling:
            with self._lock:
                self._cores.add(core)  # type: ignore[arg-type]  # only counts and views are touched here
                view = self._view
            core.on_view(view.services.get(service), view.catalog)
        if self.identity.locality:
            # From outside of all datacenters it would be nobody's distance.
            self._rtt.start()

    def detach(self, core: ServiceCore[L]) -> None:
        """The channel closes: what it counted last is kept for the next report."""
        with self._lock:
            self._cores.discard(core)  # type: ignore[arg-type]
            self._left_seen.extend(core.take_observations())
        for criticality, attempts in zip(Criticality, core.take_attempts(), strict=True):
            if attempts:
                self._leftovers.add(_key(core, criticality), attempts)

    def report_edge(
        self, service: str, locality: str, criticality: Criticality = Criticality.CRITICAL, attempts: int = 1
    ) -> None:
        """Counts requests from clients outside that came in here for `service` from the client area `locality`."""
        self._edge.add((service, locality, "", criticality), attempts)

    def cores(self) -> list[ServiceCore[Link]]:
        """The channels that live on this connection."""
        with self._lock:
            return list(self._cores)

    def _channel_views(self) -> list[ServiceView]:
        return [view for core in self.cores() if (view := core.view()) is not None]

    # Views

    def _on_update(self, update: discovery_pb2.Update) -> None:
        with self._telling:
            problems = self._take(update)
        if problems:
            log.warning("an update of replica %s was refused in part: %s", update.replica, "; ".join(problems[:5]))
        self._schedule_snapshot()

    def _take(self, update: discovery_pb2.Update) -> list[str]:
        view, problems = fold(self._view, update)
        self._changed_s = time.monotonic()
        self.updates += 1
        self.problems += len(problems)
        self._swap(view)
        return problems

    def _swap(self, view: ReaderView) -> None:
        """Takes a new view and tells everybody whom it concerns."""
        with self._lock:
            before, self._view = self._view, view
            cores = list(self._cores)
            listeners = list(self._listeners)
        moved = view.catalog is not before.catalog
        for core in cores:
            service = core.settings.service
            now = view.services.get(service)
            if moved or now is not before.services.get(service):
                core.on_view(now, view.catalog)
        for listener in listeners:
            try:
                listener(view)
            except Exception:  # a listener's mistake must not end the stream
                log.exception("a listener of the control connection failed")

    # Care for the streams

    def _care(self) -> None:
        if self.closed:
            return
        now_s = time.monotonic()
        if len(self.addresses) > 1 and (why := self._discovery.should_leave(now_s, self._silent)):
            self._discovery.leave(why)
        self.timers.after(_CARE_PERIOD_S, self._care)

    def _silent(self, address: str) -> bool:
        """Whether a replica leaves reports unanswered while another answers: it hangs, or is cut off."""
        now_s = time.monotonic()
        quiet = {reporter.target: reporter.silent_s(now_s) for reporter in self._reporters}
        others = [
            reporter
            for reporter in self._reporters
            if reporter.target != address
            and reporter.received_s
            and not quiet[reporter.target] > limits.CONTROL_SILENCE_S
        ]
        return quiet.get(address, 0.0) > limits.CONTROL_SILENCE_S and bool(others)

    # Reports

    def _report(self) -> None:
        if self.closed:
            return
        try:
            self._send_reports()
        finally:
            self.timers.after(self._period_s, self._report)

    def _send_reports(self) -> None:
        now_s = time.monotonic()
        period_s, self._reported_s = now_s - self._reported_s, now_s
        with self._lock:
            cores = list(self._cores)
            seen, self._left_seen = self._left_seen, []
        counts = self._leftovers.take()
        for core in cores:
            seen.extend(core.take_observations())
            for criticality, attempts in zip(Criticality, core.take_attempts(), strict=True):
                key = _key(core, criticality)
                counts[key] = counts.get(key, 0) + attempts
        # The control plane knows datacenters only; a process outside of them reports from nowhere.
        here = self.identity.locality if self.identity.locality in self._view.catalog.datacenters else ""
        reports = [
            self._maker.make(
                demand_rows(counts), observation_rows(seen, self._rtt.take()), period_s=period_s, datacenter=here
            ),
        ]
        if edge := self._edge.take():
            reports.append(self._maker.make(demand_rows(edge), [], period_s=period_s, datacenter=here, edge=True))
        for reporter in self._reporters:
            for report in reports:
                reporter.report(report)

    # The snapshot on disk

    @property
    def snapshot_path(self) -> Path | None:
        """Where the view is kept over restarts; None: nowhere."""
        return self._snapshot_path

    @snapshot_path.setter
    def snapshot_path(self, path: Path | None) -> None:
        self._snapshot_path = path
        self._restore()
        self._schedule_snapshot()

    def _restore(self) -> None:
        path = self._snapshot_path
        if path is None or self._view.services or not path.exists():
            return
        try:
            view, problems = from_bytes(path.read_bytes())
        except (OSError, InvalidValueError) as error:
            log.warning("cannot use the snapshot %s: %s; waiting for the control plane", path, error)
            return
        for problem in problems[:5]:
            log.warning("snapshot %s: %s", path, problem)
        with self._telling:
            self._swap(view)

    def _schedule_snapshot(self) -> None:
        with self._lock:
            if self._snapshot_path is None or self._snapshot_due:
                return
            self._snapshot_due = True
        self.timers.after(_SNAPSHOT_DELAY_S, self._save)

    def _save(self) -> None:
        with self._lock:
            self._snapshot_due = False
            path, view = self._snapshot_path, self._view
        if path is None or not view.services:
            return
        fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            fresh.write_bytes(to_bytes(view))
            fresh.replace(path)
        except OSError as error:
            log.warning("cannot write the snapshot %s: %s", path, error)

    def close(self) -> None:
        """Sends what was counted last, then ends the streams and threads. Channels keep working from the last view."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            closers = list(self._closers)
        for closer in closers:
            closer()
        self._rtt.close()
        self._send_reports()
        self.timers.close()
        self._discovery.close()
        for reporter in self._reporters:
            reporter.close(limits.LAST_REPORT_GRACE_S)


def _key(core: ServiceCore[L], criticality: Criticality) -> DemandKey:
    settings = core.settings
    return (settings.service, settings.locality, settings.caller, criticality)
