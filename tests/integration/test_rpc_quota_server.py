"""A server within quotas, on real sockets, with control replicas that say what a test wants: all kinds of handlers, bad words,
replicas that come and go."""

import asyncio
import contextlib
import math
import threading
import time
from concurrent import futures

import grpc
import grpc.aio
import pytest

from bns.transport import Tls, channel_credentials, server_credentials
from gslb.rpc.client.connection import ControlConnection
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.server import AioServerInterceptor, AsgiMiddleware, Load, Quotas, ServerInterceptor, server_options
from gslb.v1 import quota_pb2, quota_pb2_grpc
from tests.support.certs import Authority
from tests.support.echo import wait_until

RPS, CPU = quota_pb2.QUOTA_UNIT_RPS, quota_pb2.QUOTA_UNIT_CPU
BATCH, WEB = (("gslb-caller", "batch"),), (("gslb-caller", "web"),)
OK, EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


def share(caller, rate, quota=None, unit=RPS, *, over=False):
    return quota_pb2.QuotaShare(caller=caller, unit=unit, rate=rate, quota=quota or rate, over=over)


class Replica(quota_pb2_grpc.QuotasServicer):
    """Answers every report with `shares`, all of them."""

    def __init__(self, *shares, settled=True, port=0):
        self.shares, self.settled, self.silent = list(shares), settled, False
        self.reports = []
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        quota_pb2_grpc.add_QuotasServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        self._server.start()

    def Share(self, request_iterator, context):  # noqa: N802  # gRPC's name
        for report in request_iterator:
            self.reports.append(report)
            if not self.silent:
                yield quota_pb2.QuotaAnswer(
                    seq=report.seq, accepted=True, settled=self.settled, complete=True, shares=self.shares,
                    report_every_s=0.5,
                )  # fmt: skip

    def stop(self):
        self._server.stop(None).wait(5)


@contextlib.contextmanager
def quotas_of(*replicas):
    """The quotas of `search`, as these replicas say."""
    connection = ControlConnection([replica.address for replica in replicas])
    quotas = Quotas("search", control=connection)
    try:
        yield quotas
    finally:
        connection.close()
        for replica in replicas:
            replica.stop()


def knows(quotas, *callers):
    wait_until(lambda: quotas.state().keys() == set(callers))


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return OK


def of_four(channel):
    """The four arities, each as (request, metadata) -> list of responses."""
    requests = [b"a", b"b"]
    return {
        "Unary": lambda metadata: [channel.unary_unary("/t.Echo/Unary")(b"a", metadata=metadata, timeout=10)],
        "Stream": lambda metadata: list(channel.unary_stream("/t.Echo/Stream")(b"a", metadata=metadata, timeout=10)),
        "Upload": lambda metadata: [
            channel.stream_unary("/t.Echo/Upload")(iter(requests), metadata=metadata, timeout=10)
        ],
        "Bidi": lambda metadata: list(
            channel.stream_stream("/t.Echo/Bidi")(iter(requests), metadata=metadata, timeout=10)
        ),
    }


def plain_handlers():
    def stream(request, context):
        yield request
        yield request

    return {
        "Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Upload": grpc.stream_unary_rpc_method_handler(lambda requests, context: b"".join(requests)),
        "Bidi": grpc.stream_stream_rpc_method_handler(lambda requests, context: (request for request in requests)),
    }


def coroutine_handlers():
    async def unary(request, context):
        await asyncio.sleep(0)
        return request

    async def stream(request, context):
        yield request
        await asyncio.sleep(0)
        yield request

    async def upload(requests, context):
        return b"".join([request async for request in requests])

    async def bidi(requests, context):
        async for request in requests:
            yield request

    return {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Upload": grpc.stream_unary_rpc_method_handler(upload),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    }


def generic(handlers):
    return (grpc.method_handlers_generic_handler("t.Echo", handlers),)


@contextlib.contextmanager
def sync_server(quotas, handlers, load=None, credentials=None):
    server = grpc.server(
        futures.ThreadPoolExecutor(8),
        interceptors=[ServerInterceptor(load or Load(), quotas=quotas)],
        options=server_options(),
    )
    server.add_generic_rpc_handlers(generic(handlers))
    port = (
        server.add_secure_port("127.0.0.1:0", credentials) if credentials else server.add_insecure_port("127.0.0.1:0")
    )
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(5)


@contextlib.contextmanager
def aio_server(quotas, handlers, load=None):
    """In a thread with an event loop of its own."""
    ports, loop = [], asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve():
        server = grpc.aio.server(
            futures.ThreadPoolExecutor(4),
            interceptors=[AioServerInterceptor(load or Load(), quotas=quotas)],
            options=server_options(),
        )
        server.add_generic_rpc_handlers(generic(handlers))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ports.append(port)
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        wait_until(lambda: bool(ports))
        yield f"127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


KINDS = {
    "threads": (sync_server, plain_handlers),
    "asyncio": (aio_server, coroutine_handlers),
    "functions on asyncio": (aio_server, plain_handlers),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_four_arities_are_served_within_the_share_and_refused_beyond(kind):
    serve, handlers = KINDS[kind]
    # Four requests at once, and hardly any more after that.
    replica, load = Replica(share("batch", 0.01, 4.0, over=True), share("web", 1000.0)), Load()
    with quotas_of(replica) as quotas, serve(quotas, handlers(), load) as address:
        knows(quotas, "batch", "web")
        with grpc.insecure_channel(address) as channel:
            for call in of_four(channel).values():
                assert code_of(lambda call=call: call(BATCH)) is EXHAUSTED
                assert call(WEB)[0][:1] == b"a"
                assert call(())[0][:1] == b"a"
            assert of_four(channel)["Stream"](WEB) == [b"a", b"a"]
            assert of_four(channel)["Bidi"](WEB) == [b"a", b"b"]
            assert of_four(channel)["Upload"](WEB) == [b"ab"]
        state = quotas.state()
        assert (state["batch"].requests, state["batch"].refused, state["batch"].used) == (4, 4, 0.0)
        assert (state["web"].requests, state["web"].refused, state["web"].used) == (7, 0, 7.0)
        # A refusal for a quota is neither load nor error.
        wait_until(lambda: sum(load.counters().ok) == 11)
        assert sum(load.counters().error) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_cpu_time_is_that_of_the_handler(kind):
    serve, _ = KINDS[kind]

    def burn():
        until_s = time.thread_time() + 0.02
        while time.thread_time() < until_s:
            pass

    def plain(request, context):
        burn()
        time.sleep(0.05)
        return request

    def plain_stream(request, context):
        for _ in range(3):
            burn()
            yield request

    async def coroutine(request, context):
        burn()
        await asyncio.sleep(0.05)
        return request

    async def generator(request, context):
        for _ in range(3):
            burn()
            await asyncio.sleep(0.01)
            yield request

    unary, stream = (coroutine, generator) if kind == "asyncio" else (plain, plain_stream)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    replica = Replica(share("batch", 100.0, unit=CPU))
    with quotas_of(replica) as quotas, serve(quotas, handlers) as address:
        knows(quotas, "batch")
        with grpc.insecure_channel(address) as channel:
            of_four(channel)["Unary"](BATCH)
            wait_until(lambda: quotas.state()["batch"].used >= 0.02)
            assert quotas.state()["batch"].used <= 0.035
            of_four(channel)["Stream"](BATCH)
            wait_until(lambda: quotas.state()["batch"].used >= 0.08)
            assert quotas.state()["batch"].used <= 0.11
        wait_until(lambda: sum(row.used for report in replica.reports for row in report.rows) >= 0.08)
        rows = [row for report in replica.reports for row in report.rows]
        assert sum(row.requests for row in rows) == 2
        assert {(row.caller, row.unit) for row in rows} == {("batch", CPU)}


def test_everybody_without_a_quota_shares_one():
    replica = Replica(share("*", 0.01, 2.0, over=True), share("web", 1000.0))
    with quotas_of(replica) as quotas, sync_server(quotas, plain_handlers()) as address:
        knows(quotas, "*", "web")
        with grpc.insecure_channel(address) as channel:
            unary = channel.unary_unary("/t.Echo/Unary")
            for metadata in ((), BATCH, (("gslb-caller", "*"),), (("gslb-caller", "no name"),)):
                with pytest.raises(grpc.RpcError) as caught:
                    unary(b"a", metadata=metadata, timeout=10)
                assert caught.value.code() is EXHAUSTED
            assert "caller 'batch', with all that have no quota of their own," in str(quotas.enter("batch").refusal)
            assert unary(b"a", metadata=WEB, timeout=10) == b"a"


def test_a_certificate_says_who_the_client_is(tmp_path):
    authority = Authority(tmp_path / "certs")
    ours, theirs = authority.issue("search"), authority.issue("client")
    credentials = server_credentials(Tls(cert=ours.cert, key=ours.key, ca=authority.ca))
    # The first name in the certificates of tests.
    replica = Replica(share("localhost", 0.01, 2.0, over=True), share("web", 1000.0))
    with quotas_of(replica) as quotas, sync_server(quotas, plain_handlers(), credentials=credentials) as address:
        knows(quotas, "localhost", "web")
        dial = channel_credentials(Tls(cert=theirs.cert, key=theirs.key, ca=authority.ca))
        with grpc.secure_channel(address, dial) as channel:
            assert code_of(lambda: of_four(channel)["Unary"](WEB)) is EXHAUSTED
        assert quotas.state()["localhost"].refused == 1


async def test_an_asgi_application():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    replica, load = Replica(share("batch", 0.01, 2.0, over=True)), Load()
    with quotas_of(replica) as quotas:
        wrapped = AsgiMiddleware(app, load, None, quotas, uncounted=["/healthz"])
        await asyncio.to_thread(knows, quotas, "batch")

        async def ask(path, *headers):
            sent = []

            async def send(message):
                sent.append(message)

            await wrapped({"type": "http", "path": path, "headers": headers}, None, send)
            return sent[0]["status"], sent[1]["body"].decode()

        batch = (b"GSLB-Caller", b"batch")
        status, why = await ask("/", batch)
        assert (status, why[:26]) == (429, "over quota: caller 'batch'")
        assert await ask("/") == (200, "fine")
        assert await ask("/healthz", batch) == (200, "fine")
        assert sum(load.counters().ok) == 1


class TestWhatReplicasSay:
    def test_before_the_first_share_and_after_the_last_replica_nobody_is_lost(self):
        replica = Replica(share("batch", 2.0), settled=False)
        with quotas_of(replica) as quotas:
            wait_until(lambda: len(replica.reports) >= 2)
            assert quotas.state() == {}
            assert all(not quotas.enter("batch").refusal for _ in range(100))
            replica.settled = True
            knows(quotas, "batch")
            replica.stop()
            time.sleep(3.0)
            assert [bool(quotas.enter("batch").refusal) for _ in range(4)] == [False, False, True, True]

    def test_the_first_that_answers_is_followed_and_another_when_it_falls_silent(self):
        replicas = sorted((Replica(), Replica()), key=lambda replica: replica.address)
        replicas[0].shares, replicas[1].shares = [share("a", 1.0)], [share("b", 1.0)]
        with quotas_of(*replicas) as quotas:
            wait_until(lambda: quotas.explain()["following"] == replicas[0].address)
            knows(quotas, "a")
            replicas[0].silent = True
            knows(quotas, "b")
            replicas[0].silent = False
            knows(quotas, "a")
            # A replica that starts anew hears first, and says nothing.
            replicas[0].settled = False
            knows(quotas, "b")

    def test_what_is_no_share_is_left_out(self):
        bad = [
            share("nan", math.nan, 1.0),
            share("negative", -1.0, 1.0),
            share("more", 2.0, 1.0),
            share("huge", 1e300),
            share("unit", 1.0, unit=0),
        ]
        replica = Replica(*bad, share("good", 1.0))
        with quotas_of(replica) as quotas:
            knows(quotas, "good")
            (told,) = quotas.explain()["replicas"]
            assert told["refused"] >= 5
            assert told["refusal"].startswith("share of 'unit': unit 0")

    def test_a_quota_that_is_gone_holds_nobody(self):
        replica = Replica(share("batch", 0.01, 1.0, over=True))
        with quotas_of(replica) as quotas:
            knows(quotas, "batch")
            assert quotas.enter("batch").refusal
            replica.shares = []
            knows(quotas)
            assert not quotas.enter("batch").refusal

    def test_reports_say_what_was_asked_and_go_to_every_replica(self):
        replicas = [Replica(share("batch", 3.0)) for _ in range(2)]
        with quotas_of(*replicas) as quotas:
            knows(quotas, "batch")
            for _ in range(10):
                quotas.enter("batch").close()
            for replica in replicas:

                def rows(replica=replica):
                    return [row for report in replica.reports for row in report.rows]

                wait_until(lambda rows=rows: sum(row.requests for row in rows()) == 10)
                assert {(row.caller, row.unit) for row in rows()} == {("batch", RPS)}
                assert (sum(row.asked for row in rows()), sum(row.used for row in rows())) == (10.0, 3.0)
                seqs = [report.seq for report in replica.reports]
                assert seqs == sorted(set(seqs))
                assert {report.service for report in replica.reports} == {"search"}

    def test_a_name_that_is_none_is_refused_at_once(self):
        with pytest.raises(ConfigurationError, match="quotas: service 'no name'"):
            Quotas("no name", control="127.0.0.1:1")
