"""CPU of each task over its declared cores, and of the machine, as differences between two looks.

Blocking (it reads /proc): runs in a worker thread, one look at a time.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from agents.load.cgroups import Cgroups, find_mounts
from agents.load.processes import Process, children_of, read_all, tree

# Above this the clock or the counter is wrong: no task uses a thousand times its cores.
UTILIZATION_MAX = 1000.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A task whose CPU is wanted; `started` is its process's start in ticks since boot."""

    name: str
    pid: int
    started: int
    cpu_cores: float


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """Share of the machine's CPU that is in use, 0 to 1, and how many cores it has."""

    utilization: float
    cores: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Utilization of each subject that could be measured, in use over declared cores; may exceed 1."""

    tasks: dict[str, float]
    machine: MachineLoad


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a counter stood."""

    source: str
    pid: int
    started: int
    cpu_s: float
    at_s: float


class CpuMeter:
    """Remembers the last look at each task."""

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._cgroups = cgroups or Cgroups(find_mounts())
        self._marks: dict[str, _Mark] = {}
        self._machine = _machine_times()
        self._cores = float(psutil.cpu_count() or 1)

    def sample(self, subjects: Iterable[Subject]) -> Sample:
        """Looks at every subject; a task has no value before the second look at it."""
        processes = read_all()
        children = children_of(processes)
        marks: dict[str, _Mark] = {}
        used: dict[str, float] = {}
        for subject in subjects:
            mark = self._mark(subject, processes, children)
            if mark is None:
                continue
            marks[subject.name] = mark
            utilization = _utilization(self._marks.get(subject.name), mark, subject.cpu_cores)
            if utilization is not None:
                used[subject.name] = utilization
        self._marks = marks
        return Sample(used, self._machine_load())

    def _mark(self, subject: Subject, processes: dict[int, Process], children: dict[int, list[int]]) -> _Mark | None:
        root = processes.get(subject.pid)
        if root is None or root.started != subject.started:
            return None
        pids = list(tree(subject.pid, children))
        own = self._cgroups.own_cpu_s(subject.pid, pids)
        if own is not None:
            return _Mark(own[0], subject.pid, subject.started, own[1], time.monotonic())
        cpu_s = sum(processes[pid].cpu_s for pid in pids if pid in processes)
        return _Mark("process tree", subject.pid, subject.started, cpu_s, time.monotonic())

    def _machine_load(self) -> MachineLoad:
        before, self._machine = self._machine, _machine_times()
        total = self._machine[1] - before[1]
        busy = self._machine[0] - before[0]
        utilization = busy / total if total > 0.0 else 0.0
        return MachineLoad(min(max(utilization, 0.0), 1.0), self._cores)


def _utilization(before: _Mark | None, now: _Mark, cores: float) -> float | None:
    """None without two looks at the same counter of the same process."""
    if before is None or (before.source, before.pid, before.started) != (now.source, now.pid, now.started):
        return None
    elapsed_s = now.at_s - before.at_s
    if elapsed_s <= 0.0 or cores <= 0.0:
        return None
    # A child that went unwaited takes its time out of the tree's sum: not less than nothing was used.
    utilization = max(now.cpu_s - before.cpu_s, 0.0) / elapsed_s / cores
    return min(utilization, UTILIZATION_MAX) if math.isfinite(utilization) else None


def _machine_times() -> tuple[float, float]:
    """(busy, total) CPU seconds of the machine since boot."""
    times = psutil.cpu_times()
    # `user` holds guest's time already; a virtual machine's stolen time is not ours to use.
    parts = [getattr(times, key, 0.0) for key in ("user", "nice", "system", "irq", "softirq", "steal")]
    idle = times.idle + getattr(times, "iowait", 0.0)
    busy = float(sum(parts))
    return busy, busy + float(idle)
