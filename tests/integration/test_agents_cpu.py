"""CPU of real processes: busy ones, trees of them, and cgroups where this machine lets us make one."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.load.cgroups import Cgroups, Mounts, find_mounts
from agents.load.cpu import CpuMeter, Sample, Subject
from agents.load.processes import read_process

# Uses the given part of one core by working and sleeping in turns, measured by its own CPU clock.
BUSY = """
import sys, time
part = float(sys.argv[1])
print("on", flush=True)
while True:
    wall, cpu = time.monotonic(), time.process_time()
    while time.process_time() - cpu < 0.02:
        pass
    time.sleep(max(0.0, 0.02 / part - (time.monotonic() - wall)))
"""
# Two children that are busy, under a parent that is not; and a third generation.
TREE = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], stdout=subprocess.PIPE) for _ in range(2)]
for child in children:
    child.stdout.readline()
print("on", flush=True)
time.sleep(1000)
"""


@contextlib.contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()
    try:
        yield running
    finally:
        children = [int(p) for p in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()]
        for pid in [running.pid, *children]:
            os.kill(pid, 9)
        running.wait()
        running.stdout.close()


def subject(pid: int, cores: float = 1.0) -> Subject:
    found = read_process(pid)
    assert found is not None
    return Subject("t", pid, found.started, cores)


def cpu_used(pids: list[int]) -> float:
    """What the kernel's per-process clocks say: another source than the meter's."""
    total = 0.0
    for pid in pids:
        total += float(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return total


def watched(meter: CpuMeter, subjects: list[Subject], pids: list[int], seconds: float = 2.0) -> tuple[Sample, float]:
    """The meter's second look, and the CPU per second that was really used between the two."""
    meter.sample(subjects)
    started, before = time.monotonic(), cpu_used(pids)
    time.sleep(seconds)
    sample = meter.sample(subjects)
    return sample, (cpu_used(pids) - before) / (time.monotonic() - started)


@pytest.mark.parametrize(("part", "cores"), [("0.5", 1.0), ("0.5", 0.25), ("0.2", 2.0)])
def test_a_busy_process_is_measured(part: str, cores: float) -> None:
    with process(BUSY, part) as busy:
        sample, truth = watched(CpuMeter(Cgroups(Mounts())), [subject(busy.pid, cores)], [busy.pid])
    assert truth > 0.05  # it did work
    assert sample.tasks["t"] == pytest.approx(truth / cores, rel=0.2)
    assert 0.0 < sample.machine.utilization <= 1.0
    assert sample.machine.cores == os.cpu_count()


def test_a_tree_of_processes_is_one_task() -> None:
    with process(TREE, "0.3", BUSY) as parent:
        children = [int(p) for p in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        sample, truth = watched(CpuMeter(Cgroups(Mounts())), [subject(parent.pid)], [parent.pid, *children])
    assert len(children) == 2
    assert sample.tasks["t"] == pytest.approx(truth, rel=0.2)


def test_nothing_is_said_before_the_second_look_nor_of_another_process() -> None:
    meter = CpuMeter(Cgroups(Mounts()))
    with process(BUSY, "0.5") as busy:
        good = subject(busy.pid)
        assert meter.sample([good]).tasks == {}
        time.sleep(0.1)
        assert "t" in meter.sample([good]).tasks
        other = Subject("t", busy.pid, good.started + 1, 1.0)  # the number was given to another process
        assert meter.sample([other]).tasks == {}
    assert meter.sample([good]).tasks == {}


@pytest.mark.parametrize("kind", ["v2", "v1"])
def test_a_cgroup_of_ones_own_is_measured(kind: str) -> None:
    mounts = find_mounts()
    root = mounts.v2 if kind == "v2" else mounts.v1_cpuacct
    if root is None:
        pytest.skip(f"this machine has no cgroup {kind} hierarchy for CPU time")
    group = root / f"gslb-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        with process(BUSY, "0.5") as busy:
            (group / "cgroup.procs").write_text(str(busy.pid))
            only = Mounts(v2=mounts.v2) if kind == "v2" else Mounts(v1_cpuacct=mounts.v1_cpuacct)
            cgroups = Cgroups(only)
            source, _ = cgroups.own_cpu_s(busy.pid, {busy.pid}) or ("", 0.0)
            assert source == f"cgroup {kind} /{group.name}"
            assert cgroups.own_cpu_s(busy.pid, {1}) is None
            sample, truth = watched(CpuMeter(cgroups), [subject(busy.pid)], [busy.pid])
        assert sample.tasks["t"] == pytest.approx(truth, rel=0.2)
    finally:
        group.rmdir()


def test_a_look_at_all_processes_is_cheap() -> None:
    meter = CpuMeter()
    started = time.process_time()
    for _ in range(5):
        meter.sample([])
    count = len([entry for entry in Path("/proc").iterdir() if entry.name.isdigit()])
    # Measured: 15-30 us a process; a look that asked each one anew would take a hundred times as long.
    assert (time.process_time() - started) / 5 / count < 0.001
