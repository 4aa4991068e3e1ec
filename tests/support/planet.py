"""A running `gslb demo` for tests that look at the whole planet: started once a session, ended with nothing left behind."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DEMO = [sys.executable, "-m", "gslb", "demo"]
UP_TIMEOUT_S = 180.0


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_of(state: object) -> list[int]:
    """Every pid in a state file."""
    if isinstance(state, dict):
        own = [value for key, value in state.items() if key in {"pid", "agent_pid"} and isinstance(value, int)]
        return own + [pid for value in state.values() for pid in pids_of(value)]
    if isinstance(state, list):
        return [pid for value in state for pid in pids_of(value)]
    return []


def wait_gone(pids: list[int], timeout_s: float = 20.0) -> list[int]:
    """Those that still run after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return left


def start(directory: Path, *options: str) -> tuple["subprocess.Popen[str]", dict[str, Any]]:
    """A demo that is up, and its state."""
    state_file = directory / "state.json"
    command = [*DEMO, "--state", str(state_file), *options]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + UP_TIMEOUT_S
    while not state_file.exists():
        if demo.poll() is not None or time.monotonic() > deadline_s:
            demo.kill()
            pytest.fail(f"the demo did not come up: {demo.communicate()[1][-2000:]}")
        time.sleep(0.2)
    return demo, json.loads(state_file.read_text())


@dataclass(frozen=True, slots=True)
class DemoPlanet:
    """A running demo."""

    state: dict[str, Any]

    @property
    def control(self) -> str:
        return ",".join(replica["addr"] for replica in self.state["control"])

    def gfe(self, datacenter: str) -> str:
        return str(self.state["datacenters"][datacenter]["gfe"])

    def tasks(self, datacenter: str, job: str = "") -> list[dict[str, Any]]:
        """Tasks of a datacenter, of one job or all."""
        tasks = self.state["datacenters"][datacenter]["tasks"]
        return [task for task in tasks if job in {"", task["bns"].split("/")[4]}]

    def log(self, task: dict[str, Any]) -> str:
        """What a task has logged."""
        _, _, datacenter, _, job, index = task["bns"].split("/")
        return (Path(self.state["logs"]) / f"{datacenter}-{job}-{index}.log").read_text()


@pytest.fixture(scope="session")
def demo_planet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPlanet]:
    """Tests that use it belong to the xdist group `planet`, so that there is one."""
    demo, state = start(tmp_path_factory.mktemp("planet"), "--log-sample", "1")
    yield DemoPlanet(state)
    demo.terminate()
    demo.communicate(timeout=60)
    assert demo.returncode == 0
    assert wait_gone(pids_of(state)) == []
