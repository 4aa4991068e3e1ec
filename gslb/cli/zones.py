"""Zones on their way to the control plane: their files are read, and their records checked, as a DNS frontend would."""

from pathlib import Path

from typing_extensions import override

from gslb.config.load import ZoneReader


class ZoneFiles(ZoneReader):
    """Reads zone files that a YAML names, relative to its directory.

    The frontend's own parser is imported when a zone is seen: most files have none.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @override
    def records_of(self, origin: str, file: str) -> str:
        from dns_frontend.zone.dump import zone_text
        from dns_frontend.zonefiles import load_zone, read_text

        path = self._directory / file
        reading = load_zone(origin, path)
        # What it includes is on this machine only: the whole zone is sent in one text then.
        return zone_text(reading.data) if reading.included else read_text(path)

    @override
    def check(self, origin: str, records: str) -> str:
        from dns_frontend.zone.master import parse_zone

        parse_zone(origin, records)
        return records
