"""The ring on disk: files of some minutes each, the oldest deleted when there are too many bytes or they are too old.

Each file begins with everything and can be read by itself, so that any of them may go. Files are only appended to, and
every record goes to the kernel at once: what a killed process wrote is there.
"""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gslb.recorder.errors import RecordingError
from gslb.recorder.segment import (
    DELTA,
    HEAD_MAX_BYTES,
    KEY,
    RECORD_HEAD_BYTES,
    Writer,
    head_bytes,
    head_of,
    record_head,
)

SUFFIX: Final = ".rec"
LOCK: Final = "lock"
SEGMENT_S: Final = 300.0
# A file takes at most this part of the ring.
SEGMENT_FRACTION: Final = 1 / 4
BYTES_DEFAULT: Final = 256 * 2**20
BYTES_MIN: Final = 2**20
AGE_DEFAULT_S: Final = 24 * 3600.0
SEGMENTS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the ring may take."""

    max_bytes: int = BYTES_DEFAULT
    max_age_s: float = AGE_DEFAULT_S
    segment_s: float = SEGMENT_S


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One file. Times in UTC seconds since the epoch; `note`: what is wrong with it, empty: nothing."""

    name: str
    size: int
    from_s: float
    to_s: float
    steps: int
    replica: str
    note: str = ""
    versions: str = ""


class Ring:
    """The writer. One process a directory: a lock sees to it. Not for use by several threads."""

    def __init__(self, directory: Path, bounds: Bounds, about: Mapping[str, object]) -> None:
        self.directory = directory
        self._bounds = bounds
        self._about = about
        self._lock: int | None = None
        self._file: BinaryIO | None = None
        self._path = directory
        self._writer = Writer()
        self._began_s = 0.0
        self._last_s = 0.0
        self._size = 0  # of the file that is written
        self._others: list[tuple[Path, int, float]] = []  # older files: size, when they were written last

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._size + sum(size for _, size, _ in self._others)

    def wants_key(self, at_s: float) -> bool:
        """Whether the next record has to be one with everything, for it begins a file."""
        return (
            self._file is None
            or not 0 <= at_s - self._began_s < self._bounds.segment_s
            or at_s < self._last_s
            or self._size > self._bounds.max_bytes * SEGMENT_FRACTION
        )

    def append(self, number: int, at_s: float, data: bytes, *, key: bool) -> None:
        """Writes one step; one with everything begins a file. Raises OSError, RecordingError; then a file is begun next."""
        try:
            if key:
                self._begin(at_s)
            if self._file is None:
                raise RecordingError("a recording has to begin with everything")
            piece = self._writer.record(KEY if key else DELTA, number, at_s, data)
            self._make_room(len(piece), at_s)
            _write(self._file, piece)
        except (OSError, RecordingError):
            self.end_segment()
            raise
        self._size += len(piece)
        self._last_s = at_s

    def end_segment(self) -> None:
        """The next record begins a file."""
        if self._file is not None:
            try:
                self._file.close()
            finally:
                self._file = None
                # What was written may be less than what was meant to be, on a full disk.
                self._others.append((self._path, _size_of(self._path), self._last_s))
                self._size = 0

    def close(self) -> None:
        """Ends writing, and gives the directory free."""
        self.end_segment()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _begin(self, at_s: float) -> None:
        self.end_segment()
        if self._lock is None:
            self._take()
        self._path = self.directory / f"{max(0, int(at_s * 1000)):015d}-{os.getpid()}{SUFFIX}"
        self._file = self._path.open("ab", buffering=0)
        head = head_bytes({**self._about, "started_s": at_s})
        _write(self._file, head)
        self._writer = Writer()
        self._size, self._began_s, self._last_s = len(head), at_s, at_s

    def _take(self) -> None:
        """Makes the directory ours. Raises OSError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise OSError(
                error.errno, "another process records there: give each replica a directory of its own"
            ) from error
        except OSError:
            os.close(lock)
            raise
        self._lock = lock
        self._others = [
            (path, stat.st_size, stat.st_mtime)
            for path in sorted(self.directory.glob(f"*{SUFFIX}"))
            if (stat := _stat_of(path)) is not None
        ]

    def _make_room(self, more: int, at_s: float) -> None:
        """Deletes the oldest files until `more` bytes fit. Raises RecordingError when they never will, OSError."""
        if self._size + more > self._bounds.max_bytes:
            raise RecordingError(
                f"a step takes {more} bytes of a ring of {self._bounds.max_bytes}: give it more (--recorder-mb)"
            )
        while self._others:
            path, _, last_s = self._others[0]
            fits = self.size + more <= self._bounds.max_bytes and len(self._others) < SEGMENTS_MAX
            if fits and at_s - last_s <= self._bounds.max_age_s:
                return
            path.unlink(missing_ok=True)
            del self._others[0]


def segments(directory: Path) -> list[SegmentInfo]:
    """All files of a ring, oldest first. Raises RecordingError when the directory cannot be read."""
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
    except OSError as error:
        raise RecordingError(f"{directory}: {error.strerror}: name the directory of `gslb serve --recorder`") from error
    found = [_info(path) for path in paths[-SEGMENTS_MAX:]]
    return [info for info in found if info is not None]


def read_piece(directory: Path, name: str, offset: int, length: int) -> tuple[bytes, int]:
    """Bytes of a file of the ring and how many it has now. Raises RecordingError."""
    if Path(name).name != name or not name.endswith(SUFFIX):
        raise RecordingError(f"{name[:100]!r} is no file of a recording: `gslb replay --list` names them")
    path = directory / name
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            return file.read(length), size
    except OSError as error:
        raise RecordingError(f"{name}: {error.strerror}: `gslb replay --list` shows what there is") from error


def _info(path: Path) -> SegmentInfo | None:
    """What is in a file, by the heads of its records; None when it has just been deleted."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            about, offset = head_of(file.read(HEAD_MAX_BYTES))
            times = list(_times(file, offset, size))
    except RecordingError as error:
        return SegmentInfo(path.name, _size_of(path), 0.0, 0.0, 0, "", str(error))
    except OSError as error:
        if not path.exists():
            return None
        return SegmentInfo(path.name, 0, 0.0, 0.0, 0, "", error.strerror or str(error))
    if not times:
        return SegmentInfo(path.name, size, 0.0, 0.0, 0, str(about.get("replica", "")), "no step in it is whole")
    replica, versions = str(about.get("replica", "")), str(about.get("versions", ""))
    return SegmentInfo(path.name, size, times[0], times[-1], len(times), replica, "", versions)


def _times(file: BinaryIO, offset: int, size: int) -> Iterator[float]:
    """When the steps were whose records are whole."""
    while True:
        file.seek(offset)
        head = record_head(file.read(RECORD_HEAD_BYTES))
        if head is None:
            return
        offset += RECORD_HEAD_BYTES + head.length
        if offset > size:
            return
        if head.kind in {KEY, DELTA}:
            yield head.at_s


def _write(file: BinaryIO, data: bytes) -> None:
    """All of it, or OSError: a disk that fills up takes a part first."""
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _stat_of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _size_of(path: Path) -> int:
    stat = _stat_of(path)
    return stat.st_size if stat else 0
