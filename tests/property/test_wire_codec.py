"""Round trips of good values, and bytes of any kind: decoding gives a good value or InvalidValueError, nothing else."""

import math
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gslb.model.endpoint import ServiceEndpoint
from gslb.model.errors import InvalidValueError
from gslb.model.plan import Plan
from gslb.model.resources import Resource
from gslb.model.validate import check_resource
from gslb.v1 import plan_pb2
from gslb.wire import codec
from gslb.wire.snapshot import from_bytes
from tests.golden.cases import CASES
from tests.support.resources import ENDPOINTS, RESOURCES, plans

A = TypeVar("A")
T = TypeVar("T")
RECORDED = {case.name: case.recorded() for case in CASES}
RESOURCE_BYTES = [data for name, data in RECORDED.items() if name.startswith("resource_")]
# Where, and what is put there instead of how many bytes.
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4)


def _edit(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for where, removed, put in edits:
        at = int(where * len(data))
        data = data[:at] + put + data[at + removed :]
    return data


def _attempt(decode: Callable[[A], T], data: A) -> tuple[T | None, str]:
    """What was decoded, or why it was refused. Any error but InvalidValueError is a bug, and escapes."""
    try:
        return decode(data), ""
    except InvalidValueError as error:
        assert str(error)  # noqa: PT017
        return None, str(error)


def check_plan(plan: Plan) -> None:
    """What every reader takes for granted of a plan."""
    assert plan.shares
    rows = [*plan.shares.values(), *(row for rows in plan.contingencies.values() for row in rows.values())]
    for row in rows:
        assert all(0 <= share <= 1 + 1e-6 for share in row.values())
        assert abs(sum(row.values()) - 1) <= 1e-6
    for column in (plan.demand_rps, plan.capacity_rps, plan.load_rps):
        assert all(math.isfinite(value) and value >= 0 for value in column.values())
    assert math.isfinite(plan.computed_at_s)


@given(RESOURCES)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_resources_come_back_as_they_went(resource: Resource) -> None:
    assert check_resource(resource) == []
    assert codec.resource_from_bytes(codec.resource_to_bytes(resource)) == resource


@given(plans())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_plans_come_back_as_they_went(plan: Plan) -> None:
    assert codec.plan_from_bytes(codec.plan_to_bytes(plan)) == plan


@given(ENDPOINTS)
def test_endpoints_come_back_as_they_went(endpoint: ServiceEndpoint) -> None:
    assert codec.decode_endpoint(codec.encode_endpoint(endpoint)) == endpoint


@given(st.sampled_from(RESOURCE_BYTES), EDITS)
@settings(max_examples=400)
def test_damaged_resources_are_good_or_refused(data: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    resource, _ = _attempt(codec.resource_from_bytes, _edit(data, edits))
    assert resource is None or check_resource(resource) == []


@given(EDITS)
@settings(max_examples=400)
def test_damaged_plans_are_refused_by_their_checksum(edits: list[tuple[float, int, bytes]]) -> None:
    plan, _ = _attempt(codec.plan_from_bytes, _edit(RECORDED["plan"], edits))
    # Taken: the edit changed nothing, or only how the same fields are laid out.
    assert plan is None or plan == codec.plan_from_bytes(RECORDED["plan"])


@given(EDITS)
@settings(max_examples=400)
def test_plans_that_were_wrong_before_their_checksum_was_made_are_good_or_refused(
    edits: list[tuple[float, int, bytes]],
) -> None:
    try:
        message = plan_pb2.Plan.FromString(_edit(RECORDED["plan"], edits))
    except DecodeError:
        return
    message.checksum = codec.checksum_of(message)
    plan, refusal = _attempt(codec.decode_plan, message)
    assert "checksum" not in refusal
    if plan is not None:
        check_plan(plan)


@given(EDITS)
@settings(max_examples=300)
def test_damaged_snapshots_are_refused(edits: list[tuple[float, int, bytes]]) -> None:
    original = RECORDED["reader_snapshot"]
    damaged = _edit(original, edits)
    restored, refusal = _attempt(from_bytes, damaged)
    if damaged == original:
        assert restored == from_bytes(original)
    else:
        assert "snapshot" in refusal


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_garbage_is_refused(data: bytes) -> None:
    for decode in (codec.plan_from_bytes, codec.resource_from_bytes, from_bytes):
        assert _attempt(decode, data)[0] is None
