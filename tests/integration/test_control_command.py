"""`gslb serve` as a process: bad flags, taken ports, an etcd that is not there, an orderly end."""

import asyncio
import socket
import subprocess
import sys
import time

import grpc
import pytest

from bns.etcd.embedded import EmbeddedEtcd, free_port
from bns.transport import Tls, aio_channel
from bns.v1 import bns_pb2, bns_pb2_grpc
from gslb.v1 import admin_pb2, admin_pb2_grpc, discovery_pb2, discovery_pb2_grpc
from tests.support.certs import Authority
from tests.support.control import FakeAgent, Operator, Reader, ReplicaProcess, datacenter, eventually, planet
from tests.support.etcd import TEST_OPTIONS


def run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "gslb", "serve", "--http", "127.0.0.1:0", *flags],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


BAD = [
    (["--listen", "0.0.0.0:0"], 1, "TLS"),
    (["--listen", "nonsense"], 1, "HOST:PORT"),
    (["--etcd", "nonsense"], 2, "HOST:PORT"),
    (["--role", "king"], 2, "'king'"),
    (["--role", "global"], 2, "cell"),
    (["--plan-period", "0"], 2, "0.0"),
    (["--tls-cert", "/nonexistent"], 2, "--tls-key"),
    (["--etcd-ca", "/nonexistent"], 1, "/nonexistent"),
    (["--bogus"], 2, "--bogus"),
]


@pytest.mark.parametrize(("flags", "code", "names"), BAD, ids=lambda value: str(value)[:30])
def test_bad_flags_are_one_clear_line(flags, code, names):
    done = run(*flags, *(["--listen", "127.0.0.1:0"] if "--listen" not in flags else []))
    assert done.returncode == code, done.stderr
    assert names in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error")]) == 1


def test_a_taken_port_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for flags in (["--listen", f"127.0.0.1:{port}"], ["--listen", "127.0.0.1:0", "--http", f"127.0.0.1:{port}"]):
            done = run(*flags)
            assert done.returncode == 1
            assert str(port) in done.stderr
            assert "Traceback" not in done.stderr


async def test_without_etcd_it_waits_says_so_answers_nobody_and_serves_once_it_is_there(tmp_path):
    etcd = EmbeddedEtcd(tmp_path / "etcd", TEST_OPTIONS)
    replica = ReplicaProcess("r", etcd.address, tmp_path).start()
    try:
        await eventually(lambda: replica.page("/livez")[0] == 200, "it lives")
        status, text = replica.page("/readyz")
        assert status == 503
        assert etcd.address in text
        reader = await Reader([replica.address]).start()
        async with Operator(replica.address) as operator:
            async with grpc.aio.insecure_channel(replica.address) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as cold:
                    await bns_pb2_grpc.BnsStub(channel).Resolve(bns_pb2.ResolveRequest(name="/bns/a/b/c"), timeout=5)
                assert cold.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not (await operator.status()).warm
            assert any("answers no readers" in message for _, _, message in await operator.check())
            await eventually(lambda: "not serving yet" in replica.words(), "it says why", 15)
            assert reader.updates == 0
            etcd.start()
            await eventually(lambda: replica.page("/readyz")[0] == 200, "it is ready", 30)
            await operator.apply(datacenter("us-east1"))
            await eventually(lambda: "us-east1" in reader.view.catalog.datacenters, "readers are served")
        await reader.stop()
        assert "Traceback" not in replica.words()
    finally:
        replica.stop()
        etcd.stop()
        etcd.remove_data()


async def test_a_cold_replica_answers_nobody_until_the_agents_have_spoken(etcd, tmp_path):
    first = ReplicaProcess("first", etcd.address, tmp_path).start()
    second = ReplicaProcess("second", etcd.address, tmp_path, "--report-period", "4")
    agent = FakeAgent("us-east1", [first.address])
    try:
        await eventually(lambda: first.page("/readyz")[0] == 200, "the first is ready")
        async with Operator(first.address) as operator:
            await operator.apply(*planet())
        await agent.start()
        seen = await Reader([first.address]).start()
        await eventually(lambda: seen.count() == 2, "tasks are registered")
        # Registrations are in etcd, but nobody reports to the second one: it waits for a period, then serves.
        second.start()
        reader = await Reader([second.address]).start()
        await eventually(lambda: second.page("/livez")[0] == 200, "it lives")
        await eventually(lambda: "agents have not reported" in second.page("/readyz")[1], "it waits for the agents")
        assert reader.updates == 0
        await eventually(lambda: second.page("/readyz")[0] == 200, "it waits no longer than a period", 20)
        await eventually(lambda: reader.view.synced, "and then it serves")
        assert reader.count() == 2
        await reader.stop()
        await seen.stop()
    finally:
        await agent.kill()
        first.stop()
        second.stop()


async def test_sigterm_ends_streams_and_the_process(etcd, tmp_path):
    replica = ReplicaProcess("r", etcd.address, tmp_path).start()
    await eventually(lambda: replica.page("/readyz")[0] == 200, "it is ready")
    async with grpc.aio.insecure_channel(replica.address) as channel:
        stream = discovery_pb2_grpc.DiscoveryStub(channel).Subscribe()
        await stream.write(discovery_pb2.SubscribeRequest(all_services=True))
        assert (await stream.read()).synced
        started = time.monotonic()
        ending = asyncio.create_task(asyncio.to_thread(replica.stop))
        with_end = await asyncio.wait_for(_end(stream), 10)
        assert with_end in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert await ending == 0
        assert time.monotonic() - started < 5
    assert "Traceback" not in replica.words()
    assert "Exception" not in replica.words()


async def _end(stream):
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await stream.code()


def test_the_port_stays_free_for_a_restart(tmp_path):
    """A replica that was killed is started again with the same ports at once."""
    address = f"127.0.0.1:{free_port()}"
    for _ in range(2):
        replica = ReplicaProcess("r", address, tmp_path)
        replica.address = "127.0.0.1:0"
        replica.start()
        deadline = time.monotonic() + 20
        while replica.page("/livez")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        replica.kill()


async def test_over_tls_callers_are_known_by_their_certificates(etcd, tmp_path):
    authority = Authority(tmp_path / "tls")
    server, client = authority.issue("server"), authority.issue("client")
    flags = ["--tls-cert", str(server.cert), "--tls-key", str(server.key), "--tls-ca", str(authority.ca)]
    replica = ReplicaProcess("r", etcd.address, tmp_path, *flags).start()
    try:
        await eventually(lambda: replica.page("/readyz")[0] == 200, "it is ready")
        async with Operator(replica.address) as stranger:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stranger.status()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        async with aio_channel(replica.address, Tls(client.cert, client.key, authority.ca)) as channel:
            admin = admin_pb2_grpc.AdminStub(channel)
            await admin.Apply(admin_pb2.ApplyRequest(resources=[datacenter("us-east1")]), timeout=10)
            (got,) = (await admin.Get(admin_pb2.GetRequest())).resources
            assert got.meta.principal.identity not in {"", "anonymous"}
    finally:
        replica.stop()
