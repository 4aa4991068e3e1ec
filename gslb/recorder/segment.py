"""A file of the ring: a head, then one record after the other, the first with everything. PURE.

    magic, length of the head, head (JSON)
    for each record: length, checksum, type, number and time of the step, a piece of one zlib stream

Records are flushed pieces of one stream, so that what repeats from step to step costs next to nothing; a file is read
from its beginning. A record that was cut off ends the file, without harm to those before. A type that this version
does not know is skipped and said; a file of another format is refused as a whole.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gslb.recorder.errors import RecordingError

MAGIC: Final = b"GSLBREC\x01"
KEY: Final = 1
DELTA: Final = 2
LEVEL: Final = 1
HEAD_MAX_BYTES: Final = 65_536
# Of one record, as it is stored and unpacked.
RECORD_MAX_BYTES: Final = 128 * 2**20
UNPACKED_MAX_BYTES: Final = 1024 * 2**20
_LENGTH: Final = struct.Struct("<I")
_RECORD: Final = struct.Struct("<IIBQd")  # length, CRC-32 of the rest, type, number, time
RECORD_HEAD_BYTES: Final = _RECORD.size
_CHECKED: Final = struct.Struct("<BQd")


@dataclass(frozen=True, slots=True)
class RecordHead:
    """What stands before a record. `at_s`: UTC seconds since the epoch."""

    length: int
    checksum: int
    kind: int
    number: int
    at_s: float


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One step as it is stored, unpacked."""

    at_s: float
    data: bytes


def head_bytes(about: Mapping[str, object]) -> bytes:
    """The beginning of a file. `about`: who records, with which versions."""
    text = json.dumps(about, sort_keys=True).encode()
    return MAGIC + _LENGTH.pack(len(text)) + text


def head_of(data: bytes) -> tuple[Mapping[str, object], int]:
    """What the head says, and where records begin. Raises RecordingError."""
    if data[: len(MAGIC)] != MAGIC:
        found = data[: len(MAGIC)]
        if found[:-1] == MAGIC[:-1] and len(found) == len(MAGIC):
            raise RecordingError(f"format {found[-1]}, this version of gslb reads format {MAGIC[-1]}")
        raise RecordingError("no recording: it does not begin as one")
    start = len(MAGIC) + _LENGTH.size
    if len(data) < start:
        raise RecordingError("cut off within its head")
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    if length > HEAD_MAX_BYTES or len(data) < start + length:
        raise RecordingError("cut off within its head")
    try:
        about = json.loads(data[start : start + length])
    except ValueError as error:
        raise RecordingError(f"its head is no JSON: {error}") from error
    if not isinstance(about, dict):
        raise RecordingError("its head is no JSON object")
    return about, start + length


def record_head(data: bytes, offset: int = 0) -> RecordHead | None:
    """The head of the record at `offset`; None when the file ends before the head does."""
    if offset + _RECORD.size > len(data):
        return None
    return RecordHead(*_RECORD.unpack_from(data, offset))


class Writer:
    """Makes the records of one file."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(LEVEL)

    def record(self, kind: int, number: int, at_s: float, data: bytes) -> bytes:
        """The bytes to append. Raises RecordingError when the step is too large to be kept."""
        if len(data) > UNPACKED_MAX_BYTES:
            raise RecordingError(f"a step of {len(data)} bytes is too large to be recorded")
        piece = self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        checked = _CHECKED.pack(kind, number, at_s)
        return _LENGTH.pack(len(piece)) + _LENGTH.pack(zlib.crc32(piece, zlib.crc32(checked))) + checked + piece


@dataclass(slots=True)
class Reader:
    """The records of a file, one after the other. `notes`: what had to be passed over."""

    data: bytes
    notes: list[str] = field(default_factory=list)

    def records(self) -> Iterator[SegmentRecord]:
        """Steps, oldest first; ends at the first record that is not whole. Raises RecordingError for the head."""
        _, offset = head_of(self.data)
        stream = zlib.decompressobj()
        while offset < len(self.data):
            head = record_head(self.data, offset)
            start = offset + _RECORD.size
            if head is None or start + head.length > len(self.data):
                self.notes.append("the last record was cut off (its writer was killed, or is writing it): left out")
                return
            piece = self.data[start : start + head.length]
            if zlib.crc32(piece, zlib.crc32(self.data[offset + 8 : start])) != head.checksum:
                self.notes.append(f"the record at byte {offset} is damaged: what follows it is left out")
                return
            try:
                unpacked = stream.decompress(piece, UNPACKED_MAX_BYTES)
            except zlib.error as error:
                self.notes.append(f"the record at byte {offset} cannot be unpacked ({error}): what follows is left out")
                return
            offset = start + head.length
            if head.kind in {KEY, DELTA}:
                yield SegmentRecord(head.at_s, unpacked)
            else:
                self.notes.append(f"a record of type {head.kind} is of a later version of gslb: skipped")
