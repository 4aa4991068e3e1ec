"""A reader's view as one file, so that a restart serves without contact (invariant 5).

Layout, big endian: 8 bytes magic, 2 bytes format version, 8 bytes length of the payload, 32 bytes BLAKE2b-256 of all
other bytes (header first), then the payload: a `gslb.v1.Update` that holds everything. Restoring it is folding it into
an empty view, so what is on disk passes the same checks as what comes from the network.
"""

import hashlib
import struct

from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.resources import Resource
from gslb.v1 import discovery_pb2
from gslb.wire.endpoints import encode_endpoint
from gslb.wire.plans import encode_plan
from gslb.wire.reader import ReaderView, fold
from gslb.wire.resources import encode_resource, encode_service
from gslb.wire.scalars import parse

MAGIC = b"GSLBVIEW"
VERSION = 1
_HEADER = struct.Struct(">8sHQ")
_DIGEST_BYTES = 32


def to_update(view: ReaderView) -> discovery_pb2.Update:
    """The one update that makes this view out of an empty one."""
    catalog: list[Resource] = [
        *view.catalog.datacenters.values(),
        *view.catalog.areas.values(),
        *view.catalog.zones.values(),
    ]
    return discovery_pb2.Update(
        replica=view.replica,
        services=[
            discovery_pb2.ServiceUpdate(
                service=name,
                config=encode_service(service.service) if service.service else None,
                plan=encode_plan(service.plan) if service.plan else None,
                endpoints_snapshot=True,
                upserted=[encode_endpoint(endpoint) for endpoint in service.endpoints.values()],
            )
            for name, service in sorted(view.services.items())
        ],
        catalog=discovery_pb2.Catalog(resources=[encode_resource(resource) for resource in catalog]),
        synced=view.synced,
        unknown_services=sorted(view.unknown),
    )


def _digest(header: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(header + payload, digest_size=_DIGEST_BYTES).digest()


def to_bytes(view: ReaderView) -> bytes:
    """The file. Write it beside the old one and rename it into place."""
    payload = to_update(view).SerializeToString(deterministic=True)
    header = _HEADER.pack(MAGIC, VERSION, len(payload))
    return header + _digest(header, payload) + payload


def from_bytes(data: bytes) -> tuple[ReaderView, list[str]]:
    """The view in a file, and what of it was refused (a record that this version does not take), one line each.

    Raises InvalidValueError when the file is no snapshot, of another format version, truncated or damaged.
    """
    start = _HEADER.size + _DIGEST_BYTES
    if not data.startswith(MAGIC):
        raise InvalidValueError(f"not a snapshot: it begins with {data[:8]!r} instead of {MAGIC!r}")
    if len(data) < start:
        raise InvalidValueError(f"the snapshot is truncated: {len(data)} bytes, its header alone has {start}")
    _, version, size = _HEADER.unpack_from(data)
    if version != VERSION:
        raise InvalidValueError(f"the snapshot has format version {version}, this program reads {VERSION}")
    payload = data[start:]
    if len(payload) != size:
        raise InvalidValueError(f"the snapshot is truncated: {len(payload)} bytes of {size} are there")
    if _digest(data[: _HEADER.size], payload) != data[_HEADER.size : start]:
        raise InvalidValueError("the snapshot is damaged: its checksum does not fit its content")
    update = parse(discovery_pb2.Update, payload, "the snapshot", limits.SNAPSHOT_MAX_BYTES)
    return fold(ReaderView(), update)
