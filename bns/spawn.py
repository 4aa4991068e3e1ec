"""Children that do not outlive their parent, whatever kills it (Linux, prctl(2) PR_SET_PDEATHSIG).

The signal is set by a small step between fork and exec: this very file, run by a bare interpreter. A
`preexec_fn` would run Python in a forked copy of a threaded process, which can dead-lock. Spawn from the main thread: the
kernel sends the signal when the spawning *thread* ends. Grandchildren are covered when every spawner does the same.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def dies_with_us(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` (argv, program looked up on PATH) and ends with SIGKILL when we die."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the parent died before its child was under way")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]!r}: {error.strerror}")


if __name__ == "__main__":
    _main()
