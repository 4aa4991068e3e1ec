"""Between resources and their plain values by field name (`gslb.model.schema`). PURE.

YAML and the wire both come through here: they bring values, this module checks them and makes the frozen types.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import assert_never

from gslb.model import schema
from gslb.model.fields import Field, FieldProblem, Values, check_all
from gslb.model.geography import Coordinates
from gslb.model.grammar import parse_network
from gslb.model.meta import Meta
from gslb.model.quota import Quota
from gslb.model.resources import (
    Backend,
    CapacityMode,
    ClientArea,
    Datacenter,
    DemandSource,
    Drain,
    DrainScope,
    Link,
    Objective,
    Policy,
    Resource,
    Service,
    Zone,
)


def check_values(kind: str, meta: Values, spec: Values) -> Iterator[FieldProblem]:
    """Every field that is wrong or missing; paths as `name` and `spec.ttl_s`. None yielded: `build` will not fail."""
    yield from check_all(schema.meta_fields(kind), meta)
    yield from (
        FieldProblem(f"spec.{problem.path}" if problem.path else "spec", problem.message)
        for problem in check_all(schema.SPECS[kind], spec)
    )


class _Reader:
    """Values that `check_values` found good, taken out with their types; defaults stand in for what is missing."""

    def __init__(self, fields: tuple[Field, ...], values: Values) -> None:
        self._fields = {field.name: field for field in fields}
        self._values = values

    def _get(self, name: str) -> object:
        return self._values.get(name, self._fields[name].default)

    def text(self, name: str) -> str:
        value = self._get(name)
        assert isinstance(value, str), (name, value)
        return value

    def number(self, name: str) -> float:
        value = self._get(name)
        assert isinstance(value, int | float), (name, value)
        return float(value)

    def integer(self, name: str) -> int:
        value = self._get(name)
        assert isinstance(value, int), (name, value)
        return value

    def flag(self, name: str) -> bool:
        return self._get(name) is True

    def time(self, name: str) -> datetime:
        value = self._get(name)
        assert isinstance(value, datetime), (name, value)
        return value

    def time_or_none(self, name: str) -> datetime | None:
        return None if self._get(name) is None else self.time(name)

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(str(item) for item in self._list(name))

    def mappings(self, name: str, fields: tuple[Field, ...]) -> "tuple[_Reader, ...]":
        return tuple(_Reader(fields, item) for item in self._list(name) if isinstance(item, Mapping))

    def _list(self, name: str) -> list[object] | tuple[object, ...]:
        value = self._get(name)
        assert isinstance(value, list | tuple), (name, value)
        return value


def _meta(kind: str, values: Values) -> Meta:
    read = _Reader(schema.meta_fields(kind), values)
    return Meta(
        name=read.text("name"),
        owner=read.text("owner"),
        generation=read.integer("generation"),
        updated_at=read.time_or_none("updated_at"),
        deleted_at=read.time_or_none("deleted_at"),
        principal=read.text("principal"),
    )


def _coordinates(read: _Reader) -> Coordinates:
    return Coordinates(read.number("latitude"), read.number("longitude"))


def _backend(read: _Reader) -> Backend:
    return Backend(
        job=read.text("job"),
        task_capacity_rps=read.number("task_capacity_rps"),
        mode=CapacityMode(read.text("mode")),
        target_utilization=read.number("target_utilization"),
        request_cpu_s=read.number("request_cpu_s"),
        request_mbit=read.number("request_mbit"),
        guaranteed_rps=read.number("guaranteed_rps"),
    )


def _quota(read: _Reader) -> Quota:
    return Quota(read.text("caller"), read.number("rps"), read.number("cpu_cores"))


def _service(meta: Meta, read: _Reader) -> Service:
    return Service(
        meta=meta,
        backends=tuple(_backend(backend) for backend in read.mappings("backends", schema.BACKEND)),
        source=DemandSource(read.text("source")),
        max_utilization=read.number("max_utilization"),
        dns_names=read.texts("dns_names"),
        ttl_s=read.integer("ttl_s"),
        addresses_per_answer=read.integer("addresses_per_answer"),
        port_name=read.text("port_name"),
        policy=Policy(read.text("policy")),
        failover=read.texts("failover"),
        objective=Objective(read.text("objective")),
        latency_critical=read.flag("latency_critical"),
        quotas=tuple(_quota(quota) for quota in read.mappings("quotas", schema.QUOTA)),
        alpn=read.texts("alpn"),
    )


def _drain(meta: Meta, read: _Reader) -> Drain:
    return Drain(
        meta=meta,
        scope=DrainScope(read.text("scope")),
        target=read.text("target"),
        reason=read.text("reason"),
        author=read.text("author"),
        starts_at=read.time("starts_at"),
        expires_at=read.time("expires_at"),
        overridden=read.flag("overridden"),
        ramp_s=read.number("ramp_s"),
    )


def build(kind: str, meta: Values, spec: Values) -> Resource:
    """The resource of values in which `check_values` found nothing wrong."""
    made = _meta(kind, meta)
    read = _Reader(schema.SPECS[kind], spec)
    match kind:
        case "datacenter":
            limits_of = (read.number("uplink_mbps"), read.number("cpu_cores"))
            links = tuple(
                Link(link.text("locality"), link.number("mbps")) for link in read.mappings("links", schema.LINK)
            )
            return Datacenter(made, read.text("region"), _coordinates(read), *limits_of, links)
        case "area":
            return ClientArea(made, _coordinates(read), tuple(parse_network(cidr) for cidr in read.texts("cidrs")))
        case "service":
            return _service(made, read)
        case "drain":
            return _drain(made, read)
        case _:
            return Zone(made, read.text("records"))


def meta_values(meta: Meta) -> dict[str, object]:
    """The opposite of the first half of `build`; times that are not set are left out."""
    values = {
        "name": meta.name,
        "owner": meta.owner,
        "generation": meta.generation,
        "updated_at": meta.updated_at,
        "deleted_at": meta.deleted_at,
        "principal": meta.principal,
    }
    return {name: value for name, value in values.items() if value is not None}


def spec_values(resource: Resource) -> dict[str, object]:
    """The opposite of the second half of `build`: every field of the table, in its order."""
    match resource:
        case Datacenter(region=region, coordinates=at, uplink_mbps=uplink, cpu_cores=cores, links=links):
            place = {"region": region, "latitude": at.latitude, "longitude": at.longitude}
            paths = [{"locality": link.locality, "mbps": link.mbps} for link in links]
            return {**place, "uplink_mbps": uplink, "cpu_cores": cores, "links": paths}
        case ClientArea(coordinates=at, cidrs=cidrs):
            return {"latitude": at.latitude, "longitude": at.longitude, "cidrs": [str(cidr) for cidr in cidrs]}
        case Service():
            return _service_values(resource)
        case Drain():
            return {
                "scope": resource.scope.value,
                "target": resource.target,
                "reason": resource.reason,
                "author": resource.author,
                "starts_at": resource.starts_at,
                "expires_at": resource.expires_at,
                "overridden": resource.overridden,
                "ramp_s": resource.ramp_s,
            }
        case Zone(records=records):
            return {"records": records}
        case _:
            assert_never(resource)


def _service_values(service: Service) -> dict[str, object]:
    return {
        "backends": [
            {
                "job": backend.job,
                "task_capacity_rps": backend.task_capacity_rps,
                "mode": backend.mode.value,
                "target_utilization": backend.target_utilization,
                "request_cpu_s": backend.request_cpu_s,
                "request_mbit": backend.request_mbit,
                "guaranteed_rps": backend.guaranteed_rps,
            }
            for backend in service.backends
        ],
        "source": service.source.value,
        "max_utilization": service.max_utilization,
        "dns_names": list(service.dns_names),
        "ttl_s": service.ttl_s,
        "addresses_per_answer": service.addresses_per_answer,
        "port_name": service.port_name,
        "policy": service.policy.value,
        "failover": list(service.failover),
        "objective": service.objective.value,
        "latency_critical": service.latency_critical,
        "quotas": [
            {"caller": quota.caller, "rps": quota.rps, "cpu_cores": quota.cpu_cores} for quota in service.quotas
        ],
        "alpn": list(service.alpn),
    }
