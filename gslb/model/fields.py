"""What a field of a resource may hold, as data: one description for YAML, JSON Schema and the wire alike. PURE.

Values are plain: text, numbers, booleans, datetimes, lists and mappings by field name. Problems are returned, not
raised, so that a file with five mistakes is told of five.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import assert_never

from gslb.model.grammar import Grammar, shown

Values = Mapping[str, object]

# A protobuf Timestamp ends in 9999, and a zone's offset must not push a time over either end.
_YEARS = (1971, 9998)


class Form(Enum):
    """The type of a value, in the words of an error message."""

    TEXT = "text"
    NUMBER = "a number"
    INTEGER = "a whole number"
    BOOLEAN = "true or false"
    TIME = "a time"
    LIST = "a list"
    OBJECT = "a mapping"


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its type and bounds. `minimum` is excluded from the range when `above` is set."""

    name: str
    form: Form
    doc: str
    required: bool = False
    default: object = None
    minimum: float = -math.inf
    maximum: float = math.inf
    above: bool = False
    grammar: Grammar | None = None
    choices: tuple[str, ...] = ()
    items: "Field | None" = None  # LIST: what each item is; `minimum` and `maximum` bound their number
    fields: tuple["Field", ...] = ()  # OBJECT


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with the field at `path` (such as `backends[0].job`, empty: the whole)."""

    path: str
    message: str

    def line(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def check(field: Field, value: object, path: str) -> Iterator[FieldProblem]:
    """Everything that is wrong with a value of this field, and with what is inside it."""
    problems = list(check_itself(field, value, path))
    yield from problems
    if problems:
        return
    if isinstance(value, Mapping):
        yield from check_all(field.fields, value, path)
    elif field.items and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from check(field.items, item, f"{path}[{index}]")


def check_all(fields: Sequence[Field], values: Values, path: str = "") -> Iterator[FieldProblem]:
    """Everything that is wrong with these values, fields that are missing included; unknown names are not looked at."""
    for field in fields:
        if field.name in values:
            yield from check(field, values[field.name], child(path, field.name))
        elif field.required:
            yield missing(field, path)


def missing(field: Field, path: str) -> FieldProblem:
    """What to say when a required field is not there."""
    return FieldProblem(child(path, field.name), f"missing: give {field.doc}")


def check_itself(field: Field, value: object, path: str) -> Iterator[FieldProblem]:
    """What is wrong with a value of this field, looking at its type, range, grammar and length only."""
    if not _has_form(field.form, value):
        yield FieldProblem(path, f"{shown(value)} is not {field.form.value}")
        return
    match value:
        case bool() | Mapping():
            pass
        case int() | float():
            yield from _check_range(field, value, path)
        case str():
            yield from _check_text(field, value, path)
        case datetime():
            if not _YEARS[0] <= value.year <= _YEARS[1]:
                yield FieldProblem(path, f"{value.isoformat()} is not between the years {_YEARS[0]} and {_YEARS[1]}")
        case list() | tuple():
            if not field.minimum <= len(value) <= field.maximum:
                yield FieldProblem(path, f"has {len(value)} items: give {field.doc}, {_range_words(field)}")
        case _:
            raise AssertionError(f"{field.name}: a value of type {type(value)} has no form")


def _has_form(form: Form, value: object) -> bool:
    match form:
        case Form.TEXT:
            return isinstance(value, str)
        case Form.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Form.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case Form.BOOLEAN:
            return isinstance(value, bool)
        case Form.TIME:
            return isinstance(value, datetime) and value.tzinfo is not None
        case Form.LIST:
            return isinstance(value, list | tuple)
        case Form.OBJECT:
            return isinstance(value, Mapping)
        case _:
            assert_never(form)


def _number(value: float) -> str:
    return f"{value:.12g}"


def _range_words(field: Field) -> str:
    """The range of a field in words: `above 0 and at most 1000000`."""
    words = []
    if field.minimum > -math.inf:
        words.append(f"{'above' if field.above else 'at least'} {_number(field.minimum)}")
    if field.maximum < math.inf:
        words.append(f"at most {_number(field.maximum)}")
    return " and ".join(words) or "finite"


def _check_range(field: Field, value: float, path: str) -> Iterator[FieldProblem]:
    # Integers beyond the doubles would raise in isfinite; comparing is exact for them.
    finite = isinstance(value, int) or math.isfinite(value)
    low = value > field.minimum if field.above else value >= field.minimum
    if not (finite and low and value <= field.maximum):
        yield FieldProblem(path, f"{shown(value)} is out of range: give {field.doc}, {_range_words(field)}")


def _check_text(field: Field, value: str, path: str) -> Iterator[FieldProblem]:
    if field.choices and value not in field.choices:
        yield FieldProblem(path, f"{shown(value)} is not one of {', '.join(field.choices)}")
    problem = field.grammar.problem(value) if field.grammar else None
    if problem:
        yield FieldProblem(path, problem)
