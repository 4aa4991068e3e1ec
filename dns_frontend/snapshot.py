"""The last good view on disk, so that a restart answers without control plane and etcd (invariant 5).

A write is whole or not at all: a temporary file beside the old one, flushed to disk, renamed into place, the directory
flushed too. What is read is checked by `gslb.wire.snapshot`, checksum first; what does not pass is refused, never half
used.
"""

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path

from dns_frontend.limits import SNAPSHOT_COALESCE_S, SNAPSHOT_DUTY, SNAPSHOT_MAX_OCTETS, SNAPSHOT_RETRY_S
from gslb.model.errors import InvalidValueError
from gslb.wire.reader import ReaderView
from gslb.wire.snapshot import from_bytes, to_bytes

log = logging.getLogger(__name__)


class SnapshotError(Exception):
    """There is a snapshot and it cannot be used; the message names the file and says why."""


def load(path: Path) -> tuple[ReaderView, float, list[str]] | None:
    """The view in the file, the time it was written (seconds since the epoch), what of it was refused; None: no file.

    Raises SnapshotError.
    """
    try:
        with path.open("rb") as file:
            written_s = os.fstat(file.fileno()).st_mtime
            data = file.read(SNAPSHOT_MAX_OCTETS + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotError(f"snapshot {str(path)!r} cannot be read: {error.strerror}") from error
    if len(data) > SNAPSHOT_MAX_OCTETS:
        raise SnapshotError(f"snapshot {str(path)!r} is larger than {SNAPSHOT_MAX_OCTETS} octets")
    try:
        view, problems = from_bytes(data)
    except InvalidValueError as error:
        raise SnapshotError(f"snapshot {str(path)!r} is refused: {error}") from error
    return view, written_s, problems


def save(path: Path, data: bytes) -> None:
    """Replaces the file by `data`; readable by its owner only. Raises OSError, and then the old file is untouched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class SnapshotWriter:
    """Writes the newest view after changes, coalesced; in a thread, for encoding and fsync take their time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._view: ReaderView | None = None
        self._changed = asyncio.Event()
        self._failing = False
        self.written_s = 0.0  # since the epoch; 0: never in this process
        self.failures = 0

    def offer(self, view: ReaderView) -> None:
        """The newest view; written soon."""
        self._view = view
        self._changed.set()

    async def run(self) -> None:
        """Writes for ever. After each write it rests, so that writing takes at most a small part of the time."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(SNAPSHOT_COALESCE_S)
            begin = time.monotonic()
            done = await self.flush()
            await asyncio.sleep((time.monotonic() - begin) / SNAPSHOT_DUTY if done else SNAPSHOT_RETRY_S)

    async def flush(self) -> bool:
        """Writes what was offered and not written; False when that failed, and then it stays to be written."""
        view = self._view
        if view is None or not self._changed.is_set():
            return True
        self._changed.clear()
        try:
            await asyncio.to_thread(self._write, view)
        except OSError as error:
            self._changed.set()
            self.failures += 1
            if not self._failing:
                log.warning("cannot write snapshot %s: %s; will try again", self._path, error.strerror)
            self._failing = True
            return False
        if self._failing:
            log.warning("snapshot %s can be written again", self._path)
        self._failing = False
        self.written_s = time.time()
        return True

    def _write(self, view: ReaderView) -> None:
        save(self._path, to_bytes(view))
