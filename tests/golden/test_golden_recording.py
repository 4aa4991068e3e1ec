"""A recording that an earlier version wrote is read to the same values; what a later one adds is passed over.

Whether its steps decide the same is another question, and only of one version: the balancer may learn.
"""

import base64
from pathlib import Path

import msgspec
import pytest

from gslb.model.resources import CapacityMode
from gslb.recorder.frames import Decoder
from gslb.recorder.play import replay
from gslb.recorder.segment import Reader, head_of
from tests.support.balancer import NOW_S

DATA = base64.b64decode(Path(__file__).with_name("recording.b64").read_text())


def test_an_old_recording_is_read() -> None:
    assert head_of(DATA)[0]["replica"] == "golden"
    reader, decoder = Reader(DATA), Decoder()
    found = [decoder.decode(record.data) for record in reader.records()]
    assert reader.notes == []
    assert [one.number for one in found] == list(range(3, 11))
    assert found[-1].at_s == NOW_S + 50
    assert [one.state is not None for one in found] == [True] + [False] * 7
    inputs = found[-1].inputs
    assert sorted(inputs.catalog.services) == ["backend", "learned"]
    assert {one.mode for one in inputs.catalog.services["learned"].backends} == {CapacityMode.UTILIZATION}
    assert inputs.catalog.datacenters["us-east1"].cpu_cores == 1.0
    assert inputs.rtt_ms == {("europe", "us-east1"): 91.5}
    assert inputs.callers == {"backend": {("us-east1", "learned"): 0.5}}
    assert [len(inputs.tasks[name]) for name in ("backend", "learned")] == [8, 12]
    assert found[-1].decision().services.keys() == {"backend", "learned"}


def test_what_a_later_version_adds_is_passed_over() -> None:
    first = next(Reader(DATA).records())
    record = msgspec.msgpack.decode(first.data)
    for place in (record, record["inputs"], record["state"], record["state"]["services"]["backend"]):
        place["newer"] = {"a": [1, 2]}
    record["state"]["own"]["newer"] = b"?"
    record["state"]["services"]["backend"]["own"]["newer"] = b"?"
    assert Decoder().decode(msgspec.msgpack.encode(record)).inputs.tasks


def test_an_old_recording_runs() -> None:
    """To its end, whatever is decided."""
    assert replay(Reader(DATA).records(), NOW_S + 50).steps == 8


@pytest.mark.parametrize("missing", ["callers"])
def test_what_an_earlier_version_lacks_has_its_default(missing: str) -> None:
    first = next(Reader(DATA).records())
    record = msgspec.msgpack.decode(first.data)
    del record["inputs"][missing]
    assert not getattr(Decoder().decode(msgspec.msgpack.encode(record)).inputs, missing)
