"""Configuration files: YAML documents `kind:`, `name:`, `spec:` -> resources; every mistake at once, with its line."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from gslb.config.errors import ConfigError
from gslb.config.nodes import documents
from gslb.config.scalars import ScalarError, convert
from gslb.model.build import build
from gslb.model.fields import Field, FieldProblem, Form, check_itself, child, missing
from gslb.model.grammar import shown
from gslb.model.resources import Resource, kind_of
from gslb.model.schema import HISTORY, OWNER, SPECS, TITLES, name_field
from gslb.model.validate import check_relations

_KIND_OF_TITLE = {title: kind for kind, title in TITLES.items()}


def document_fields(kind: str) -> tuple[Field, ...]:
    """The fields at the top of a document of this kind."""
    return (
        Field("kind", Form.TEXT, "the kind", required=True),
        name_field(kind),
        OWNER,
        Field("meta", Form.OBJECT, "the history that an export carries", fields=HISTORY),
        Field("spec", Form.OBJECT, f"the fields of the {TITLES[kind]}", required=True, fields=SPECS[kind]),
    )


class ZoneReader(ABC):
    """Knows zone files and what is in them, which this package does not."""

    @abstractmethod
    def records_of(self, origin: str, file: str) -> str:
        """The records of a zone's file, in one text. Raises ValueError that says what is wrong, and where."""

    @abstractmethod
    def check(self, origin: str, records: str) -> str:
        """The records themselves if they are good. Raises ValueError that says what is wrong with them."""


def load(text: str | bytes, filename: str, zones: ZoneReader | None = None) -> list[Resource]:
    """The resources of a file, in its order. Raises ConfigError with every problem as `FILE:LINE: ...`.

    With `zones`, a Zone may name a `file` instead of having `records`, and all records are checked.
    """
    problems: list[tuple[int, str]] = []
    loaded: list[tuple[int, Resource]] = []
    for node in documents(text, filename):
        reading = _Document(node)
        resource = reading.read(zones)
        problems.extend(reading.problems)
        if resource is not None:
            loaded.append((_line(node), resource))
    problems.extend(_repeated(loaded))
    if problems:
        raise ConfigError([f"{filename}:{line}: {message}" for line, message in sorted(problems)])
    if not loaded:
        raise ConfigError(
            [f"{filename}:1: there is nothing in it: write documents of kind {', '.join(_KIND_OF_TITLE)}"]
        )
    return [resource for _, resource in loaded]


def load_values(text: str | bytes, filename: str, fields: tuple[Field, ...]) -> Mapping[str, object]:
    """The one document of a file that holds no resource, by these fields. Raises ConfigError like `load`."""
    nodes = documents(text, filename)
    if len(nodes) != 1:
        raise ConfigError([f"{filename}:1: there are {len(nodes)} documents in it: write one, with {_names(fields)}"])
    reading = _Document(nodes[0])
    values = reading.values(fields)
    if reading.problems:
        raise ConfigError([f"{filename}:{line}: {message}" for line, message in sorted(reading.problems)])
    return values


def _value_at(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """The value of a key, where there is such a mapping."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _repeated(loaded: Iterable[tuple[int, Resource]]) -> Iterable[tuple[int, str]]:
    first: dict[tuple[str, str], int] = {}
    for line, resource in loaded:
        kind, name = kind_of(resource), resource.meta.name
        earlier = first.setdefault((kind, name), line)
        if earlier != line:
            yield line, f"{TITLES[kind]} {name!r} stands at line {earlier} already: keep one"


def _nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or what there is."""
    names = list(known)
    lower = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), lower, 1)
    return f"did you mean {lower[near[0]]!r}?" if near else f"known are {', '.join(names)}"


@dataclass(slots=True)
class _Document:
    """One document while it is read: problems pile up, and lines are kept for what is checked at the end."""

    root: yaml.Node
    problems: list[tuple[int, str]] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)  # by path

    def values(self, fields: tuple[Field, ...]) -> Mapping[str, object]:
        """The good values of the whole document, which is no resource."""
        self.lines[""] = _line(self.root)
        return self._object(fields, self.root, "")

    def read(self, zones: ZoneReader | None) -> Resource | None:
        """The resource; None when there are problems."""
        self.lines[""] = _line(self.root)
        kind = self._kind()
        if kind is None:
            return None
        if kind == "zone" and zones is not None:
            self._put_records(zones)
        values = self._object(document_fields(kind), self.root, "")
        if self.problems:
            return None
        meta, spec = values.get("meta", {}), values["spec"]
        assert isinstance(meta, Mapping)
        assert isinstance(spec, Mapping)
        head: dict[str, object] = {name: values[name] for name in ("name", "owner") if name in values}
        resource = build(kind, {**meta, **head}, spec)
        for problem in check_relations(resource):
            self._add(problem)
        return None if self.problems else resource

    def _put_records(self, zones: ZoneReader) -> None:
        """Puts a zone's records in the place of the file that is named; checks those that are there."""
        spec, name = _value_at(self.root, "spec"), _value_at(self.root, "name")
        file, records = _value_at(spec, "file"), _value_at(spec, "records")
        if not isinstance(name, yaml.ScalarNode) or not isinstance(spec, yaml.MappingNode):
            return  # told later
        if file is not None and records is not None:
            self._say(file, "spec.file: the zone has records too: keep one of them")
        if isinstance(file, yaml.ScalarNode):
            text = self._tried(file, "file", lambda: zones.records_of(name.value, file.value))
            made = yaml.ScalarNode(file.tag, text, file.start_mark, file.end_mark, style='"')
            key = yaml.ScalarNode(file.tag, "records", file.start_mark, file.end_mark)
            spec.value = [pair for pair in spec.value if pair[1] not in (file, records)] + [(key, made)]
        elif isinstance(records, yaml.ScalarNode):
            self._tried(records, "records", lambda: zones.check(name.value, records.value))

    def _tried(self, node: yaml.Node, field: str, read: Callable[[], str]) -> str:
        """What `read` gives; "" when it refuses, which is told."""
        try:
            return read()
        except ValueError as error:
            self._say(node, f"spec.{field}: {error}")
            return ""

    def _kind(self) -> str | None:
        if not isinstance(self.root, yaml.MappingNode):
            self._say(self.root, "a document must be a mapping: begin with `kind:`, `name:` and `spec:`")
            return None
        node = next((value for key, value in self.root.value if key.value == "kind"), None)
        if not isinstance(node, yaml.ScalarNode):
            titles = ", ".join(_KIND_OF_TITLE)
            self._say(node or self.root, f"'kind' is missing: give one of {titles}")
            return None
        if node.value not in _KIND_OF_TITLE:
            self._say(node, f"there is no kind {shown(node.value)}: {_nearest(node.value, _KIND_OF_TITLE)}")
            return None
        return _KIND_OF_TITLE[node.value]

    def _say(self, node: yaml.Node, message: str) -> None:
        self.problems.append((_line(node), message))

    def _add(self, problem: FieldProblem) -> None:
        """A problem at a path; a path that has no line of its own (a missing field) stands at its parent's."""
        path = problem.path
        while path not in self.lines:
            path = path.rpartition(".")[0]
        self.problems.append((self.lines[path], problem.line()))

    def _object(self, fields: tuple[Field, ...], node: yaml.Node, path: str) -> dict[str, object]:
        """The values of a mapping that are good; the others are in `problems`."""
        if not isinstance(node, yaml.MappingNode):
            self._say(node, f"{path}: {_found(node)} is not a mapping: give one with {_names(fields)}")
            return {}
        known = {field.name: field for field in fields}
        values: dict[str, object] = {}
        seen: dict[str, int] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            here = child(path, name)
            if name not in known:
                self._say(key, f"{child(path, shown(name)[1:-1])}: no such field: {_nearest(name, known)}")
            elif name in seen:
                self._say(key, f"{here}: stands at line {seen[name]} already: keep one")
            else:
                seen[name] = self.lines[here] = _line(key)
                self._value(known[name], value, here, values)
        for wanted in fields:
            if wanted.required and wanted.name not in seen:
                self._add(missing(wanted, path))
        return values

    def _value(self, wanted: Field, node: yaml.Node, path: str, values: dict[str, object]) -> None:
        """Convert and check one value; put it into `values` under its name if it is good."""
        value: object
        if wanted.form is Form.OBJECT:
            value = self._object(wanted.fields, node, path)
        elif wanted.form is Form.LIST:
            value = self._list(wanted, node, path)
        else:
            try:
                value = self._scalar(wanted, node)
            except ScalarError as error:
                self._say(node, f"{path}: {error}")
                return
        wrong = list(check_itself(wanted, value, path))
        for problem in wrong:
            self._say(node, problem.line())
        if not wrong:
            values[wanted.name] = value

    def _scalar(self, wanted: Field, node: yaml.Node) -> object:
        if not isinstance(node, yaml.ScalarNode):
            raise ScalarError(f"{_found(node)} is not {wanted.form.value}: give {wanted.doc}")
        return convert(wanted, node)

    def _list(self, wanted: Field, node: yaml.Node, path: str) -> list[object]:
        if not isinstance(node, yaml.SequenceNode):
            self._say(node, f"{path}: {_found(node)} is not a list: begin each item with `- `")
            # Long enough not to be told of its length too.
            return [None] * max(0, int(wanted.minimum))
        assert wanted.items is not None
        items: list[object] = []
        for index, item in enumerate(node.value):
            here = f"{path}[{index}]"
            self.lines[here] = _line(item)
            one: dict[str, object] = {}
            self._value(wanted.items, item, here, one)
            # A bad item keeps its place, so that the length is judged as written.
            items.append(one.get(wanted.items.name))
        return items


def _found(node: yaml.Node) -> str:
    """A node as it stands in a message."""
    if isinstance(node, yaml.ScalarNode):
        return shown(node.value) if node.value else "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _names(fields: Iterable[Field]) -> str:
    return ", ".join(field.name for field in fields)
