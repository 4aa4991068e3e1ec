"""How processes listen and dial: addresses, TLS, gRPC channel options, and who is on the other side.

One place decides the security rule of the design: a listener off loopback is refused without TLS and client
certificates. One place has the keepalive and back-off settings, so that a dead peer is noticed in seconds and a
reconnecting crowd spreads itself out.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio

from bns.errors import AddressError, ListenError, TlsError
from bns.tls import Tls, tls_options

__all__ = [
    "Options",
    "Tls",
    "add_port",
    "aio_channel",
    "channel_credentials",
    "channel_options",
    "is_loopback",
    "join_address",
    "parse_addresses",
    "principal_of",
    "server_credentials",
    "server_options",
    "split_address",
    "sync_channel",
    "tls_options",
]

Options = list[tuple[str, int | str]]

# A peer that answers no ping for KEEPALIVE_TIME + KEEPALIVE_TIMEOUT is dead (milliseconds).
KEEPALIVE_TIME_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
BACKOFF_MIN_MS = 100
BACKOFF_MAX_MS = 2_000
# What a server takes in one message, and what a client does: a snapshot of 100,000 tasks is about 20 MB.
SERVER_MESSAGE_MAX_BYTES = 16 << 20
CLIENT_MESSAGE_MAX_BYTES = 128 << 20
PRINCIPAL_MAX_CHARS = 200
ANONYMOUS = "anonymous"
UNIX_PATH_MAX_BYTES = 107  # sockaddr_un.sun_path less its final zero byte

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class PortServer(Protocol):
    """What grpc.Server and grpc.aio.Server have in common here."""

    def add_insecure_port(self, address: str) -> int: ...
    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int: ...


class PeerContext(Protocol):
    """What the contexts of sync and aio servers have in common here."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, `1.2.3.4:80` or `[::1]:80` -> (host without brackets, port). Raises AddressError."""
    host, colon, port_text = address.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
        raise AddressError(f"address {address[:200]!r}: write it as HOST:PORT, with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port_text)
        except ValueError as error:
            raise AddressError(f"address {address[:200]!r}: {host!r} is not an IPv6 address in brackets") from error
    if _HOST.fullmatch(host) is None:
        raise AddressError(
            f"address {address[:200]!r}: {host[:200]!r} is no host name or IPv4 address (IPv6 in brackets: [::1]:80)"
        )
    return host, int(port_text)


def join_address(host: str, port: int) -> str:
    """(host, port) -> `host:port`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_addresses(text: str) -> tuple[str, ...]:
    """`a:1,[::1]:2` -> its addresses in order, each checked; unix:PATH is allowed. Raises AddressError."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise AddressError(f"{text[:200]!r} has no address: write HOST:PORT, several separated by commas")
    for part in parts:
        if not part.startswith("unix:") and split_address(part)[1] == 0:
            raise AddressError(f"address {part[:200]!r}: port 0 cannot be dialled")
    return parts


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost is not trusted to be."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def server_options(message_max_bytes: int = SERVER_MESSAGE_MAX_BYTES) -> Options:
    """Options for grpc.server and grpc.aio.server."""
    return [
        # Two servers on one port would share its connections unnoticed.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients ping every KEEPALIVE_TIME_MS; the default limit would call that abuse.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
        ("grpc.max_receive_message_length", message_max_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0),
    ]


def channel_options() -> Options:
    """Options for every channel between our own processes."""
    return [
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", BACKOFF_MIN_MS),
        ("grpc.min_reconnect_backoff_ms", BACKOFF_MIN_MS * 10),
        ("grpc.max_reconnect_backoff_ms", BACKOFF_MAX_MS),
        ("grpc.max_receive_message_length", CLIENT_MESSAGE_MAX_BYTES),
        ("grpc.max_send_message_length", -1),
        # Retries live on a budget in our own code; gRPC's would come on top of it.
        ("grpc.enable_retries", 0),
        # Our targets are addresses: a proxy in the environment is not meant for them.
        ("grpc.enable_http_proxy", 0),
    ]


def add_port(server: PortServer, address: str, tls: Tls | None = None) -> str:
    """Makes `server` listen on `HOST:PORT` (port 0: a free one) or `unix:PATH`; the bound address.

    Raises ListenError or TlsError with one clear line, AddressError on a malformed address.
    """
    if address.startswith("unix:"):
        return _add_unix(server, address)
    host, port = split_address(address)
    if not is_loopback(host) and (tls is None or not tls.mutual):
        raise ListenError(
            f"will not listen on {address!r}: it is off loopback, which needs TLS and client certificates;"
            " give --tls-cert, --tls-key and --tls-ca, or listen on 127.0.0.1 or [::1]"
        )
    credentials = None if tls is None or tls.cert is None else server_credentials(tls)
    if port:
        _check_free(host, port)
    target = join_address(host, port)
    try:
        bound = server.add_secure_port(target, credentials) if credentials else server.add_insecure_port(target)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {address!r}: {error}") from error
    if bound == 0:
        raise ListenError(f"cannot listen on {address!r}: the address is not this machine's or the port is taken")
    return join_address(host, bound)


def _check_free(host: str, port: int) -> None:
    """gRPC's own error does not say why a port could not be bound; this one does."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"cannot listen on {join_address(host, port)!r}: {host!r}: {error.strerror}") from error
    family, kind, protocol, _, where = found[0]
    with socket.socket(family, kind, protocol) as probe:
        # Lets connections in TIME_WAIT be, and still fails when somebody listens.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {join_address(host, port)!r}: {os.strerror(error.errno or 0)};"
                " choose another port or end the process that has it"
            ) from error


def _add_unix(server: PortServer, address: str) -> str:
    path = address.removeprefix("unix:")
    if not path or len(os.fsencode(path)) > UNIX_PATH_MAX_BYTES:
        raise AddressError(f"address {address[:200]!r}: a socket's path has 1 to {UNIX_PATH_MAX_BYTES} bytes")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) == 0:
            raise ListenError(f"cannot listen on {address!r}: another process listens there; end it first")
    directory = Path(path).parent
    if not directory.is_dir():
        raise ListenError(
            f"cannot listen on {address!r}: {str(directory)!r} is no directory: make it, or name another path"
        )
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {address!r}: is {str(directory)!r} writable?") from error
    if bound == 0:
        raise ListenError(f"cannot listen on {address!r}: is its directory there and writable?")
    return address


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """A server's side of `tls`. Raises TlsError."""
    if tls.cert is None or tls.key is None:
        raise TlsError("a TLS server needs --tls-cert and --tls-key")
    return grpc.ssl_server_credentials(
        [(_read(tls.key, "--tls-key"), _read(tls.cert, "--tls-cert"))],
        root_certificates=None if tls.ca is None else _read(tls.ca, "--tls-ca"),
        require_client_auth=tls.ca is not None,
    )


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """A client's side of `tls`. Raises TlsError."""
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls.ca is None else _read(tls.ca, "--tls-ca"),
        private_key=None if tls.key is None else _read(tls.key, "--tls-key"),
        certificate_chain=None if tls.cert is None else _read(tls.cert, "--tls-cert"),
    )


def _read(path: Path, flag: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TlsError(f"{flag} {str(path)!r}: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        raise TlsError(f"{flag} {str(path)!r} is not a PEM file")
    return data


def aio_channel(address: str, tls: Tls | None = None, options: Options | None = None) -> grpc.aio.Channel:
    """An asyncio channel to one process; dials when first used. `options` come on top of ours."""
    merged = [*channel_options(), *(options or [])]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=merged)
    return grpc.aio.secure_channel(address, channel_credentials(tls), options=merged)


def sync_channel(address: str, tls: Tls | None = None, options: Options | None = None) -> grpc.Channel:
    """A blocking channel to one process; dials when first used. `options` come on top of ours."""
    merged = [*channel_options(), *(options or [])]
    if tls is None:
        return grpc.insecure_channel(address, options=merged)
    return grpc.secure_channel(address, channel_credentials(tls), options=merged)


def principal_of(context: PeerContext) -> str:
    """Who calls: the identity in the client's certificate (URI or DNS name, else common name), or "anonymous"."""
    found = context.auth_context()
    for key in ("x509_subject_alternative_name", "x509_common_name"):
        for value in found.get(key, ()):
            text = value.decode("utf-8", "replace").strip()
            if text:
                return text[:PRINCIPAL_MAX_CHARS]
    return ANONYMOUS
