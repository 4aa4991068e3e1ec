"""What this machine's own files say: zones of `--zone`, the services of `--config`, the geo database of `--geo`.

A file that has become bad changes nothing: what it said before is served on, and its problem is told, until it is put
right. At the start there is nothing before, and a bad file ends the start.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from dns_frontend import standalone
from dns_frontend.errors import FrontendError
from dns_frontend.table.serving import Serving
from dns_frontend.zone.master import BadZoneError
from dns_frontend.zone.name import BadNameError, from_text, to_text
from dns_frontend.zone.records import ZoneData, soa_serial
from dns_frontend.zonefiles import load_zone
from gslb.geo.files import GeoFileError
from gslb.geo.files import load as load_geo
from gslb.geo.places import GeoDatabase
from gslb.wire.reader import ReaderView


@dataclass(frozen=True, slots=True)
class Files:
    """What the command line names."""

    zones: tuple[tuple[str, Path], ...] = ()  # origin, file
    config: Path | None = None
    geo: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.zones or self.config)


@dataclass(frozen=True, slots=True)
class LocalZone:
    """One zone from a file: the last good state of it."""

    data: ZoneData
    path: Path
    warnings: tuple[str, ...] = ()

    @property
    def serial(self) -> int:
        return soa_serial(self.data.soa)


class ServedZone(NamedTuple):
    """One row of what is served."""

    origin: str
    serial: int
    source: str
    names: int  # 0: not counted


@dataclass(frozen=True, slots=True)
class Local:
    """The last good state of all files, and what is wrong with them now."""

    zones: Mapping[bytes, LocalZone] = field(default_factory=dict)  # by origin in lower case
    view: ReaderView | None = None  # with --config: everything; None: a control plane's
    zone_files: tuple[tuple[str, Path], ...] = ()  # of the last good --config
    problems: tuple[str, ...] = ()
    geo: GeoDatabase | None = None
    geo_seen: tuple[int, ...] = ()  # what tells its file from another


NOTHING: Final = Local()
NO_FILES: Final = Files()


def load_files(files: Files, before: Local = NOTHING) -> Local:
    """Reads every file anew; what is bad stays as it was `before`."""
    problems: list[str] = []
    view, configured = before.view, before.zone_files
    if files.config is not None:
        try:
            read = standalone.read(files.config)
            view, configured = read.view, tuple(read.zone_files.items())
        except FrontendError as error:
            problems += str(error).splitlines()
    zones: dict[bytes, LocalZone] = {}
    for text, path in (*files.zones, *configured):
        try:
            origin = from_text(text).lower()
        except BadNameError as error:
            problems.append(f"zone {error}")
            continue
        if origin in zones:
            problems.append(f"zone {to_text(origin)} is named twice, the second time as {path}: name one file")
            continue
        try:
            reading = load_zone(text, path)
            zones[origin] = LocalZone(reading.data, path, reading.warnings)
        except BadZoneError as error:
            problems.append(str(error))
            if origin in before.zones:
                zones[origin] = before.zones[origin]
    geo, seen = _geo(files, before, problems)
    return Local(zones, view, configured, tuple(problems), geo, seen)


def _geo(files: Files, before: Local, problems: list[str]) -> tuple[GeoDatabase | None, tuple[int, ...]]:
    """The geo database; the one before where the file is the same, or bad."""
    if files.geo is None:
        return None, ()
    try:
        status = files.geo.stat()
        seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return (before.geo if before.geo and seen == before.geo_seen else load_geo(files.geo)), seen
    except OSError as error:
        problems.append(f"geo database {files.geo}: cannot be read: {error.strerror}")
    except GeoFileError as error:
        problems.append(str(error))
    return before.geo, before.geo_seen


def load_first(files: Files) -> Local:
    """As `load_files`, when there is nothing before. Raises FrontendError with every problem."""
    made = load_files(files)
    if made.problems:
        raise FrontendError("\n".join(made.problems))
    return made


def served_zones(serving: Serving, local: Local) -> list[ServedZone]:
    """Every zone that is served, by origin, with where it comes from."""
    names = {kept.data.origin: len(kept.data.nodes) for kept in serving.zones.values() if kept.data is not None}
    rows: list[ServedZone] = []
    for origin, zone in sorted(serving.table.zones.items()):
        mine = local.zones.get(origin)
        source = str(mine.path) if mine else "a service's name" if zone.synthetic else "the catalog"
        count = len(mine.data.nodes) if mine else names.get(origin, 0)
        rows.append(ServedZone(to_text(origin), soa_serial(zone.soa), source, count))
    return rows
