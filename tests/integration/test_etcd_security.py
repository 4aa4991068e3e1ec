"""TLS and passwords against a real etcd."""

import asyncio
import base64
import http.client
import json
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from bns.etcd.client import Client
from bns.etcd.embedded import EmbeddedEtcd, ServerTls
from bns.etcd.errors import EtcdError, PermissionDenied
from tests.support.certs import Authority, Pair
from tests.support.etcd import TEST_OPTIONS, until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certs")


@pytest.fixture
def tls_etcd(tmp_path: Path, authority: Authority) -> Iterator[EmbeddedEtcd]:
    server = authority.issue("etcd")
    tls = ServerTls(server.cert, server.key, authority.ca)
    member = EmbeddedEtcd(tmp_path / "etcd", replace(TEST_OPTIONS, tls=tls))
    try:
        member.start()
        yield member
    finally:
        member.stop()
        member.remove_data()


def credentials(ca: Path, pair: Pair | None = None) -> grpc.ChannelCredentials:
    if pair is None:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    return grpc.ssl_channel_credentials(ca.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes())


async def test_mutual_tls(tls_etcd: EmbeddedEtcd, authority: Authority) -> None:
    async with Client([tls_etcd.address], credentials=credentials(authority.ca, authority.issue("me"))) as client:
        revision = await client.put(b"a", b"1")
        kv = await client.get(b"a")
        assert kv is not None
        assert kv.value == b"1"
        lease = await client.grant(10)
        assert not client.keep_alive(lease, 10).done()
        async with aclosing(client.watch(b"a", start_revision=revision)) as batches:
            async for batch in batches:
                if batch.events:
                    assert batch.events[0].kv.value == b"1"
                    break


@pytest.mark.parametrize("who", ["plain text", "no certificate", "another authority's", "distrusts the server"])
async def test_who_is_not_let_in(tls_etcd: EmbeddedEtcd, authority: Authority, tmp_path: Path, who: str) -> None:
    other = Authority(tmp_path / "other", "another authority")
    offered = {
        "plain text": None,
        "no certificate": credentials(authority.ca),
        "another authority's": credentials(authority.ca, other.issue("me")),
        "distrusts the server": credentials(other.ca, authority.issue("me")),
    }[who]
    async with Client([tls_etcd.address], credentials=offered, timeout_s=1) as client:
        with pytest.raises(EtcdError) as raised:
            await client.put(b"a", b"1")
        assert tls_etcd.address in str(raised.value)
    async with Client([tls_etcd.address], credentials=credentials(authority.ca, authority.issue("me"))) as client:
        assert await client.get(b"a") is None


def admin(etcd: EmbeddedEtcd, path: str, token: str = "", **body: object) -> dict[str, object]:
    """etcd's JSON gateway, for what our client has no business with. -> the answer"""
    host, _, port = etcd.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("POST", "/v3/auth/" + path, json.dumps(body), {"Authorization": token} if token else {})
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, text
        answer: dict[str, object] = json.loads(text)
        return answer
    finally:
        connection.close()


@pytest.fixture
def password_etcd(etcd: EmbeddedEtcd) -> EmbeddedEtcd:
    """User `app`, password `secret`, may do everything below app/ and nothing else."""
    key, end = (base64.b64encode(part).decode() for part in (b"app/", b"app0"))
    admin(etcd, "user/add", name="root", password="rootpw")
    admin(etcd, "role/add", name="root")
    admin(etcd, "user/grant", user="root", role="root")
    admin(etcd, "role/add", name="app")
    admin(etcd, "role/grant", name="app", perm={"permType": "READWRITE", "key": key, "range_end": end})
    admin(etcd, "user/add", name="app", password="secret")
    admin(etcd, "user/grant", user="app", role="app")
    admin(etcd, "enable")
    return etcd


async def test_a_password_opens_what_the_role_allows(password_etcd: EmbeddedEtcd) -> None:
    async with Client([password_etcd.address], user="app", password="secret") as client:
        await asyncio.gather(*(client.put(b"app/%d" % i, b"1") for i in range(10)))
        kvs, _ = await client.scan(b"app/")
        assert len(kvs) == 10
        with pytest.raises(PermissionDenied, match="roles"):
            await client.put(b"other", b"1")
        with pytest.raises(PermissionDenied):
            await client.get(b"other")


async def test_a_watch_of_what_the_role_does_not_allow_is_refused(password_etcd: EmbeddedEtcd) -> None:
    async def first_batch(client: Client) -> None:
        async with aclosing(client.watch(b"other")) as batches:
            async for _ in batches:
                return

    async with Client([password_etcd.address], user="app", password="secret") as client:
        with pytest.raises(PermissionDenied):
            await asyncio.wait_for(first_batch(client), 20)
    async with Client([password_etcd.address]) as client:
        with pytest.raises(PermissionDenied):
            await asyncio.wait_for(first_batch(client), 20)


@pytest.mark.parametrize(("user", "password"), [("app", "wrong"), ("nobody", "secret"), ("app", None), (None, None)])
async def test_a_wrong_login_is_one_clear_error_without_the_password(
    password_etcd: EmbeddedEtcd, user: str | None, password: str | None
) -> None:
    async with Client([password_etcd.address], user=user, password=password) as client:
        with pytest.raises(PermissionDenied, match="etcd user") as raised:
            await client.put(b"app/a", b"1")
        assert str(password) not in str(raised.value).replace("password", "")


async def test_a_password_for_an_etcd_without_users_is_named(etcd: EmbeddedEtcd) -> None:
    async with Client([etcd.address], user="app", password="secret") as client:
        with pytest.raises(PermissionDenied, match="authentication is not enabled"):
            await client.get(b"a")


async def test_after_a_restart_calls_and_watches_log_in_again(password_etcd: EmbeddedEtcd) -> None:
    seen: list[bytes] = []

    async def follow(client: Client) -> None:
        async with aclosing(client.watch(b"app/", b"app0", heartbeat_s=0.5)) as batches:
            async for batch in batches:
                seen.extend(event.kv.value for event in batch.events)

    # Two clients: the watching one gets no help from another call's login.
    async with (
        Client([password_etcd.address], user="app", password="secret", timeout_s=60) as writer,
        Client([password_etcd.address], user="app", password="secret") as reader,
    ):
        watching = asyncio.create_task(follow(reader))
        await writer.put(b"app/a", b"1")
        await asyncio.sleep(0.3)
        await writer.put(b"app/a", b"2")
        await until(lambda: b"2" in seen)
        password_etcd.kill()  # its tokens live in memory
        password_etcd.spawn()
        await password_etcd.ready()
        await writer.put(b"app/a", b"3")
        await until(lambda: b"3" in seen)
        watching.cancel()


async def test_a_changed_role_does_not_need_a_new_client(password_etcd: EmbeddedEtcd) -> None:
    async with Client([password_etcd.address], user="app", password="secret") as client:
        with pytest.raises(PermissionDenied):
            await client.put(b"other", b"1")
        token = admin(password_etcd, "authenticate", name="root", password="rootpw")["token"]
        perm = {"permType": "READWRITE", "key": base64.b64encode(b"other").decode()}
        admin(password_etcd, "role/grant", str(token), name="app", perm=perm)
        await client.put(b"other", b"1")
