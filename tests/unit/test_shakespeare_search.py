"""The backend's search over a tablet: two reads, then one when the lines are known; limits; what is missing."""

from collections.abc import Mapping, Sequence

from examples.shakespeare import search, words
from examples.shakespeare.search import Found, Searcher

TABLE = {
    words.WORKS_KEY: b"hamlet\nlear",
    words.word_key("storm"): words.pack_places([words.PlaceKey(0, 3), words.PlaceKey(1, 9), words.PlaceKey(1, 9)]),
    words.line_key("hamlet", 3): b"a storm",
    words.line_key("lear", 9): b"storm, storm",
}


class Tablet:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        self.asked.append(list(keys))
        return {key: TABLE[key] for key in keys if key in TABLE}


async def test_places_with_their_lines_in_order() -> None:
    hits = await Searcher(Tablet().read).search("storm", 0)
    assert (hits.word, hits.total) == ("storm", 3)
    assert hits.places == (
        Found("hamlet", 3, "a storm"),
        Found("lear", 9, "storm, storm"),
        Found("lear", 9, "storm, storm"),
    )


async def test_lines_are_read_once() -> None:
    tablet = Tablet()
    searcher = Searcher(tablet.read)
    first = await searcher.search("storm", 2)
    assert tablet.asked == [["word/storm", "works"], ["line/hamlet/3", "line/lear/9"]]
    assert await searcher.search("storm", 2) == first
    assert tablet.asked[2:] == [["word/storm"]]
    assert len(first.places) == 2


async def test_what_is_kept_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(search, "LINES_KEPT", 1)
    tablet = Tablet()
    searcher = Searcher(tablet.read)
    for _ in range(3):
        assert (await searcher.search("storm", 1)).places[0].line == "a storm"
        assert (await searcher.search("storm", 3)).places[2].line == "storm, storm"
    assert len(searcher._lines) <= 2


async def test_an_unknown_word_has_no_places() -> None:
    hits = await Searcher(Tablet().read).search("zounds", 5)
    assert (hits.total, hits.places) == (0, ())


class TestLess:
    """What an overloaded backend answers."""

    async def test_a_word_that_is_known_costs_no_read_and_one_that_is_not_costs_one(self) -> None:
        tablet = Tablet()
        searcher = Searcher(tablet.read)
        await searcher.search("storm", 1)
        del tablet.asked[:]
        hits = await searcher.search_less("storm", 0)
        # Only the line that was asked for before is remembered.
        assert (hits.total, hits.places) == (3, (Found("hamlet", 3, "a storm"),))
        assert tablet.asked == []
        assert (await searcher.search_less("zounds", 0)).total == 0
        assert (await searcher.search_less("zounds", 0)).places == ()
        assert tablet.asked == [["word/zounds"]]

    async def test_the_first_request_of_all_may_come_under_overload(self) -> None:
        tablet = Tablet()
        searcher = Searcher(tablet.read)
        hits = await searcher.search_less("storm", 0)
        assert (hits.total, hits.places) == (3, ())
        assert tablet.asked == [["word/storm", "works"]]
        assert len((await searcher.search("storm", 0)).places) == 3

    async def test_few_lines_however_many_are_known(self, monkeypatch) -> None:
        monkeypatch.setattr(search, "LINES_LESS", 2)
        searcher = Searcher(Tablet().read)
        await searcher.search("storm", 0)
        assert len((await searcher.search_less("storm", 0)).places) == 2
        assert len((await searcher.search_less("storm", 1)).places) == 1

    async def test_words_that_are_kept_are_bounded(self, monkeypatch) -> None:
        monkeypatch.setattr(search, "WORDS_KEPT", 2)
        searcher = Searcher(Tablet().read)
        for word in ("a", "b", "c", "storm"):
            assert (await searcher.search_less(word, 0)).total == (3 if word == "storm" else 0)
        assert len(searcher._words) <= 2
