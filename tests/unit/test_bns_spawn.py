"""Children die with a parent that is killed -9, and ordinary exits pass through."""

import os
import signal
import subprocess
import sys
import time

from bns.spawn import dies_with_us

PARENT = """
import subprocess, sys, time
from bns.spawn import dies_with_us
child = subprocess.Popen(dies_with_us(["sleep", "60"]))
print(child.pid, flush=True)
time.sleep(60)
"""


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_child_dies_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.3)  # let the child get past its first instructions
    assert _alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def test_exit_code_and_arguments_pass_through() -> None:
    done = subprocess.run(
        dies_with_us(["sh", "-c", "echo $0; exit 7", "a b"]), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (7, "a b\n")


def test_a_program_that_is_not_there_is_one_clear_line() -> None:
    done = subprocess.run(dies_with_us(["/nonexistent/x"]), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "cannot run '/nonexistent/x': No such file or directory\n"
