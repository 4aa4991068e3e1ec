"""The whole planet as a user runs it: checks under load, and nothing left behind, even after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("planet")]

DEMO = [sys.executable, "-m", "gslb", "demo"]
UP_TIMEOUT_S = 180.0


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _pids(state: dict[str, object]) -> list[int]:
    """Every pid in a state file."""
    found: list[int] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            found.extend(item for key, item in value.items() if key in {"pid", "agent_pid"} and isinstance(item, int))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(state)
    return found


def _wait_gone(pids: list[int], timeout_s: float = 20.0) -> list[int]:
    deadline_s = time.monotonic() + timeout_s
    while (left := [pid for pid in pids if _alive(pid)]) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return left


def _started(tmp_path: Path) -> tuple["subprocess.Popen[str]", dict[str, object]]:
    state_file = tmp_path / "state.json"
    demo = subprocess.Popen(
        [*DEMO, "--state", str(state_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline_s = time.monotonic() + UP_TIMEOUT_S
    while not state_file.exists():
        if demo.poll() is not None or time.monotonic() > deadline_s:
            demo.kill()
            pytest.fail(f"the demo did not come up: {demo.communicate()[1][-2000:]}")
        time.sleep(0.2)
    return demo, json.loads(state_file.read_text())


def test_checks_of_dns_search_and_kill_pass_under_load(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    only = [argument for check in ("dns", "search", "kill") for argument in ("--only", check)]
    done = subprocess.run(
        [*DEMO, "--once", "--json", str(report), *only], capture_output=True, text=True, timeout=390, check=False
    )
    seen = json.loads(report.read_text())
    assert done.returncode == 0, json.dumps(seen, indent=1) + done.stderr
    assert all(check["requests"] >= 2000 for check in seen["checks"].values())
    assert seen["checks"]["dns"]["queries"] == 32
    assert seen["checks"]["search"]["words"] == 20


def test_no_process_outlives_a_demo_that_is_killed_and_its_directory_goes_with_the_next(tmp_path: Path) -> None:
    demo, state = _started(tmp_path)
    pids = _pids(state)
    assert len(pids) == 2 + 1 + 4 + 24
    assert all(_alive(pid) for pid in pids)
    logs = Path(str(state["logs"]))
    os.kill(demo.pid, signal.SIGKILL)
    demo.communicate()
    assert _wait_gone(pids) == []
    assert logs.is_dir()
    # The next run sweeps it away, serves, and ends in good order on Ctrl-C.
    (tmp_path / "again").mkdir()
    again, state = _started(tmp_path / "again")
    assert not logs.exists()
    os.kill(again.pid, signal.SIGINT)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert _wait_gone(_pids(state)) == []
    assert not Path(str(state["logs"])).exists()
