"""Running somebody's command as our child: it gets our signals, we exit with its code, and it never outlives us."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from bns.errors import BnsError
from bns.spawn import dies_with_us

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# On a terminal these go to the whole foreground group: the child has them already.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class CommandNotFoundError(BnsError):
    """There is no such program."""


def check_command(command: Sequence[str]) -> None:
    """Raises CommandNotFoundError when `command` cannot be run, before anything else is done for it."""
    if shutil.which(command[0]) is None:
        raise CommandNotFoundError(f"cannot run {command[0]!r}: there is no such program, or it is not executable")


def exit_code(returncode: int) -> int:
    """A child's return code as a shell shows it: 128 + N when signal N ended it."""
    return returncode if returncode >= 0 else 128 - returncode


class Signals:
    """While it is entered, signals to this process go to `handle` instead. Main thread only."""

    def __init__(self, handle: Callable[[int], None]) -> None:
        self._handle = handle

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in FORWARDED:
            loop.add_signal_handler(number, self._handle, number)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in FORWARDED:
            loop.remove_signal_handler(number)


class Child:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], extra_env: Mapping[str, str] | None = None) -> "Child":
        """Starts it; call from the main thread, whose end is the child's end."""
        process = await asyncio.create_subprocess_exec(*dies_with_us(command), env={**os.environ, **(extra_env or {})})
        return cls(process)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit code, as a shell shows it."""
        return exit_code(await self._process.wait())

    def forward(self, number: int) -> None:
        """Passes a signal of ours on."""
        if number in _FROM_TERMINAL and sys.stdin is not None and sys.stdin.isatty():
            return
        if self.running:
            self._process.send_signal(number)

    async def end(self, grace_s: float) -> None:
        """TERM, and KILL after `grace_s`."""
        if not self.running:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
