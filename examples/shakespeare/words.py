"""What a word is, and how a word's places are packed into a row. PURE."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

# Letters, with one apostrophe inside ("o'er", "call'd"); digits are no words.
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
_PLACE = struct.Struct(">HI")

WORD_MAX_CHARS = 60


class PlaceKey(NamedTuple):
    """One occurrence: the work's index in the sorted list of works, and the 1-based line."""

    work: int
    line: int


def words_of(line: str) -> Iterator[str]:
    """The words of a line of text, lower case, in order, repetitions included."""
    return (match.group() for match in _WORD.finditer(line.lower().replace("’", "'")))


def normalise(word: str) -> str:
    """The word as the index knows it; "" when it is none."""
    found = list(words_of(word.strip()))
    return found[0] if len(found) == 1 and len(found[0]) <= WORD_MAX_CHARS else ""


def pack_places(places: list[PlaceKey]) -> bytes:
    """Occurrences as bytes, 6 each."""
    return b"".join(_PLACE.pack(place.work, place.line) for place in places)


def count_places(packed: bytes) -> int:
    """How many there are; a torn tail is none."""
    return len(packed) // _PLACE.size


def unpack_places(packed: bytes, most: int | None = None) -> list[PlaceKey]:
    """The inverse of pack_places, for the first `most` of them; a torn tail is left out."""
    whole = packed if most is None else head_of(packed, most)
    return [PlaceKey(*fields) for fields in _PLACE.iter_unpack(whole[: count_places(whole) * _PLACE.size])]


def head_of(packed: bytes, most: int) -> bytes:
    """The first `most` places, packed."""
    return packed[: most * _PLACE.size]


def word_key(word: str) -> str:
    """Row key of a word's places."""
    return f"word/{word}"


def line_key(work: str, line: int) -> str:
    """Row key of one line of text."""
    return f"line/{work}/{line}"


WORKS_KEY = "works"  # its row: names of all works, in index order, one a line
