"""Task and agent records <-> their protobuf form, with every bound checked on the way in.

Records come from other processes and from etcd, where anybody with the password can write: nothing passes here that a
reader could stumble over. Unknown fields of newer writers are ignored.
"""

import ipaddress
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from bns import limits
from bns.errors import BadRecordError
from bns.model import Agent, Endpoint, HealthStatus, ProbeKind, ProbeSpec, Task
from bns.names import InvalidNameError, check_label, check_task
from bns.v1 import bns_pb2

# Most tasks have none, and 100,000 of them would each have their own empty dictionary.
_NONE: Mapping[str, str] = MappingProxyType({})
_NO_PORTS: Mapping[str, int] = MappingProxyType({})
_DEFAULT_PROBE = ProbeSpec()
_SECONDS_MAX = 253_402_300_799  # the end of the year 9999


def encode_task(task: Task) -> bns_pb2.TaskRecord:
    """The stored and the wire form of a task."""
    record = bns_pb2.TaskRecord(
        name=task.name,
        address=task.address,
        port=task.port,
        named_ports=task.named_ports,
        metadata=task.metadata,
        agent=task.agent,
        cpu_cores=task.cpu_cores,
        pid=task.pid,
        generation=task.generation,
        machine=task.machine,
        principal=bns_pb2.Principal(identity=task.principal),
    )
    if task.probe != _DEFAULT_PROBE:
        record.probe.CopyFrom(encode_probe(task.probe))
    if task.start_time is not None:
        record.start_time.FromDatetime(task.start_time)
    return record


def encode_probe(probe: ProbeSpec) -> bns_pb2.ProbeSpec:
    """The wire form of a probe."""
    return bns_pb2.ProbeSpec(
        kind=bns_pb2.ProbeKind.ValueType(int(probe.kind)),
        path=probe.path,
        port_name=probe.port_name,
        interval_s=probe.interval_s,
        timeout_s=probe.timeout_s,
        rise=probe.rise,
        fall=probe.fall,
    )


def decode_task(record: bns_pb2.TaskRecord) -> Task:
    """The task that `record` describes. Raises BadRecordError naming the value."""
    try:
        name = check_task(record.name)
        agent = check_label(record.agent, f"task {name}: agent") if record.agent else ""
    except InvalidNameError as error:
        raise BadRecordError(str(error)) from error
    where = f"task {name}"
    return Task(
        name=name,
        address=_address(record.address, where),
        port=_port(record.port, f"{where}: port"),
        agent=sys.intern(agent),
        named_ports=_named_ports(record, where),
        metadata=_metadata(record, where),
        start_time=_time(record.start_time, where) if record.HasField("start_time") else None,
        cpu_cores=_positive(record.cpu_cores or 1.0, limits.CPU_CORES_MAX, f"{where}: cpu_cores"),
        probe=_probe(record.probe, where) if record.HasField("probe") else _DEFAULT_PROBE,
        pid=record.pid,
        generation=record.generation,
        principal=sys.intern(_text(record.principal.identity, f"{where}: principal") or "anonymous"),
        machine=sys.intern(_text(record.machine, f"{where}: machine")),
    )


def parse_task_bytes(data: bytes) -> Task:
    """A stored task. Raises BadRecordError."""
    return decode_task(parse_record(data))


def parse_record(data: bytes) -> bns_pb2.TaskRecord:
    """Stored bytes -> message, its size checked but not its values. Raises BadRecordError."""
    if len(data) > limits.RECORD_MAX_BYTES:
        raise BadRecordError(f"a task record of {len(data)} bytes: at most {limits.RECORD_MAX_BYTES} are allowed")
    try:
        return bns_pb2.TaskRecord.FromString(data)
    except DecodeError as error:
        raise BadRecordError(f"not a bns.v1.TaskRecord ({len(data)} bytes)") from error


def encode_endpoint(endpoint: Endpoint) -> bns_pb2.Endpoint:
    """The wire form of an endpoint."""
    return bns_pb2.Endpoint(task=encode_task(endpoint.task), health=encode_health(endpoint.health))


def decode_endpoint(endpoint: bns_pb2.Endpoint) -> Endpoint:
    """Raises BadRecordError naming the value. A health of a newer server is UNKNOWN."""
    return Endpoint(decode_task(endpoint.task), decode_health(endpoint.health))


def encode_health(health: HealthStatus) -> bns_pb2.HealthStatus.ValueType:
    """The enum's number, typed as protobuf wants it."""
    return bns_pb2.HealthStatus.ValueType(int(health))


def decode_health(number: int) -> HealthStatus:
    """A number that this version does not know is UNKNOWN."""
    return HealthStatus(number) if 0 <= number <= HealthStatus.TIMEOUT else HealthStatus.UNKNOWN


def encode_agent(agent: Agent) -> bns_pb2.AgentRecord:
    """The stored form of an agent's session."""
    record = bns_pb2.AgentRecord(
        name=agent.name,
        datacenter=agent.datacenter,
        machine_id=agent.machine_id,
        boot_id=agent.boot_id,
        lease_id=agent.lease_id,
        session_id=agent.session_id,
        principal=bns_pb2.Principal(identity=agent.principal),
        replica=agent.replica,
    )
    if agent.started_at is not None:
        record.started_at.FromDatetime(agent.started_at)
    return record


def parse_agent_bytes(data: bytes) -> Agent:
    """A stored agent session. Raises BadRecordError."""
    if len(data) > limits.RECORD_MAX_BYTES:
        raise BadRecordError(f"an agent record of {len(data)} bytes: at most {limits.RECORD_MAX_BYTES} are allowed")
    try:
        record = bns_pb2.AgentRecord.FromString(data)
    except DecodeError as error:
        raise BadRecordError(f"not a bns.v1.AgentRecord ({len(data)} bytes)") from error
    try:
        name, datacenter = check_label(record.name, "agent"), check_label(record.datacenter, "the agent's datacenter")
    except InvalidNameError as error:
        raise BadRecordError(str(error)) from error
    where = f"agent {datacenter}/{name}"
    return Agent(
        name=name,
        datacenter=sys.intern(datacenter),
        machine_id=_text(record.machine_id, f"{where}: machine_id"),
        boot_id=_text(record.boot_id, f"{where}: boot_id"),
        session_id=_text(record.session_id, f"{where}: session_id"),
        lease_id=record.lease_id,
        replica=_text(record.replica, f"{where}: replica"),
        principal=_text(record.principal.identity, f"{where}: principal") or "anonymous",
        started_at=_time(record.started_at, where) if record.HasField("started_at") else None,
    )


def _address(text: str, where: str) -> str:
    address, complaint = _judged(text)
    if complaint:
        raise BadRecordError(f"{where}: address {text[:80]!r} {complaint}")
    return address


@lru_cache(maxsize=8192)
def _judged(text: str) -> tuple[str, str]:
    """An address in its usual form, and what is wrong with it. Many tasks share one, and to read one takes long."""
    try:
        address = ipaddress.ip_address(text[:80])
    except ValueError:
        return "", "is not an IPv4 or IPv6 address: give a literal"
    scoped = isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None
    if address.is_unspecified or address.is_multicast or scoped:
        return "", "cannot be reached by others: give one of the machine's own"
    return sys.intern(str(address)), ""


def _port(port: int, what: str) -> int:
    if not 1 <= port <= 65535:
        raise BadRecordError(f"{what} {port} is not from 1 to 65535")
    return port


def _positive(value: float, maximum: float, what: str) -> float:
    if not math.isfinite(value) or not 0.0 < value <= maximum:
        raise BadRecordError(f"{what} {value!r} is not above 0 and at most {maximum:g}")
    return value


def _text(text: str, what: str, maximum: int = limits.MACHINE_MAX_CHARS) -> str:
    if len(text) > maximum or not text.isprintable():
        raise BadRecordError(f"{what} {text[:80]!r} is not at most {maximum} printable characters")
    return text


def _named_ports(record: bns_pb2.TaskRecord, where: str) -> Mapping[str, int]:
    if not record.named_ports:
        return _NO_PORTS
    if len(record.named_ports) > limits.NAMED_PORTS_MAX:
        raise BadRecordError(f"{where}: {len(record.named_ports)} named ports: at most {limits.NAMED_PORTS_MAX}")
    try:
        return {
            sys.intern(check_label(name, f"{where}: port name")): _port(port, f"{where}: port {name}")
            for name, port in sorted(record.named_ports.items())
        }
    except InvalidNameError as error:
        raise BadRecordError(str(error)) from error


def _metadata(record: bns_pb2.TaskRecord, where: str) -> Mapping[str, str]:
    if not record.metadata:
        return _NONE
    if len(record.metadata) > limits.METADATA_MAX:
        raise BadRecordError(f"{where}: {len(record.metadata)} metadata entries: at most {limits.METADATA_MAX}")
    for key, value in record.metadata.items():
        _text(key, f"{where}: metadata key", limits.METADATA_KEY_MAX_CHARS)
        _text(value, f"{where}: metadata {key!r}", limits.METADATA_VALUE_MAX_CHARS)
    return dict(sorted(record.metadata.items()))


def _time(stamp: Timestamp, where: str) -> datetime:
    if not 0 <= stamp.seconds <= _SECONDS_MAX or not 0 <= stamp.nanos < 10**9:
        raise BadRecordError(f"{where}: time {stamp.seconds}.{stamp.nanos} is not between 1970 and 9999")
    return stamp.ToDatetime(tzinfo=UTC)


def _probe(probe: bns_pb2.ProbeSpec, where: str) -> ProbeSpec:
    """Values that were left out take their defaults."""
    default = _DEFAULT_PROBE
    interval_s = probe.interval_s or default.interval_s
    for what, value in (("interval_s", interval_s), ("timeout_s", probe.timeout_s or default.timeout_s)):
        low, high = limits.PROBE_INTERVAL_MIN_S, limits.PROBE_INTERVAL_MAX_S
        if not math.isfinite(value) or not low <= value <= high:
            raise BadRecordError(f"{where}: probe {what} {value!r} is not from {low:g} to {high:g}")
    for what, count in (("rise", probe.rise), ("fall", probe.fall)):
        if count > limits.PROBE_COUNT_MAX:
            raise BadRecordError(f"{where}: probe {what} {count} is above {limits.PROBE_COUNT_MAX}")
    known = {int(kind) for kind in ProbeKind}
    return ProbeSpec(
        # A kind of a newer agent, or none: a connection can always be tried.
        kind=ProbeKind(int(probe.kind)) if int(probe.kind) in known else ProbeKind.TCP,
        path=_text(probe.path, f"{where}: probe path", limits.PROBE_PATH_MAX_CHARS),
        port_name=_port_name(probe.port_name, where),
        interval_s=interval_s,
        timeout_s=probe.timeout_s or default.timeout_s,
        rise=probe.rise or default.rise,
        fall=probe.fall or default.fall,
    )


def _port_name(name: str, where: str) -> str:
    try:
        return check_label(name, f"{where}: probe port_name") if name else ""
    except InvalidNameError as error:
        raise BadRecordError(str(error)) from error
