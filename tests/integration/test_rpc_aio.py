"""The asyncio channel against real servers: all four arities in both styles, errors, deadlines, cancellation."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import gslb.rpc
import gslb.rpc.aio
from gslb.model.criticality import Criticality
from gslb.rpc.client.aio_channel import AioServiceChannel
from tests.support.echo import BIDI, CLIENT_STREAM, SERVER_STREAM, SERVICE, UNARY, Planet, name_of


@pytest.fixture(scope="module")
def planet() -> Iterator[Planet]:
    made = Planet(["us-east1/u/echo/0", "us-east1/u/echo/1", "europe-west1/u/echo/0"])
    yield made
    gslb.rpc.close_all()
    made.close()


@pytest.fixture
async def channel(planet: Planet) -> AsyncIterator[AioServiceChannel]:
    planet.serve({"us-east1": 0.8, "europe-west1": 0.2})
    async with gslb.rpc.aio.channel(SERVICE, control=planet.control, locality="us-east1") as made:
        # The connection is shared by the module's tests: what the test before published may still be in force.
        await until(lambda: set(made.explain()["shares"]) == {"us-east1", "europe-west1"})
        yield made
        await until(lambda: in_flight(made) == 0)


def in_flight(channel: AioServiceChannel) -> int:
    return sum(link.in_flight for link in channel.core.links())


async def until(condition, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def words(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


class TestArities:
    async def test_unary_unary(self, channel) -> None:
        call = channel.unary_unary(UNARY)(b"hello", timeout=5)
        assert not call.done()
        assert 0 < call.time_remaining() <= 5
        seen: list[object] = []
        call.add_done_callback(seen.append)
        response = await call
        assert response.endswith(b" hello")
        assert name_of(response) == dict(await call.initial_metadata())["task"].removeprefix("/bns/")
        assert dict(await call.trailing_metadata())["trailer"] == "yes"
        assert await call.code() is grpc.StatusCode.OK
        assert call.done()
        assert seen == [call]
        assert await call == response

    async def test_unary_stream(self, channel) -> None:
        call = channel.unary_stream(SERVER_STREAM)(b"count:4")
        await call.wait_for_connection()
        assert [response.split()[-1] async for response in call] == [b"0", b"1", b"2", b"3"]
        assert await call.code() is grpc.StatusCode.OK

    async def test_unary_stream_read(self, channel) -> None:
        call = channel.unary_stream(SERVER_STREAM)(b"count:2")
        assert (await call.read()).endswith(b" 0")
        assert (await call.read()).endswith(b" 1")
        assert await call.read() is grpc.aio.EOF

    async def test_stream_unary(self, channel) -> None:
        stub = channel.stream_unary(CLIENT_STREAM)
        assert (await stub(words(b"a", b"b"))).endswith(b" a,b")
        assert (await stub([b"c", b"d"])).endswith(b" c,d")

    async def test_stream_unary_write(self, channel) -> None:
        call = channel.stream_unary(CLIENT_STREAM)()
        await call.write(b"a")
        await call.write(b"b")
        await call.done_writing()
        assert (await call).endswith(b" a,b")

    async def test_stream_stream(self, channel) -> None:
        call = channel.stream_stream(BIDI)(words(b"a", b"b"))
        assert [response.split()[-1] async for response in call] == [b"a", b"b"]

    async def test_stream_stream_write_and_read(self, channel) -> None:
        call = channel.stream_stream(BIDI)()
        for word in (b"a", b"b"):
            await call.write(word)
            assert (await call.read()).endswith(b" " + word)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async def test_styles_are_not_mixed(self, channel) -> None:
        call = channel.stream_stream(BIDI)(words(b"a"))
        with pytest.raises(grpc.aio.UsageError):
            await call.write(b"b")
        call.cancel()

    async def test_a_generated_stub(self, channel) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        async for news in watch:
            assert news.status == health_pb2.HealthCheckResponse.SERVING
            break
        watch.cancel()


async def test_interceptors(planet: Planet) -> None:
    class Recorder(grpc.aio.UnaryUnaryClientInterceptor):
        seen = 0

        async def intercept_unary_unary(self, continuation, details, request):
            self.seen += 1
            return await continuation(details, request)

    planet.serve({"us-east1": 1.0})
    recorder = Recorder()
    async with gslb.rpc.aio_channel(
        SERVICE, control=planet.control, locality="us-east1", interceptors=[recorder]
    ) as channel:
        assert (await channel.unary_unary(UNARY)(b"x")).endswith(b"x")
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(UNARY)(b"abort:NOT_FOUND")
        assert recorder.seen == 2
        await until(lambda: in_flight(channel) == 0)


async def test_shares_and_balance(channel) -> None:
    stub = channel.unary_unary(UNARY)
    responses = []
    for _ in range(30):
        responses += await asyncio.gather(*(stub(b"x") for _ in range(50)))
    counts = Counter(map(name_of, responses))
    assert counts["europe-west1/u/echo/0"] / 1500 == pytest.approx(0.2, abs=0.05)
    assert counts["us-east1/u/echo/0"] / 1500 == pytest.approx(0.4, abs=0.06)


class TestErrors:
    async def test_a_status_of_the_server_is_passed_on(self, channel) -> None:
        call = channel.unary_unary(UNARY)(b"abort:INVALID_ARGUMENT:bad word")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "bad word"
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await call.details() == "bad word"
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in channel.unary_stream(SERVER_STREAM)(b"abort:INTERNAL"):
                pass
        call = channel.stream_stream(BIDI)()
        await call.write(b"abort:NOT_FOUND")
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as written:
            await call.write(b"more")
        assert written.value.code() is grpc.StatusCode.NOT_FOUND

    async def test_a_request_that_cannot_be_sent_releases_its_task(self, channel) -> None:
        with pytest.raises(TypeError):
            await channel.unary_unary(UNARY)(12345)
        assert in_flight(channel) == 0
        assert (await channel.unary_unary(UNARY)(b"x")).endswith(b"x")

    async def test_unknown_service(self, planet: Planet) -> None:
        async with gslb.rpc.aio_channel("nobody", control=planet.control, locality="us-east1") as channel:
            started_s = time.monotonic()
            call = channel.unary_unary(UNARY)(b"x", timeout=0.4)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert 0.3 < time.monotonic() - started_s < 5
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "unknown service 'nobody'" in caught.value.details()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_stream(SERVER_STREAM)(b"x", timeout=0.2).read()

    async def test_a_plan_that_comes_late(self, planet: Planet) -> None:
        planet.serve(None, service="late-aio")
        async with gslb.rpc.aio_channel("late-aio", control=planet.control, locality="us-east1") as channel:
            assert channel.get_state() is grpc.ChannelConnectivity.IDLE
            call = channel.unary_unary(UNARY)(b"hello", timeout=10)
            stream = channel.stream_stream(BIDI)(words(b"a"))
            await asyncio.sleep(0.1)
            planet.serve({"us-east1": 1.0}, service="late-aio")
            assert (await call).endswith(b"hello")
            assert [response.split()[-1] async for response in stream] == [b"a"]
            await channel.channel_ready()
            assert channel.get_state() is grpc.ChannelConnectivity.READY
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN

    async def test_waiting_for_a_plan_can_be_cancelled(self, planet: Planet) -> None:
        async with gslb.rpc.aio_channel("nobody", control=planet.control, locality="us-east1") as channel:
            call = channel.unary_unary(UNARY)(b"x")
            await asyncio.sleep(0.01)
            assert call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert call.cancelled()
            waiting = asyncio.create_task(self._call(channel))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    async def _call(self, channel) -> bytes:
        return await channel.unary_unary(UNARY)(b"x")

    async def test_a_closed_channel(self, planet: Planet) -> None:
        planet.serve({"us-east1": 1.0})
        channel = gslb.rpc.aio_channel(SERVICE, control=planet.control, locality="us-east1")
        stub = channel.unary_unary(UNARY)
        await stub(b"x")
        graceful = stub(b"sleep:0.3")
        await channel.close(grace=5)
        assert (await graceful).endswith(b"sleep:0.3")
        with pytest.raises(grpc.aio.UsageError):
            stub(b"x")


class TestTime:
    async def test_deadlines(self, channel) -> None:
        stub = channel.unary_unary(UNARY)
        assert 5 < float((await stub(b"remaining", timeout=7)).split()[-1]) <= 7.5
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(b"sleep:10", timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def test_cancelling_reaches_the_server(self, channel, planet: Planet) -> None:
        planet.serve({"europe-west1": 1.0})
        await until(lambda: channel.explain()["shares"] == {"europe-west1": 1.0})
        stub = channel.unary_unary(UNARY)
        before = int((await stub(b"cancelled")).split()[-1])
        call = stub(b"sleep:30")
        waiting = asyncio.ensure_future(call)
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert call.cancelled()
        async with asyncio.timeout(10):
            while int((await stub(b"cancelled")).split()[-1]) == before:
                await asyncio.sleep(0.02)

    async def test_a_stream_that_is_dropped_is_cancelled(self, channel) -> None:
        call = channel.unary_stream(SERVER_STREAM)(b"endless")
        await call.read()
        assert in_flight(channel) == 1
        del call
        gc.collect()
        await until(lambda: in_flight(channel) == 0)

    async def test_a_call_that_nobody_awaits_runs_to_its_end(self, channel) -> None:
        stub = channel.unary_unary(UNARY)
        stub(b"sleep:0.2")
        gc.collect()
        assert in_flight(channel) == 1
        await until(lambda: in_flight(channel) == 0)
        assert sum(link.ok for link in channel.core.links()) == 1


async def test_metadata_travels(channel) -> None:
    stub = channel.unary_unary(UNARY)
    with gslb.rpc.scope(trace_id="abc-2", criticality=Criticality.SHEDDABLE):
        seen = (await stub(b"meta", metadata=(("mine", "yes"),))).decode()
    assert "('gslb-trace-id', 'abc-2')" in seen
    assert "('gslb-criticality', 'SHEDDABLE')" in seen
    assert "('mine', 'yes')" in seen
    seen = (await stub(b"meta", metadata=grpc.aio.Metadata(("mine", "too")))).decode()
    assert "('mine', 'too')" in seen
