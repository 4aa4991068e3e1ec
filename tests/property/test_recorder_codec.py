"""What is recorded comes back: the same types, the same bits, and the same objects where they were the same."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC
from ipaddress import ip_network

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.balancer.inputs import Deleted, Inputs, TaskState
from gslb.balancer.state import BalancerState, Decision, ServiceDecision
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Drain, DrainScope, Policy, Service
from gslb.recorder.frames import Decoder, Encoder, Step
from gslb.recorder.segment import DELTA, KEY, Reader, Writer, head_bytes
from tests.support.recording import steps

NAMES = st.sampled_from(["a", "b", "us-east1", "europe", "ünïcode", "x" * 60])
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, math.nan, math.inf, 5e-324, 1e308])
METAS = st.builds(Meta, NAMES, updated_at=st.none() | st.datetimes(timezones=st.just(UTC)))
PLACES = st.builds(Coordinates, FLOATS, FLOATS)
TASKS = st.builds(
    TaskState,
    NAMES,
    NAMES,
    NAMES,
    st.sampled_from(HealthStatus),
    FLOATS,
    FLOATS,
    FLOATS,
    FLOATS,
    st.booleans(),
    NAMES,
    FLOATS,
    FLOATS,
    st.integers(0, 2**63),
)
RATES = st.dictionaries(NAMES, FLOATS, max_size=4)
SHARES = st.dictionaries(NAMES, RATES, max_size=3)
PLANS = st.builds(
    Plan,
    NAMES,
    st.builds(Stamp, *[st.integers(0, 2**40)] * 3),
    SHARES,
    RATES,
    RATES,
    RATES,
    st.dictionaries(NAMES, SHARES, max_size=2),
    FLOATS,
    st.lists(NAMES, max_size=2).map(tuple),
)
SERVICES = st.builds(
    Service,
    METAS,
    st.lists(st.builds(Backend, NAMES, FLOATS), max_size=3).map(tuple),
    policy=st.sampled_from(Policy),
    failover=st.lists(NAMES, max_size=2).map(tuple),
)
AREAS = st.builds(
    ClientArea,
    METAS,
    PLACES,
    st.lists(st.sampled_from([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]), max_size=2).map(tuple),
)
TIMES = st.datetimes(timezones=st.just(UTC))
DRAINS = st.builds(Drain, METAS, st.sampled_from(DrainScope), NAMES, NAMES, NAMES, TIMES, TIMES)


def named(values):
    return st.dictionaries(NAMES, values, max_size=3)


INPUTS = st.builds(
    Inputs,
    st.builds(
        Catalog, named(st.builds(Datacenter, METAS, NAMES, PLACES)), named(AREAS), named(SERVICES), named(DRAINS)
    ),
    named(st.lists(TASKS, max_size=3).map(tuple)),
    named(RATES),
    st.dictionaries(st.tuples(NAMES, NAMES), FLOATS, max_size=3),
    named(PLANS),
    named(st.dictionaries(st.tuples(NAMES, NAMES), FLOATS, max_size=3)),
    st.builds(Deleted, st.frozensets(NAMES), st.frozensets(NAMES)),
    st.none() | st.frozensets(NAMES),
)


def same(one, other):
    """Equal to the last bit: NaN is NaN, -0.0 is not 0.0, and a list is no tuple."""
    if type(one) is not type(other):
        # Numbers of numpy come back as Python's, mappings as dicts.
        plain = isinstance(one, float | int | Mapping) and isinstance(other, float | int | Mapping)
        if not plain:
            return False
    if is_dataclass(one):
        return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(INPUTS, min_size=1, max_size=3), st.lists(PLANS, max_size=2))
def test_inputs_round_trip_whole_and_as_differences(given_inputs, plans):
    encoder, decoder = Encoder(), Decoder()
    decided = Decision({plan.service: ServiceDecision(plan) for plan in plans}, alarms=("x",))
    for number, inputs in enumerate(given_inputs):
        before = inputs
        for again in (False, True):
            step = Step(2 * number + again, 1.5, BalancerState(), inputs, decided)
            found = decoder.decode(encoder.encode(step, key=number == 0 and not again))
            assert same_inputs(found.inputs, inputs)
            assert same(found.decision(), decided)
            if again:
                assert all(found.inputs.demand[name] is before.demand[name] for name in inputs.demand)
                assert all(found.inputs.tasks[name] is before.tasks[name] for name in inputs.tasks)
                assert found.inputs.catalog.datacenters is before.catalog.datacenters
            before = found.inputs


def same_inputs(one, other):
    """The order of services does not matter to the step, and a difference does not keep it."""
    for name in ("tasks", "demand", "rtt_ms", "previous", "callers"):
        a, b = getattr(one, name), getattr(other, name)
        if a.keys() != b.keys() or not all(same(a[key], b[key]) for key in a):
            return False
    return (one.changed, one.deleted) == (other.changed, other.deleted) and all(
        getattr(one.catalog, kind).keys() == getattr(other.catalog, kind).keys()
        and all(same(value, getattr(other.catalog, kind)[key]) for key, value in getattr(one.catalog, kind).items())
        for kind in ("datacenters", "areas", "services", "drains")
    )


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 25))
def test_states_round_trip(seed, count):
    *_, last = steps(count, seed)
    found = Decoder().decode(Encoder().encode(last, key=True))
    state, then = found.state, last.state
    assert state is not None
    for each in fields(BalancerState):
        if each.name == "rerouted":  # follows from the plans
            assert state.rerouted == {}
            continue
        assert same(getattr(state, each.name), getattr(then, each.name)), each.name
    for name, memory in then.services.items():
        again = state.services[name]
        for field, mapping, new in (
            ("tasks", last.inputs.tasks, found.inputs.tasks),
            ("demand_seen", last.inputs.demand, found.inputs.demand),
            ("compared", last.inputs.previous, found.inputs.previous),
            ("service", last.inputs.catalog.services, found.inputs.catalog.services),
        ):
            assert (getattr(memory, field) is mapping.get(name)) == (getattr(again, field) is new.get(name)), field
        assert (memory.network is then.network) == (again.network is state.network)
        assert (memory.coverage is then.coverage) == (again.coverage is state.coverage)
        assert (memory.budgets is then.sharing.budgets) == (again.budgets is state.sharing.budgets)
    assert found.decision() == last.decision


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.data())
def test_a_file_cut_or_damaged_anywhere_gives_a_beginning_of_itself(pieces, data):
    writer = Writer()
    whole = head_bytes({"replica": "a"})
    start = len(whole)
    for number, piece in enumerate(pieces):
        whole += writer.record(KEY if number == 0 else DELTA, number, float(number), piece)
    assert [record.data for record in Reader(whole).records()] == pieces
    if len(whole) == start:
        return
    at = data.draw(st.integers(start, len(whole) - 1))
    for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]):
        reader = Reader(broken)
        found = [record.data for record in reader.records()]
        assert found == pieces[: len(found)]
        assert len(found) < len(pieces)
