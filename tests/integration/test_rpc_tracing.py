"""Spans of calls, attempts and requests served: real clients and servers, an exporter in memory."""

import asyncio
import subprocess
import sys
from ast import literal_eval
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent import futures
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient, client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

import gslb.rpc
from bns.etcd.embedded import free_port
from bns.model import HealthStatus
from gslb.model.criticality import Criticality
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc import tracing
from gslb.rpc.client.aio_channel import AioServiceChannel
from gslb.rpc.client.sync_channel import ServiceChannel
from gslb.rpc.otel import begin_with
from gslb.rpc.server import AioServerInterceptor, Gate, Load, ServerInterceptor, add_health, server_options
from tests.support.echo import BIDI, CLIENT_STREAM, SERVER_STREAM, SERVICE, UNARY, Planet, wait_until

TASKS = ("us-east1/u/echo/0", "us-east1/u/echo/1")
ERRING = f"/bns/{TASKS[0]}"


class Spans:
    """What was exported, and a provider that exports there."""

    def __init__(self, sampler=ALWAYS_ON) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=ParentBased(sampler))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(start)]

    def inside(self, parent: ReadableSpan) -> list[ReadableSpan]:
        found = [span for span in self.exporter.get_finished_spans() if is_inside(span, parent)]
        return sorted(found, key=lambda span: span.start_time)

    def calls(self) -> list[tuple[ReadableSpan, list[ReadableSpan]]]:
        return [(call, self.inside(call)) for call in self.named("Sent.")]

    def one_call(self) -> tuple[ReadableSpan, list[ReadableSpan]]:
        (call,) = self.calls()
        return call


def is_inside(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == parent.context.span_id


def trace_of(span: ReadableSpan) -> str:
    return format_trace_id(span.context.trace_id)


@pytest.fixture(scope="module")
def planet() -> Iterator[Planet]:
    made = Planet(list(TASKS), replicas=1)
    yield made
    gslb.rpc.close_all()
    made.close()


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    tracing.instrument(made.provider)
    yield made
    tracing.uninstrument()
    made.provider.shutdown()


def open_channel(planet: Planet, **given) -> ServiceChannel:
    planet.serve({"us-east1": 1.0})
    channel = gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", **given)
    wait_until(lambda: len(channel.explain()["endpoints"]) == len(TASKS))
    return channel


@pytest.fixture
def channel(planet: Planet) -> Iterator[ServiceChannel]:
    with open_channel(planet, idempotent=True) as made:
        yield made


def retried(spans: Spans) -> tuple[ReadableSpan, list[ReadableSpan]] | None:
    return next(((call, attempts) for call, attempts in spans.calls() if len(attempts) > 1), None)


def check_retry(call: ReadableSpan, attempts: Sequence[ReadableSpan]) -> None:
    """A call whose first task answered an error and whose second answered."""
    assert call.name == "Sent.test.Echo.Unary"
    assert call.kind is SpanKind.INTERNAL
    assert call.attributes["gslb.service"] == SERVICE
    assert call.attributes["gslb.criticality"] == "CRITICAL"
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.status.status_code is StatusCode.UNSET
    first, second = attempts
    assert [span.name for span in attempts] == ["Attempt.test.Echo.Unary"] * 2
    assert [span.kind for span in attempts] == [SpanKind.CLIENT] * 2
    assert [span.attributes["gslb.attempt"] for span in attempts] == [1, 2]
    assert [span.attributes["gslb.retry"] for span in attempts] == [False, True]
    assert [span.attributes["gslb.outcome"] for span in attempts] == ["erred", "ok"]
    assert [span.attributes["rpc.grpc.status_code"] for span in attempts] == [13, 0]
    assert [span.attributes["gslb.task"] for span in attempts] == [f"/bns/{task}" for task in TASKS]
    assert {span.attributes["gslb.datacenter"] for span in attempts} == {"us-east1"}
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "INTERNAL: an error on purpose"
    assert second.status.status_code is StatusCode.UNSET
    assert first.end_time <= second.start_time
    assert call.start_time <= first.start_time
    assert second.end_time <= call.end_time


class TestSync:
    def test_a_retry_is_two_attempts_of_one_call(self, channel, spans) -> None:
        for _ in range(50):
            channel.unary_unary(UNARY)(f"erring:{ERRING}".encode(), timeout=10)
            if found := retried(spans):
                break
        check_retry(*found)

    def test_a_future_is_retried_by_another_thread_and_stays_in_its_trace(self, channel, spans) -> None:
        with spans.tracer.start_as_current_span("outside"):
            for _ in range(50):
                channel.unary_unary(UNARY).future(f"erring:{ERRING}".encode(), timeout=10).result()
                if found := retried(spans):
                    break
        call, attempts = found
        check_retry(call, attempts)
        (outside,) = spans.named("outside")
        assert is_inside(call, outside)
        assert {trace_of(span) for span in (call, *attempts)} == {trace_of(outside)}

    def test_what_goes_with_the_request(self, channel, spans) -> None:
        """The task is told the attempt's span, in place of what the caller's metadata said, and the trace's id."""
        given = (("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01"), ("twice", "a"), ("twice", "b"))
        answer = channel.unary_unary(UNARY)(b"meta", timeout=10, metadata=given)
        call, (attempt,) = spans.one_call()
        sent = literal_eval(answer.partition(b" ")[2].decode())
        (parent,) = (value for key, value in sent if key == "traceparent")
        assert parent.split("-")[1:3] == [trace_of(call), format_span_id(attempt.context.span_id)]
        assert [value for key, value in sent if key == "twice"] == ["a", "b"]
        assert dict(sent)["gslb-trace-id"] == trace_of(call) == call.attributes["gslb.trace_id"]

    def test_streams_and_a_call_given_up(self, channel, spans) -> None:
        assert len(list(channel.unary_stream(SERVER_STREAM)(b"count:3", timeout=10))) == 3
        channel.stream_unary(CLIENT_STREAM)(iter([b"a", b"b"]), timeout=10)
        assert len(list(channel.stream_stream(BIDI)(iter([b"a", b"b"]), timeout=10))) == 2
        wait_until(lambda: len(spans.named("Sent.")) == 3)
        assert [call.attributes["rpc.method"] for call, _ in spans.calls()] == ["ServerStream", "ClientStream", "Bidi"]
        assert all([one.attributes["gslb.outcome"] for one in attempts] == ["ok"] for _, attempts in spans.calls())
        spans.exporter.clear()
        endless = channel.unary_stream(SERVER_STREAM)(b"endless", timeout=10)
        next(endless)
        endless.cancel()
        wait_until(lambda: len(spans.named("Sent.")) == 1)
        call, (attempt,) = spans.one_call()
        assert attempt.attributes["gslb.outcome"] == "cancelled"
        assert {span.status.status_code for span in (call, attempt)} == {StatusCode.UNSET}
        assert {span.attributes["rpc.grpc.status_code"] for span in (call, attempt)} == {1}

    def test_a_task_that_is_not_there(self, planet, spans) -> None:
        gone = ServiceEndpoint("/bns/us-east1/u/gone/0", "127.0.0.1", free_port(), HealthStatus.HEALTHY)
        planet.world.set([gone], {"us-east1": {"us-east1": 1.0}}, "gone")
        with gslb.rpc.channel("gone", control=planet.control, locality="us-east1") as channel:
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(UNARY)(b"x", timeout=10)
            call, attempts = spans.one_call()
        assert attempts[0].attributes["gslb.outcome"] == "never sent"
        assert attempts[0].attributes["server.port"] == gone.port
        assert call.status.status_code is StatusCode.ERROR
        assert call.attributes["rpc.grpc.status_code"] == 14

    def test_nobody_to_ask(self, planet, spans) -> None:
        with gslb.rpc.channel("nothing", control=planet.control, locality="us-east1") as channel:
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(UNARY)(b"x", timeout=0.2)
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(UNARY).future(b"x", timeout=0.2).result(10)
        wait_until(lambda: len(spans.named("Sent.")) == 2)
        for call, attempts in spans.calls():
            assert attempts == []
            assert call.status.description.startswith("UNAVAILABLE: unknown service 'nothing'")

    def test_a_second_copy_is_a_second_attempt_of_the_same_call(self, planet, spans) -> None:
        with open_channel(planet, idempotent=True, hedging=True) as channel:
            for _ in range(200):
                channel.unary_unary(UNARY)(b"x", timeout=10)
            for _ in range(20):
                spans.exporter.clear()
                channel.unary_unary(UNARY)(b"sleep:0.3", timeout=10)
                wait_until(lambda: len(spans.named("Sent.")) == 1)
                call, attempts = spans.one_call()
                if len(attempts) == 2:
                    break
        assert sorted(one.attributes["gslb.outcome"] for one in attempts) == ["cancelled", "ok"]
        assert [one.attributes["gslb.attempt"] for one in attempts] == [1, 2]
        assert call.attributes["rpc.grpc.status_code"] == 0
        assert call.end_time >= max(one.end_time for one in attempts)

    @pytest.mark.parametrize(
        ("ends", "code"),
        [(["INTERNAL", "OK"], 0), (["OK", "CANCELLED"], 0), (["CANCELLED", "INTERNAL"], 13), (["CANCELLED"] * 2, 1)],
    )
    def test_a_call_ends_with_its_last_copy_and_as_the_best_of_them(self, spans, ends, code) -> None:
        first = begin_with(spans.tracer, "s", "/a/b")
        copies = [first, first.beside()]
        for copy, end in zip(copies, ends, strict=True):
            assert spans.named("Sent.") == []
            copy.over(grpc.StatusCode[end], "why")
            copy.over(grpc.StatusCode.OK, "told again")
        call, attempts = spans.one_call()
        assert (call.attributes["rpc.grpc.status_code"], attempts) == (code, [])

    def test_a_trace_that_is_not_sampled_is_passed_on_and_leaves_nothing(self, channel) -> None:
        off = Spans(ALWAYS_OFF)
        tracing.instrument(off.provider)
        try:
            answer = channel.unary_unary(UNARY)(b"meta", timeout=10)
        finally:
            tracing.uninstrument()
        sent = dict(literal_eval(answer.partition(b" ")[2].decode()))
        _, trace_id, _, flags = sent["traceparent"].split("-")
        assert trace_id == sent["gslb-trace-id"]
        assert int(flags, 16) & 1 == 0
        assert off.exporter.get_finished_spans() == ()

    def test_nothing_is_traced_when_nobody_asked(self, channel, spans) -> None:
        tracing.uninstrument()
        with spans.tracer.start_as_current_span("outside"):
            answer = channel.unary_unary(UNARY)(b"meta", timeout=10)
        assert "traceparent" not in dict(literal_eval(answer.partition(b" ")[2].decode()))
        assert [span.name for span in spans.exporter.get_finished_spans()] == ["outside"]

    def test_automatic_instrumentation_of_all_clients_does_no_harm(self, planet, spans) -> None:
        """It makes generators of streamed responses, which cannot be asked for a status: not those of our connections."""
        GrpcInstrumentorClient().instrument(tracer_provider=spans.provider)
        try:
            with open_channel(planet) as channel:
                assert len(list(channel.unary_stream(SERVER_STREAM)(b"count:2", timeout=10))) == 2
                wait_until(lambda: len(spans.named("Sent.")) == 1)
        finally:
            GrpcInstrumentorClient().uninstrument()
        assert spans.named("/test.Echo/") == []

    def test_opentelemetry_s_own_wrapper_goes_around_our_channel(self, channel, spans) -> None:
        wrapped = intercept_channel(channel, client_interceptor(spans.provider))
        assert wrapped.unary_unary(UNARY)(b"x", timeout=10)
        call, attempts = spans.one_call()
        (theirs,) = spans.named("/test.Echo/Unary")
        assert is_inside(call, theirs)
        assert len(attempts) == 1


class TestAio:
    async def test_a_retry_is_two_attempts_of_one_call(self, planet, spans) -> None:
        planet.serve({"us-east1": 1.0})
        async with gslb.rpc.aio_channel(
            SERVICE, control=planet.control, locality="us-east1", idempotent=True
        ) as channel:
            await channel.channel_ready()
            for _ in range(50):
                await channel.unary_unary(UNARY)(f"erring:{ERRING}".encode(), timeout=10)
                if found := retried(spans):
                    break
            check_retry(*found)
            spans.exporter.clear()
            assert [one async for one in channel.unary_stream(SERVER_STREAM)(b"count:2", timeout=10)]
            call = channel.unary_unary(UNARY)(b"sleep:5", timeout=10)
            await asyncio.sleep(0.1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        stream, given_up = (attempts[0].attributes["gslb.outcome"] for _, attempts in spans.calls())
        assert (stream, given_up) == ("ok", "cancelled")

    async def test_nobody_to_ask(self, planet, spans) -> None:
        async with gslb.rpc.aio_channel("nothing", control=planet.control, locality="us-east1") as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(UNARY)(b"x", timeout=0.2)
        call, attempts = spans.one_call()
        assert (attempts, call.attributes["rpc.grpc.status_code"]) == ([], 14)


SHEDDABLE = Criticality.SHEDDABLE


def told(attributes) -> tuple[object, ...]:
    return tuple(attributes[f"gslb.{name}"] for name in ("criticality", "attempt", "degraded"))


class TestServed:
    """The server's span is inside of the attempt's, and the logs' trace id is the trace's."""

    @pytest.fixture
    def served(self, planet: Planet, spans: Spans) -> Iterator[tuple[ServiceChannel, Gate]]:
        gate = Gate(8)
        server = grpc.server(
            futures.ThreadPoolExecutor(8),
            interceptors=[tracing.server_interceptor(spans.provider), ServerInterceptor(Load(), gate)],
            options=server_options(),
        )

        def unary(request, context):
            return f"{gslb.rpc.trace_id()} {gslb.rpc.degraded()}".encode()

        handler = grpc.unary_unary_rpc_method_handler(unary)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Unary": handler}),))
        add_health(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        task = ServiceEndpoint("/bns/us-east1/u/served/0", "127.0.0.1", port, HealthStatus.HEALTHY)
        planet.world.set([task], {"us-east1": {"us-east1": 1.0}}, "served")
        with gslb.rpc.channel("served", control=planet.control, locality="us-east1") as channel:
            # The connection to the control plane is shared, and may know the server of the test before.
            wait_until(lambda: [link.target for link in channel.core.links()] == [task.target])
            yield channel, gate
        server.stop(None).wait(5)

    def test_one_trace_through_both_sides(self, served, spans) -> None:
        channel, gate = served
        with spans.tracer.start_as_current_span("outside"), gslb.rpc.scope(criticality=SHEDDABLE) as scope:
            answer = channel.unary_unary(UNARY)(b"x", timeout=10).decode().split()
        wait_until(lambda: len(spans.named("/test.Echo/")) == 1)
        (outside,), (server,) = spans.named("outside"), spans.named("/test.Echo/Unary")
        call, (attempt,) = spans.one_call()
        assert is_inside(call, outside)
        assert is_inside(server, attempt)
        assert answer == [trace_of(outside), "False"]
        assert scope.trace_id == trace_of(outside)
        assert told(server.attributes) == ("SHEDDABLE", 1, False)
        assert call.attributes["gslb.criticality"] == "SHEDDABLE"
        gate._guard.admission.overloaded = True
        spans.exporter.clear()
        assert channel.unary_unary(UNARY)(b"x", timeout=10).endswith(b" True")
        wait_until(lambda: len(spans.named("/test.Echo/")) == 1)
        assert told(spans.named("/test.Echo/")[0].attributes) == ("CRITICAL", 1, True)

    def test_who_is_refused_is_seen(self, served, spans) -> None:
        channel, gate = served
        gate._guard.admission.level = 1.0
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(UNARY)(b"x", timeout=10, metadata=(("gslb-criticality", "SHEDDABLE"),))
        wait_until(lambda: len(spans.named("/test.Echo/")) == 1)
        (server,) = spans.named("/test.Echo/Unary")
        assert told(server.attributes) == ("SHEDDABLE", 1, False)
        assert server.attributes["rpc.grpc.status_code"] == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        _, (attempt,) = spans.one_call()
        assert attempt.attributes["gslb.outcome"] == "shed"

    def test_health_checks_are_no_spans(self, served, spans) -> None:
        channel, _ = served
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
        assert spans.named("/grpc.health") == []

    async def test_on_asyncio(self, planet, spans) -> None:
        async with aio_served(planet, spans) as channel:
            answers = [await channel.unary_unary(UNARY)(b"x", timeout=10) for _ in range(3)]
            answers += [one async for one in channel.unary_stream(SERVER_STREAM)(b"x", timeout=10)]
        assert len(set(answers)) == 4
        for call, (attempt,) in spans.calls():
            (server,) = spans.inside(attempt)
            assert server.kind is SpanKind.SERVER
            assert told(server.attributes) == ("CRITICAL", 1, False)
            assert trace_of(call).encode() in answers


@asynccontextmanager
async def aio_served(planet: Planet, spans: Spans) -> AsyncIterator[AioServiceChannel]:
    """A channel to an asyncio server whose requests are traced; it answers the trace id that its logs would have."""

    async def unary(request, context):
        return gslb.rpc.trace_id().encode()

    async def stream(request, context):
        yield gslb.rpc.trace_id().encode()

    server = grpc.aio.server(
        interceptors=[tracing.aio_server_interceptor(spans.provider), AioServerInterceptor(Load(), Gate(8))],
        options=server_options(),
    )
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    task = ServiceEndpoint("/bns/us-east1/u/aio/0", "127.0.0.1", port, HealthStatus.HEALTHY)
    planet.world.set([task], {"us-east1": {"us-east1": 1.0}}, "aio")
    async with gslb.rpc.aio_channel("aio", control=planet.control, locality="us-east1") as channel:
        await channel.channel_ready()
        yield channel
    await server.stop(None)


def test_the_library_works_without_the_extra() -> None:
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import grpc
import gslb.rpc
from gslb.rpc import tracing
from gslb.rpc.server import ServerInterceptor
channel = gslb.rpc.channel("echo", control="127.0.0.1:1")
try:
    channel.unary_unary("/a/b")(b"", timeout=0.1)
except grpc.RpcError as error:
    print(error.code().name)
for wanted in (tracing.instrument, tracing.server_interceptor, tracing.aio_server_interceptor):
    try:
        wanted()
    except gslb.rpc.ConfigurationError as error:
        print(error)
gslb.rpc.close_all()
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["UNAVAILABLE"] + ["tracing needs OpenTelemetry: pip install 'gslb[otel]'"] * 3
