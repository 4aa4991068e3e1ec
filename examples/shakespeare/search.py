"""The backend's question: where does a word occur? Two reads of the tablet: the word's row, then the lines to show.

An overloaded backend answers with less: what it remembers, without a read when it knows the word, and one when it does not.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from examples.shakespeare import words

LINES_DEFAULT = 20
LINES_MAX = 200
LINES_KEPT = 20_000
WORDS_KEPT = 5_000
# Lines of an answer under overload.
LINES_LESS = 5

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


@dataclass(frozen=True, slots=True)
class _Row:
    """Where a word occurs: how often, and the first LINES_MAX places, packed."""

    total: int
    head: bytes


class Searcher:
    """Answers from a tablet. An index never changes, so what was read is kept: up to LINES_KEPT lines, WORDS_KEPT words."""

    def __init__(self, read_rows: ReadRows) -> None:
        self._read_rows = read_rows
        self._works: tuple[str, ...] = ()
        self._lines: dict[str, str] = {}
        self._words: dict[str, _Row] = {}

    async def search(self, word: str, limit: int) -> Hits:
        """The places of `word` (already normalised), at most `limit` of them with their lines."""
        row = await self._read_word(word)
        shown = self._shown(row, min(limit or LINES_DEFAULT, LINES_MAX))
        lines = await self._read_lines([words.line_key(*place) for place in shown])
        return Hits(word, row.total, tuple(Found(*p, line) for p, line in zip(shown, lines, strict=True)))

    async def search_less(self, word: str, limit: int) -> Hits:
        """The same for little: `total` is right, but of the places only LINES_LESS at most, whose lines are remembered."""
        row = self._words.get(word) or await self._read_word(word)
        shown = self._shown(row, min(limit or LINES_DEFAULT, LINES_MAX))
        known = [(place, self._lines.get(words.line_key(*place))) for place in shown]
        found = [Found(*place, line) for place, line in known if line is not None]
        return Hits(word, row.total, tuple(found[:LINES_LESS]))

    def _shown(self, row: _Row, most: int) -> list[tuple[str, int]]:
        """Work and line of the first `most` places."""
        return [(self._works[place.work], place.line) for place in words.unpack_places(row.head, most)]

    async def _read_word(self, word: str) -> _Row:
        key = words.word_key(word)
        wanted = [key] if self._works else [key, words.WORKS_KEY]
        rows = await self._read_rows(wanted)
        if not self._works:
            self._works = tuple(rows[words.WORKS_KEY].decode().split("\n"))
        packed = rows.get(key, b"")
        row = _Row(words.count_places(packed), words.head_of(packed, LINES_MAX))
        if len(self._words) >= WORDS_KEPT:
            self._words.clear()
        self._words[word] = row
        return row

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
