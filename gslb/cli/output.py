"""Data on stdout in the form asked for, messages on stderr."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import yaml

FORMATS = ("table", "wide", "json", "yaml")

F = TypeVar("F", bound=Callable[..., object])
Row = Mapping[str, Any]


def with_format(command: F) -> F:
    """Adds -o/--output; the command gets `output: str`."""
    return click.option(
        "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="Form of the output."
    )(command)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its heading, the row's key, whether only `wide` shows it and whether 0.5 means 50 %."""

    heading: str
    key: str
    wide: bool = False
    percent: bool = False


def show(output: str, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Prints rows: a table of `columns`, or all of each row as JSON or YAML (a list)."""
    match output:
        case "json":
            click.echo(json.dumps(_finite(list(rows)), indent=2, default=str))
        case "yaml":
            click.echo(yaml.safe_dump(_finite(list(rows)), sort_keys=False, allow_unicode=True), nl=False)
        case _:
            click.echo(table(rows, [column for column in columns if output == "wide" or not column.wide]))


def table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Aligned columns under capital headings; numbers to the right."""
    cells = [[cell(row.get(column.key), percent=column.percent) for column in columns] for row in rows]
    headings = [column.heading.upper() for column in columns]
    widths = [max(len(line[i]) for line in [headings, *cells]) for i in range(len(columns))]
    right = [bool(rows) and all(isinstance(row.get(c.key), int | float) for row in rows) for c in columns]
    lines = [
        "  ".join(
            text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [headings, *cells]
    ]
    return "\n".join(lines)


def cell(value: object, *, percent: bool = False) -> str:
    """One value in a table; what is unknown or empty is a dash."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and percent:
        return f"{value:.0%}"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) < 1e6 else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ",".join(cell(item) for item in value) or "-"
    return str(value)


def _finite(value: object) -> object:
    """NaN as null: JSON has no other word for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def say(message: str) -> None:
    """A message for the person, on stderr."""
    click.echo(message, err=True)
