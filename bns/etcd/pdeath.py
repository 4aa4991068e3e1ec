"""Run a command that dies with the process that started it.

    python pdeath.py PARENT_PID COMMAND ARGUMENT...

Linux sends PR_SET_PDEATHSIG when the *thread* that spawned the process ends, so spawn from the main thread. The signal
is set in the child itself, before exec: a preexec_fn would run Python between fork and exec of a threaded parent.
Elsewhere than on Linux the command simply runs. This file is run by path and imports next to nothing, to be quick.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(command: list[str]) -> list[str]:
    """`command`, made to be killed when the calling process ends."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(arguments: list[str]) -> None:
    """Set the signal, check that the parent still lives, become the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the signal was set
            sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
