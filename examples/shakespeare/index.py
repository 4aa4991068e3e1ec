"""The batch job: texts -> (word, place), shuffled and reduced in parallel, written as one SQLite file per datacenter."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from examples.shakespeare import texts, words
from examples.shakespeare.mapreduce import Value, map_reduce


def map_text(number: int, path: Path) -> Iterator[tuple[str, Value]]:
    """Each word of a work with its place."""
    for line_number, line in enumerate(_lines(path), start=1):
        for word in words.words_of(line):
            yield word, (number, line_number)


def reduce_word(_word: str, places: list[Value]) -> bytes:
    """All places of one word, packed."""
    return words.pack_places([words.PlaceKey(work, line) for work, line in places])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _rows(files: dict[str, Path], scratch: Path, workers: int) -> Iterator[tuple[str, bytes]]:
    yield words.WORKS_KEY, "\n".join(files).encode()
    for work, path in files.items():
        for line_number, line in enumerate(_lines(path), start=1):
            if line.strip():
                yield words.line_key(work, line_number), line.strip().encode()
    for word, packed in map_reduce(list(files.values()), map_text, reduce_word, scratch=scratch, workers=workers):
        yield words.word_key(word), packed


def _write(rows: Iterable[tuple[str, bytes]], path: Path) -> int:
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA synchronous = OFF")  # the file is renamed into place only when it is whole
        database.execute("CREATE TABLE cell (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        with database:
            return database.executemany("INSERT INTO cell VALUES (?, ?)", rows).rowcount
    finally:
        database.close()


def build(directory: Path, outputs: list[Path], *, workers: int) -> int:
    """Writes the index of the texts in `directory` to every path of `outputs`; returns the number of rows.

    Each output appears whole or not at all. Raises texts.TextsError.
    """
    files = texts.work_files(directory)
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=outputs[0].parent) as scratch:
        whole = Path(scratch) / "index.sqlite"
        written = _write(_rows(files, Path(scratch), workers), whole)
        for output in outputs:
            part = output.with_name(output.name + ".part")
            shutil.copyfile(whole, part)
            part.replace(output)
    return written


@click.command()
@click.option(
    "--texts", "directory", type=click.Path(path_type=Path), default=texts.DEFAULT_DIRECTORY, show_default=True
)
@click.option(
    "--output",
    "outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="SQLite file; one per datacenter.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=os.cpu_count() or 1, show_default=True)
def main(directory: Path, outputs: tuple[Path, ...], workers: int) -> None:
    """Build the index of Shakespeare's words."""
    try:
        written = build(directory, list(outputs), workers=workers)
    except (texts.TextsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{written} rows in {', '.join(map(str, outputs))}", err=True)


if __name__ == "__main__":
    main()
