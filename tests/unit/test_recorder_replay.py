"""Recorded steps run again: bit for bit the same, what differs is found, and what-ifs do what they say."""

import os
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from bns.model import HealthStatus
from gslb.balancer import callees, case
from gslb.balancer.inputs import Deleted, Inputs
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.cli.replay import parse_time_s
from gslb.model.errors import InvalidValueError
from gslb.model.resources import Catalog, ClientArea, DrainScope
from gslb.recorder.codec import AreaRecord
from gslb.recorder.errors import RecordingError
from gslb.recorder.frames import Decoder, Encoder, InputsRecord
from gslb.recorder.outcome import compare, run
from gslb.recorder.play import replay
from gslb.recorder.segment import SegmentRecord
from gslb.recorder.whatif import Moment, suppose
from tests.support import balancer as tb
from tests.support.recording import steps

FOREVER = float("inf")


def recorded(taken, keys=(0,)):
    encoder = Encoder()
    return [SegmentRecord(one.at_s, encoder.encode(one, key=n in keys)) for n, one in enumerate(taken)]


@pytest.mark.parametrize("seed", range(4))
def test_every_step_is_identical_from_any_key_on(seed):
    taken = list(steps(60, seed))
    records = recorded(taken, keys=(0, 23, 41))
    for start in (0, 23, 41):
        played = replay(records[start:], FOREVER)
        assert played.identical, played.differences
        assert played.steps == 60 - start
        assert played.recorded.number == 60
        assert played.decision.services.keys() == taken[-1].decision.services.keys()
    middle = replay(records, taken[30].at_s + 1)
    assert middle.recorded.number == taken[30].number
    assert middle.recorded.decision() == taken[30].decision


def test_what_operators_deleted_is_recorded():
    taken = list(steps(3))
    gone = Deleted(frozenset({"learned"}), frozenset({"europe"}))
    taken[1] = replace(taken[1], inputs=replace(taken[1].inputs, deleted=gone))
    decoder, encoder = Decoder(), Encoder()
    back = [decoder.decode(encoder.encode(one, key=n == 0)).inputs.deleted for n, one in enumerate(taken)]
    assert back == [Deleted(), gone, Deleted()]


def test_another_process_decides_the_same(tmp_path):
    """Another seed of Python's hashes: nothing may depend on the order of a set."""
    program = (
        "import sys; from tests.unit.test_recorder_replay import recorded, steps;"
        "open(sys.argv[1], 'wb').write(b''.join(len(r.data).to_bytes(4, 'big') + r.data for r in recorded(list(steps(25, 7)))))"
    )
    path = tmp_path / "steps"
    subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, env={**os.environ, "PYTHONHASHSEED": "5"}, timeout=100
    )
    data, records = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:4], "big")
        records.append(SegmentRecord(0.0, data[4 : 4 + size]))
        data = data[4 + size :]
    played = replay(records, FOREVER)
    assert played.steps == 25
    assert played.identical, played.differences


def test_another_decision_is_found_where_it_begins(monkeypatch):
    taken = list(steps(20))
    records = recorded(taken)
    # Another version of the balancer: it leaves more room.
    monkeypatch.setattr(case, "FORCED_TOLERANCE", -0.5)
    played = replay(records, FOREVER)
    assert not played.identical
    first = played.differences[0]
    assert first.service in taken[0].decision.services
    assert first.field
    assert first.recorded != first.again


def test_a_missing_step_is_no_replay():
    records = recorded(list(steps(10)))
    with pytest.raises(RecordingError, match="step 5 is missing"):
        replay([*records[:4], *records[5:]], FOREVER)
    with pytest.raises(RecordingError, match="difference to a missing one"):
        replay(records[3:], FOREVER)
    with pytest.raises(RecordingError, match="no step"):
        replay(records, 0.0)
    with pytest.raises(RecordingError, match="version that recorded it"):
        replay([SegmentRecord(0.0, b"\x93\x01\x02\x03")], FOREVER)


def test_nothing_of_the_inputs_is_forgotten():
    """A field that the balancer is given one day has to be recorded: say so in frames.py, then here."""
    assert {one.name for one in fields(Inputs)} == {
        "catalog",
        "tasks",
        "demand",
        "rtt_ms",
        "previous",
        "callers",
        "deleted",
        "changed",
    }
    assert {one.name for one in fields(Catalog)} == {"datacenters", "areas", "services", "drains", "zones"}
    assert {one.name for one in fields(InputsRecord)} == {
        *("datacenters", "areas", "services", "drains", "tasks", "demand", "rtt_ms", "previous", "callers", "changed"),
        "deleted",
    }
    assert [one.name for one in fields(ClientArea)] == [one.name for one in fields(AreaRecord)]


# What if


def a_moment(demand=None, **size):
    inputs = tb.planet(demand or {"europe": 80.0, "north-america": 80.0}, **size)
    state, decision = BalancerState(), None
    for number in range(3):
        state, decision = step(state, inputs, now_s=tb.NOW_S + 5 * number)
        inputs = replace(inputs, previous={name: one.plan for name, one in decision.services.items()})
    return Moment(state, inputs, tb.NOW_S + 15), decision


def outcome(*what_ifs, demand=None, **size):
    moment, before = a_moment(demand, **size)
    supposed = suppose(moment, what_ifs)
    return compare(before, run(supposed, loads_then(before, moment.inputs))), supposed


def loads_then(decision, inputs):
    return callees.loads(decision, inputs.demand)


def loads(found, when="at_once_rps"):
    return {load.datacenter: round(getattr(load, when), 3) for load in found.loads}


def test_a_drain_moves_everything_at_once():
    found, supposed = outcome("drain datacenter europe-west1")
    assert loads(found)["europe-west1"] == 0
    assert sum(loads(found).values()) == pytest.approx(160)
    assert {move.locality for move in found.moves} >= {"europe"}
    assert found.settles
    assert supposed.refusals == ()


@pytest.mark.parametrize(
    "text",
    [
        "drain region eu",
        "drain service backend@europe-west1",
        "drain job /bns/europe-west1/shakespeare/backend",
        "lose datacenter europe-west1",
    ],
)
def test_every_scope_takes_the_place_out(text):
    assert loads(outcome(text)[0])["europe-west1"] == 0


def test_one_task_is_half_of_the_capacity():
    for text in (
        "lose task /bns/europe-west1/shakespeare/backend/0",
        "drain task /bns/europe-west1/shakespeare/backend/0",
        "drain machine m-europe-west1-0",
        "capacity backend@europe-west1 x0.5",
    ):
        found, _ = outcome(text)
        site = next(load for load in found.loads if load.datacenter == "europe-west1")
        assert (site.capacity_before_rps, site.capacity_after_rps) == (100, 50), text


def test_undrain_returns_gradually_and_settles():
    moment, _ = a_moment()
    drain = tb.drain(DrainScope.DATACENTER, "europe-west1")
    moment = suppose(replace(moment, inputs=tb.drained(moment.inputs, drain)), ["demand europe x1"])
    course = run(moment, {})
    assert course.settled.services["backend"].plan.load_rps["europe-west1"] == 0
    drained = replace(
        moment,
        inputs=replace(moment.inputs, previous={"backend": course.settled.services["backend"].plan}),
    )
    state, before = step(moment.state, drained.inputs, now_s=moment.now_s)
    back = compare(before, run(suppose(replace(drained, state=state), ["undrain datacenter europe-west1"]), {}))
    assert loads(back)["europe-west1"] < 20
    assert loads(back, "settled_rps")["europe-west1"] == pytest.approx(80, abs=2)
    assert back.settled_s > 20


def test_what_ifs_combine_and_tell_what_is_lost():
    found, supposed = outcome("drain datacenter europe-west1", "demand europe x2", "lose datacenter asia-east1")
    assert sum(loads(found).values()) == pytest.approx(240)
    assert {name for name, rps in loads(found).items() if rps > 0.1} == {"us-east1", "southamerica-east1"}
    assert any("overload" in line or "capacity that is left" in line for line in found.alarms_new)
    assert len(found.losses_new) == 2
    assert supposed.refusals == ()
    refused = outcome("lose datacenter asia-east1", "lose datacenter us-east1", "drain datacenter europe-west1")[1]
    assert "demand 160 rps" in refused.refusals[0]


def test_demand_of_one_service_only():
    found, _ = outcome("demand backend@europe x0.5")
    assert sum(loads(found, "settled_rps").values()) == pytest.approx(120)


def test_health_of_the_recorded_tasks_is_left_alone():
    moment, _ = a_moment()
    supposed = suppose(moment, ["lose task /bns/europe-west1/shakespeare/backend/0"])
    assert sum(one.health is HealthStatus.TIMEOUT for one in supposed.inputs.tasks["backend"]) == 1
    assert all(one.health is HealthStatus.HEALTHY for one in moment.inputs.tasks["backend"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Write one of"),
        ("explode everything", "Write one of"),
        ("drain", "SCOPE TARGET"),
        ("drain datacenter mars", "no task was in datacenter mars"),
        ("drain planet earth", "a scope is one of"),
        ("undrain datacenter europe-west1", "no such drain"),
        ("undrain nothing", "no such drain"),
        ("lose region eu", "lose datacenter NAME"),
        ("lose task /bns/nowhere/a/b/0", "no task was in task"),
        ("demand europe 2", "x2"),
        ("demand europe x1e9", "x2"),
        ("demand europe x5000", "0..1000"),
        ("demand mars x2", "no locality mars"),
        ("demand asia x2", "nothing was asked for"),
        ("demand web@europe x2", "no service web"),
        ("capacity web x2", "no service web"),
        ("capacity backend@mars x2", "no backend in mars"),
        ("capacity backend x0", "lose task"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(text, says):
    with pytest.raises(InvalidValueError, match=says):
        suppose(a_moment()[0], [text])


def test_times():
    assert parse_time_s("now", 5.0) == 5.0
    assert parse_time_s("-5m", 1000.0) == 700.0
    assert parse_time_s("-1h30m", 10_000.0) == 4600.0
    noon = parse_time_s("2026-11-21T12:00:00Z", 0.0)
    assert noon == parse_time_s("2026-11-21T12:00:00", 0.0) == parse_time_s("2026-11-21T13:00:00+01:00", 0.0)
    for bad in ("soon", "-5", "2026-13-01T00:00:00Z", "-"):
        with pytest.raises(Exception, match="--at"):
            parse_time_s(bad, 0.0)
