"""Serving without a control plane: one YAML of services and their addresses.

    zones:                          # master files, relative to this one
      example.com: example.com.zone
    datacenters:                    # optional: where addresses are, so that clients get the nearest
      us-east1: {latitude: 33.2, longitude: -80.0}
    areas:                          # optional: where clients are
      na: {latitude: 40.0, longitude: -95.0, cidrs: [203.0.113.0/24]}
    services:
      www:
        dns_names: [www.example.com]
        ttl_s: 30
        port: 443                   # probed over TCP: a datacenter that does not answer gets no clients; 0: not probed
        addresses:
          us-east1: [192.0.2.1, 192.0.2.2]

The fields are those of the same kinds of `gslb apply`. Nothing is taken from a file with an error in it.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from bns.model import HealthStatus
from dns_frontend.errors import FrontendError
from gslb.model.build import build, check_values
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.fields import Field, FieldProblem, Form, check
from gslb.model.grammar import LABEL, shown
from gslb.model.limits import CONFIG_DEPTH_MAX, CONFIG_MAX_BYTES
from gslb.model.resources import Catalog, ClientArea, Datacenter, Service
from gslb.model.schema import name_field
from gslb.model.validate import check_relations
from gslb.steer.view import ServiceView
from gslb.wire.reader import ReaderView

_SECTIONS: Final = ("zones", "datacenters", "areas", "services")
# Who the made-up tasks of a service belong to: /bns/DATACENTER/local/SERVICE/0 and on.
_USER: Final = "local"
_ADDRESSES_MAX: Final = 10_000
_PROBLEMS_SHOWN: Final = 20
_OWN_FIELDS: Final = frozenset({"port", "addresses"})
_PORT: Final = Field("port", Form.INTEGER, "a TCP port, or 0", default=0, minimum=0, maximum=65535)
_TEXT: Final = Field("file", Form.TEXT, "the path of a master file", required=True)
_FIELDS_OF: Final[Mapping[str, frozenset[str]]] = {
    "datacenter": frozenset({"region", "latitude", "longitude"}),
    "area": frozenset({"latitude", "longitude", "cidrs"}),
    "service": frozenset({"dns_names", "ttl_s", "addresses_per_answer", "alpn", *_OWN_FIELDS}),
}
Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Standalone:
    """What the file says: a view as if a control plane had sent it, and the zones' files."""

    view: ReaderView
    zone_files: Mapping[str, Path]  # by origin


def read(path: Path) -> Standalone:
    """Reads the file. Raises FrontendError with every problem as FILE:LINE: ..."""
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_MAX_BYTES + 1)
    except OSError as error:
        raise FrontendError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > CONFIG_MAX_BYTES:
        raise FrontendError(f"{path}: larger than {CONFIG_MAX_BYTES} bytes")
    return parse(data, path)


def parse(data: bytes, path: Path) -> Standalone:
    """The same from the file's content."""
    root = _compose(data, path)
    reading = _Reading(yaml.SafeLoader("").construct_document(root) if root is not None else {})
    made = reading.read(path.parent)
    if reading.problems:
        lines = [f"{path}:{_line_of(root, problem.path)}: {problem.line()}" for problem in reading.problems]
        more = [f"{path}: and {len(lines) - _PROBLEMS_SHOWN} more"] if len(lines) > _PROBLEMS_SHOWN else []
        raise FrontendError("\n".join([*lines[:_PROBLEMS_SHOWN], *more]))
    return made


def _compose(data: bytes, path: Path) -> yaml.Node | None:
    """The document's root. Aliases and deep nesting, which grow, are refused. Raises FrontendError."""
    try:
        text = data.decode()
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > CONFIG_DEPTH_MAX:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise FrontendError(f"{path}:{line}: aliases and deep nesting are not read: write the values out")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FrontendError(f"{path}:{line}: not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise FrontendError(f"{path}:{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise FrontendError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error


def _line_of(root: yaml.Node | None, dotted: str) -> int:
    """The line of the deepest part of a path that is there. Zone names have dots: the longest key that fits is taken."""
    node, line, rest = root, 1, dotted
    while isinstance(node, yaml.MappingNode):
        fitting = [
            (len(key.value), key, value)
            for key, value in node.value
            if rest == key.value or rest.startswith((f"{key.value}.", f"{key.value}["))
        ]
        if not fitting:
            break
        size, key, node = max(fitting, key=lambda found: found[0])
        line, rest = key.start_mark.line + 1, rest[size:].lstrip(".")
    return line


class _Reading:
    """One file's values on their way to resources; problems pile up."""

    def __init__(self, root: object) -> None:
        self.problems: list[FieldProblem] = []
        self._root = self._mapping(root, "") if root is not None else {}

    def read(self, directory: Path) -> Standalone:
        for name in self._root:
            if name not in _SECTIONS:
                self._say(str(name), f"no such section: known are {', '.join(_SECTIONS)}")
        datacenters = {name: self._place("datacenter", name, spec) for name, spec in self._section("datacenters")}
        areas = {name: self._place("area", name, spec) for name, spec in self._section("areas")}
        catalog = Catalog(
            datacenters={name: made for name, made in datacenters.items() if isinstance(made, Datacenter)},
            areas={name: made for name, made in areas.items() if isinstance(made, ClientArea)},
        )
        services: dict[str, ServiceView] = {}
        for name, spec in self._section("services"):
            if (made := self._service(name, spec, datacenters)) is not None:
                services[name] = made
        view = ReaderView(services, catalog, synced=True, replica="file")
        return Standalone(view, dict(self._zones(directory)))

    def _say(self, path: str, message: str) -> None:
        self.problems.append(FieldProblem(path, message))

    def _mapping(self, value: object, path: str) -> Values:
        if isinstance(value, Mapping):
            return value
        self._say(path, f"{shown(value)} is not a mapping: write `name: value` lines")
        return {}

    def _section(self, section: str) -> Iterator[tuple[str, Values]]:
        for name, spec in self._mapping(self._root.get(section) or {}, section).items():
            path = f"{section}.{name}"
            if problems := list(check(name_field("service"), name, path)):
                self.problems += problems
            else:
                yield str(name), self._mapping(spec, path)

    def _zones(self, directory: Path) -> Iterator[tuple[str, Path]]:
        for origin, file in self._mapping(self._root.get("zones") or {}, "zones").items():
            problems = [*check(name_field("zone"), origin, f"zones.{origin}"), *check(_TEXT, file, f"zones.{origin}")]
            self.problems += problems
            if not problems:
                yield str(origin), directory / str(file)

    def _checked(self, kind: str, name: str, spec: Values, shown_spec: Values) -> bool:
        """Whether the values are good; `shown_spec` is what the file has, `spec` what is built of it."""
        path = f"{kind}s.{name}"
        known = _FIELDS_OF[kind]
        problems = [
            FieldProblem(f"{path}.{field}", f"no such field: known are {', '.join(sorted(known))}")
            for field in shown_spec
            if field not in known
        ]
        problems.extend(
            FieldProblem(problem.path.replace("spec", path, 1), problem.message)
            for problem in check_values(kind, {"name": name}, spec)
        )
        self.problems += problems
        return not problems

    def _place(self, kind: str, name: str, spec: Values) -> object:
        values = {**({"region": "local"} if kind == "datacenter" else {}), **spec}
        return build(kind, {"name": name}, values) if self._checked(kind, name, values, spec) else None

    def _service(self, name: str, spec: Values, datacenters: Mapping[str, object]) -> ServiceView | None:
        path = f"services.{name}"
        addresses = self._addresses(spec.get("addresses"), f"{path}.addresses", datacenters)
        self.problems += check(_PORT, spec.get("port", 0), f"{path}.port")
        backends = [{"job": f"/bns/{place}/{_USER}/{name}", "task_capacity_rps": 1.0} for place in addresses]
        values = {key: value for key, value in spec.items() if key not in _OWN_FIELDS} | {"backends": backends}
        if not addresses or not self._checked("service", name, values, spec):
            return None
        service = build("service", {"name": name}, values)
        assert isinstance(service, Service)
        self.problems += [
            FieldProblem(problem.path.replace("spec", path, 1), problem.message) for problem in check_relations(service)
        ]
        if self.problems:
            return None
        port = spec.get("port", 0)
        assert isinstance(port, int)
        return ServiceView.build(name, service, None, _endpoints(name, addresses, port))

    def _addresses(self, given: object, path: str, datacenters: Mapping[str, object]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        if not given:
            self._say(path, "missing: give a list of addresses for each datacenter")
            return found
        for place, listed in self._mapping(given, path).items():
            here = f"{path}.{place}"
            self.problems += check(Field("datacenter", Form.TEXT, "a datacenter", grammar=LABEL), place, here)
            if datacenters and place not in datacenters:
                self._say(here, f"no such datacenter: known are {', '.join(datacenters)}")
            if not isinstance(listed, list) or not 1 <= len(listed) <= _ADDRESSES_MAX:
                self._say(here, f"{shown(listed)} is not a list of 1 to {_ADDRESSES_MAX} addresses")
                continue
            for index, text in enumerate(listed):
                try:
                    found.setdefault(str(place), []).append(str(ipaddress.ip_address(text)))
                except ValueError:
                    self._say(f"{here}[{index}]", f"{shown(text)} is not an IPv4 or IPv6 address")
        return found


def _endpoints(name: str, addresses: Mapping[str, list[str]], port: int) -> dict[str, ServiceEndpoint]:
    """Task by task; health is not known here: an operator's list is taken at its word."""
    made: dict[str, ServiceEndpoint] = {}
    for place, listed in addresses.items():
        for index, address in enumerate(listed):
            task = f"/bns/{place}/{_USER}/{name}/{index}"
            made[task] = ServiceEndpoint(task, address, port, HealthStatus.HEALTHY)
    return made
