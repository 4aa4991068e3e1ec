"""What a benchmark runs on: a real etcd, real `gslb` processes, load processes, in a directory of their own.

Everything is on loopback, dies with us, and is ended by pid when the stage is left. CPU time and memory of any of the
processes come from /proc.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.load.worker import LINE_MAX_BYTES, Json
from bns.etcd.embedded import EmbeddedEtcd, Options, free_port
from bns.spawn import dies_with_us

STOP_GRACE_S = 5.0
START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 180.0
_POLL_S = 0.02
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A figure could not be measured; the message says why."""


def progress(text: str) -> None:
    """A line for whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


async def until(what: str, condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = START_TIMEOUT_S) -> None:
    """Waits for `condition`. Raises BenchError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if await answer if not isinstance(answer, bool) else answer:
            return
        if time.monotonic() > deadline_s:
            raise BenchError(f"it did not come true in {timeout_s:g} s that {what}")
        await asyncio.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class Replica:
    """A `gslb serve` process."""

    label: str
    address: str
    http: str
    pid: int


class Worker:
    """A load process (bench.load); `ask` it to do things."""

    def __init__(self, label: str, process: asyncio.subprocess.Process) -> None:
        self._label = label
        self._process = process
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, do: str, **arguments: object) -> Json:
        """The answer to one command. Raises BenchError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    line = await self._process.stdout.readline()
            except TimeoutError as error:
                raise BenchError(f"{self._label} did not answer {do!r} in {ANSWER_TIMEOUT_S:g} s") from error
        if not line:
            raise BenchError(f"{self._label} ended at {do!r}")
        answer = json.loads(line)
        if not isinstance(answer, dict) or "error" in answer:
            raise BenchError(f"{self._label} could not {do!r}: {answer}")
        return answer

    async def kill(self) -> None:
        """kill -9, and reaped."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Ends it in order."""
        if self._process.returncode is None and self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


@dataclass(slots=True)
class Stage:
    """Use it as an async context manager, from the main thread. `directory` is removed at the end."""

    name: str
    directory: Path = field(init=False)
    _etcd: list[EmbeddedEtcd] = field(init=False, default_factory=list)
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(init=False, default_factory=dict)
    _workers: list[Worker] = field(init=False, default_factory=list)

    async def __aenter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix=f"gslb-bench-{self.name}-"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        self._end(list(self._processes.values()))
        for etcd in self._etcd:
            etcd.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_GRACE_S
        for process in processes:
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    async def etcd(self) -> EmbeddedEtcd:
        """A single member that syncs its log to disk, as in production; election as fast as one member can."""
        member = EmbeddedEtcd(self.directory / "etcd", Options())
        self._etcd.append(member)
        member.spawn()
        await member.ready()
        return member

    async def replica(self, label: str, etcd: EmbeddedEtcd, *flags: str, warm: bool = True) -> Replica:
        """A control-plane replica with default settings but for `flags`; cold (not `warm`), it is not waited for
        until it answers readers."""
        address, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        pid = self.python(
            label,
            *("gslb", "serve", "--etcd", etcd.address, "--listen", address, "--http", http, "--replica", label, *flags),
        )
        replica = Replica(label, address, http, pid)
        await self.reached(replica, "readyz" if warm else "livez")
        return replica

    async def reached(self, replica: Replica, page: str = "readyz") -> None:
        """Waits until the replica answers readers (readyz), or at all (livez). Raises BenchError."""

        async def answers() -> bool:
            self.require_alive(replica.label)
            return await asyncio.to_thread(_answers, f"http://{replica.http}/{page}")

        await until(f"{replica.label} says 200 to /{page}", answers)

    def python(self, label: str, module: str, *arguments: str) -> int:
        """Runs `python -m module arguments`, its output in `directory`/label.log; the pid."""
        with (self.directory / f"{label}.log").open("ab") as log:
            process = subprocess.Popen(
                dies_with_us([sys.executable, "-m", module, *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes[label] = process
        return process.pid

    def program(self, label: str, command: Sequence[str]) -> int:
        """Runs a program in the foreground, its output in `directory`/label.log; the pid."""
        with (self.directory / f"{label.replace(' ', '-')}.log").open("ab") as log:
            process = subprocess.Popen(dies_with_us(list(command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes[label] = process
        return process.pid

    def run(self, command: Sequence[str], timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """Runs a program to its end; what it printed. Raises BenchError."""
        try:
            done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout_s, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"{command[0]}: {error}") from error
        if done.returncode:
            raise BenchError(f"{command[0]} ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def require_alive(self, label: str) -> None:
        """Raises BenchError with the end of its log."""
        code = self._processes[label].poll()
        if code is not None:
            words = (
                (self.directory / f"{label.replace(' ', '-')}.log")
                .read_text(errors="replace")
                .strip()
                .splitlines()[-3:]
            )
            raise BenchError(f"{label} ended with code {code}: {' | '.join(words)}")

    async def worker(self, label: str, module: str) -> Worker:
        """A load process that runs `module`."""
        with (self.directory / f"{label}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *dies_with_us([sys.executable, "-m", module]),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_MAX_BYTES,
            )
        worker = Worker(label, process)
        self._workers.append(worker)
        return worker


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, that a process has used (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def memory_mb(pid: int, which: str = "VmRSS") -> float:
    """Resident memory in MB of 10^6 bytes; `which` VmHWM: the most it ever was."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == which:
            return int(value.split()[0]) * 1024 / 1e6
    raise BenchError(f"/proc/{pid}/status has no {which}")
