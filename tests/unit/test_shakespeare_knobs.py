"""The knobs of the example's backend: what the file may say, and what happens when it says nonsense."""

import asyncio
import re
import time
from pathlib import Path

import grpc
import pytest

from examples.shakespeare.knobs import Knobs, KnobsError, KnobsFile, parse

DEFAULTS = Knobs(2.0)


@pytest.mark.parametrize(
    ("text", "knobs"),
    [
        ("{}", DEFAULTS),
        ('{"cpu_ms": 8}', Knobs(8.0)),
        ('{"error_rate": 0.5}', Knobs(2.0, 0.5)),
        ('{"cpu_ms": 0, "error_rate": 1, "error_code": "UNAVAILABLE"}', Knobs(0.0, 1.0, grpc.StatusCode.UNAVAILABLE)),
    ],
)
def test_what_a_file_may_say(text: str, knobs: Knobs) -> None:
    assert parse(text, DEFAULTS) == knobs


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "no JSON"),
        ("[" * 4096, "no JSON"),
        ("[]", "is no object"),
        ('{"cpu": 8}', "'cpu' is no knob"),
        ('{"cpu_ms": "8"}', "cpu_ms 8 is not between 0 and 1000"),
        ('{"cpu_ms": -1}', "cpu_ms -1 is not between"),
        ('{"cpu_ms": NaN}', "cpu_ms nan is not between"),
        ('{"cpu_ms": true}', "cpu_ms True is not between"),
        ('{"error_rate": 1.5}', "error_rate 1.5 is not between 0 and 1"),
        ('{"error_code": "OK"}', "error_code 'OK' is none of ABORTED"),
    ],
)
def test_what_it_may_not(text: str, fragment: str) -> None:
    with pytest.raises(KnobsError, match=re.escape(fragment)):
        parse(text, DEFAULTS)


async def test_a_file_is_followed_and_nonsense_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "knobs.json"
    knobs = KnobsFile(path, DEFAULTS)
    assert knobs.now == DEFAULTS
    following = asyncio.create_task(knobs.follow())
    try:
        path.write_text('{"cpu_ms": 8}')
        async with asyncio.timeout(20):
            while knobs.now != Knobs(8.0):
                await asyncio.sleep(0.05)
    finally:
        following.cancel()
    path.write_text("nonsense")
    knobs.read()
    knobs.read()
    assert knobs.now == Knobs(8.0)
    assert sum("stay as they were" in record.message for record in caplog.records) == 1
    path.unlink()
    knobs.read()
    assert knobs.now == DEFAULTS


def test_a_burn_uses_cpu_and_not_only_time() -> None:
    before_s = time.thread_time()
    Knobs(20.0).burn()
    assert time.thread_time() - before_s >= 0.02


def test_every_request_or_none_errs() -> None:
    assert all(Knobs(error_rate=1.0).errs() for _ in range(100))
    assert not any(Knobs().errs() for _ in range(100))
