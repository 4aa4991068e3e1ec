"""Numbers, times and texts from outside, each refused with a message that names it when it is out of bounds."""

import math
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from bns.names import InvalidNameError, check_label
from gslb.model.errors import InvalidValueError
from gslb.model.grammar import shown

_SECONDS_MAX = 253_402_300_799  # the end of the year 9999
M = TypeVar("M", bound=Message)


def parse(cls: type[M], data: bytes, what: str, max_bytes: int) -> M:
    """Bytes -> message, its size checked but not its values. Raises InvalidValueError."""
    if len(data) > max_bytes:
        raise InvalidValueError(f"{what} has {len(data)} bytes: at most {max_bytes} are read")
    try:
        return cls.FromString(data)
    except DecodeError as error:
        raise InvalidValueError(f"{what}: {len(data)} bytes that are no {cls.DESCRIPTOR.full_name}") from error


def label(text: str, what: str) -> str:
    """A DNS label. Raises InvalidValueError."""
    try:
        return check_label(text, what)
    except InvalidNameError as error:
        raise InvalidValueError(str(error)) from error


def number(value: float, what: str, low: float = 0.0, high: float = math.inf) -> float:
    """A finite number in low..high. Raises InvalidValueError."""
    if math.isfinite(value) and low <= value <= high:
        return value
    raise InvalidValueError(f"{what} is {value!r}: it must be finite and from {low:g} to {high:g}")


def count(items: int, most: int, what: str) -> None:
    """Raises InvalidValueError if there are more than `most`."""
    if items > most:
        raise InvalidValueError(f"{what}: {items} of them, at most {most} are read")


def line(text: str, most: int, what: str) -> str:
    """One line of at most `most` characters. Raises InvalidValueError."""
    if len(text) > most or not text.isprintable():
        raise InvalidValueError(f"{what} is {shown(text)}: it must be one line of at most {most} characters")
    return text


def encode_seconds(seconds: float) -> Timestamp:
    """Seconds since the epoch, UTC; `decode_seconds` gives the same number back."""
    # Multiplied as a whole, today's seconds in nanoseconds would not fit into a double's 53 bits.
    whole = math.floor(seconds)
    carry, nanos = divmod(round((seconds - whole) * 1_000_000_000), 1_000_000_000)
    return Timestamp(seconds=whole + carry, nanos=nanos)


def decode_seconds(stamp: Timestamp, what: str) -> float:
    """Raises InvalidValueError."""
    _check_timestamp(stamp, what)
    # Whole numbers divide to the nearest double; a sum of two of them is rounded once more.
    return (stamp.seconds * 1_000_000_000 + stamp.nanos) / 1_000_000_000


def encode_time(moment: datetime) -> Timestamp:
    """A datetime with its zone, to the microsecond."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def decode_time(stamp: Timestamp, what: str) -> datetime:
    """In UTC. Raises InvalidValueError."""
    _check_timestamp(stamp, what)
    return stamp.ToDatetime(UTC)


def _check_timestamp(stamp: Timestamp, what: str) -> None:
    if not (0 <= stamp.seconds <= _SECONDS_MAX and 0 <= stamp.nanos < 1_000_000_000):
        raise InvalidValueError(
            f"{what} is {stamp.seconds} s and {stamp.nanos} ns: it must be a time from 1970 to the year 9999"
        )
