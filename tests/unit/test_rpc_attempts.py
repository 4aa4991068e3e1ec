"""What a call sends along: as little as will do (docs/adr/0017)."""

import grpc

from gslb.rpc import context
from gslb.rpc.client.api import endpoint_options
from gslb.rpc.client.attempts import Attempts
from gslb.rpc.client.core import ServiceCore
from tests.unit.test_rpc_chooser import TestedLink, core_of, view_of

METHOD = "/a.B/C"
REFUSED = "overloaded; don't retry: no room"


def sent(core: ServiceCore[TestedLink], code: grpc.StatusCode | None = None) -> dict[str, str]:
    """The metadata of a call that ends so; None: with a response."""
    attempts = Attempts(core, METHOD, 1.0, None)
    if attempts.held_back:
        return {}
    assert attempts.first() is not None
    said = dict(attempts.metadata)
    if code is None:
        attempts.succeeded()
    else:
        attempts.failed(code, REFUSED)
    return said


def test_a_call_that_is_made_for_no_request_says_nothing() -> None:
    core = core_of(view_of({"a": 4}))
    assert sent(core) == {}
    with context.scope(trace_id="t-1"):
        assert sent(core) == {"gslb-trace-id": "t-1"}


def test_one_that_may_be_sent_twice_has_a_trace_id_for_both() -> None:
    core = core_of(view_of({"a": 4}), hedging=True)
    one, other = sent(core), sent(core)
    assert len(one["gslb-trace-id"]) == 32
    assert one != other


def test_one_that_might_have_been_held_back_has_the_trace_id_that_decided_it(monkeypatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    core = core_of(view_of({"a": 4}))
    for _ in range(50):
        now_s += 0.1
        sent(core, grpc.StatusCode.RESOURCE_EXHAUSTED)
    went = []
    for _ in range(200):
        now_s += 0.001
        went.append(sent(core, grpc.StatusCode.RESOURCE_EXHAUSTED))
    assert any(not said for said in went), "most are held back"
    assert all(len(said["gslb-trace-id"]) == 32 for said in went if said)
    # When all is well again, nobody has to know it any more.
    for _ in range(400):
        now_s += 0.1
        sent(core)
    assert sent(core) == {}


def test_who_calls_is_said_once_for_all_calls() -> None:
    options = dict(endpoint_options([("grpc.x", 1)], "web"))
    assert options["grpc.primary_user_agent"] == "gslb-caller/web"
    assert options["grpc.x"] == 1
    both = endpoint_options([("grpc.primary_user_agent", "mine/1")], "web")
    assert [value for name, value in both if name == "grpc.primary_user_agent"] == ["gslb-caller/web mine/1"]
    assert "grpc.primary_user_agent" not in dict(endpoint_options(None, ""))
