"""The tasks that this agent looks after: where each came from, how it is, what it does.

Everything that happens to a task meets here: the tasks file, its stream on the local socket, probe results, the end of
its process, its counters. What follows leaves through two callbacks: a task is to be registered (or no longer), and a
task's health changed. Runs on the event loop only; readers in other threads get copies.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Protocol

import grpc

from agents import limits
from agents.errors import AttachError
from agents.health import process as processes
from agents.health import state
from agents.health.prober import Prober
from agents.health.probes import ProbeResult
from agents.health.process import ProcessId, ProcessWatch
from agents.health.schedule import Rng
from agents.health.state import Health
from agents.load import rates
from agents.load.cpu import Subject
from agents.load.listeners import Listener
from agents.load.rates import Counters, RateMeter, Rates
from agents.load.report import TaskRow
from bns.errors import code_number
from bns.model import HealthStatus, Task

log = logging.getLogger(__name__)


class Origin(Enum):
    """Who told the agent about a task."""

    CONFIG = "config"  # the tasks file
    ATTACHED = "attached"  # it registered itself on the local socket
    ADOPTED = "adopted"  # an agent before this one looked after it


class Attachment(Protocol):
    """A task's living stream on the local socket."""

    def health_changed(self, health: HealthStatus) -> None: ...

    def registered(self) -> None: ...

    def refused(self, code: int, message: str) -> None: ...

    def replaced(self) -> None: ...


@dataclass(slots=True)
class Kept:
    """One task."""

    task: Task
    origin: Origin
    since_s: float  # monotonic
    health: Health = field(default_factory=Health)
    process: ProcessId | None = None
    attachment: Attachment | None = None
    meter: RateMeter = field(default_factory=RateMeter)
    rates: Rates = field(default_factory=Rates)
    cpu_utilization: float = math.nan
    dead_since_s: float | None = None
    pid_file: str = ""


class Events(Protocol):
    """What the keeper tells."""

    def wanted(self, task: Task) -> None:
        """`task` is to be in BNS as it is here."""

    def unwanted(self, name: str) -> None:
        """The task `name` is to leave BNS."""

    def health_changed(self, name: str, before: HealthStatus, after: HealthStatus, why: str) -> None:
        """For a report at once."""


@dataclass(frozen=True, slots=True)
class ConfiguredTask:
    """A task of the tasks file, and where its process's number stands."""

    task: Task
    pid_file: str = ""


class Keeper:
    """The table of tasks. `agent`, `datacenter` and `machine` are this agent's own."""

    def __init__(self, agent: str, datacenter: str, machine: str, events: Events, rng: Rng) -> None:
        self._agent = agent
        self._datacenter = datacenter
        self._machine = machine
        self._events = events
        self._kept: dict[str, Kept] = {}
        self.prober = Prober(self._to_probe, self._probed, rng)
        self.processes = ProcessWatch(self._process_gone)
        self._verdict = asyncio.Event()
        self.on_probe: Callable[[Task, ProbeResult], None] | None = None

    # What others read.

    def get(self, name: str) -> Kept | None:
        """The task `name`."""
        return self._kept.get(name)

    def all(self) -> list[Kept]:
        """Every task, by name; safe to call from any thread."""
        return sorted(self._kept.copy().values(), key=lambda kept: kept.task.name)

    def all_judged(self) -> bool:
        """Whether every task has a verdict."""
        return all(kept.health.status is not HealthStatus.UNKNOWN for kept in self._kept.values())

    async def until_judged(self) -> None:
        """Waits for a verdict on every task."""
        while not self.all_judged():
            self._verdict.clear()
            await self._verdict.wait()

    def rows(self, names: Iterable[str] | None = None) -> list[TaskRow]:
        """What a report says of `names` (None: all). Tasks without a verdict yet are left out."""
        chosen = self._kept.values() if names is None else [self._kept[n] for n in sorted(names) if n in self._kept]
        return [
            TaskRow(kept.task.name, kept.health.status, kept.cpu_utilization, kept.rates)
            for kept in chosen
            if kept.health.status is not HealthStatus.UNKNOWN
        ]

    def subjects(self) -> list[Subject]:
        """The tasks whose CPU can be measured."""
        return [
            Subject(kept.task.name, kept.process.pid, kept.process.started, kept.task.cpu_cores)
            for kept in self._kept.values()
            if kept.process is not None
        ]

    # Tasks come and go.

    def configure(self, configured: Sequence[ConfiguredTask]) -> None:
        """The tasks file says this now: takes up what is new, lets go of what it no longer names."""
        named = {item.task.name for item in configured}
        for kept in list(self._kept.values()):
            if kept.origin is Origin.CONFIG and kept.task.name not in named:
                if kept.attachment is None:
                    self.drop(kept.task.name, "it is no longer in the tasks file")
                else:
                    kept.origin = Origin.ATTACHED
        for item in configured:
            self._configure(item)

    def adopt(self, task: Task, origin: Origin = Origin.ADOPTED) -> None:
        """BNS (or the state file) says that this agent looked after `task`: goes on with it."""
        if task.name in self._kept or task.datacenter != self._datacenter:
            return
        if len(self._kept) >= limits.TASKS_MAX:
            log.error("not looking after %s: this agent has %d tasks, its limit", task.name, limits.TASKS_MAX)
            return
        log.info("adopted %s at %s:%d", task.name, task.address, task.port)
        self._begin(Kept(self._own(task), origin, time.monotonic()))

    def attach(self, task: Task, attachment: Attachment) -> Kept:
        """A task registers itself. Raises AttachError."""
        if task.datacenter != self._datacenter:
            raise _invalid(
                f"task {task.name} is of datacenter {task.datacenter!r}; this agent serves {self._datacenter!r}:"
                " register it under that name, or with the agent of its own datacenter"
            )
        found = processes.find(task.pid)
        if found is not None:
            task = replace(task, start_time=found.started_at())
        elif task.pid:
            log.warning("%s says its pid is %d, which this agent cannot see: it is not watched", task.name, task.pid)
            task = replace(task, pid=0)
        process = ProcessId(found.pid, found.started) if found is not None else None
        kept = self._kept.get(task.name)
        if kept is None:
            if len(self._kept) >= limits.TASKS_MAX:
                raise AttachError(
                    code_number(grpc.StatusCode.RESOURCE_EXHAUSTED),
                    f"task {task.name}: this agent looks after {limits.TASKS_MAX} tasks, its limit",
                )
            kept = Kept(self._own(task), Origin.ATTACHED, time.monotonic(), process=process, attachment=attachment)
            self._begin(kept)
            return kept
        self._check_takeover(kept, task, process)
        self._take_over(kept, task, process, attachment)
        return kept

    def stream_lost(self, name: str, attachment: Attachment) -> None:
        """The stream of `name` ended without a detach: looks at the task at once."""
        kept = self._kept.get(name)
        if kept is None or kept.attachment is not attachment:
            return
        kept.attachment = None
        if kept.process is not None and not processes.is_alive(kept.process):
            self.processes.unwatch(name)
            self._process_gone(name, kept.process)
            return
        self._set(kept, state.stream_lost(kept.health))
        self.prober.hurry(name)

    def drop(self, name: str, why: str) -> None:
        """Ends looking after `name`, and takes it out of BNS."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return
        log.info("no longer looking after %s: %s", name, why)
        self.prober.remove(name)
        self.processes.unwatch(name)
        self._events.unwanted(name)

    def refused(self, name: str, code: int, message: str) -> None:
        """BNS will not have the task `name`."""
        kept = self._kept.get(name)
        if kept is None:
            return
        log.error("BNS refuses %s: %s", name, message)
        if kept.origin is Origin.CONFIG:
            return  # somebody corrects it there or in the file; it is tried again from time to time
        if kept.attachment is not None:
            kept.attachment.refused(code, message)
        self.drop(name, "BNS refused it")

    def registered(self, name: str) -> None:
        """BNS holds the task `name` as it is here."""
        kept = self._kept.get(name)
        if kept is not None and kept.attachment is not None:
            kept.attachment.registered()

    # What happens to a task.

    def lame_duck(self, name: str, on: bool) -> None:
        """The task asks for no more load, or takes it back."""
        kept = self._kept.get(name)
        if kept is not None:
            self._set(kept, state.lame_duck(kept.health, on))

    def count(self, name: str, counters: Counters) -> None:
        """The task's counters came in."""
        kept = self._kept.get(name)
        if kept is not None:
            kept.meter = rates.count(kept.meter, counters, time.monotonic())

    def sampled(self, used: Mapping[str, float]) -> None:
        """A period ends: CPU as it was measured, and the rates of the period."""
        now = time.monotonic()
        for kept in self._kept.values():
            kept.cpu_utilization = used.get(kept.task.name, math.nan)
            kept.meter, kept.rates = rates.sample(kept.meter, now)

    def forget_dead(self) -> None:
        """Lets go of tasks that registered themselves, died, and did not come back for a long time."""
        now = time.monotonic()
        for kept in list(self._kept.values()):
            if kept.origin is Origin.CONFIG or kept.attachment is not None or kept.process is not None:
                continue
            if kept.dead_since_s is not None and now - kept.dead_since_s >= limits.FORGET_DEAD_AFTER_S:
                self.drop(kept.task.name, f"dead for {limits.FORGET_DEAD_AFTER_S:g} s: {kept.health.detail}")

    def without_process(self) -> list[Kept]:
        """Tasks of which no process is known, and that did not say which is theirs."""
        return [kept for kept in self._kept.values() if kept.process is None and not kept.health.gone]

    def find_processes(self, listeners: Mapping[Listener, int]) -> None:
        """Takes the process of each task that has none from its pid file, else from who listens on its address."""
        for kept in self.without_process():
            pid = _read_pid(kept.pid_file) if kept.pid_file else _listening(kept.task, listeners)
            found = processes.find(pid)
            if found is not None:
                kept.process = ProcessId(found.pid, found.started)
                self.processes.watch(kept.task.name, kept.process)

    # Inside.

    def _own(self, task: Task) -> Task:
        return replace(task, agent=self._agent, machine=self._machine)

    def _configure(self, item: ConfiguredTask) -> None:
        task = self._own(item.task)
        kept = self._kept.get(task.name)
        if kept is None:
            self._begin(Kept(task, Origin.CONFIG, time.monotonic(), pid_file=item.pid_file))
            return
        kept.origin, kept.pid_file = Origin.CONFIG, item.pid_file
        if kept.attachment is not None and task.pid == 0:
            # It told its process itself: the file does not know better.
            task = replace(task, pid=kept.task.pid, start_time=kept.task.start_time)
        if _same(kept.task, task):
            return
        moved = (kept.task.address, kept.task.port) != (task.address, task.port)
        kept.task = task
        if moved:
            self._set(kept, Health())
        self._identify(kept)
        self.prober.hurry(task.name)
        self._events.wanted(task)

    def _begin(self, kept: Kept) -> None:
        name = kept.task.name
        self._kept[name] = kept
        if kept.process is None:
            self._identify(kept)
        else:
            self.processes.watch(name, kept.process)
        self.prober.add(name, kept.task.probe.interval_s)
        self._events.wanted(kept.task)

    def _identify(self, kept: Kept) -> None:
        """Finds the process that the record names, and sees whether it is still the same one."""
        self.processes.unwatch(kept.task.name)
        kept.process = None
        if kept.task.pid == 0:
            return
        found = processes.find(kept.task.pid)
        if found is not None and processes.same_as_recorded(found, kept.task):
            kept.process = ProcessId(found.pid, found.started)
            self.processes.watch(kept.task.name, kept.process)
        elif kept.origin is Origin.ADOPTED:
            self._gone(kept, f"process {kept.task.pid} ended while no agent ran")

    def _check_takeover(self, kept: Kept, task: Task, process: ProcessId | None) -> None:
        """A second registration of the same name is refused while the first one lives. Raises AttachError."""
        other = kept.process is not None and kept.process != process and processes.is_alive(kept.process)
        if kept.attachment is not None and (other or process is None):
            who = f"process {kept.process.pid}" if kept.process is not None else "another process"
            raise AttachError(
                code_number(grpc.StatusCode.ALREADY_EXISTS),
                f"task {task.name} is already registered by {who} at {kept.task.address}:{kept.task.port}:"
                " end that one first, or give this one another name",
            )
        if kept.origin is Origin.CONFIG and (kept.task.address, kept.task.port) != (task.address, task.port):
            raise _invalid(
                f"task {task.name} is at {kept.task.address}:{kept.task.port} in the agent's tasks file and says"
                f" {task.address}:{task.port}: correct one of them"
            )

    def _take_over(self, kept: Kept, task: Task, process: ProcessId | None, attachment: Attachment) -> None:
        """The task attaches (again), as the same process or as a new one."""
        if kept.attachment is not None:
            kept.attachment.replaced()
        kept.attachment = attachment
        same_process = process is not None and process == kept.process
        if kept.origin is not Origin.CONFIG:
            kept.origin = Origin.ATTACHED
        # Counters of a stream that begins are a new base, also of the same process: what lies between is not a rate.
        kept.meter = rates.restart(kept.meter)
        if same_process:
            self._set(kept, state.stream_back(kept.health))
        else:
            kept.process, kept.cpu_utilization, kept.dead_since_s = process, math.nan, None
            self._set(kept, Health())
            if process is not None:
                self.processes.watch(task.name, process)
            else:
                self.processes.unwatch(task.name)
        if not _same(kept.task, self._own(task)):
            kept.task = self._own(task)
            self._events.wanted(kept.task)
        self.prober.hurry(task.name)

    def _to_probe(self, name: str) -> tuple[Task, float] | None:
        kept = self._kept.get(name)
        if kept is None:
            return None
        interval_s = kept.task.probe.interval_s
        young = time.monotonic() - kept.since_s < limits.PROBE_UNJUDGED_FOR_S
        if not kept.health.ever_healthy and young:
            interval_s = min(interval_s, limits.PROBE_UNJUDGED_INTERVAL_S)
        return kept.task, interval_s

    def _probed(self, task: Task, result: ProbeResult) -> None:
        if self.on_probe is not None:
            self.on_probe(task, result)
        kept = self._kept.get(task.name)
        if kept is None or kept.task != task:
            return  # it moved while it was probed: this says nothing about where it is now
        spec = task.probe
        self._set(kept, state.probed(kept.health, result.ok, result.detail, rise=spec.rise, fall=spec.fall))

    def _process_gone(self, name: str, process: ProcessId) -> None:
        kept = self._kept.get(name)
        if kept is not None and kept.process == process:
            self._gone(kept, f"process {process.pid} ended")

    def _gone(self, kept: Kept, detail: str) -> None:
        kept.process, kept.cpu_utilization = None, math.nan
        kept.meter, kept.rates = rates.restart(kept.meter), Rates()
        # A task of the tasks file has no stream on which its next process could say so: there, probes decide.
        self._set(kept, state.process_gone(kept.health, detail, final=kept.origin is not Origin.CONFIG))
        self.prober.hurry(kept.task.name)

    def _set(self, kept: Kept, health: Health) -> None:
        before, after = kept.health.status, health.status
        kept.health = health
        if after is not HealthStatus.UNHEALTHY:
            kept.dead_since_s = None
        elif kept.dead_since_s is None:
            kept.dead_since_s = time.monotonic()
        if before is after:
            return
        self._verdict.set()
        self._events.health_changed(kept.task.name, before, after, health.reason)
        if kept.attachment is not None:
            kept.attachment.health_changed(after)


def _invalid(message: str) -> AttachError:
    return AttachError(code_number(grpc.StatusCode.INVALID_ARGUMENT), message)


def _same(one: Task, other: Task) -> bool:
    """Equal in everything that a registration says; the rest is BNS's own bookkeeping."""
    return replace(one, generation=0, principal="") == replace(other, generation=0, principal="")


def _read_pid(path: str) -> int:
    try:
        with Path(path).open(encoding="ascii") as file:
            return int(file.read(32).strip())
    except (OSError, ValueError):
        return 0


def _listening(task: Task, listeners: Mapping[Listener, int]) -> int:
    wildcard = "::" if ":" in task.address else "0.0.0.0"  # noqa: S104  what it listens on, not we
    for address in (task.address, wildcard, "::"):
        pid = listeners.get((address, task.port))
        if pid is not None:
            return pid
    return 0
