"""No bytes from outside do more than be refused, and what is accepted survives a round trip."""

import contextlib
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from bns.codec import encode_agent, encode_task, parse_agent_bytes, parse_task_bytes
from bns.errors import BadRecordError
from bns.model import Task
from bns.names import InvalidNameError, check_task, parse_task
from bns.v1 import bns_pb2

GOOD = encode_task(
    Task("/bns/a/b/c/0", "::1", 80, agent="x", named_ports={"http": 81}, metadata={"k": "v"}, cpu_cores=2.5)
).SerializeToString()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(BadRecordError):
        task = parse_task_bytes(data)
        assert parse_task_bytes(encode_task(task).SerializeToString()) == task
    with contextlib.suppress(BadRecordError):
        agent = parse_agent_bytes(data)
        assert parse_agent_bytes(encode_agent(agent).SerializeToString()) == agent


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes(flips: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for position, value in flips:
        data[position] = value
    with contextlib.suppress(BadRecordError):
        task = parse_task_bytes(bytes(data))
        assert parse_task_bytes(encode_task(task).SerializeToString()) == task


@settings(deadline=None)
@given(
    st.builds(
        bns_pb2.TaskRecord,
        name=st.sampled_from(["/bns/a/b/c/0", "/bns/a/b/c", "", "x"]),
        address=st.one_of(st.text(max_size=20), st.ip_addresses().map(str)),
        port=st.integers(0, 2**32 - 1),
        named_ports=st.dictionaries(st.text(max_size=5), st.integers(0, 2**32 - 1), max_size=3),
        metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
        agent=st.text(max_size=5),
        cpu_cores=st.floats(),
        probe=st.builds(
            bns_pb2.ProbeSpec,
            kind=st.integers(-5, 9),
            interval_s=st.floats(),
            timeout_s=st.floats(),
            rise=st.integers(0, 200),
        ),
        machine=st.text(max_size=5),
    )
)
def test_any_values(record: bns_pb2.TaskRecord) -> None:
    with contextlib.suppress(BadRecordError):
        task = parse_task_bytes(record.SerializeToString())
        assert parse_task_bytes(encode_task(task).SerializeToString()) == task


@settings(deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.text("ab-0A/_.", max_size=4), min_size=2, max_size=6).map(lambda parts: "/bns/" + "/".join(parts)),
    )
)
def test_both_readings_of_a_name_agree(path: str) -> None:
    def outcome(read: Callable[[str], object]) -> str:
        try:
            return f"is {read(path)}"
        except InvalidNameError as error:
            return f"error {error}"

    assert outcome(check_task) == outcome(parse_task)
    assert outcome(check_task).startswith("error ") or check_task(path) == path
