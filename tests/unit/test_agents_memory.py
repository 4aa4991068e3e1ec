"""The state file: what comes back, and that a broken one changes nothing."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents import memory
from agents.keeper import Kept, Origin
from bns.model import ProbeKind, ProbeSpec, Task

TASK = Task(
    "/bns/us-east1/shop/web/0",
    "2001:db8::1",
    8080,
    agent="a1",
    named_ports={"http": 81},
    metadata={"k": "v"},
    start_time=datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
    cpu_cores=0.5,
    probe=ProbeSpec(ProbeKind.GRPC, "svc", "", 0.5, 0.25, 3, 4),
    pid=77,
    machine="m",
)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state"
    memory.save(path, memory.dump("boot", [Kept(TASK, Origin.CONFIG, 0.0)]))
    (item,) = memory.load(path, "boot")
    assert item.task == TASK
    assert item.origin is Origin.CONFIG
    assert list(tmp_path.iterdir()) == [path]


def test_after_a_reboot_nothing_of_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "state"
    memory.save(path, memory.dump("boot", [Kept(TASK, Origin.ATTACHED, 0.0)]))
    assert memory.load(path, "another boot") == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"version": 1}',
        b'{"version": 1, "boot_id": "boot", "tasks": 7}',
        b'{"version": 1, "boot_id": "boot", "tasks": [7]}',
        b'{"version": 1, "boot_id": "boot", "tasks": [{"origin": "moon", "task": {"name": "x"}}]}',
        b'{"version": 1, "boot_id": "boot", "tasks": [{"origin": "config", "task": {"name": "x"}}]}',
        b'{"version": 1, "boot_id": "boot", "tasks": [{"origin": "config", "task": {"port": -1}}]}',
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_no_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    assert memory.load(path, "boot") == []


def test_no_file_and_no_place_for_one(tmp_path: Path) -> None:
    assert memory.load(tmp_path / "none", "boot") == []
    memory.save(tmp_path / "no" / "such" / "directory", b"x")  # says so in the log, and the agent goes on
