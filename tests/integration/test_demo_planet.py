"""The whole planet as a user runs it: checks under load, and nothing left behind, even after kill -9."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from gslb.demo.layout import CLIENT_NETWORKS_PER_AREA, SITES
from tests.support.planet import DEMO, alive, pids_of, start, wait_gone

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("planet")]


def test_checks_of_dns_search_and_kill_pass_under_load(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    only = [argument for check in ("dns", "search", "kill") for argument in ("--only", check)]
    done = subprocess.run(
        [*DEMO, "--once", "--json", str(report), *only], capture_output=True, text=True, timeout=590, check=False
    )
    seen = json.loads(report.read_text())
    assert done.returncode == 0, json.dumps(seen, indent=1) + done.stderr
    assert all(check["requests"] >= 2000 for check in seen["checks"].values())
    assert seen["checks"]["dns"]["queries"] == len(SITES) * CLIENT_NETWORKS_PER_AREA * 2
    assert seen["checks"]["search"]["words"] == 20


def test_no_process_outlives_a_demo_that_is_killed_and_its_directory_goes_with_the_next(tmp_path: Path) -> None:
    demo, state = start(tmp_path)
    pids = pids_of(state)
    assert len(pids) == 2 + 1 + 4 + 24
    assert all(alive(pid) for pid in pids)
    logs = Path(str(state["logs"]))
    os.kill(demo.pid, signal.SIGKILL)
    demo.communicate()
    assert wait_gone(pids) == []
    assert logs.is_dir()
    # The next run sweeps it away, serves, and ends in good order on Ctrl-C.
    (tmp_path / "again").mkdir()
    again, state = start(tmp_path / "again")
    assert not logs.exists()
    os.kill(again.pid, signal.SIGINT)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert wait_gone(pids_of(state)) == []
    assert not Path(str(state["logs"])).exists()
