"""Notices at once when a task's process ends.

A pidfd becomes readable the moment its process ends and can never mean another process; where the kernel gives none
(or no more of them), the process is looked at twice a second. Both check the start time first: a number that was given
to another process since does not count.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from agents import limits
from agents.load.processes import Process, read_process
from bns.model import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for ever within a boot: its number and when it started, in ticks since boot."""

    pid: int
    started: int


def find(pid: int) -> Process | None:
    """The living process `pid`."""
    process = read_process(pid)
    return process if process is not None and process.alive else None


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs."""
    found = find(process.pid)
    return found is not None and found.started == process.started


def same_as_recorded(process: Process, task: Task) -> bool:
    """Whether `process` is the one that `task` was registered for, by its start time."""
    if task.start_time is None:
        return True
    return abs((process.started_at() - task.start_time).total_seconds()) <= limits.START_TIME_TOLERANCE_S


class ProcessWatch:
    """Calls back once for each watched process that ends."""

    def __init__(self, on_gone: Callable[[str, ProcessId], None]) -> None:
        self._on_gone = on_gone
        self._pidfds: dict[str, int] = {}
        self._watched: dict[str, ProcessId] = {}

    def watch(self, name: str, process: ProcessId) -> None:
        """Watches `process` for the task `name`, in place of what it had before."""
        self.unwatch(name)
        self._watched[name] = process
        try:
            pidfd = os.pidfd_open(process.pid)
        except (OSError, AttributeError):
            return  # gone already, or not possible here: run() looks at it
        if not is_alive(process):
            os.close(pidfd)
            return
        self._pidfds[name] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, name, process)

    def unwatch(self, name: str) -> None:
        """Forgets the process of `name`."""
        self._watched.pop(name, None)
        pidfd = self._pidfds.pop(name, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def close(self) -> None:
        """Forgets all."""
        for name in list(self._watched):
            self.unwatch(name)

    async def run(self) -> None:
        """Looks at the processes that have no pidfd; cancel it to end."""
        while True:
            started = time.monotonic()
            for name, process in list(self._watched.items()):
                if name not in self._pidfds and not is_alive(process):
                    self._ended(name, process)
            # Many processes without a pidfd must not keep the loop busy.
            await asyncio.sleep(max(limits.PROCESS_POLL_S, 20.0 * (time.monotonic() - started)))

    def _ended(self, name: str, process: ProcessId) -> None:
        if self._watched.get(name) == process:
            self.unwatch(name)
            self._on_gone(name, process)
