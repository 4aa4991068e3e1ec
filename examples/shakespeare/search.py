"""The backend's question: where does a word occur? Two reads of the tablet: the word's row, then the lines to show."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from examples.shakespeare import words

LINES_DEFAULT = 20
LINES_MAX = 200
LINES_KEPT = 20_000

# keys -> the rows that exist
ReadRows = Callable[[Sequence[str]], Awaitable[Mapping[str, bytes]]]


@dataclass(frozen=True, slots=True)
class Found:
    """One occurrence with its line of text."""

    work: str
    line_number: int
    line: str


@dataclass(frozen=True, slots=True)
class Hits:
    """How often a word occurs in all works, and the first places in the order of works and lines."""

    word: str
    total: int
    places: tuple[Found, ...]


class Searcher:
    """Answers from a tablet. An index never changes, so lines that were read are kept, up to LINES_KEPT of them."""

    def __init__(self, read_rows: ReadRows) -> None:
        self._read_rows = read_rows
        self._works: tuple[str, ...] = ()
        self._lines: dict[str, str] = {}

    async def search(self, word: str, limit: int) -> Hits:
        """The places of `word` (already normalised), at most `limit` of them with their lines."""
        key = words.word_key(word)
        wanted = [key] if self._works else [key, words.WORKS_KEY]
        rows = await self._read_rows(wanted)
        if not self._works:
            self._works = tuple(rows[words.WORKS_KEY].decode().split("\n"))
        packed = rows.get(key, b"")
        places = words.unpack_places(packed, min(limit or LINES_DEFAULT, LINES_MAX))
        shown = [(self._works[place.work], place.line) for place in places]
        lines = await self._read_lines([words.line_key(*place) for place in shown])
        return Hits(
            word, words.count_places(packed), tuple(Found(*p, line) for p, line in zip(shown, lines, strict=True))
        )

    async def _read_lines(self, keys: list[str]) -> list[str]:
        """The lines of these keys, in their order; "" where the tablet has none."""
        known = {key: line for key in keys if (line := self._lines.get(key)) is not None}
        missing = [key for key in keys if key not in known]
        if missing:
            rows = await self._read_rows(missing)
            read = {key: rows.get(key, b"").decode() for key in missing}
            if len(self._lines) + len(read) > LINES_KEPT:
                self._lines.clear()
            self._lines |= read
            known |= read
        return [known[key] for key in keys]
