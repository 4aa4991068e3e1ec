"""CPU time of a task's own cgroup: version 2 (cpu.stat), else version 1 (cpuacct.usage).

A cgroup counts for a task only when nothing but the task's own process tree is in it: a login session's or a whole
supervisor's cgroup would charge the task for its neighbours. It beats the process tree because it keeps the time of
children that came and went between two looks.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where the hierarchies are mounted; None: this machine has none."""

    v2: Path | None = None
    v1_cpuacct: Path | None = None


def find_mounts(mountinfo: Path = Path("/proc/self/mountinfo")) -> Mounts:
    """Reads the mounts of this process."""
    v2: Path | None = None
    v1: Path | None = None
    try:
        lines = mountinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        # man 5 proc: ID PARENT DEV ROOT POINT OPTIONS [TAGS] - TYPE SOURCE SUPER-OPTIONS
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) < 5 or len(after) < 3:
            continue
        if after[0] == "cgroup2":
            v2 = v2 or Path(before[4])
        elif after[0] == "cgroup" and "cpuacct" in after[2].split(","):
            v1 = v1 or Path(before[4])
    return Mounts(v2, v1)


class Cgroups:
    """Reads the cgroups of processes."""

    def __init__(self, mounts: Mounts, proc: Path = Path("/proc")) -> None:
        self._mounts = mounts
        self._proc = proc

    def own_cpu_s(self, pid: int, task_pids: Collection[int]) -> tuple[str, float] | None:
        """(which cgroup, its CPU seconds) when `pid` is in a cgroup with nobody but `task_pids`, else None."""
        for kind, mount, path in self._memberships(pid):
            directory = mount / path.lstrip("/")
            if path == "/" or not self._only(directory, task_pids):
                continue
            cpu_s = _v2_cpu_s(directory) if kind == "v2" else _v1_cpu_s(directory)
            if cpu_s is not None:
                return f"cgroup {kind} {path}", cpu_s
        return None

    def _memberships(self, pid: int) -> list[tuple[str, Path, str]]:
        try:
            lines = (self._proc / str(pid) / "cgroup").read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
        found: list[tuple[str, Path, str]] = []
        for line in lines:
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if number == "0" and not controllers and self._mounts.v2 is not None:
                found.append(("v2", self._mounts.v2, path))
            elif "cpuacct" in controllers.split(",") and self._mounts.v1_cpuacct is not None:
                found.append(("v1", self._mounts.v1_cpuacct, path))
        return sorted(found, key=lambda item: item[0], reverse=True)

    @staticmethod
    def _only(directory: Path, task_pids: Collection[int]) -> bool:
        try:
            members = {int(line) for line in (directory / "cgroup.procs").read_text().split()}
        except (OSError, ValueError):
            return False
        return bool(members) and members <= set(task_pids)


def _v2_cpu_s(directory: Path) -> float | None:
    try:
        for line in (directory / "cpu.stat").read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "usage_usec":
                return int(value) / 1e6
    except (OSError, ValueError):
        pass
    return None


def _v1_cpu_s(directory: Path) -> float | None:
    try:
        return int((directory / "cpuacct.usage").read_text()) / 1e9
    except (OSError, ValueError):
        return None
