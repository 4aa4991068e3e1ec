"""The sockets that the frontend listens on: one UDP and one TCP of the same port for each address."""

import errno
import os
import resource
import socket
import sys
from typing import Final, NamedTuple

from bns.errors import BnsError
from bns.transport import join_address, split_address
from dns_frontend.errors import FrontendError
from dns_frontend.limits import BIND_ATTEMPTS, FILES_RESERVED, FILES_WANTED, TCP_BACKLOG, UDP_BUFFER_OCTETS

_IP_PKTINFO: Final = 8  # linux/in.h; Python 3.11 does not name it
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound here


class Listening(NamedTuple):
    """One address served over both transports. Several UDP sockets share its port: the kernel spreads clients over them."""

    udp: tuple[socket.socket, ...]
    tcp: socket.socket
    address: str  # HOST:PORT
    wildcard: bool  # answers must say which address they come from (RFC 2181 section 4)


def listen(address: str, udp_sockets: int = 1) -> Listening:
    """Binds `HOST:PORT`, port 0 meaning any that is free for UDP and TCP. Raises FrontendError.

    With several UDP sockets, another process of this user could take a part of our queries by binding the same port: the
    TCP socket, which does not share, keeps a second frontend out.
    """
    try:
        host, port = split_address(address)
    except BnsError as error:
        raise FrontendError(f"--listen: {error}") from error
    family, where = _resolved(host, port)
    for _ in range(1 if port else BIND_ATTEMPTS):
        made: list[socket.socket] = []
        try:
            made.append(_bound(family, socket.SOCK_DGRAM, where, shared=udp_sockets > 1))
            there = (where[0], made[0].getsockname()[1])
            made.append(_bound(family, socket.SOCK_STREAM, there))
            made += [_bound(family, socket.SOCK_DGRAM, there, shared=True) for _ in range(udp_sockets - 1)]
        except FrontendError:
            for one in made:
                one.close()
            if port or not made:
                raise
            continue
        first, tcp, *others = made
        tcp.listen(TCP_BACKLOG)
        return Listening((first, *others), tcp, join_address(*there), where[0] in _WILDCARDS)
    raise FrontendError(f"cannot listen on {address!r}: no port is free for both UDP and TCP")


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise FrontendError(f"cannot listen on {join_address(host, port)!r}: {host!r}: {error.strerror}") from error
    family, _, _, _, where = found[0]
    return family, (str(where[0]), port)


def _bound(
    family: socket.AddressFamily, kind: socket.SocketKind, where: tuple[str, int], *, shared: bool = False
) -> socket.socket:
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            # [::] and 0.0.0.0 may both be given, and a client's address is never a mapped one.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER_OCTETS)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if where[0] in _WILDCARDS:
                _ask_for_destination(made, family)
        made.bind(where)
    except OSError as error:
        made.close()
        transport = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        what = f"cannot listen on {join_address(*where)!r} over {transport}: {os.strerror(error.errno or 0)}"
        raise FrontendError(f"{what}; {_advice(error)}") from error
    return made


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "choose another port or end the process that has it"
        case errno.EACCES:
            return "ports below 1024 need CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have that address"
        case _:
            return "choose another --listen"


def _ask_for_destination(made: socket.socket, family: socket.AddressFamily) -> None:
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def raise_file_limit() -> None:
    """As many open files as the TCP connections may need, as far as we are allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def files_left() -> int:
    """How many files connections may take; at least one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - FILES_RESERVED)


def source_parts(family: int, host: str) -> tuple[int, int]:
    """(IP version, number) of a peer's address as the socket module gives it."""
    if family == socket.AF_INET:
        return 4, int.from_bytes(socket.inet_aton(host), "big")
    return 6, int.from_bytes(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]), "big")


def reply_from(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What to send with an answer so that it leaves from the address the query came to, by any interface."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # in_pktinfo: interface, local address, destination in the packet; the reply wants the local address.
            return [(level, kind, bytes(4) + data[4:8] + bytes(4))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, data[:16] + data[16:20])]
    return []


def packet_info(version: int, local: bytes, interface: int) -> list[tuple[int, int, bytes]]:
    """What to send with an answer that shall leave from the address `local` (16 octets, those of IPv4 first)."""
    if version == 4:
        return [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + local[:4] + bytes(4))]
    if version == 6:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local + interface.to_bytes(4, sys.byteorder))]
    return []
