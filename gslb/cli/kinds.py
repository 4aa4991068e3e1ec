"""How kinds of things are called on the command line, and resources read from and written to the wire."""

from collections.abc import Iterable, Mapping

import click

from gslb.config.dump import as_document
from gslb.model.errors import InvalidValueError
from gslb.model.resources import KINDS, Resource, Service, Zone
from gslb.v1 import config_pb2
from gslb.wire.resources import decode_resource

# Every way to name a kind -> the kind, as KINDS has it.
ALIASES: Mapping[str, str] = {
    **{kind: kind for kind in KINDS},
    **{f"{kind}s": kind for kind in KINDS},
    "dc": "datacenter",
    "clientarea": "area",
    "clientareas": "area",
    "svc": "service",
}
# What is seen rather than desired, by every way to name it.
OBSERVED: Mapping[str, str] = {
    name: what for what in ("tasks", "agents", "plans", "quotas") for name in (what, what.removesuffix("s"))
}


def kind_named(text: str) -> str:
    """The kind meant by an argument. Raises click.UsageError."""
    kind = ALIASES.get(text.lower())
    if kind is None:
        known = ", ".join(sorted(KINDS))
        raise click.UsageError(f"{text!r} is no kind of resource: use one of {known} (or their plurals)")
    return kind


def decoded(resources: Iterable[config_pb2.Resource]) -> list[Resource]:
    """Resources from the wire; one that this version cannot read is an error that says so."""
    try:
        return [decode_resource(resource) for resource in resources]
    except InvalidValueError as error:
        raise click.ClickException(
            f"the control plane sent a resource that this `gslb` cannot read: {error}"
        ) from error


def row_of(resource: Resource) -> dict[str, object]:
    """A resource as a flat row for a table: its document, the fields of `spec` and `meta` beside the name."""
    document = as_document(resource, history=True)
    parts = [part for part in (document.pop("meta", {}), document.pop("spec", {})) if isinstance(part, dict)]
    row: dict[str, object] = {**document}
    for part in parts:
        row.update(part)
    match resource:
        case Service():
            row["datacenters"] = [backend.datacenter for backend in resource.backends]
        case Zone():
            row["lines"] = resource.records.count("\n")
        case _:
            pass
    return row
