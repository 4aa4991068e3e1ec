"""Resources -> YAML documents that `load` reads back as the same resources."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeAlias

import yaml
from typing_extensions import override

from gslb.model.build import meta_values, spec_values
from gslb.model.resources import Resource, kind_of
from gslb.model.schema import TITLES

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain]"


def as_document(resource: Resource, *, history: bool = False) -> dict[str, Plain]:
    """One document as plain values, for YAML and JSON; `history` adds what the system wrote (generation, ...)."""
    meta = meta_values(resource.meta)
    document: dict[str, Plain] = {
        "kind": TITLES[kind_of(resource)],
        "name": _plain(meta.pop("name")),
        "owner": _plain(meta.pop("owner")),
    }
    if history:
        document["meta"] = {name: _plain(value) for name, value in meta.items()}
    document["spec"] = {name: _plain(value) for name, value in spec_values(resource).items()}
    return document


def _plain(value: object) -> Plain:
    match value:
        case str() | bool() | int() | float():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case _:
            raise TypeError(f"{value!r} has no form in YAML")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines (zones) as they are, and no aliases, which `load` refuses."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(resources: Iterable[Resource], *, history: bool = False) -> str:
    """YAML, one document a resource, in the order given."""
    return yaml.dump_all(
        (as_document(resource, history=history) for resource in resources),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        explicit_start=True,
        width=120,
    )
