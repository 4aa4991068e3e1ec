"""Starts the demo's processes, knows them by label, and ends every one of them.

Each child dies with us (bns.spawn), runs in a session of its own, so that Ctrl-C reaches only the demo, and logs to a file
of its own. Only processes that we started are ever signalled, by pid.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bns.spawn import dies_with_us

STOP_GRACE_S = 5.0
_POLL_S = 0.02
_LOG_TAIL_LINES = 5


class StartError(RuntimeError):
    """A process of the demo could not start; the message has its label, why, and where its log is."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run: `python -m module arguments`, under a label that names its log file too."""

    label: str
    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module, *self.arguments]


class Supervisor:
    """The running processes. Use from the main thread."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._specs: dict[str, ProcessSpec] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, spec: ProcessSpec) -> int:
        """Starts a process (again); returns its pid."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **spec.environment}
        with self.log(spec.label).open("ab") as log:
            process = subprocess.Popen(
                dies_with_us(spec.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._specs[spec.label] = spec
        self._running[spec.label] = process
        return process.pid

    def restart(self, label: str) -> int:
        """Starts what ran under `label` anew; returns the pid."""
        return self.start(self._specs[label])

    def log(self, label: str) -> Path:
        """The log file of a label."""
        return self._logs / f"{label}.log"

    def pid(self, label: str) -> int:
        """The pid of what was last started under `label`."""
        return self._running[label].pid

    def alive(self, label: str) -> bool:
        """Whether it still runs."""
        return self._running[label].poll() is None

    def labels(self) -> list[str]:
        """All labels, in the order of their start."""
        return list(self._running)

    def dead(self) -> list[str]:
        """Labels of the processes that have ended."""
        return [label for label in self._running if not self.alive(label)]

    def signal(self, label: str, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when the process has ended."""
        self._running[label].send_signal(number)

    async def wait(self, label: str, timeout_s: float) -> int | None:
        """Its exit code, or None when it still runs after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self.alive(label) and time.monotonic() < deadline_s:
            await asyncio.sleep(_POLL_S)
        return self._running[label].poll()

    async def kill(self, label: str) -> None:
        """kill -9, and reaped."""
        self.signal(label, signal.SIGKILL)
        await self.wait(label, STOP_GRACE_S)

    async def kill_all(self, labels: Iterable[str]) -> None:
        """kill -9 for all of them in one moment, and reaped."""
        gone = list(labels)
        for label in gone:
            self.signal(label, signal.SIGKILL)
        for label in gone:
            await self.wait(label, STOP_GRACE_S)

    async def terminate(self, label: str) -> int | None:
        """SIGTERM, with SIGKILL after a grace; returns the exit code."""
        self.signal(label, signal.SIGTERM)
        if await self.wait(label, STOP_GRACE_S) is None:
            await self.kill(label)
        return self._running[label].poll()

    def why_dead(self, label: str) -> str:
        """One line about a process that ended: its exit code and the end of its log."""
        code = self._running[label].poll()
        lines = self.log(label).read_text(errors="replace").strip().splitlines()[-_LOG_TAIL_LINES:]
        return f"{label} ended with code {code}; its log {self.log(label)} ends: {' | '.join(lines) or '(empty)'}"

    def require_alive(self) -> None:
        """Raises StartError when some process has ended."""
        dead = self.dead()
        if dead:
            raise StartError(self.why_dead(dead[0]))

    async def stop_all(self) -> None:
        """Ends everything, last started first: SIGTERM to all, then SIGKILL to what is left."""
        labels = self.labels()[::-1]
        for label in labels:
            self.signal(label, signal.SIGCONT)  # a stopped process would not hear the next one
            self.signal(label, signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_GRACE_S
        while any(self.alive(label) for label in labels) and time.monotonic() < deadline_s:
            await asyncio.sleep(_POLL_S)
        for label in labels:
            if self.alive(label):
                self._running[label].kill()
            self._running[label].wait()
