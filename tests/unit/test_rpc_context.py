"""What a request carries along, and what is made of bad metadata."""

import threading
import time

import pytest

from gslb.model.criticality import Criticality
from gslb.rpc import context


def test_outside_of_a_request() -> None:
    assert context.trace_id() == ""
    assert context.criticality() is Criticality.CRITICAL
    assert context.time_remaining_s() is None
    # Everybody takes a request for CRITICAL that says nothing, and gives one a trace id that has none.
    assert context.outgoing(None, None) == ((), Criticality.CRITICAL, "")
    request = context.incoming(())
    assert request.criticality is Criticality.CRITICAL
    assert len(request.trace_id) == 32
    assert request.trace_id != context.incoming(()).trace_id
    assert context.outgoing(None, Criticality.SHEDDABLE).metadata == (("gslb-criticality", "SHEDDABLE"),)


def test_a_caller_who_has_to_know_the_trace_id_makes_one() -> None:
    plain = context.outgoing((("a", "b"),), None)
    assert plain.trace_id == ""
    made = plain.identified()
    assert len(made.trace_id) == 32
    assert made.metadata == (("a", "b"), ("gslb-trace-id", made.trace_id))
    assert made.identified() is made
    assert plain.identified().trace_id != made.trace_id
    with context.scope(trace_id="x-1"):
        assert context.outgoing(None, None).identified().metadata == (("gslb-trace-id", "x-1"),)


def test_scopes_nest_and_end() -> None:
    with context.scope(trace_id="a", criticality=Criticality.SHEDDABLE, timeout_s=10):
        with context.scope(timeout_s=60):
            assert context.trace_id() == "a"
            assert context.criticality() is Criticality.SHEDDABLE
            assert 0 < context.time_remaining_s() <= 10
        with context.scope(criticality=Criticality.CRITICAL_PLUS):
            assert context.criticality() is Criticality.CRITICAL_PLUS
            assert context.trace_id() == "a"
    assert context.trace_id() == ""


def test_who_decides_about_criticality() -> None:
    own = (("gslb-criticality", "SHEDDABLE"),)
    with context.scope(criticality=Criticality.SHEDDABLE_PLUS):
        assert context.outgoing(None, None)[1] is Criticality.SHEDDABLE_PLUS
        assert context.outgoing(None, Criticality.CRITICAL_PLUS)[1] is Criticality.CRITICAL_PLUS
        assert context.outgoing(own, Criticality.CRITICAL_PLUS)[1] is Criticality.SHEDDABLE
        assert context.outgoing(own, None)[0].count(own[0]) == 1


@pytest.mark.parametrize("value", ["", "a" * 65, "with space", "new\nline", "ü", b"\xff\xfe"])
def test_a_bad_trace_id_is_replaced(value: str | bytes) -> None:
    found = context.incoming([("gslb-trace-id", value)])
    assert len(found.trace_id) == 32


def test_incoming_is_read_as_it_was_sent() -> None:
    with context.scope(trace_id="x-1", criticality=Criticality.SHEDDABLE):
        sent = context.outgoing((("other", b"\x00"),), None).metadata
    found = context.incoming(sent, 5.0)
    assert found.trace_id == "x-1"
    assert found.criticality is Criticality.SHEDDABLE
    token = context.enter(found)
    assert 4 < context.time_remaining_s() <= 5
    context.leave(token)


def test_deadlines_only_shrink() -> None:
    now_s = time.monotonic()
    assert context.deadline_of(None, now_s) is None
    assert context.deadline_of(0.5, now_s) == now_s + 0.5
    with context.scope(timeout_s=1):
        served = context.deadline_of(None, now_s)
        assert context.deadline_of(100, now_s) == served
        assert context.deadline_of(0.1, now_s) == now_s + 0.1 < served
    with context.scope(timeout_s=-5):
        assert context.time_remaining_s() == 0


def test_each_thread_has_its_own() -> None:
    seen = []
    with context.scope(trace_id="mine"):
        thread = threading.Thread(target=lambda: seen.append(context.trace_id()))
        thread.start()
        thread.join()
    assert seen == [""]
