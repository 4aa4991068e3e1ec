"""The example's batch job: what a word is, the MapReduce, and the index against a plain scan of the same texts."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.shakespeare import index, texts, words
from examples.shakespeare.mapreduce import map_reduce, partition_of


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Who's there?", ["who's", "there"]),
        ("  O'er-leaping 'Tis!", ["o'er", "leaping", "tis"]),
        ("ACT I. 1603 --", ["act", "i"]),
        ("Rock’d by the sea", ["rock'd", "by", "the", "sea"]),
        ("", []),
    ],
)
def test_words_of_a_line(line: str, found: list[str]) -> None:
    assert list(words.words_of(line)) == found


@pytest.mark.parametrize(
    ("typed", "word"),
    [(" Dagger ", "dagger"), ("o'er", "o'er"), ("two words", ""), ("", ""), ("x" * 61, ""), ("'", "")],
)
def test_normalise(typed: str, word: str) -> None:
    assert words.normalise(typed) == word


def test_places_pack_and_unpack() -> None:
    places = [words.PlaceKey(0, 1), words.PlaceKey(41, 200_000), words.PlaceKey(7, 7)]
    packed = words.pack_places(places)
    assert words.unpack_places(packed) == places
    assert words.unpack_places(packed[:-1]) == places[:-1]
    assert words.count_places(packed[:-1]) == len(places) - 1
    assert words.unpack_places(packed, 2) == places[:2]
    assert words.unpack_places(packed[:-1], 100) == places[:-1]


def test_map_reduce_keeps_the_order_of_inputs_and_groups_all(tmp_path: Path) -> None:
    inputs = []
    for name, text in (("a", "rose by rose\nany"), ("b", "rose"), ("c", "any any")):
        path = tmp_path / name
        path.write_text(text)
        inputs.append(path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    reduced = dict(map_reduce(inputs, index.map_text, index.reduce_word, scratch=scratch, workers=2))
    assert words.unpack_places(reduced["rose"]) == [(0, 1), (0, 1), (1, 1)]
    assert words.unpack_places(reduced["any"]) == [(0, 2), (2, 1), (2, 1)]
    assert set(reduced) == {"rose", "by", "any"}


def test_partitions_do_not_depend_on_the_process() -> None:
    assert [partition_of(word, 7) for word in ("rose", "thorn", "")] == [6, 2, 3]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    first, second = (tmp_path_factory.mktemp("index") / name for name in ("one.sqlite", "two.sqlite"))
    rows = index.build(texts.DEFAULT_DIRECTORY, [first, second], workers=2)
    assert rows > 100_000
    assert first.read_bytes() == second.read_bytes()
    database = sqlite3.connect(first)
    yield database
    database.close()


@pytest.mark.parametrize("word", ["dagger", "the", "honorificabilitudinitatibus", "o'er", "zounds"])
def test_index_has_what_a_plain_scan_finds(built: sqlite3.Connection, word: str) -> None:
    expected = [
        (number, line)
        for number, path in enumerate(texts.work_files(texts.DEFAULT_DIRECTORY).values())
        for line, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        for found in words.words_of(text)
        if found == word
    ]
    packed = built.execute("SELECT value FROM cell WHERE key = ?", (words.word_key(word),)).fetchone()[0]
    assert words.unpack_places(packed) == expected
    assert expected


def test_missing_texts_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(texts.TextsError, match=r"has 0 of 42 works: run 'make texts'"):
        index.build(tmp_path, [tmp_path / "x.sqlite"], workers=1)
    assert not (tmp_path / "x.sqlite").exists()
