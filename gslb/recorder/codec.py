"""The balancer's values as bytes and back, bit for bit. PURE.

MessagePack by msgspec: dataclasses as maps by field name, so that a field that a later version adds is skipped by an
earlier one and takes its default in recordings that lack it. What MessagePack has no word for: arrays are their type,
shape and bytes; networks of clients are text. Values come back of the same types with the same bits; which of them were
one and the same object is told by `frames`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import TypeVar

import msgspec
import numpy as np

from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import ClientArea
from gslb.recorder.errors import RecordingError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AreaRecord:
    """A client area; msgspec knows no union of two kinds of network."""

    meta: Meta
    coordinates: Coordinates
    cidrs: tuple[str, ...] = ()


def pack(value: object) -> bytes:
    """Bytes of a value that consists of dataclasses, mappings, sequences, arrays and scalars."""
    return _ENCODER.encode(value)


def unpack(kind: type[T], data: bytes) -> T:
    """The value of a type. Raises RecordingError when the bytes are none, such as those of a later version."""
    try:
        value: T = _decoder(kind).decode(data)  # type: ignore[assignment,arg-type]  # of `kind`
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise RecordingError(
            f"what is recorded is no {name} of this version of gslb ({error}): replay it with the version that recorded it"
        ) from error
    return value


def pack_areas(areas: Mapping[str, ClientArea]) -> bytes:
    """Client areas by name."""
    return pack(
        {
            name: AreaRecord(area.meta, area.coordinates, tuple(str(cidr) for cidr in area.cidrs))
            for name, area in areas.items()
        }
    )


def unpack_areas(data: bytes) -> dict[str, ClientArea]:
    """The inverse of `pack_areas`. Raises RecordingError."""
    records = unpack(dict[str, AreaRecord], data)
    try:
        return {
            name: ClientArea(record.meta, record.coordinates, tuple(ip_network(cidr) for cidr in record.cidrs))
            for name, record in records.items()
        }
    except ValueError as error:
        raise RecordingError(f"a client area is recorded with a network that is none: {error}") from error


def _tuples(value: object) -> object:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _encode(value: object) -> object:
    """What msgspec does not know."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be recorded")


def _decode(kind: object, value: object) -> object:
    """An array; or what is declared as any object, whose sequences are tuples (the signatures of plans)."""
    if kind is object:
        return _tuples(value)
    if not (isinstance(value, Sequence) and len(value) == 3):
        raise ValueError("an array is recorded without its type, shape and bytes")
    dtype, shape, data = value
    if dtype not in ("<f8", "<i8", "|b1"):
        raise ValueError(f"an array is recorded with elements of type {dtype}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


@lru_cache(maxsize=64)
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[object]:
    return msgspec.msgpack.Decoder(kind, dec_hook=_decode)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode)
