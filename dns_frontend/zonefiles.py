"""Zone files from disk: bounded, regular files only, $INCLUDE confined to the directory of the zone's own file."""

import os
import stat
from pathlib import Path

from dns_frontend.limits import ZONE_TEXT_MAX_CHARS
from dns_frontend.zone.master import BadZoneError, Reading, Source, guess_origin, read_zone

# A character of UTF-8 has at most four octets; a file of more is refused without being decoded.
_FILE_MAX_OCTETS = 4 * ZONE_TEXT_MAX_CHARS


def load_zone(origin: str, path: Path) -> Reading:
    """The zone `origin`, from its master file and what that includes. Raises BadZoneError, with FILE:LINE where it can."""
    return read_zone(origin, Source(str(path), read_text(path)), _Directory(path.parent).open)


def load_unnamed_zone(path: Path) -> tuple[str, Reading]:
    """A zone that says in its own file what it is called, and its origin. Raises BadZoneError."""
    text = read_text(path)
    origin = guess_origin(text)
    if not origin:
        raise BadZoneError(f"{path}: no $ORIGIN and no SOA with an absolute name: say which zone it is with --origin")
    return origin, read_zone(origin, Source(str(path), text), _Directory(path.parent).open)


def read_text(path: Path) -> str:
    """The text of a file. Raises BadZoneError."""
    try:
        # A pipe that nobody writes to must not stop us.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadZoneError(f"{path}: not a regular file")
            data = file.read(_FILE_MAX_OCTETS + 1)
    except OSError as error:
        raise BadZoneError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _FILE_MAX_OCTETS:
        raise BadZoneError(f"{path}: larger than {_FILE_MAX_OCTETS} octets: split the zone")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadZoneError(f"{path}:{line}: not UTF-8: write such octets as \\DDD") from None


class _Directory:
    """Where a zone may include files from: the directory of its own file, and below."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def open(self, including: str, wanted: str) -> Source:
        """The file `wanted`, relative to the file that includes it. Raises BadZoneError."""
        path = Path(including).parent / wanted
        # Links are followed first: one that leads out of the directory leads out.
        if not path.resolve().is_relative_to(self._root):
            raise BadZoneError(
                f"$INCLUDE {wanted[:200]}: it is not below {self._root}, the directory of the zone's file"
            )
        return Source(str(path), read_text(path))
