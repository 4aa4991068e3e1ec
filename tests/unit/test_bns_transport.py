"""Listening and dialling: addresses, the loopback rule, a port in use, TLS and who is on the other side."""

import asyncio
import datetime as dt
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import click
import grpc
import grpc.aio
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bns.errors import AddressError, ListenError, TlsError
from bns.transport import (
    Tls,
    add_port,
    aio_channel,
    is_loopback,
    join_address,
    parse_addresses,
    principal_of,
    server_options,
    split_address,
    sync_channel,
    tls_options,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:0", "::1", 0), ("etcd-1.example:2379", "etcd-1.example", 2379)],
)
def test_addresses_are_split_and_joined(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert join_address(host, port) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", "host:x", "host:65536", "host:-1", "::1:80", "[::g]:80", ":80", "a b:80", "host:８", "-a:80"],
)
def test_malformed_addresses_are_named(text: str) -> None:
    with pytest.raises(AddressError, match="address"):
        split_address(text)


def test_lists_of_addresses() -> None:
    assert parse_addresses("a:1, [::1]:2,,unix:/run/x") == ("a:1", "[::1]:2", "unix:/run/x")
    for bad in ("", " , ", "a:1,b", "a:0"):
        with pytest.raises(AddressError):
            parse_addresses(bad)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.8.7", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.evil.com")),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.fixture
async def server() -> AsyncIterator[grpc.aio.Server]:
    made = grpc.aio.server(options=server_options())
    yield made
    await made.stop(None)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_a_free_port_is_bound_and_told(server: grpc.aio.Server, address: str) -> None:
    host, port = split_address(add_port(server, address))
    assert host == split_address(address)[0]
    assert port > 0


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0"])
async def test_off_loopback_needs_tls_and_client_certificates(server: grpc.aio.Server, address: str) -> None:
    with pytest.raises(ListenError, match=r"off loopback.*--tls-cert"):
        add_port(server, address)
    with pytest.raises(ListenError, match="client certificates"):
        add_port(server, address, Tls(cert=Path("c"), key=Path("k")))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_port_in_use_is_one_clear_line(server: grpc.aio.Server, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"{port}.*Address already in use.*another port"):
            add_port(server, join_address(host, port))


async def test_two_of_our_servers_cannot_share_a_port(server: grpc.aio.Server) -> None:
    bound = add_port(server, "127.0.0.1:0")
    await server.start()
    other = grpc.aio.server(options=server_options())
    with pytest.raises(ListenError, match="already in use"):
        add_port(other, bound)
    await other.stop(None)


async def test_unix_sockets(server: grpc.aio.Server, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'agent.sock'}"
    assert add_port(server, address) == address
    await server.start()
    other = grpc.aio.server(options=server_options())
    with pytest.raises(ListenError, match="another process"):
        add_port(other, address)
    with pytest.raises(AddressError, match="path"):
        add_port(other, "unix:" + "x" * 200)
    with pytest.raises(ListenError, match="directory"):
        add_port(other, f"unix:{tmp_path / 'absent' / 'agent.sock'}")
    await other.stop(None)


def _certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None, sans: list[x509.GeneralName]
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return builder.sign(key if issuer is None else issuer[1], hashes.SHA256()), key


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tls]:
    """An authority, a server, a client with a SPIFFE name and one with a common name only."""
    folder = tmp_path_factory.mktemp("pki")
    authority = _certificate("test authority", None, [])
    (folder / "ca.pem").write_bytes(authority[0].public_bytes(serialization.Encoding.PEM))
    names: dict[str, list[x509.GeneralName]] = {
        "server": [x509.DNSName("localhost")],
        "agent": [x509.UniformResourceIdentifier("spiffe://example.org/agent/7")],
        "plain": [],
    }
    found = {}
    for name, sans in names.items():
        cert, key = _certificate(name, authority, sans)
        (folder / f"{name}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        found[name] = Tls(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")
    return found


class _WhoAmI(grpc.GenericRpcHandler):
    """Answers any method with the caller's principal."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return principal_of(context).encode()

        return grpc.unary_unary_rpc_method_handler(answer)


async def _ask(channel: grpc.aio.Channel) -> str:
    async with channel:
        return (await channel.unary_unary("/x/Y")(b"", timeout=10, wait_for_ready=False)).decode()


async def test_principals(server: grpc.aio.Server, pki: dict[str, Tls]) -> None:
    server.add_generic_rpc_handlers((_WhoAmI(),))
    plain = add_port(server, "127.0.0.1:0")
    _, port = split_address(add_port(server, "localhost:0", pki["server"]))
    await server.start()
    secure = f"localhost:{port}"

    assert await _ask(aio_channel(plain)) == "anonymous"
    assert await _ask(aio_channel(secure, pki["agent"])) == "spiffe://example.org/agent/7"
    assert await _ask(aio_channel(secure, pki["plain"])) == "plain"
    with pytest.raises(grpc.aio.AioRpcError):
        await _ask(aio_channel(secure, Tls(ca=pki["agent"].ca)))

    def blocking() -> bytes:
        with sync_channel(secure, pki["agent"]) as channel:
            return channel.unary_unary("/x/Y")(b"", timeout=10)

    assert await asyncio.to_thread(blocking) == b"spiffe://example.org/agent/7"


async def test_with_a_ca_off_loopback_is_allowed(server: grpc.aio.Server, pki: dict[str, Tls]) -> None:
    assert split_address(add_port(server, "0.0.0.0:0", pki["server"]))[1] > 0


def test_bad_tls_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="go together"):
        Tls(cert=tmp_path / "c")
    with pytest.raises(TlsError, match=r"--tls-ca .*No such file"):
        aio_channel("localhost:1", Tls(ca=tmp_path / "absent.pem"))
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(TlsError, match="not a PEM file"):
        aio_channel("localhost:1", Tls(ca=tmp_path / "junk"))


def test_the_click_options() -> None:
    @click.command()
    @tls_options
    @click.option("--name")
    def command(tls: Tls | None, name: str) -> None:
        click.echo(f"{name} {tls}")

    run = CliRunner().invoke(command, ["--name", "a"])
    assert (run.exit_code, run.output) == (0, "a None\n")
    run = CliRunner().invoke(command, ["--name", "a", "--tls-ca", "x.pem"])
    assert run.exit_code == 0
    assert "x.pem" in run.output
    run = CliRunner().invoke(command, ["--tls-cert", "x.pem"])
    assert run.exit_code == 2
    assert "go together" in run.output
