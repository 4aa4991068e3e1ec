"""A YAML scalar -> the value that its field wants."""

import re
from datetime import UTC, datetime

import yaml

from gslb.config.nodes import unquoted
from gslb.model.fields import Field, Form
from gslb.model.grammar import shown

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_INTEGER = re.compile(r"[-+]?\d{1,30}")
_SPECIAL = {".nan": float("nan"), ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf")}
_TEXT_TAG = "tag:yaml.org,2002:str"
# What YAML makes of a scalar without quotes, in words.
_READ_AS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing", "timestamp": "a time"}


class ScalarError(ValueError):
    """The scalar does not fit the field; the message names the value and says what to write."""


def convert(field: Field, node: yaml.ScalarNode) -> object:
    """The value, its type right but its range not looked at. Raises ScalarError."""
    if node.value == "" and unquoted(node):
        raise ScalarError(f"has no value: give {field.doc}, or remove the line")
    match field.form:
        case Form.TEXT:
            return _text(node)
        case Form.NUMBER | Form.INTEGER:
            return _number(field, node)
        case Form.BOOLEAN:
            return _boolean(node)
        case Form.TIME:
            return _time(node)
        case Form.LIST | Form.OBJECT:
            raise ScalarError(f"{shown(node.value)} is not {field.form.value}")


def _text(node: yaml.ScalarNode) -> str:
    if unquoted(node) and node.tag != _TEXT_TAG:
        kind = _READ_AS.get(node.tag.rpartition(":")[2], "something else")
        raise ScalarError(f"{shown(node.value)[1:-1]} is read as {kind}, text is wanted: put it in quotes")
    return str(node.value)


def _number(field: Field, node: yaml.ScalarNode) -> float | int:
    text = node.value
    if not unquoted(node) and (_NUMBER.fullmatch(text) or text.lower() in _SPECIAL):
        raise ScalarError(f"{shown(text)} is text, {field.form.value} is wanted: remove the quotes")
    if _INTEGER.fullmatch(text):
        return int(text)
    if field.form is Form.NUMBER and _NUMBER.fullmatch(text):
        return float(text)
    if field.form is Form.NUMBER and text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    raise ScalarError(f"{shown(text)} is not {field.form.value}: give {field.doc}")


def _boolean(node: yaml.ScalarNode) -> bool:
    if unquoted(node) and node.value in ("true", "false"):
        return bool(node.value == "true")
    raise ScalarError(f"{shown(node.value)} is not true or false: write one of them, without quotes")


def _time(node: yaml.ScalarNode) -> datetime:
    wanted = "write it in UTC as 2026-01-31T12:00:00Z"
    try:
        moment = datetime.fromisoformat(node.value)
        if moment.tzinfo is None:
            raise ScalarError(f"{shown(node.value)} has no time zone: {wanted}")
        return moment.astimezone(UTC)
    except ScalarError:
        raise
    except (ValueError, OverflowError):
        raise ScalarError(f"{shown(node.value)} is not a time: {wanted}") from None
