"""Bytes written by any earlier version are read to the same values, and the same values give the same bytes."""

import hashlib

import pytest

from gslb.v1 import plan_pb2
from gslb.wire.codec import checksum_of, decode_plan
from tests.golden.cases import CASES, DIRECTORY, PLAN, Case

# Field 1000: a varint, 77; field 1001: the text `newer`.
UNKNOWN = bytes.fromhex("c03e4d" + "ca3e05") + b"newer"
MESSAGES = [case for case in CASES if case.message is not None]


def _name(case: Case) -> str:
    return case.name


def test_every_file_has_a_case_and_every_case_a_file() -> None:
    assert {path.name for path in DIRECTORY.glob("*.hex")} == {case.path.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_old_bytes_decode_to_the_value(case: Case) -> None:
    assert case.decode(case.recorded()) == case.value


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_the_value_encodes_to_the_old_bytes(case: Case) -> None:
    assert case.encode(case.value).hex() == case.recorded().hex()


@pytest.mark.parametrize("case", [case for case in MESSAGES if case.name != "plan"], ids=_name)
def test_fields_of_a_newer_version_are_ignored(case: Case) -> None:
    decoded = case.decode(case.recorded() + UNKNOWN)
    if decoded is not None and hasattr(decoded, "SerializeToString"):
        assert decoded.SerializeToString(deterministic=True) == case.recorded() + UNKNOWN
    else:
        assert decoded == case.value


@pytest.mark.parametrize("case", MESSAGES, ids=_name)
def test_fields_of_a_newer_version_survive_in_the_message(case: Case) -> None:
    assert case.message is not None
    message = case.message.FromString(case.recorded() + UNKNOWN)
    assert UNKNOWN in message.SerializeToString(deterministic=True)


def test_a_plan_of_a_newer_version_has_a_checksum_that_we_can_check() -> None:
    plan = plan_pb2.Plan.FromString(next(case for case in CASES if case.name == "plan").recorded())
    plan.checksum = 0
    plan.localities[0].MergeFromString(UNKNOWN)
    # As its writer computes it: over its own serialisation, whose new fields come last.
    newer = plan_pb2.Plan.FromString(plan.SerializeToString(deterministic=True) + UNKNOWN)
    written = newer.SerializeToString(deterministic=True)
    newer.checksum = int.from_bytes(hashlib.blake2b(written).digest()[:8], "big")
    arrived = plan_pb2.Plan.FromString(newer.SerializeToString(deterministic=True))
    assert arrived.checksum == checksum_of(arrived)
    assert decode_plan(arrived) == PLAN
