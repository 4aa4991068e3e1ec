"""The end of a process is noticed at once, and a number that was given to another process is not mistaken for it."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from agents.health import process as processes
from agents.health.process import ProcessId, ProcessWatch
from bns.model import Task
from tests.support.control_recorder import eventually


@pytest.fixture
def child():
    running = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    yield running
    running.kill()
    running.wait()


@pytest.fixture
async def watch():
    gone: list[tuple[str, ProcessId]] = []
    watching = ProcessWatch(lambda name, process: gone.append((name, process)))
    watching.gone = gone
    run = asyncio.create_task(watching.run())
    yield watching
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    watching.close()


def identity(pid: int) -> ProcessId:
    found = processes.find(pid)
    assert found is not None
    return ProcessId(found.pid, found.started)


@pytest.mark.parametrize("pidfd", [True, False])
async def test_an_end_is_noticed_once(child, watch, pidfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not pidfd:

        def none_left(_pid: int) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pidfd_open", none_left)
    process = identity(child.pid)
    watch.watch("t", process)
    await asyncio.sleep(0.7)
    assert watch.gone == []
    child.kill()  # not waited for: a zombie has ended all the same
    await eventually(lambda: watch.gone, 5.0)
    await asyncio.sleep(0.7)
    assert watch.gone == [("t", process)]
    assert not processes.is_alive(process)
    assert processes.find(child.pid) is None


async def test_a_number_that_another_process_has_now_counts_as_ended(child, watch) -> None:
    process = identity(child.pid)
    before = replace(process, started=process.started - 1)
    watch.watch("t", before)
    await eventually(lambda: watch.gone == [("t", before)], 5.0)


async def test_what_is_no_longer_watched_is_not_told(child, watch) -> None:
    watch.watch("a", identity(child.pid))
    watch.watch("b", identity(child.pid))
    watch.unwatch("a")
    child.kill()
    await eventually(lambda: watch.gone, 5.0)
    assert [name for name, _ in watch.gone] == ["b"]


def test_the_recorded_start_time_tells_processes_apart(child) -> None:
    found = processes.find(child.pid)
    task = Task("/bns/a/b/c/0", "127.0.0.1", 80, pid=child.pid)
    assert processes.same_as_recorded(found, task)
    assert processes.same_as_recorded(found, replace(task, start_time=found.started_at()))
    for seconds in (-60, 60):
        other = found.started_at() + timedelta(seconds=seconds)
        assert not processes.same_as_recorded(found, replace(task, start_time=other))
