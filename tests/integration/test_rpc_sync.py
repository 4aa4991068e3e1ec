"""The blocking channel against real servers: all four arities, shares, errors, deadlines, interceptors."""

import gc
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import gslb.rpc
from gslb.model.criticality import Criticality
from gslb.rpc.client.sync_channel import ServiceChannel
from tests.support.echo import (
    BIDI,
    CLIENT_STREAM,
    SERVER_STREAM,
    SERVICE,
    UNARY,
    Planet,
    name_of,
    wait_until,
)


@pytest.fixture(scope="module")
def planet() -> Iterator[Planet]:
    made = Planet(["us-east1/u/echo/0", "us-east1/u/echo/1", "europe-west1/u/echo/0"])
    made.serve({"us-east1": 0.8, "europe-west1": 0.2})
    yield made
    gslb.rpc.close_all()
    made.close()


@pytest.fixture
def channel(planet: Planet) -> Iterator[ServiceChannel]:
    planet.serve({"us-east1": 0.8, "europe-west1": 0.2})
    with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", caller="tester") as made:
        # The connection is shared by the module's tests: what the test before published may still be in force.
        wait_until(lambda: set(made.explain()["shares"]) == {"us-east1", "europe-west1"})
        yield made
    wait_until(lambda: all(link.in_flight == 0 for link in made.core.links()))


def in_flight(channel) -> int:
    return sum(link.in_flight for link in channel.core.links())


class TestArities:
    def test_unary_unary(self, channel) -> None:
        stub = channel.unary_unary(UNARY)
        assert stub(b"hello").endswith(b" hello")
        response, call = stub.with_call(b"hello")
        assert name_of(response) == dict(call.initial_metadata())["task"].removeprefix("/bns/")
        assert call.code() is grpc.StatusCode.OK
        assert ("trailer", "yes") in call.trailing_metadata()

    def test_unary_future(self, channel) -> None:
        future = channel.unary_unary(UNARY).future(b"sleep:0.2", timeout=5)
        assert not future.done()
        assert future.running()
        assert future.is_active()
        assert 0 < future.time_remaining() <= 5
        with pytest.raises(grpc.FutureTimeoutError):
            future.result(timeout=0.01)
        seen: list[object] = []
        future.add_done_callback(seen.append)
        assert future.result(timeout=5).endswith(b"sleep:0.2")
        wait_until(lambda: seen == [future])
        assert future.done()
        assert future.exception() is None
        assert future.code() is grpc.StatusCode.OK
        assert not future.add_callback(lambda: None)

    def test_unary_stream(self, channel) -> None:
        call = channel.unary_stream(SERVER_STREAM)(b"count:5")
        responses = list(call)
        assert [response.split()[-1] for response in responses] == [b"0", b"1", b"2", b"3", b"4"]
        assert len({name_of(response) for response in responses}) == 1
        assert call.code() is grpc.StatusCode.OK
        assert call.details() == ""

    def test_stream_unary(self, channel) -> None:
        stub = channel.stream_unary(CLIENT_STREAM)
        assert stub(iter([b"a", b"b"])).endswith(b" a,b")
        assert stub.with_call(iter([b"a"]))[1].code() is grpc.StatusCode.OK
        assert stub.future(iter([b"x", b"y"])).result(timeout=5).endswith(b" x,y")

    def test_stream_stream(self, channel) -> None:
        gate = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"one"
            gate.wait(5)
            yield b"two"

        call = channel.stream_stream(BIDI)(requests())
        assert next(call).endswith(b" one")
        gate.set()
        assert [response.split()[-1] for response in call] == [b"two"]

    def test_a_generated_stub(self, channel) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


class Recorder(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def _note(self, continuation, details, request):
        self.seen.append(details.method)
        return continuation(details, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _note


def test_interceptors_on_top_see_each_logical_call_once(channel) -> None:
    recorder = Recorder()
    through = grpc.intercept_channel(channel, recorder)
    assert through.unary_unary(UNARY)(b"a").endswith(b"a")
    assert through.unary_unary(UNARY).future(b"a").result(5).endswith(b"a")
    assert len(list(through.unary_stream(SERVER_STREAM)(b"count:2"))) == 2
    assert through.stream_unary(CLIENT_STREAM)(iter([b"a"])).endswith(b"a")
    assert len(list(through.stream_stream(BIDI)(iter([b"a", b"b"])))) == 2
    assert recorder.seen == [UNARY, UNARY, SERVER_STREAM, CLIENT_STREAM, BIDI]
    with pytest.raises(grpc.RpcError) as caught:
        through.unary_unary(UNARY)(b"abort:NOT_FOUND:no such word")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


class TestChoice:
    def test_shares_of_the_plan_and_balance_within(self, channel) -> None:
        stub = channel.unary_unary(UNARY)
        counts = Counter(name_of(stub(b"x")) for _ in range(1500))
        assert counts["europe-west1/u/echo/0"] / 1500 == pytest.approx(0.2, abs=0.05)
        assert counts["us-east1/u/echo/0"] / 1500 == pytest.approx(0.4, abs=0.06)
        assert in_flight(channel) == 0

    def test_a_stuck_task_gets_no_more(self, channel, planet: Planet) -> None:
        planet.serve({"us-east1": 1.0})
        wait_until(lambda: channel.explain()["shares"] == {"us-east1": 1.0})
        stub = channel.unary_unary(UNARY)
        stuck = planet.tasks["us-east1/u/echo/0"]
        stuck.send_signal(signal.SIGSTOP)
        try:
            futures = []
            for _ in range(60):
                futures.append(stub.future(b"x", timeout=20))
                time.sleep(0.01)
        finally:
            stuck.send_signal(signal.SIGCONT)
        counts = Counter(name_of(future.result(20)) for future in futures)
        assert counts["us-east1/u/echo/0"] <= 15
        assert sum(counts.values()) == 60

    def test_another_locality_gets_its_own_shares(self, planet: Planet) -> None:
        endpoints = [task.endpoint() for task in planet.tasks.values()]
        planet.world.set(endpoints, {"us-east1": {"us-east1": 1.0}, "europe-west1": {"europe-west1": 1.0}})
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="europe-west1") as channel:
            stub = channel.unary_unary(UNARY)
            assert {name_of(stub(b"x")) for _ in range(50)} == {"europe-west1/u/echo/0"}

    def test_an_unknown_locality_goes_to_the_nearest(self, planet: Planet) -> None:
        """It is in the catalog and not in the plan: the shares of the nearest datacenter that the plan knows."""
        endpoints = [task.endpoint() for task in planet.tasks.values()]
        planet.world.set(endpoints, {"us-east1": {"us-east1": 1.0}, "europe-west1": {"europe-west1": 1.0}})
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="asia-east1") as channel:
            stub = channel.unary_unary(UNARY)
            assert len({name_of(stub(b"x")).split("/")[0] for _ in range(50)}) == 1


class TestErrors:
    def test_a_status_of_the_server_is_passed_on(self, channel) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(UNARY)(b"abort:INVALID_ARGUMENT:bad word")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "bad word"
        with pytest.raises(grpc.RpcError) as streamed:
            list(channel.unary_stream(SERVER_STREAM)(b"abort:INTERNAL:oops"))
        assert streamed.value.code() is grpc.StatusCode.INTERNAL
        future = channel.unary_unary(UNARY).future(b"abort:NOT_FOUND")
        error = future.exception(timeout=5)
        assert isinstance(error, grpc.RpcError)
        assert future.code() is grpc.StatusCode.NOT_FOUND

    def test_unavailable_said_by_the_server_is_no_broken_connection(self, channel) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(UNARY)(b"abort:UNAVAILABLE:ask later")
        assert caught.value.details() == "ask later"
        assert channel.explain()["retries"] == 0
        assert not any(link.down for link in channel.core.links())

    def test_unknown_service(self, planet: Planet) -> None:
        with gslb.rpc.channel("nobody", control=planet.control, locality="us-east1") as channel:
            started_s = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(UNARY)(b"x", timeout=0.5)
            assert 0.4 < time.monotonic() - started_s < 5
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "unknown service 'nobody'" in caught.value.details()
            future = channel.unary_unary(UNARY).future(b"x", timeout=0.3)
            assert "unknown service" in future.exception(timeout=5).details()
            with pytest.raises(grpc.RpcError) as streamed:
                next(channel.unary_stream(SERVER_STREAM)(b"x", timeout=0.3))
            assert streamed.value.code() is grpc.StatusCode.UNAVAILABLE
            assert channel.explain()["no_endpoint"] == 3

    def test_no_plan_yet_then_one_comes(self, planet: Planet) -> None:
        planet.serve(None, service="late")
        with gslb.rpc.channel("late", control=planet.control, locality="us-east1") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(UNARY)(b"x", timeout=0.3)
            assert "no plan yet for service 'late'" in caught.value.details()
            future = channel.unary_unary(UNARY).future(b"hello", timeout=10)
            stream = channel.unary_stream(SERVER_STREAM)(b"count:2", timeout=10)
            assert not future.done()
            planet.serve({"us-east1": 1.0}, service="late")
            assert future.result(timeout=10).endswith(b"hello")
            assert len(list(stream)) == 2

    def test_no_endpoint(self, planet: Planet) -> None:
        planet.world.set([], {"us-east1": {"us-east1": 1.0}}, "empty")
        with gslb.rpc.channel("empty", control=planet.control, locality="us-east1") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(UNARY)(b"x", timeout=0.5)
            assert "has no endpoint" in caught.value.details()

    def test_no_control_plane(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GSLB_CONTROL", raising=False)
        with pytest.raises(gslb.rpc.ConfigurationError, match="GSLB_CONTROL"):
            gslb.rpc.channel(SERVICE)
        with pytest.raises(gslb.rpc.ConfigurationError, match="HOST:PORT"):
            gslb.rpc.channel(SERVICE, control="nonsense")
        with pytest.raises(gslb.rpc.ConfigurationError, match="no argument 'idempotnt'; there are"):
            gslb.rpc.channel(SERVICE, control="127.0.0.1:1", idempotnt=True)  # type: ignore[call-arg]
        with pytest.raises(gslb.rpc.ConfigurationError, match="service"):
            gslb.rpc.channel("Not A Label", control="127.0.0.1:1")

    def test_a_closed_channel(self, planet: Planet) -> None:
        channel = gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1")
        stub = channel.unary_unary(UNARY)
        stub(b"x")
        pending = stub.future(b"sleep:30")
        channel.close()
        channel.close()
        wait_until(pending.done)
        assert pending.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(ValueError, match="closed channel"):
            stub(b"x")


class TestTime:
    def test_a_deadline_ends_the_call_and_reaches_the_server(self, channel) -> None:
        stub = channel.unary_unary(UNARY)
        remaining = float(stub(b"remaining", timeout=7).split()[-1])
        assert 5 < remaining <= 7.5
        with pytest.raises(grpc.RpcError) as caught:
            stub(b"sleep:10", timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    def test_the_deadline_of_the_request_being_served_is_inherited(self, channel) -> None:
        with gslb.rpc.scope(timeout_s=3):
            assert float(channel.unary_unary(UNARY)(b"remaining", timeout=60).split()[-1]) <= 3.5

    def test_cancelling_reaches_the_server(self, channel, planet: Planet) -> None:
        planet.serve({"europe-west1": 1.0})
        wait_until(lambda: channel.explain()["shares"] == {"europe-west1": 1.0})
        stub = channel.unary_unary(UNARY)
        before = int(stub(b"cancelled").split()[-1])
        future = stub.future(b"sleep:30")
        time.sleep(0.2)
        assert future.cancel()
        assert future.cancelled()
        with pytest.raises(grpc.FutureCancelledError):
            future.result(timeout=5)
        wait_until(lambda: int(stub(b"cancelled").split()[-1]) == before + 1)
        wait_until(lambda: in_flight(channel) == 0)

    def test_a_stream_that_is_dropped_is_cancelled(self, channel) -> None:
        call = channel.unary_stream(SERVER_STREAM)(b"endless")
        next(call)
        assert in_flight(channel) == 1
        del call
        gc.collect()
        wait_until(lambda: in_flight(channel) == 0)


class TestMetadata:
    def test_trace_id_and_criticality_travel(self, channel) -> None:
        stub = channel.unary_unary(UNARY)
        seen = stub(b"meta").decode()
        assert "gslb-criticality" not in seen  # CRITICAL is what a request is that says nothing
        assert "gslb-trace-id" not in seen  # the server gives it one
        assert "'user-agent', 'gslb-caller/tester grpc-" in seen
        with gslb.rpc.scope(trace_id="abc-1", criticality=Criticality.SHEDDABLE):
            seen = stub(b"meta", metadata=(("mine", "yes"),)).decode()
        assert "('gslb-trace-id', 'abc-1')" in seen
        assert "('gslb-criticality', 'SHEDDABLE')" in seen
        assert "('mine', 'yes')" in seen

    def test_the_calls_own_metadata_wins(self, channel) -> None:
        own = (("gslb-trace-id", "own"), ("gslb-criticality", "CRITICAL_PLUS"))
        seen = channel.unary_unary(UNARY)(b"meta", metadata=own).decode()
        assert seen.count("gslb-trace-id") == 1
        assert "('gslb-criticality', 'CRITICAL_PLUS')" in seen
        assert channel.explain()["requests"]["CRITICAL_PLUS"] == 1

    def test_the_channels_criticality(self, planet: Planet) -> None:
        with gslb.rpc.channel(
            SERVICE, control=planet.control, locality="us-east1", criticality=Criticality.SHEDDABLE_PLUS
        ) as channel:
            assert "'SHEDDABLE_PLUS'" in channel.unary_unary(UNARY)(b"meta").decode()


def test_connectivity_is_told(planet: Planet) -> None:
    planet.serve({"us-east1": 1.0})
    channel = gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1")
    grpc.channel_ready_future(channel).result(timeout=10)
    channel.close()


def test_explain(channel) -> None:
    channel.unary_unary(UNARY)(b"x")
    told = channel.explain()
    assert told["service"] == SERVICE
    assert told["shares"] == {"us-east1": pytest.approx(0.8), "europe-west1": pytest.approx(0.2)}
    assert told["datacenters"] == ["us-east1", "europe-west1"]
    assert len(told["endpoints"]) == 3
    assert all(task["usable"] and task["health"] == "HEALTHY" for task in told["endpoints"])
    assert sum(task["picks"] for task in told["endpoints"]) == 1
    assert told["stamp"] is not None
    assert channel.pick().endpoint.task in {task["task"] for task in told["endpoints"]}


def test_a_process_in_a_datacenter_reports_how_far_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gslb.rpc.client.rtt.PERIOD_S", 0.05)
    made = Planet(["us-east1/u/echo/0", "europe-west1/u/echo/0"], replicas=1)
    try:
        made.serve({"us-east1": 1.0})
        with gslb.rpc.channel(SERVICE, control=made.control, locality="us-east1", caller="tester"):

            def measured() -> set[str]:
                reports = list(made.replicas[0].reports)
                return {row.task for report in reports for row in report.observations if row.rtt_ms > 0}

            wait_until(lambda: measured() == {"/bns/us-east1/u/echo/0", "/bns/europe-west1/u/echo/0"}, 20.0)
    finally:
        gslb.rpc.close_all()
        made.close()
