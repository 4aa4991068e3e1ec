"""What a server says of its load, as stock clients see it: trailers of answers, and the method that is asked ahead of need."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
import pytest

from gslb.rpc.policy.choice import Report
from gslb.rpc.policy.report import KEY, MAX_CHARS, decode, encode, orca
from gslb.rpc.server import (
    AioReportInterceptor,
    AioServerInterceptor,
    Load,
    LoadReporter,
    ReportInterceptor,
    ServerInterceptor,
    add_load_report,
)

DO, LOAD = "/test.Load/Do", "/gslb.rpc.Load/Get"


@pytest.fixture
def served() -> Iterator[tuple[grpc.Channel, Load, threading.Event]]:
    """A channel to a server whose method waits for the event when asked to, and aborts when asked to."""
    load, gate = Load(), threading.Event()

    def do(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("own", "kept"),))
        if request == b"wait":
            gate.wait(30)
        if request == b"abort":
            context.abort(grpc.StatusCode.INTERNAL, "as asked")
        return request

    reporter = LoadReporter(load)
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[ServerInterceptor(load), ReportInterceptor(reporter)])
    handler = grpc.unary_unary_rpc_method_handler(do)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Load", {"Do": handler}),))
    add_load_report(server, reporter)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel, load, gate
    gate.set()
    server.stop(None).wait()


def said(trailers: object) -> Report:
    found = {item.key: item.value for item in trailers}  # type: ignore[attr-defined]
    assert found["own"] == "kept"
    report = decode(found[KEY])
    assert report is not None
    return report


def test_answers_and_errors_carry_a_report(served) -> None:
    channel, _, _ = served
    stub = channel.unary_unary(DO, None, None)
    _, call = stub.with_call(b"x", timeout=10)
    assert said(call.trailing_metadata()).latency_s > 0
    with pytest.raises(grpc.RpcError) as caught:
        stub(b"abort", timeout=10)
    assert caught.value.details() == "as asked"
    assert said(caught.value.trailing_metadata()).in_flight == 0


def test_who_asks_ahead_hears_of_requests_under_way_and_is_no_load(served) -> None:
    channel, load, gate = served
    stub, ask = channel.unary_unary(DO, None, None), channel.unary_unary(LOAD, None, None)
    waiting = [stub.future(b"wait", timeout=30) for _ in range(3)]
    seen = Report()
    for _ in range(500):
        seen = decode(ask(b"", timeout=10)) or Report()
        if seen.in_flight == 3:
            break
    assert seen.in_flight == 3
    gate.set()
    for one in waiting:
        assert one.result() == b"wait"
    assert sum(load.counters().ok) == 3


async def test_the_same_on_an_asyncio_server() -> None:
    load = Load()
    reporter = LoadReporter(load)
    server = grpc.aio.server(interceptors=[AioServerInterceptor(load), AioReportInterceptor(reporter)])
    gate = asyncio.Event()

    async def do(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        context.set_trailing_metadata((("own", "kept"),))
        if request == b"wait":
            await gate.wait()
        return request

    handler = grpc.unary_unary_rpc_method_handler(do)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Load", {"Do": handler}),))
    add_load_report(server, reporter)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub, ask = channel.unary_unary(DO, None, None), channel.unary_unary(LOAD, None, None)
        waiting = stub(b"wait", timeout=30)
        while (decode(await ask(b"", timeout=10)) or Report()).in_flight < 1:
            assert not waiting.done()
        gate.set()
        assert await waiting == b"wait"
        trailers = dict(await waiting.trailing_metadata())
        assert trailers["own"] == "kept"
        assert decode(trailers[KEY]) is not None
    await server.stop(None)
    assert sum(load.counters().ok) == 1


def test_a_line_that_lies_says_nothing() -> None:
    report = Report(in_flight=3, latency_s=0.5, utilization=0.25, rps=8, eps=1, room=4)
    assert decode(encode(report)) == report
    assert decode(encode(report).encode()) == report
    assert decode("rif=inf lat=-1 util=nan rps=1e99 eps=x =4 rif") == Report()
    assert decode(b"\xff\xfe rps=2") == Report(rps=2)
    assert decode("x" * (MAX_CHARS + 1)) is None


def test_orca_is_what_other_languages_read() -> None:
    # Tags 0x31, 0x39 and 0x49: fields 6 (rps_fractional), 7 (eps), 9 (application_utilization) as little-endian doubles.
    assert orca(Report(rps=1.0, eps=2.0, utilization=0.5)).hex() == (
        "31000000000000f03f39000000000000004049000000000000e03f"
    )
    assert orca(Report()) == b""
