"""Whatever servers say of their load, no rule breaks, forgets a task's name, or picks one that is not there."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.choice import Rule
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.report import decode
from gslb.rpc.policy.rules import NAMES, make_rule

_NAMES = st.sampled_from(["rif", "lat", "util", "rps", "eps", "room", "clients", "x"])
_VALUES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.floats(0.0, 1e9, allow_subnormal=True).map(repr),
    st.sampled_from(["0", "5e-324", "1e-9", "1e9", "1e308", "-0", "", "=", "٣"]),
)
_LINES = st.lists(st.tuples(_NAMES, _VALUES), max_size=8).map(lambda pairs: " ".join(f"{n}={v}" for n, v in pairs))
_SAID = st.lists(st.tuples(st.integers(0, 3), _LINES, st.booleans()), max_size=30)
_WEIGHTS = st.lists(st.sampled_from([1e-6, 0.1, 1.0, 1e6]), min_size=4, max_size=4)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(said=_SAID, weights=_WEIGHTS, seed=st.integers(0, 1000))
def test_no_report_breaks_a_rule(name: str, said, weights, seed: int) -> None:
    rng = random.Random(seed).random
    tasks = [
        Member(ServiceEndpoint(f"/bns/dc/u/j/{i}", "127.0.0.1", 1 + i, HealthStatus.HEALTHY, weight))
        for i, weight in enumerate(weights)
    ]
    rule: Rule[Member] = make_rule(name)
    rule.assign(tasks, 0.0)
    now_s = 0.0
    for i, line, probe in said:
        now_s += 2.0 * rng()
        report = decode(line)
        if report is not None:
            rule.reported(tasks[i], report, now_s, probe=probe)
        picked = rule.pick(rng, now_s, line)
        assert picked in tasks
        picked.in_flight += 1
        assert set(rule.probes(rng, now_s)) <= set(tasks)
        assert all(isinstance(value, float) for task in tasks for value in rule.knows(task, now_s).values())
    for _ in range(20):
        assert rule.pick(rng, now_s + 20.0) in tasks
