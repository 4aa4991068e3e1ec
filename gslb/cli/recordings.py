"""Where `gslb replay` finds recordings: in a directory, or at a replica."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import click
from typing_extensions import override

from gslb.cli.session import Session
from gslb.recorder.errors import RecordingError
from gslb.recorder.ring import SegmentInfo, read_piece, segments
from gslb.v1 import admin_pb2

# A file is about a quarter of the ring at most; more than this is none that we would hold in memory.
FILE_MAX_BYTES: Final = 2 * 2**30
PIECE_BYTES: Final = 2**24


class Recordings(Protocol):
    """A ring of recordings. Every method raises click.ClickException, saying why."""

    def files(self) -> Sequence[SegmentInfo]:
        """What there is, oldest first."""

    def read(self, info: SegmentInfo) -> bytes:
        """One file, as far as it is written."""


class InDirectory(Recordings):
    """The ring of a replica that need not run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @override
    def files(self) -> Sequence[SegmentInfo]:
        try:
            return segments(self._directory)
        except RecordingError as error:
            raise click.ClickException(str(error)) from error

    @override
    def read(self, info: SegmentInfo) -> bytes:
        parts: list[bytes] = []
        while _wanted(info, parts):
            try:
                data, _ = read_piece(self._directory, info.name, sum(map(len, parts)), PIECE_BYTES)
            except RecordingError as error:
                raise click.ClickException(str(error)) from error
            if not data:
                break
            parts.append(data)
        return b"".join(parts)


class AtReplica(Recordings):
    """The ring of the first replica that answers."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @override
    def files(self) -> Sequence[SegmentInfo]:
        reply = self._session.call(lambda admin: admin.Recordings, admin_pb2.RecordingsRequest())
        return [
            SegmentInfo(one.name, one.size, one.from_s, one.to_s, one.steps, one.replica, one.note, one.versions)
            for one in reply.files
        ]

    @override
    def read(self, info: SegmentInfo) -> bytes:
        parts: list[bytes] = []
        while _wanted(info, parts):
            request = admin_pb2.ReadRecordingRequest(name=info.name, offset=sum(map(len, parts)))
            reply = self._session.call(lambda admin: admin.ReadRecording, request)
            if not reply.data:
                break
            parts.append(reply.data)
        return b"".join(parts)


def _wanted(info: SegmentInfo, parts: Sequence[bytes]) -> bool:
    """Whether there is more of what was listed; what was written since is another moment's."""
    if info.size > FILE_MAX_BYTES:
        raise click.ClickException(f"{info.name} has {info.size} bytes: that is no recording of a replica")
    return sum(map(len, parts)) < info.size
