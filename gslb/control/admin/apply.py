"""What an Apply, a Delete or an Import would write: decided from a snapshot, all or nothing. No I/O here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bns.view import BnsView
from gslb.control.admin.desk import Change, Snapshot
from gslb.control.view.config import CATALOG_FIELDS, Stored
from gslb.model import limits
from gslb.model.errors import InvalidValueError, NotFoundError, RefusedError
from gslb.model.meta import Meta
from gslb.model.resources import KINDS, Catalog, Drain, Resource, kind_of
from gslb.model.validate import validate
from gslb.v1 import config_pb2
from gslb.wire.codec import decode_resource


@dataclass(frozen=True, slots=True)
class Given:
    """A resource as somebody gave it. `owned`: the owner was named, not left out."""

    resource: Resource
    owned: bool


def decode_all(resources: Sequence[config_pb2.Resource]) -> list[Given]:
    """Raises InvalidValueError with a line for each resource that is wrong."""
    if len(resources) > limits.SERVICES_MAX:
        raise InvalidValueError(f"{len(resources)} resources in one call: at most {limits.SERVICES_MAX}")
    given: list[Given] = []
    problems: list[str] = []
    seen: set[tuple[str, str]] = set()
    for message in resources:
        try:
            resource = decode_resource(message)
        except InvalidValueError as error:
            problems.append(str(error))
            continue
        key = (kind_of(resource), resource.meta.name)
        if key in seen:
            problems.append(f"{key[0]} {key[1]!r} is given twice: keep one")
        seen.add(key)
        given.append(Given(resource, bool(message.meta.owner)))
    if problems:
        raise InvalidValueError("\n".join(problems))
    return given


def check_kind(kind: str) -> str:
    """Raises InvalidValueError."""
    if kind not in KINDS:
        raise InvalidValueError(f"kind {kind[:80]!r} is not known: give one of {', '.join(KINDS)}")
    return kind


def decide(snapshot: Snapshot, given: Iterable[Given], principal: str) -> list[Change]:
    """What would be written. Raises RefusedError when the catalog would not hold together."""
    changes = [_change(snapshot, one, principal) for one in given]
    check_together(snapshot, changes)
    return changes


def _change(snapshot: Snapshot, given: Given, principal: str) -> Change:
    resource = given.resource
    kind, meta = kind_of(resource), resource.meta
    held = snapshot.find(kind, meta.name)
    if held is not None and not held.deleted and held.resource.meta.owner != meta.owner:
        if given.owned:
            raise RefusedError(
                f"{kind} {meta.name!r} belongs to owner {held.resource.meta.owner!r}, not to {meta.owner!r}:"
                " ask that owner, or give it another name"
            )
        meta = replace(meta, owner=held.resource.meta.owner)
    if held is None or held.resource.meta.owner != meta.owner:
        held = snapshot.find(kind, meta.name, meta.owner)
    if held is not None and not held.deleted and same_value(held.resource, resource):
        return Change(held.resource, "unchanged")
    before = held.resource.meta.generation if held else 0
    written = Meta(meta.name, meta.owner, before + 1, snapshot.now, None, principal)
    action = "changed" if held is not None and not held.deleted else "created"
    return Change(replace(resource, meta=written), action)


def same_value(one: Resource, other: Resource) -> bool:
    """Whether they say the same, whoever wrote them and when."""
    blank = Meta(one.meta.name)
    return replace(one, meta=blank) == replace(other, meta=blank)


def check_together(snapshot: Snapshot, changes: Iterable[Change]) -> None:
    """Raises RefusedError with every problem that the changes would bring into the catalog."""
    known = set(validate(snapshot.catalog))
    fresh = [problem.line() for problem in validate(catalog_after(snapshot.catalog, changes)) if problem not in known]
    if fresh:
        raise RefusedError("; ".join(fresh) if len(fresh) == 1 else "the configuration would not hold", tuple(fresh))


def catalog_after(catalog: Catalog, changes: Iterable[Change]) -> Catalog:
    """The catalog with the changes made."""
    fields: dict[str, dict[str, Resource]] = {
        attribute: dict(getattr(catalog, attribute)) for attribute in CATALOG_FIELDS.values()
    }
    for change in changes:
        members = fields[CATALOG_FIELDS[kind_of(change.resource)]]
        if change.action == "deleted":
            members.pop(change.resource.meta.name, None)
        else:
            members[change.resource.meta.name] = change.resource
    return Catalog(**fields)  # type: ignore[arg-type]  # each dictionary holds the kind of its field


def tombstone(stored: Stored, snapshot: Snapshot, principal: str) -> Change:
    """The deletion of a resource."""
    meta = stored.resource.meta
    written = replace(
        meta,
        generation=meta.generation + 1,
        updated_at=snapshot.now,
        deleted_at=snapshot.now,
        principal=principal,
    )
    return Change(replace(stored.resource, meta=written), "deleted")


def decide_delete(snapshot: Snapshot, kind: str, name: str, principal: str, view: BnsView) -> Change:
    """Raises NotFoundError, RefusedError when something needs it."""
    stored = snapshot.find(kind, name)
    if stored is None or stored.deleted:
        raise NotFoundError(f"there is no {kind} {name[:80]!r}: `gslb get {kind}` lists what there is")
    change = tombstone(stored, snapshot, principal)
    if kind == "datacenter":
        tasks = len(view.tasks.under(f"/bns/{name}/"))
        if tasks:
            raise RefusedError(
                f"datacenter {name!r} is in use: {tasks} tasks are registered under /bns/{name}/; end them first"
            )
    check_together(snapshot, [change])
    return change


def decide_import(snapshot: Snapshot, given: Iterable[Given], principal: str) -> list[Change]:
    """As `decide`; generations never go back behind what was exported, and drains that are over stay away."""
    kept = [one for one in given if not (isinstance(one.resource, Drain) and one.resource.expires_at <= snapshot.now)]
    exported: Mapping[tuple[str, str], int] = {
        (kind_of(one.resource), one.resource.meta.name): one.resource.meta.generation for one in kept
    }
    changes = []
    for change in decide(snapshot, kept, principal):
        resource = change.resource
        generation = exported[kind_of(resource), resource.meta.name]
        if change.action != "unchanged" and generation > resource.meta.generation:
            meta = replace(resource.meta, generation=generation)
            changes.append(replace(change, resource=replace(resource, meta=meta)))
        else:
            changes.append(change)
    # What others refer to comes first, so that each part of a large import holds by itself.
    order = list(_IMPORT_ORDER)
    return sorted(changes, key=lambda change: order.index(kind_of(change.resource)))


_IMPORT_ORDER = ("datacenter", "area", "zone", "service", "drain")
