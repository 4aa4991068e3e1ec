"""What a request carries along, and what is made of bad metadata."""

import threading

import pytest

from gslb.model.criticality import Criticality
from gslb.rpc import context


def test_outside_of_a_request() -> None:
    assert context.trace_id() == ""
    assert context.criticality() is Criticality.CRITICAL
    assert context.time_remaining_s() is None
    metadata, level, _ = context.outgoing(None, None)
    # Everybody takes a request for CRITICAL that says nothing.
    assert "gslb-criticality" not in dict(metadata)
    assert context.incoming(metadata).criticality is Criticality.CRITICAL
    assert len(dict(metadata)["gslb-trace-id"]) == 32
    assert level is Criticality.CRITICAL
    assert context.outgoing(None, None)[0] != metadata


def test_the_caller_is_who_this_process_is() -> None:
    assert "gslb-caller" not in dict(context.outgoing(None, None)[0])
    assert dict(context.outgoing(None, None, "web")[0])["gslb-caller"] == "web"
    given = (("gslb-caller", "mail"),)
    assert context.outgoing(given, None, "web")[0].count(given[0]) == 1
    assert [value for key, value in context.outgoing(given, None, "web")[0] if key == "gslb-caller"] == ["mail"]


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
    assert context.deadline_of(None) is None
    with context.scope(timeout_s=1):
        served = context.deadline_of(None)
        assert context.deadline_of(100) == served
        assert context.deadline_of(0.1) < served
    with context.scope(timeout_s=-5):
        assert context.time_remaining_s() == 0


def test_each_thread_has_its_own() -> None:
    seen = []
    with context.scope(trace_id="mine"):
        thread = threading.Thread(target=lambda: seen.append(context.trace_id()))
        thread.start()
        thread.join()
    assert seen == [""]
