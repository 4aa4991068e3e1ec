"""Load on one server for a moment: how many answers, and what CPU they cost it."""

import contextlib
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.dns.peers import Server
from bench.stage import BenchError, Stage, cpu_s

# On a machine of two cores the load gets one of its own, the server the other.
SERVER_CORE, LOAD_CORE = 0, 1
WINDOW = 200
CLIENTS = 8
_MARGIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Round:
    """One moment. `cpu_s`: user and system time that the server used."""

    answers: int
    lost: int
    wall_s: float
    cpu_s: float

    @property
    def per_cpu_s(self) -> float:
        return self.answers / self.cpu_s

    @property
    def per_wall_s(self) -> float:
        return self.answers / self.wall_s


def family(pid: int) -> list[int]:
    """A process and all that descend from it: some servers answer in children."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def pin(server: Server, cores: Sequence[int]) -> None:
    """Every thread of a server to these cores."""
    for pid in family(server.pid):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def _spent_s(server: Server) -> float:
    """CPU of all its threads: by the scheduler to the nanosecond, where the kernel tells it; a tick of 10 ms is coarse."""
    try:
        return sum(_scheduled_s(pid) for pid in family(server.pid))
    except (OSError, ValueError, IndexError):
        return sum(cpu_s(pid) for pid in family(server.pid))


def _scheduled_s(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def _taskset(command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(LOAD_CORE), *command]


def dnsperf(stage: Stage, server: Server, queries: Path, seconds: float, options: Sequence[str] = ()) -> Round:
    """dnsperf with these queries. Raises BenchError when the server does not answer."""
    before = _spent_s(server)
    words = ["dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", str(queries), "-l", f"{seconds:g}"]
    words += ["-c", str(CLIENTS), "-q", str(WINDOW), "-t", "1", *options]
    printed = stage.run(_taskset(words), seconds + _MARGIN_S)
    spent = _spent_s(server) - before
    sent, completed, wall = (
        float(_number(printed, what))
        for what in (r"Queries sent:\s+(\d+)", r"Queries completed:\s+(\d+)", r"Run time \(s\):\s+([\d.]+)")
    )
    return _checked(server, Round(int(completed), int(sent - completed), wall, spent))


def _number(printed: str, pattern: str) -> str:
    found = re.search(pattern, printed)
    if found is None:
        raise BenchError(f"dnsperf printed no {pattern!r}: {printed[-200:]!r}")
    return found.group(1)


def packets(stage: Stage, program: Path, server: Server, queries: Path, seconds: float) -> Round:
    """Our own load generator, for queries that dnsperf cannot say."""
    before = _spent_s(server)
    words = [str(program), str(server.port), str(queries), f"{seconds:g}", str(WINDOW)]
    printed = stage.run(_taskset(words), seconds + _MARGIN_S)
    spent = _spent_s(server) - before
    sent, answered, _ = (int(word) for word in printed.split())
    return _checked(server, Round(answered, sent - answered, seconds, spent))


def _checked(server: Server, seen: Round) -> Round:
    if seen.answers < 1000 or seen.cpu_s <= 0:
        raise BenchError(f"{server.label} answered {seen.answers} queries in {seen.cpu_s:g} s of CPU")
    return seen


def ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> list[float]:
    """Queries per CPU-second of one over those of the other, round by round."""
    return [one.per_cpu_s / other.per_cpu_s for one, other in zip(ours, theirs, strict=True)]


def median_per_cpu_s(rounds: Sequence[Round]) -> float:
    return statistics.median(each.per_cpu_s for each in rounds)
