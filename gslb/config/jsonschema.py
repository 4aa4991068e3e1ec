"""The JSON Schema of configuration documents, made from the same table that `load` follows: for editors and CI."""

import math

from gslb.config.dump import Plain
from gslb.config.load import document_fields
from gslb.model.fields import Field, Form
from gslb.model.schema import TITLES

_TYPES = {
    Form.TEXT: "string",
    Form.NUMBER: "number",
    Form.INTEGER: "integer",
    Form.BOOLEAN: "boolean",
    Form.TIME: "string",
    Form.LIST: "array",
    Form.OBJECT: "object",
}


def json_schema() -> dict[str, Plain]:
    """One schema (draft 2020-12) for a document of any kind."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A GSLB resource",
        "oneOf": [_document(kind) for kind in TITLES],
    }


def _document(kind: str) -> Plain:
    schema = _object(document_fields(kind))
    properties = schema["properties"]
    assert isinstance(properties, dict)
    properties["kind"] = {"const": TITLES[kind]}
    return {"title": TITLES[kind], **schema}


def _object(fields: tuple[Field, ...]) -> dict[str, Plain]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [field.name for field in fields if field.required],
        "properties": {field.name: _field(field) for field in fields},
    }


def _field(field: Field) -> Plain:
    schema: dict[str, Plain] = {"type": _TYPES[field.form], "description": field.doc}
    if field.form is Form.OBJECT:
        schema |= _object(field.fields)
    if field.form is Form.TIME:
        schema["format"] = "date-time"
    if field.items:
        schema["items"] = _field(field.items)
    if field.choices:
        schema["enum"] = list(field.choices)
    if field.grammar and field.grammar.pattern:
        schema["pattern"] = field.grammar.pattern
    if isinstance(field.default, str | int | float | bool):
        schema["default"] = field.default
    return schema | _bounds(field)


def _bounds(field: Field) -> dict[str, Plain]:
    low, high = ("minItems", "maxItems") if field.form is Form.LIST else ("minimum", "maximum")
    if field.above:
        low = "exclusiveMinimum"
    bounds: dict[str, Plain] = {}
    if field.minimum > -math.inf:
        bounds[low] = _whole(field.minimum)
    if field.maximum < math.inf:
        bounds[high] = _whole(field.maximum)
    return bounds


def _whole(bound: float) -> Plain:
    return int(bound) if bound == int(bound) else bound
