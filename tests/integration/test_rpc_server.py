"""The server's side: what interceptors count and carry on, registration with an agent, leaving without notice."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest

import gslb.rpc
from bns.errors import RefusedError
from bns.v1 import agent_pb2, agent_pb2_grpc, bns_pb2
from gslb.model.criticality import Criticality
from gslb.rpc import metrics
from gslb.rpc.policy.guard import Fate
from gslb.rpc.server import (
    AioServerInterceptor,
    Gate,
    Load,
    Registration,
    ServerInterceptor,
    add_aio_health,
    add_health,
    server_options,
)
from tests.support.echo import SERVICE, UNARY, Planet, wait_until

PLUS, CRITICAL, SHED_PLUS, SHED = range(4)


def sync_server(handlers: dict[str, grpc.RpcMethodHandler], load: Load) -> tuple[grpc.Server, str]:
    server = grpc.server(
        futures.ThreadPoolExecutor(8), interceptors=[ServerInterceptor(load)], options=server_options()
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    add_health(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def outcome(call) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


class TestSyncInterceptor:
    @pytest.fixture
    def served(self) -> Iterator[tuple[Load, grpc.Channel]]:
        def unary(request, context):
            word, _, rest = request.decode().partition(":")
            if word == "abort":
                context.abort(grpc.StatusCode[rest], "as asked")
            if word == "set":
                context.set_code(grpc.StatusCode[rest])
            if word == "raise":
                raise ValueError("as asked")
            if word == "sleep":
                time.sleep(float(rest))
            return f"{gslb.rpc.trace_id()} {gslb.rpc.criticality().name} {gslb.rpc.time_remaining_s()}".encode()

        def stream(request, context):
            yield gslb.rpc.trace_id().encode()
            if request == b"raise":
                raise ValueError("as asked")
            time.sleep(0.05)
            yield gslb.rpc.trace_id().encode()

        load = Load()
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(lambda requests, context: b",".join(requests)),
            "Bidi": grpc.stream_stream_rpc_method_handler(lambda requests, context: (item for item in requests)),
        }
        server, address = sync_server(handlers, load)
        with grpc.insecure_channel(address) as channel:
            yield load, channel
        server.stop(None).wait(5)

    def test_counts_by_outcome_and_criticality(self, served) -> None:
        load, channel = served
        stub = channel.unary_unary(UNARY)
        stub(b"x")
        stub(b"x", metadata=(("gslb-criticality", "SHEDDABLE"),))
        stub(b"x", metadata=(("gslb-criticality", "nonsense"),))
        assert outcome(lambda: stub(b"abort:NOT_FOUND")) is grpc.StatusCode.NOT_FOUND
        assert outcome(lambda: stub(b"abort:RESOURCE_EXHAUSTED")) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert outcome(lambda: stub(b"set:INTERNAL")) is grpc.StatusCode.INTERNAL
        assert outcome(lambda: stub(b"raise")) is grpc.StatusCode.UNKNOWN
        wait_until(lambda: load.in_flight == 0)
        counters = load.counters()
        assert counters.ok == (0, 3, 0, 1)
        assert counters.error == (0, 3, 0, 0)

    def test_all_arities(self, served) -> None:
        load, channel = served
        trace = (("gslb-trace-id", "t-1"),)
        assert list(channel.unary_stream("/test.Echo/ServerStream")(b"x", metadata=trace)) == [b"t-1", b"t-1"]
        assert channel.stream_unary("/test.Echo/ClientStream")(iter([b"a", b"b"])) == b"a,b"
        assert list(channel.stream_stream("/test.Echo/Bidi")(iter([b"a", b"b"]))) == [b"a", b"b"]
        assert outcome(lambda: list(channel.unary_stream("/test.Echo/ServerStream")(b"raise"))) is not None
        wait_until(lambda: sum(load.counters().ok) == 3 and sum(load.counters().error) == 1)

    def test_in_flight_and_idle(self, served) -> None:
        load, channel = served
        future = channel.unary_unary(UNARY).future(b"sleep:0.5")
        wait_until(lambda: load.in_flight == 1)
        assert load.idle_s() == 0
        future.result(5)
        wait_until(lambda: load.in_flight == 0)
        wait_until(lambda: load.idle_s() > 0.05)

    def test_health_checks_are_no_load(self, served) -> None:
        load, channel = served
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        assert sum(load.counters().ok) == 0

    def test_an_unknown_method_stays_unknown(self, served) -> None:
        _, channel = served
        assert outcome(lambda: channel.unary_unary("/test.Echo/None")(b"x")) is grpc.StatusCode.UNIMPLEMENTED

    def test_trace_id_is_new_or_carried_and_a_bad_one_is_replaced(self, served) -> None:
        _, channel = served
        stub = channel.unary_unary(UNARY)
        fresh = stub(b"x").split()[0]
        assert len(fresh) == 32
        assert fresh != stub(b"x").split()[0]
        assert stub(b"x", metadata=(("gslb-trace-id", "abc-9"),)).startswith(b"abc-9 CRITICAL")
        long = stub(b"x", metadata=(("gslb-trace-id", "a" * 500),)).split()[0]
        assert len(long) == 32

    def test_the_deadline_is_known(self, served) -> None:
        _, channel = served
        stub = channel.unary_unary(UNARY)
        assert stub(b"x").endswith(b"None")
        assert 3 < float(stub(b"x", timeout=5).split()[-1]) <= 5.5

    def test_threads_do_not_leak_context(self, served) -> None:
        _, channel = served
        stub = channel.unary_unary(UNARY)
        for _ in range(20):
            stub(b"x", metadata=(("gslb-trace-id", "old"),))
        assert all(not stub(b"x").startswith(b"old") for _ in range(20))


class TestAioInterceptor:
    async def test_every_kind_of_handler(self) -> None:
        async def unary(request, context):
            if request == b"abort":
                await context.abort(grpc.StatusCode.INTERNAL, "as asked")
            if request == b"missing":
                await context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
            if request == b"raise":
                raise ValueError("as asked")
            return f"{gslb.rpc.trace_id()} {gslb.rpc.criticality().name}".encode()

        async def generator(request, context):
            for _ in range(2):
                await asyncio.sleep(0)
                yield gslb.rpc.trace_id().encode()

        async def writer(request, context):
            await context.write(gslb.rpc.trace_id().encode())

        def plain(request, context):
            return gslb.rpc.trace_id().encode()

        def plain_stream(request, context):
            yield gslb.rpc.trace_id().encode()

        load = Load()
        server = grpc.aio.server(
            futures.ThreadPoolExecutor(4), interceptors=[AioServerInterceptor(load)], options=server_options()
        )
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Generator": grpc.unary_stream_rpc_method_handler(generator),
            "Writer": grpc.unary_stream_rpc_method_handler(writer),
            "Plain": grpc.unary_unary_rpc_method_handler(plain),
            "PlainStream": grpc.unary_stream_rpc_method_handler(plain_stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        add_aio_health(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        trace = (("gslb-trace-id", "t-7"), ("gslb-criticality", "SHEDDABLE_PLUS"))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = channel.unary_unary(UNARY)
            assert await stub(b"x", metadata=trace) == b"t-7 SHEDDABLE_PLUS"
            for method in ("Generator", "Writer", "PlainStream"):
                call = channel.unary_stream(f"/test.Echo/{method}")(b"x", metadata=trace)
                assert {item async for item in call} == {b"t-7"}, method
            assert await channel.unary_unary("/test.Echo/Plain")(b"x", metadata=trace) == b"t-7"
            for word in (b"abort", b"missing", b"raise"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub(word)
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        async with asyncio.timeout(5):
            while load.in_flight:
                await asyncio.sleep(0.01)
        assert load.counters().ok == (0, 1, 5, 0)
        assert load.counters().error == (0, 2, 0, 0)
        await server.stop(None)


def test_calls_made_while_serving_carry_on_what_the_request_came_with() -> None:
    planet = Planet(["us-east1/u/echo/0"])
    planet.serve({"us-east1": 1.0})
    behind = gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1")
    through = behind.unary_unary(UNARY)
    handlers = {"Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: through(request))}
    server, address = sync_server(handlers, Load())
    try:
        with grpc.insecure_channel(address) as channel:
            stub = channel.unary_unary(UNARY)
            sent = (("gslb-trace-id", "from-the-browser"), ("gslb-criticality", "SHEDDABLE"))
            seen = stub(b"meta", metadata=sent, timeout=10).decode()
            assert "('gslb-trace-id', 'from-the-browser')" in seen
            assert "('gslb-criticality', 'SHEDDABLE')" in seen
            assert float(stub(b"remaining", timeout=3).split()[-1]) <= 3.5
            assert behind.explain()["requests"]["SHEDDABLE"] == 1
    finally:
        server.stop(None).wait(5)
        behind.close()
        gslb.rpc.close_all()
        planet.close()


class Agent(agent_pb2_grpc.NodeAgentServicer):
    """A node agent that writes down what it is told."""

    def __init__(self, path: Path, refusal: str = "") -> None:
        self.tasks: list[bns_pb2.TaskRecord] = []
        self.counters: list[agent_pb2.TaskCounters] = []
        self.lame = 0
        self.detached = 0
        self._refusal = refusal
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        agent_pb2_grpc.add_NodeAgentServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def Attach(self, request_iterator, context):  # noqa: N802
        for request in request_iterator:
            match request.WhichOneof("kind"):
                case "task":
                    self.tasks.append(request.task)
                    yield agent_pb2.AttachResponse(
                        registered=not self._refusal, error=self._refusal, health=bns_pb2.HEALTH_STATUS_HEALTHY
                    )
                case "counters":
                    self.counters.append(request.counters)
                case "lame_duck":
                    self.lame += 1
                case "detach":
                    self.detached += 1
                    return

    def close(self) -> None:
        self._server.stop(None).wait(5)


class TestRegistration:
    def test_attaches_counts_goes_lame_and_detaches(self, tmp_path: Path) -> None:
        agent = Agent(tmp_path / "agent")
        load = Load()
        registration = Registration(
            "/bns/us-east1/me/echo/0",
            "127.0.0.1",
            8080,
            load=load,
            named_ports={"http": 80},
            cpu_cores=2.5,
            agent=str(tmp_path / "agent"),
        )
        registration.wait_registered(10)
        task = agent.tasks[0]
        assert (task.name, task.port, task.named_ports["http"], task.cpu_cores) == (
            "/bns/us-east1/me/echo/0",
            8080,
            80,
            2.5,
        )
        assert task.probe.kind == bns_pb2.PROBE_KIND_GRPC
        assert task.pid > 0
        with load.request(Criticality.SHEDDABLE):
            wait_until(lambda: any(counters.in_flight == 1 for counters in agent.counters))
        wait_until(lambda: any(counters.ok[SHED] == 1 for counters in agent.counters))
        registration.lame_duck()
        wait_until(lambda: agent.lame == 1)
        registration.close()
        assert agent.detached == 1
        agent.close()

    def test_an_agent_that_restarts_is_attached_to_again(self, tmp_path: Path) -> None:
        path = tmp_path / "agent"
        registration = Registration("/bns/us-east1/me/echo/0", "127.0.0.1", 8080, load=Load(), agent=str(path))
        for _ in range(2):
            agent = Agent(path)
            wait_until(lambda agent=agent: len(agent.tasks) == 1, 20)
            agent.close()
        registration.abandon()

    def test_a_refusal_is_said(self, tmp_path: Path) -> None:
        agent = Agent(tmp_path / "agent", refusal="task is held by agent other: choose another name")
        registration = Registration(
            "/bns/us-east1/me/echo/0", "127.0.0.1", 8080, load=Load(), agent=str(tmp_path / "agent")
        )
        with pytest.raises(RefusedError, match="held by agent other"):
            registration.wait_registered(10)
        registration.abandon()
        agent.close()

    @pytest.mark.parametrize(
        ("task", "address", "port", "named"),
        [
            ("/bns/Us/me/echo/0", "127.0.0.1", 1, "Us"),
            ("/bns/us/me/echo/0", "nohost", 1, "nohost"),
            ("/bns/us/me/echo/0", "127.0.0.1", 0, "port"),
        ],
    )
    def test_bad_values_are_named(self, tmp_path: Path, task: str, address: str, port: int, named: str) -> None:
        with pytest.raises(gslb.rpc.ConfigurationError, match=named):
            Registration(task, address, port, load=Load(), agent=str(tmp_path / "agent"))

    def test_no_agent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("BNS_AGENT", raising=False)
        with pytest.raises(gslb.rpc.ConfigurationError, match="BNS_AGENT"):
            Registration("/bns/us/me/echo/0", "127.0.0.1", 1, load=Load())


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_sigterm_is_noticed_by_nobody(kind: str, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "agent")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.echo_served", kind, "/bns/us-east1/me/echo/0", str(tmp_path / "agent")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = f"127.0.0.1:{int(process.stdout.readline())}"
        wait_until(lambda: len(agent.tasks) == 1)
        with grpc.insecure_channel(address) as channel:
            stub = channel.unary_unary(UNARY)
            assert stub(b"x") == b"ok"
            slow = stub.future(b"sleep:1.5")
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: agent.lame == 1)
            health = health_pb2_grpc.HealthStub(channel)

            def status() -> int:
                return health.Check(health_pb2.HealthCheckRequest()).status

            wait_until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
            # It serves on, those that ask now and those that were there.
            assert stub(b"y") == b"ok"
            assert agent.detached == 0
            assert slow.result(10) == b"ok"
        assert process.wait(15) == 0
        assert agent.detached == 1
        assert process.stdout.readline().strip() == "3"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        agent.close()


def test_a_server_that_is_never_idle_goes_when_the_limit_has_passed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.echo_served", "sync"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = f"127.0.0.1:{int(process.stdout.readline())}"
        stop = threading.Event()
        with grpc.insecure_channel(address) as channel:
            stub = channel.unary_unary(UNARY)

            def ask() -> None:
                while not stop.is_set():
                    outcome(lambda: stub(b"x", timeout=1))
                    time.sleep(0.05)

            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            stop.set()
            asking.join(5)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_metrics() -> None:
    planet = Planet(["us-east1/u/echo/0"])
    planet.serve({"us-east1": 1.0})
    registry = CollectorRegistry()
    load, gate = Load(), Gate(2)
    metrics.register(registry, loads=[load], gates={"<main>": gate})
    gates = {"<main>": gate}
    try:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            for _ in range(3):
                channel.unary_unary(UNARY)(b"x")
            with load.request():
                pass
            begun = gate.ticket(gslb.rpc.context.incoming([]), time.monotonic())
            assert gate.enter(begun) is Fate.BEGIN
            late = gate.ticket(gslb.rpc.context.incoming([], time_remaining_s=-1.0), time.monotonic())
            assert gate.enter(late) is Fate.EXPIRED
            text = generate_latest(registry).decode()
            told = json.loads(json.dumps(gslb.rpc.status(gates)))
            page = gslb.rpc.status_html(gates)
        assert 'gslb_rpc_client_requests_total{criticality="CRITICAL",service="echo"} 3.0' in text
        assert 'gslb_rpc_client_tasks{datacenter="us-east1",service="echo",state="healthy"} 1.0' in text
        assert 'gslb_rpc_client_share{datacenter="us-east1",locality="us-east1",service="echo"} 1.0' in text
        assert 'gslb_rpc_server_requests_total{criticality="CRITICAL",outcome="ok"} 1.0' in text
        assert "gslb_rpc_control_age_seconds" in text
        assert 'gslb_rpc_gate_in_flight{gate="<main>"} 1.0' in text
        assert 'gslb_rpc_gate_slots{gate="<main>"} 2.0' in text
        assert 'gslb_rpc_gate_expired_total{gate="<main>"} 1.0' in text
        assert 'gslb_rpc_gate_refused_total{criticality="SHEDDABLE",gate="<main>"} 0.0' in text
        assert [(one["service"], one["shares"]) for one in told["channels"]] == [("echo", {"us-east1": 1.0})]
        assert told["control"][0]["synced"] is True
        assert told["gates"]["<main>"]["refused"]["CRITICAL"] == 0
        assert told["gates"]["<main>"]["expired"] == 1
        assert page.startswith('<section class="gslb-rpc"><table>')
        assert "us-east1/u/echo/0" in page
        assert "&lt;main&gt;" in page
        assert "<main>" not in page
    finally:
        gslb.rpc.close_all()
        planet.close()
