"""Desired state <-> protobuf. What comes in passes the same table of fields as YAML does (`gslb.model.schema`)."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import TypeVar, assert_never

from bns.v1 import bns_pb2
from gslb.model import limits
from gslb.model.build import build, check_values
from gslb.model.errors import InvalidValueError
from gslb.model.grammar import shown
from gslb.model.meta import Meta
from gslb.model.resources import (
    CapacityMode,
    ClientArea,
    Datacenter,
    DemandSource,
    Drain,
    DrainScope,
    Objective,
    Policy,
    Resource,
    Service,
    Zone,
)
from gslb.model.validate import check_relations
from gslb.v1 import config_pb2
from gslb.wire.scalars import decode_time, encode_time, parse

E = TypeVar("E", bound=Enum)

# The oneof's field of each kind.
_FIELD_OF: Mapping[str, str] = MappingProxyType({"client_area": "area"})

_SOURCES = (DemandSource.RPC, DemandSource.EDGE, DemandSource.DNS)
_MODES = (CapacityMode.RATE, CapacityMode.UTILIZATION)
_POLICIES = (Policy.NEAREST, Policy.WATERFALL_BY_REGION, Policy.SPRAY_TO_REGION, Policy.FAILOVER)
_OBJECTIVES = (Objective.LATENCY, Objective.THROUGHPUT)
_SCOPES = (
    DrainScope.DATACENTER,
    DrainScope.SERVICE,
    DrainScope.JOB,
    DrainScope.TASK,
    DrainScope.REGION,
    DrainScope.MACHINE,
)


def encode_source(source: DemandSource) -> config_pb2.DemandSource.ValueType:
    """The enum's number, typed as protobuf wants it; 0 is `unspecified` in each of these enums."""
    return config_pb2.DemandSource.ValueType(_SOURCES.index(source) + 1)


def decode_source(number: int) -> DemandSource:
    """Unspecified is RPC. Raises InvalidValueError for the number of a newer version."""
    return _member(_SOURCES, number or 1, "demand source")


def encode_scope(scope: DrainScope) -> config_pb2.DrainScope.ValueType:
    """The enum's number, typed as protobuf wants it."""
    return config_pb2.DrainScope.ValueType(_SCOPES.index(scope) + 1)


def decode_scope(number: int) -> DrainScope:
    """Raises InvalidValueError when it is unspecified, or the number of a newer version."""
    return _member(_SCOPES, number, "scope of a drain")


def _member(members: tuple[E, ...], number: int, what: str) -> E:
    if 1 <= number <= len(members):
        return members[number - 1]
    known = ", ".join(str(member.value) for member in members)
    raise InvalidValueError(f"{number} is not a {what}: give one of {known}")


def _name(members: tuple[Enum, ...], number: int) -> str:
    """The text that the table of fields knows; an unknown number as text, which the table refuses."""
    return str(members[number - 1].value) if 1 <= number <= len(members) else f"number {number}"


def _drop_empty(values: Mapping[str, object]) -> dict[str, object]:
    """Without what protobuf leaves at zero: the table's default stands in. NaN and negative stay, to be refused."""
    return {name: value for name, value in values.items() if value not in (0, "", [])}


def encode_meta(meta: Meta) -> config_pb2.Meta:
    """The wire form of a Meta."""
    return config_pb2.Meta(
        owner=meta.owner,
        name=meta.name,
        generation=meta.generation,
        updated_at=encode_time(meta.updated_at) if meta.updated_at else None,
        deleted_at=encode_time(meta.deleted_at) if meta.deleted_at else None,
        principal=bns_pb2.Principal(identity=meta.principal),
    )


def _meta_values(meta: config_pb2.Meta) -> dict[str, object]:
    values = _drop_empty({"owner": meta.owner, "generation": meta.generation, "principal": meta.principal.identity})
    values["name"] = meta.name
    if meta.HasField("updated_at"):
        values["updated_at"] = decode_time(meta.updated_at, f"{shown(meta.name)}: updated_at")
    if meta.HasField("deleted_at"):
        values["deleted_at"] = decode_time(meta.deleted_at, f"{shown(meta.name)}: deleted_at")
    return values


def encode_service(service: Service) -> config_pb2.Service:
    """The wire form of a service, without its Meta."""
    return config_pb2.Service(
        backends=[
            config_pb2.Backend(
                job=backend.job,
                mode=config_pb2.CapacityMode.ValueType(_MODES.index(backend.mode) + 1),
                task_capacity_rps=backend.task_capacity_rps,
                target_utilization=backend.target_utilization,
                request_cpu_s=backend.request_cpu_s,
                request_mbit=backend.request_mbit,
                guaranteed_rps=backend.guaranteed_rps,
            )
            for backend in service.backends
        ],
        source=encode_source(service.source),
        max_utilization=service.max_utilization,
        dns_names=service.dns_names,
        ttl_s=service.ttl_s,
        addresses_per_answer=service.addresses_per_answer,
        port_name=service.port_name,
        # The default is left out, so that records of before read and write the same.
        policy=config_pb2.Policy.ValueType(
            _POLICIES.index(service.policy) + 1 if service.policy is not Policy.NEAREST else 0
        ),
        failover=service.failover,
        objective=config_pb2.Objective.ValueType(
            _OBJECTIVES.index(service.objective) + 1 if service.objective is not Objective.LATENCY else 0
        ),
        latency_critical=service.latency_critical,
        quotas=[
            config_pb2.Quota(caller=quota.caller, rps=quota.rps, cpu_cores=quota.cpu_cores) for quota in service.quotas
        ],
        alpn=service.alpn,
    )


def _service_values(service: config_pb2.Service) -> dict[str, object]:
    values = _drop_empty(
        {
            "source": _name(_SOURCES, service.source) if service.source else "",
            "max_utilization": service.max_utilization,
            "dns_names": list(service.dns_names),
            "ttl_s": service.ttl_s,
            "addresses_per_answer": service.addresses_per_answer,
            "port_name": service.port_name,
            "policy": _name(_POLICIES, service.policy) if service.policy else "",
            "failover": list(service.failover),
            "objective": _name(_OBJECTIVES, service.objective) if service.objective else "",
            "latency_critical": service.latency_critical,
            "quotas": [
                {"caller": quota.caller, "rps": quota.rps, "cpu_cores": quota.cpu_cores} for quota in service.quotas
            ],
            "alpn": list(service.alpn),
        }
    )
    values["backends"] = [
        {
            "job": backend.job,
            "task_capacity_rps": backend.task_capacity_rps,
            **_drop_empty(
                {
                    "mode": _name(_MODES, backend.mode) if backend.mode else "",
                    "target_utilization": backend.target_utilization,
                    "request_cpu_s": backend.request_cpu_s,
                    "request_mbit": backend.request_mbit,
                    "guaranteed_rps": backend.guaranteed_rps,
                }
            ),
        }
        for backend in service.backends
    ]
    return values


def decode_service(name: str, service: config_pb2.Service) -> Service:
    """A service that came without its Meta, to readers. Raises InvalidValueError."""
    decoded = _build("service", {"name": name}, _service_values(service))
    assert isinstance(decoded, Service)
    return decoded


def _drain_values(drain: config_pb2.Drain) -> dict[str, object]:
    values: dict[str, object] = {
        "scope": _name(_SCOPES, drain.scope),
        "target": drain.target,
        "reason": drain.reason,
        "author": drain.author,
        "overridden": drain.overridden,
        "ramp_s": drain.ramp_s,
    }
    if drain.HasField("starts_at"):
        values["starts_at"] = decode_time(drain.starts_at, f"drain of {shown(drain.target)}: starts_at")
    if drain.HasField("expires_at"):
        values["expires_at"] = decode_time(drain.expires_at, f"drain of {shown(drain.target)}: expires_at")
    return values


def encode_resource(resource: Resource) -> config_pb2.Resource:
    """The stored and the wire form of any resource."""
    made = config_pb2.Resource(meta=encode_meta(resource.meta))
    match resource:
        case Datacenter(region=region, coordinates=at, uplink_mbps=uplink, cpu_cores=cores, links=links):
            made.datacenter.CopyFrom(
                config_pb2.Datacenter(
                    region=region,
                    latitude=at.latitude,
                    longitude=at.longitude,
                    uplink_mbps=uplink,
                    cpu_cores=cores,
                    links=[config_pb2.Link(locality=link.locality, mbps=link.mbps) for link in links],
                )
            )
        case ClientArea(coordinates=at, cidrs=cidrs):
            made.client_area.CopyFrom(
                config_pb2.ClientArea(latitude=at.latitude, longitude=at.longitude, cidrs=map(str, cidrs))
            )
        case Service():
            made.service.CopyFrom(encode_service(resource))
        case Drain():
            made.drain.CopyFrom(
                config_pb2.Drain(
                    scope=encode_scope(resource.scope),
                    target=resource.target,
                    reason=resource.reason,
                    author=resource.author,
                    starts_at=encode_time(resource.starts_at),
                    expires_at=encode_time(resource.expires_at),
                    overridden=resource.overridden,
                    ramp_s=resource.ramp_s,
                )
            )
        case Zone(records=records):
            made.zone.CopyFrom(config_pb2.Zone(records=records))
        case _:
            assert_never(resource)
    return made


def decode_resource(resource: config_pb2.Resource) -> Resource:
    """Any resource. Raises InvalidValueError naming the resource, the field and the value."""
    field = resource.WhichOneof("kind")
    kind = _FIELD_OF.get(field, field) if field else ""
    match field:
        case "datacenter" | "client_area":
            spec = _place_values(resource)
        case "service":
            spec = _service_values(resource.service)
        case "drain":
            spec = _drain_values(resource.drain)
        case "zone":
            spec = {"records": resource.zone.records}
        case _:
            raise InvalidValueError(
                f"resource {shown(resource.meta.name)} has no kind that this version knows: it has only a name"
            )
    return _build(kind, _meta_values(resource.meta), spec)


def _place_values(resource: config_pb2.Resource) -> dict[str, object]:
    if resource.HasField("datacenter"):
        dc = resource.datacenter
        return {
            "region": dc.region,
            "latitude": dc.latitude,
            "longitude": dc.longitude,
            "uplink_mbps": dc.uplink_mbps,
            "cpu_cores": dc.cpu_cores,
            "links": [{"locality": link.locality, "mbps": link.mbps} for link in dc.links],
        }
    area = resource.client_area
    return {"latitude": area.latitude, "longitude": area.longitude, "cidrs": list(area.cidrs)}


def _build(kind: str, meta: dict[str, object], spec: dict[str, object]) -> Resource:
    """Check, then make. Raises InvalidValueError with the first problem and the number of the others."""
    problems = list(check_values(kind, meta, spec))
    if not problems:
        made = build(kind, meta, spec)
        problems = list(check_relations(made))
        if not problems:
            return made
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise InvalidValueError(f"{kind} {shown(meta['name'])}: {problems[0].line()}{more}")


def resource_to_bytes(resource: Resource) -> bytes:
    """The record for etcd. Raises InvalidValueError if it is larger than a record may be."""
    data = encode_resource(resource).SerializeToString(deterministic=True)
    if len(data) > limits.RECORD_MAX_BYTES:
        raise InvalidValueError(
            f"{shown(resource.meta.name)} has {len(data)} bytes: a record may have {limits.RECORD_MAX_BYTES}"
        )
    return data


def resource_from_bytes(data: bytes) -> Resource:
    """A record from etcd. Raises InvalidValueError."""
    return decode_resource(parse(config_pb2.Resource, data, "resource", limits.RECORD_MAX_BYTES))
