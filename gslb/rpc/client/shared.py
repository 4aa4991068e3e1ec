"""The one control connection of this process, and what the environment says about it."""

import atexit
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from bns.errors import AddressError, TlsError
from bns.transport import Tls, parse_addresses
from gslb.rpc.client.connection import ControlConnection, Identity
from gslb.rpc.client.errors import ConfigurationError

_lock = threading.Lock()
_connections: dict[tuple[tuple[str, ...], Identity], ControlConnection] = {}


def tls_of(environment: Mapping[str, str]) -> Tls | None:
    """GSLB_TLS_CERT, GSLB_TLS_KEY and GSLB_TLS_CA as Tls; None when none is set."""
    cert, key, authority = (environment.get(f"GSLB_TLS_{name}") for name in ("CERT", "KEY", "CA"))
    if not (cert or key or authority):
        return None
    try:
        return Tls(
            cert=Path(cert) if cert else None, key=Path(key) if key else None, ca=Path(authority) if authority else None
        )
    except TlsError as error:
        raise ConfigurationError(f"GSLB_TLS_CERT, GSLB_TLS_KEY, GSLB_TLS_CA: {error}") from error


def _addresses(given: str | Sequence[str] | None) -> tuple[str, ...]:
    text = given if given is not None else os.environ.get("GSLB_CONTROL", "")
    joined = text if isinstance(text, str) else ",".join(text)
    if not joined.strip():
        raise ConfigurationError(
            'no control plane: give control="HOST:PORT,HOST:PORT" or set GSLB_CONTROL in the environment'
        )
    try:
        return parse_addresses(joined)
    except AddressError as error:
        raise ConfigurationError(f"control plane: {error}") from error


def control(
    addresses: str | Sequence[str] | None = None,
    *,
    locality: str | None = None,
    tls: Tls | None = None,
    snapshot_path: str | Path | None = None,
) -> ControlConnection:
    """The connection to the control plane at these addresses, made on first use and shared by the whole process.

    Defaults come from GSLB_CONTROL, GSLB_LOCALITY, GSLB_SERVICE and GSLB_TLS_CERT/KEY/CA. Raises ConfigurationError.
    """
    where = _addresses(addresses)
    identity = Identity(
        locality=os.environ.get("GSLB_LOCALITY", "") if locality is None else locality,
        service=os.environ.get("GSLB_SERVICE", ""),
        tls=tls or tls_of(os.environ),
    )
    path = Path(snapshot_path) if snapshot_path is not None else None
    with _lock:
        connection = _connections.get((where, identity))
        if connection is None or connection.closed:
            connection = ControlConnection(where, identity, snapshot_path=path)
            _connections[where, identity] = connection
            return connection
    if path is not None and connection.snapshot_path != path:
        connection.snapshot_path = path
    return connection


def connections() -> list[ControlConnection]:
    """Every control connection of this process that is open."""
    with _lock:
        return [connection for connection in _connections.values() if not connection.closed]


def close_all() -> None:
    """Ends every control connection of this process; done by itself at exit."""
    with _lock:
        connections = list(_connections.values())
        _connections.clear()
    for connection in connections:
        connection.close()


def _forget() -> None:
    """In a forked child the threads are gone: channels made there get a connection of their own."""
    global _lock
    _lock = threading.Lock()
    _connections.clear()


# Before the interpreter takes daemon threads down in the midst of gRPC's C code.
atexit.register(close_all)
os.register_at_fork(after_in_child=_forget)
