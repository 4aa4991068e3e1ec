"""The flight recorder's files for whoever may ask this replica: replaying is the caller's work, not ours."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from gslb.model.errors import NotFoundError
from gslb.recorder.errors import RecordingError
from gslb.recorder.ring import read_piece, segments
from gslb.v1 import admin_pb2

if TYPE_CHECKING:
    from gslb.control.replica import Replica

PIECE_BYTES = 2**20


async def listed(replica: "Replica") -> admin_pb2.RecordingsResponse:
    """What is recorded. Raises NotFoundError when nothing is."""
    directory = _directory(replica)
    try:
        files = await asyncio.to_thread(segments, directory) if directory.exists() else []
    except RecordingError as error:
        raise NotFoundError(str(error)) from error
    return admin_pb2.RecordingsResponse(
        files=[
            admin_pb2.RecordingFile(
                name=one.name,
                size=one.size,
                from_s=one.from_s,
                to_s=one.to_s,
                steps=one.steps,
                replica=one.replica,
                versions=one.versions,
                note=one.note,
            )
            for one in files
        ]
    )


async def read(replica: "Replica", request: admin_pb2.ReadRecordingRequest) -> admin_pb2.ReadRecordingResponse:
    """A piece of one file. Raises NotFoundError."""
    directory = _directory(replica)
    try:
        data, size = await asyncio.to_thread(read_piece, directory, request.name, request.offset, PIECE_BYTES)
    except RecordingError as error:
        raise NotFoundError(str(error)) from error
    return admin_pb2.ReadRecordingResponse(data=data, size=size)


def _directory(replica: "Replica") -> Path:
    if replica.recorder is None:
        raise NotFoundError(
            f"replica {replica.settings.replica} records nothing: start it with --recorder DIR, or name one with --dir"
        )
    return replica.recorder.directory
