"""RFC 1035 master-file text to a `ZoneData`, checked. PURE.

A text from the control plane comes over the network and may read nothing else; a zone file may include others, through
what the caller passes as `include`. Whatever else hostile text makes the parser raise, the text is refused.
"""

import re
from dataclasses import dataclass

import dns.name

from dns_frontend.zone.lint import warnings_of
from dns_frontend.zone.name import BadNameError, from_text
from dns_frontend.zone.reading import BadZoneError, Include, Reader, Records, Source
from dns_frontend.zone.records import RRset, ZoneData
from dns_frontend.zone.rtype import RType

__all__ = ["BadZoneError", "Reading", "Source", "guess_origin", "parse_zone", "read_zone"]

_ORIGIN = re.compile(r"^\$ORIGIN[ \t]+(\S*\.)[ \t]*(;.*)?$", re.IGNORECASE | re.MULTILINE)
_SOA_OWNER = re.compile(r"^([^\s;$]*\.)[ \t](?:[^;\n]*[ \t])?SOA[ \t]", re.IGNORECASE | re.MULTILINE)
_HEAD_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class Reading:
    """A zone that can be served. `warnings`: what is probably not meant, with NAME:LINE; `included`: files besides."""

    data: ZoneData
    warnings: tuple[str, ...]
    included: int


def parse_zone(origin_text: str, text: str) -> ZoneData:
    """The zone named `origin_text`, from a text that includes no files. Raises BadZoneError."""
    return read_zone(origin_text, Source(origin_text, text)).data


def read_zone(origin_text: str, source: Source, include: Include | None = None) -> Reading:
    """The zone named `origin_text`. Raises BadZoneError."""
    try:
        origin = from_text(origin_text)
    except BadNameError as error:
        raise BadZoneError(f"zone {origin_text!r}: {error}") from error
    records = Records(dns.name.from_wire(origin, 0)[0])
    reader = Reader(source, records, include)
    reader.read()
    _check_top(source.name, origin.lower(), records)
    nodes = {
        name: {rtype: RRset(rtype, draft.ttl_s, tuple(draft.rdatas)) for rtype, draft in node.items()}
        for name, node in records.nodes.items()
    }
    data = ZoneData.of(origin.lower(), nodes, records.spelled)
    lines = {(name, rtype): draft.line for name, node in records.nodes.items() for rtype, draft in node.items()}
    return Reading(data, (*records.warnings, *warnings_of(data, lines)), reader.included)


def _check_top(name: str, origin: bytes, records: Records) -> None:
    """What every zone has: an SOA and name servers at its top."""
    top = records.nodes.get(origin, {})
    if RType.SOA not in top:
        raise BadZoneError(f"{name}: there is no SOA record at the top of the zone, {records.origin}")
    if RType.NS not in top:
        raise BadZoneError(f"{name}: there is no NS record at the top of the zone, {records.origin}")


def guess_origin(text: str) -> str:
    """The zone that a text says itself to be of: its first $ORIGIN, else the owner of its SOA; "" if neither is absolute."""
    head = text[:_HEAD_CHARS]
    found = _ORIGIN.search(head) or _SOA_OWNER.search(head)
    return found[1] if found else ""
