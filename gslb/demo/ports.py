"""Free ports on loopback addresses."""

import random
import socket
from collections.abc import Iterable

_ATTEMPTS = 200
_BELOW_EPHEMERAL = (10_240, 32_000)


def is_free(host: str, port: int, *, udp: bool = False) -> bool:
    """Whether `host:port` can be bound now, TCP (and UDP too when asked)."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) if udp else (socket.SOCK_STREAM,):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def any_free(host: str) -> int:
    """A port that was free a moment ago, below the range that outgoing connections are given: it stays free over a restart."""
    rng = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        port = rng.randrange(*_BELOW_EPHEMERAL)
        if is_free(host, port):
            return port
    raise OSError(f"no free port was found on {host} in {_ATTEMPTS} tries")


def first_free(hosts: Iterable[str], start: int, *, udp: bool = False) -> int:
    """The first port at or after `start` that is free on every one of `hosts`. Raises OSError."""
    wanted = list(hosts)
    for port in range(start, start + _ATTEMPTS):
        if all(is_free(host, port, udp=udp) for host in wanted):
            return port
    raise OSError(f"no port from {start} to {start + _ATTEMPTS - 1} is free on {', '.join(wanted)}")
