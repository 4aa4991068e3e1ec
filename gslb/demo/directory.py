"""The demo's data directory: made anew for each run, and what earlier runs left behind is removed.

A directory belongs to a demo as long as the lock that its process holds on a file in it: the kernel releases that lock
however the process ends, so a kill -9 leaves nothing that looks alive.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PREFIX = "gslb-demo-"
_LOCK = "lock"
_START_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """An own directory below the system's temporary one."""

    path: Path
    _lock: IO[str]

    def remove(self) -> None:
        """Deletes it with all it holds."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def leave(self) -> None:
        """Lets it be, for somebody to read the logs; the next demo removes it."""
        self._lock.close()


def create(parent: Path | None = None) -> DataDirectory:
    """A new, locked, empty directory."""
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = (path / _LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return DataDirectory(path, lock)


@asynccontextmanager
async def starting(parent: Path | None = None) -> AsyncIterator[None]:
    """Only one demo of this user starts at a time: each looks for free ports long before its processes bind them."""
    path = (parent or Path(tempfile.gettempdir())) / f"gslb-demo-starting-{os.getuid()}"
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_START_POLL_S)
        yield


def remove_abandoned(parent: Path | None = None) -> list[Path]:
    """Deletes the directories of demos that have ended; returns them."""
    removed: list[Path] = []
    for path in (parent or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        try:
            with (path / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
        except OSError:
            continue  # alive, somebody else's, or just being made
    return removed
