"""Geo databases on disk: read whole, checked whole, put in place whole."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from gslb.geo.mmdb import BadMmdbError
from gslb.geo.places import GeoDatabase

FILE_MAX_OCTETS: Final = 512 << 20


class GeoFileError(Exception):
    """A file is refused; the message, one line, names it and says why."""


def load(path: Path) -> GeoDatabase:
    """The database in a file; a million networks take seconds. Raises GeoFileError."""
    return _read(path)[0]


def install(source: Path, target: Path) -> GeoDatabase:
    """Checks a database and puts a copy at `target`; the old one is there until the new one is whole. Raises GeoFileError."""
    database, octets = _read(source)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # nothing in it is secret, and a frontend is another user
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        raise GeoFileError(f"cannot write {target}: {error.strerror}") from error
    return database


def _read(path: Path) -> tuple[GeoDatabase, bytes]:
    try:
        with path.open("rb") as file:
            octets = file.read(FILE_MAX_OCTETS + 1)
    except OSError as error:
        raise GeoFileError(f"geo database {path}: cannot be read: {error.strerror}") from error
    if len(octets) > FILE_MAX_OCTETS:
        raise GeoFileError(f"geo database {path}: larger than {FILE_MAX_OCTETS >> 20} MiB")
    try:
        return GeoDatabase.read(path.name, octets), octets
    except BadMmdbError as error:
        raise GeoFileError(f"geo database {path}: {error}") from error
