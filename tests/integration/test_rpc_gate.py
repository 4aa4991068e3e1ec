"""Admission on real servers: gRPC with threads, gRPC on asyncio, ASGI."""

import asyncio
import threading
import time
from collections import Counter
from concurrent import futures

import grpc
import grpc.aio
import pytest

import gslb.rpc
from gslb.model.criticality import Criticality
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.policy.guard import Fate
from gslb.rpc.server import AioServerInterceptor, AsgiMiddleware, Gate, Load, ServerInterceptor, server_options
from tests.support.echo import UNARY, wait_until

SHEDDABLE = (("gslb-criticality", "SHEDDABLE"),)


def outcome(call: grpc.Future) -> tuple[grpc.StatusCode, str]:
    try:
        call.result(30)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def sync_server(behaviour, gate: Gate, threads: int) -> tuple[grpc.Server, str, Load]:
    load = Load()
    server = grpc.server(
        futures.ThreadPoolExecutor(threads), interceptors=[ServerInterceptor(load, gate)], options=server_options()
    )
    handlers = {"Unary": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}", load


class TestSync:
    def test_the_least_critical_are_refused_and_none_of_the_critical(self) -> None:
        """Two threads' work of 20 ms each is 100 rps; for two seconds 300 rps are asked, half a third of it critical."""
        gate = Gate(2)
        server, address, load = sync_server(lambda request, context: time.sleep(0.02) or request, gate, 32)
        ends: dict[bool, Counter] = {True: Counter(), False: Counter()}
        with grpc.insecure_channel(address) as channel:
            stub = channel.unary_unary(UNARY)
            calls = []
            for i in range(600):
                critical = i % 6 == 0
                calls.append((critical, stub.future(b"x", timeout=20, metadata=() if critical else SHEDDABLE)))
                time.sleep(1 / 300)
            for critical, call in calls:
                ends[critical][outcome(call)] += 1
        server.stop(None).wait(5)
        refused = (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded; don't retry")
        assert set(ends[True]) == {(grpc.StatusCode.OK, "")}
        assert ends[False][refused] > 50
        assert set(ends[False]) == {refused, (grpc.StatusCode.OK, "")}
        wait_until(lambda: load.in_flight == 0)
        assert gate.state().in_flight == gate.state().waiting == 0
        assert gate.state().refused[Criticality.SHEDDABLE] == ends[False][refused]
        assert load.counters().error[Criticality.SHEDDABLE] == ends[False][refused]

    def test_work_whose_deadline_passed_is_not_begun(self) -> None:
        begun, go = [], threading.Event()

        def behaviour(request, context):
            begun.append(request)
            go.wait(10)
            return request

        gate = Gate(1)
        server, address, _ = sync_server(behaviour, gate, 4)
        with grpc.insecure_channel(address) as channel:
            stub = channel.unary_unary(UNARY)
            first = stub.future(b"first", timeout=20)
            wait_until(lambda: begun == [b"first"])
            late = stub.future(b"late", timeout=0.2)
            assert outcome(late)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
            wait_until(lambda: gate.state().waiting == 0)
            go.set()
            assert outcome(first)[0] is grpc.StatusCode.OK
            assert outcome(stub.future(b"next", timeout=20))[0] is grpc.StatusCode.OK
        server.stop(None).wait(5)
        assert begun == [b"first", b"next"]

    def test_a_handler_knows_when_less_will_do(self) -> None:
        gate = Gate(2)
        gate._guard.admission.overloaded = True
        server, address, _ = sync_server(lambda request, context: str(gslb.rpc.degraded()).encode(), gate, 2)
        with grpc.insecure_channel(address) as channel:
            assert channel.unary_unary(UNARY)(b"x", timeout=10) == b"True"
        server.stop(None).wait(5)
        assert not gslb.rpc.degraded()

    def test_a_handler_that_fails_gives_its_slot_back(self) -> None:
        def behaviour(request, context):
            raise ValueError("as asked")

        gate = Gate(1)
        server, address, _ = sync_server(behaviour, gate, 2)
        with grpc.insecure_channel(address) as channel:
            for _ in range(3):
                assert outcome(channel.unary_unary(UNARY).future(b"x", timeout=10))[0] is grpc.StatusCode.UNKNOWN
        server.stop(None).wait(5)
        assert gate.state().in_flight == 0


class TestAio:
    async def test_slots_the_line_and_clients_that_go_away(self) -> None:
        running, most, go = 0, 0, asyncio.Event()

        async def behaviour(request, context):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1
            return request

        async def stream(request, context):
            yield request

        gate = Gate(2)
        server = grpc.aio.server(interceptors=[AioServerInterceptor(Load(), gate)], options=server_options())
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(behaviour),
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = channel.unary_unary(UNARY)
            assert [item async for item in channel.unary_stream("/test.Echo/Stream")(b"s", timeout=10)] == [b"s"]
            calls = [stub(b"x", timeout=30) for _ in range(6)]
            while gate.state().waiting < 4:
                await asyncio.sleep(0.01)
            calls[5].cancel()
            late = stub(b"x", timeout=0.2)
            with pytest.raises(grpc.aio.AioRpcError):
                await late
            while gate.state().waiting != 3:
                await asyncio.sleep(0.01)
            go.set()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            # Waited longer than the patience of its class, on a slow machine: then it is refused.
            assert all(end == b"x" or isinstance(end, grpc.aio.AioRpcError) for end in ends[:5])
            assert ends[:2] == [b"x", b"x"]
            assert isinstance(ends[5], asyncio.CancelledError)
        await server.stop(None)
        assert most == 2
        assert gate.state().in_flight == gate.state().waiting == 0

    async def test_cancelled_as_its_turn_comes_gives_the_slot_back(self) -> None:
        gate = Gate(1)
        one = gate.ticket(gslb.rpc.context.Request("a"), time.monotonic())
        two = gate.ticket(gslb.rpc.context.Request("b"), time.monotonic())
        assert await gate.aio_enter(one) is Fate.BEGIN
        waiting = asyncio.create_task(gate.aio_enter(two))
        await asyncio.sleep(0.01)
        gate.finish(one)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.01)
        assert gate.state().in_flight == 0


class TestAsgi:
    async def ask(self, app, headers: dict[str, str], path: str = "/") -> tuple[int, bytes]:
        sent = []

        async def receive():
            return {"type": "http.request", "body": b""}

        async def send(message):
            sent.append(message)

        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await app({"type": "http", "path": path, "headers": raw}, receive, send)
        return sent[0]["status"], sent[1]["body"]

    async def test_context_counting_and_refusal(self) -> None:
        go = asyncio.Event()

        async def app(scope, receive, send):
            if scope["path"] == "/slow":
                await go.wait()
            body = f"{gslb.rpc.trace_id()} {gslb.rpc.criticality().name} {gslb.rpc.time_remaining_s() is not None}"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body.encode()})

        load, gate = Load(), Gate(1)
        wrapped = AsgiMiddleware(app, load, gate, uncounted=["/healthz"])
        headers = {"gslb-trace-id": "t-1", "gslb-criticality": "SHEDDABLE", "gslb-timeout-ms": "5000"}
        assert await self.ask(wrapped, headers) == (200, b"t-1 SHEDDABLE True")
        assert (await self.ask(wrapped, {"gslb-criticality": "x", "gslb-timeout-ms": "-1"}))[1].endswith(
            b"CRITICAL False"
        )
        slow = asyncio.create_task(self.ask(wrapped, {}, "/slow"))
        await asyncio.sleep(0.01)
        late = await self.ask(wrapped, {"gslb-timeout-ms": "20"})
        assert late == (504, b"its deadline passed before it was begun")
        assert (await self.ask(wrapped, {}, "/healthz"))[0] == 200
        go.set()
        assert (await slow)[0] == 200
        gate._guard.admission.level = 0.0
        refused = await self.ask(wrapped, {"gslb-criticality": "SHEDDABLE"})
        assert refused == (503, b"overloaded; don't retry")
        assert load.counters().ok == (0, 2, 0, 1)
        assert load.counters().error == (0, 1, 0, 1)


class TestConfiguration:
    @pytest.mark.parametrize("slots", [0, -1, 10**9])
    def test_slots_have_bounds(self, slots: int) -> None:
        with pytest.raises(ConfigurationError, match=f"slots={slots}"):
            Gate(slots)
