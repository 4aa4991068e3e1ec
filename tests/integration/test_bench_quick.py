"""`python -m bench planet --quick`: every row is measured, table and file agree, and no process is left."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARK = "GSLB_BENCH_TEST"

# What issue and docs promise, one pattern a row; the sizes are those of --quick.
ROWS = [
    r"registration to visible in a watching client, p50",
    r"registration to visible in a watching client, p99",
    r"peer: etcd alone, put to watched, p50",
    r"peer: etcd alone, put to watched, p99",
    r"task killed \(-9\) to out of a reader's view, p50",
    r"task killed \(-9\) to out of a reader's view, p99",
    r"task killed \(-9\) to out of every reader's view, p50",
    r"task killed \(-9\) to out of every reader's view, max",
    r"datacenter drained, .* until it is answered",
    r"datacenter drained, .* until its shares are 0 in every reader's view",
    r"datacenter drained, .* until the last RPC of gslb\.rpc .*",
    r"failed RPCs meanwhile .*",
    r"plan, \d+ services x \d+ datacenters x \d+ localities, one core: cold",
    r"plan, .* one service changed",
    r"plan, .* all demand moved by 5 %",
    r"plan, .* memory kept",
    r"ingest, \d+ task reports/s, \d+ tasks: CPU of the control plane",
    r"memory of the control plane, \d+ tasks",
    r"ingest, \d+ task reports/s, \d+ tasks, services over all: CPU of the control plane",
    r"memory of the control plane, \d+ tasks, services over all",
    *(
        rf"fan-out, \d+ watchers x 20, 10 % roll, {what}: {figure}"
        for what in ("Discovery, restarts", "Discovery, health", "BNS Watch, restarts")
        for figure in ("visible, p50", "visible, p99", "deltas over the least", "CPU of the control plane a roll")
    ),
    r"resolve a job of 20 tasks from a client's own view of \d+",
    r"rpc: pick, a channel that follows a replica, 20 tasks",
    r"rpc: pick, a channel that follows a replica, 20 tasks, with the counting in flight",
]


def bench(out: Path, *arguments: str, **environment: str) -> "tuple[subprocess.CompletedProcess[str], list[int]]":
    """What `python -m bench --quick` did, and the processes that it left behind."""
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--out", str(out), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment, MARK: mark},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    return done, [pid for pid in pids() if marked(pid, mark)]


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def marked(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


@pytest.mark.timeout(600)
def test_a_quick_run_measures_every_row_and_leaves_nothing_behind(tmp_path: Path):
    done, left = bench(tmp_path, "planet")
    assert done.returncode == 0, done.stderr[-3000:]
    assert left == []
    head, *rows = json.loads((tmp_path / "quick" / "planet.json").read_text())
    assert head["value"] is None
    assert "quick" in head["name"]
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names))
    for pattern in ROWS:
        found = [row for row in rows if re.fullmatch(pattern, row["name"])]
        assert len(found) == 1, f"{pattern}: {[row['name'] for row in found]}"
        assert isinstance(found[0]["value"], int | float), found[0]
        assert found[0]["value"] >= 0
        assert found[0]["spread"]
    by_name = {row["name"]: row for row in rows}
    assert all(1.0 <= row["value"] <= 1.2 for name, row in by_name.items() if "deltas over the least" in name)
    assert by_name["registration to visible in a watching client, p50"]["value"] > 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(head["name"])
    assert [line.split("|")[1].strip() for line in lines[4:]] == names
    assert "bench: " in done.stderr


@pytest.mark.timeout(120)
def test_a_part_that_cannot_be_measured_says_why_and_the_exit_code_tells(tmp_path: Path):
    done, left = bench(tmp_path, "planet", "--only", "registration", GSLB_ETCD_BIN="/no/such/etcd")
    assert done.returncode == 1
    assert left == []
    _, row = json.loads((tmp_path / "quick" / "planet.json").read_text())
    assert (row["name"], row["value"], row["ok"]) == ("registration", None, False)
    assert "/no/such/etcd" in row["spread"]


def test_an_unknown_benchmark_is_refused(tmp_path: Path):
    done, _ = bench(tmp_path, "planets")
    assert done.returncode == 2
    assert "planets" in done.stderr
    assert not list(tmp_path.iterdir())
