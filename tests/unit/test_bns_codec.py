"""Records survive the way to protobuf and back, and every bad value is refused by name."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from bns import limits
from bns.codec import (
    decode_endpoint,
    decode_health,
    decode_task,
    encode_agent,
    encode_endpoint,
    encode_task,
    parse_agent_bytes,
    parse_task_bytes,
)
from bns.errors import BadRecordError
from bns.model import Agent, Endpoint, HealthStatus, ProbeKind, ProbeSpec, Task
from bns.v1 import bns_pb2

NAME = "/bns/us-east1/shakespeare/backend/0"
FULL = Task(
    name=NAME,
    address="2001:db8::1",
    port=443,
    agent="node-7",
    named_ports={"http": 80, "debug": 9090},
    metadata={"version": "1.2", "gefäß": "ja"},
    start_time=datetime(2025, 11, 21, 12, 30, 0, 250_000, tzinfo=UTC),
    cpu_cores=0.5,
    probe=ProbeSpec(ProbeKind.HTTP, "/healthz", "http", 2.0, 0.5, 3, 4),
    pid=4711,
    generation=9,
    principal="spiffe://example.org/agent",
    machine="abc",
)
AGENT = Agent(
    name="node-7",
    datacenter="us-east1",
    machine_id="m1",
    boot_id="b1",
    session_id="s1",
    lease_id=1 << 60,
    replica="r1",
    principal="p",
    started_at=datetime(2025, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize("task", [FULL, Task(name=NAME, address="127.0.0.1", port=1)])
def test_tasks_survive(task: Task) -> None:
    assert parse_task_bytes(encode_task(task).SerializeToString()) == task


def test_endpoints_and_agents_survive() -> None:
    endpoint = Endpoint(FULL, HealthStatus.DRAINING)
    assert decode_endpoint(encode_endpoint(endpoint)) == endpoint
    assert parse_agent_bytes(encode_agent(AGENT).SerializeToString()) == AGENT


def test_what_a_newer_writer_adds_is_ignored() -> None:
    # Field 500, length-delimited, unknown here.
    assert parse_task_bytes(encode_task(FULL).SerializeToString() + b"\xa2\x1f\x03abc") == FULL
    assert decode_health(17) is HealthStatus.UNKNOWN
    assert decode_health(-1) is HealthStatus.UNKNOWN
    record = encode_task(FULL)
    record.probe.kind = 99  # type: ignore[assignment]
    assert decode_task(record).probe.kind is ProbeKind.TCP


def _set(field: str, value: object) -> Callable[[bns_pb2.TaskRecord], None]:
    return lambda record: setattr(record, field, value)


def _probe(field: str, value: object) -> Callable[[bns_pb2.TaskRecord], None]:
    return lambda record: setattr(record.probe, field, value)


BAD: list[tuple[Callable[[bns_pb2.TaskRecord], None], str]] = [
    (_set("name", "/bns/a/b/c"), "/bns/DATACENTER/USER/JOB/TASK"),
    (_set("name", "/bns/a/b/c/D"), "'D' is not a DNS label"),
    (_set("name", "/bns/a/b/c/" + "d" * 64), "DNS label"),
    (_set("name", ""), "not of the form"),
    (_set("address", "backend.example"), r"address 'backend.example' is not an IPv4"),
    (_set("address", "0.0.0.0"), "cannot be reached"),
    (_set("address", "::"), "cannot be reached"),
    (_set("address", "224.0.0.1"), "cannot be reached"),
    (_set("address", "fe80::1%eth0"), "cannot be reached"),
    (_set("address", ""), "not an IPv4"),
    (_set("port", 0), "port 0 is not from 1"),
    (_set("port", 70000), "port 70000"),
    (_set("agent", "no/de"), "agent 'no/de'"),
    (_set("cpu_cores", math.nan), "cpu_cores nan"),
    (_set("cpu_cores", -1.0), "cpu_cores -1.0"),
    (_set("cpu_cores", math.inf), "cpu_cores inf"),
    (_set("cpu_cores", 1e9), "cpu_cores 1000000000.0"),
    (_set("machine", "m" * 500), "machine"),
    (_set("machine", "a\nb"), "printable"),
    (lambda r: r.named_ports.update({"http": 0}), "port http 0"),
    (lambda r: r.named_ports.update({"HT TP": 1}), "port name 'HT TP'"),
    (lambda r: r.named_ports.update({f"p{n}": 1 for n in range(limits.NAMED_PORTS_MAX + 1)}), "named ports"),
    (lambda r: r.metadata.update({f"k{n}": "" for n in range(limits.METADATA_MAX + 1)}), "metadata entries"),
    (lambda r: r.metadata.update({"k": "v" * (limits.METADATA_VALUE_MAX_CHARS + 1)}), "metadata 'k'"),
    (lambda r: r.metadata.update({"k" * 500: ""}), "metadata key"),
    (lambda r: r.metadata.update({"k": "\x1b[2J"}), "metadata 'k'"),
    (lambda r: setattr(r.start_time, "seconds", -1), "time -1"),
    (lambda r: setattr(r.start_time, "seconds", 1 << 60), "time"),
    (lambda r: setattr(r.start_time, "nanos", 1 << 30), "time"),
    (_probe("interval_s", math.nan), "interval_s nan"),
    (_probe("interval_s", 1e-9), "interval_s"),
    (_probe("timeout_s", 1e9), "timeout_s"),
    (_probe("timeout_s", -1.0), "timeout_s -1.0"),
    (_probe("rise", 1000), "rise 1000"),
    (_probe("fall", 1000), "fall 1000"),
    (_probe("port_name", "x y"), "port_name 'x y'"),
    (_probe("path", "/" + "x" * 2000), "probe path"),
    (lambda r: setattr(r.principal, "identity", "x" * 300), "principal"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_values_are_named(spoil: Callable[[bns_pb2.TaskRecord], None], message: str) -> None:
    record = encode_task(FULL)
    spoil(record)
    with pytest.raises(BadRecordError, match=message):
        decode_task(record)


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe", b"x" * 70_000])
def test_bytes_that_are_no_record(data: bytes) -> None:
    for parse in (parse_task_bytes, parse_agent_bytes):
        with pytest.raises(BadRecordError):
            parse(data)


def test_bad_agents_are_named() -> None:
    record = encode_agent(AGENT)
    record.datacenter = "us/east"
    with pytest.raises(BadRecordError, match="'us/east'"):
        parse_agent_bytes(record.SerializeToString())
    record = encode_agent(AGENT)
    record.machine_id = "\0"
    with pytest.raises(BadRecordError, match="machine_id"):
        parse_agent_bytes(record.SerializeToString())
