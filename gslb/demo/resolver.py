"""A small caching stub resolver: what stands between a browser and an authoritative server.

It names its clients' network in every query (RFC 7871), keeps answers for their TTL, asks the other server when one does not
answer, and serves what it has when none does (RFC 8767), as large resolvers do.
"""

import asyncio
import random
from dataclasses import dataclass
from ipaddress import IPv4Network

import dnslib
from typing_extensions import override

QUERY_TIMEOUT_S = 1.0
ECS_OPTION = 8
_ECS_FAMILY_V4 = b"\x00\x01"


class ResolveError(RuntimeError):
    """No server answered, or the answer was no address; the message has the servers and the last reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Addresses in the order given, their TTL in seconds, and the ECS scope the server set (-1: none)."""

    addresses: tuple[str, ...]
    ttl_s: int
    scope: int


class _OneReply(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @override
    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.reply.done():
            self.reply.set_result(data)

    @override
    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


def client_subnet_option(subnet: IPv4Network) -> dnslib.EDNSOption:
    """The EDNS Client Subnet option for a query (RFC 7871 section 6)."""
    kept = (subnet.prefixlen + 7) // 8
    body = _ECS_FAMILY_V4 + bytes([subnet.prefixlen, 0]) + subnet.network_address.packed[:kept]
    return dnslib.EDNSOption(ECS_OPTION, body)


async def ask(server: str, name: str, subnet: IPv4Network, query_id: int) -> Answer:
    """One A query to one server (`HOST:PORT`). Raises ResolveError."""
    query = dnslib.DNSRecord.question(name, "A")
    query.header.id = query_id
    query.add_ar(dnslib.EDNS0(udp_len=1232, opts=[client_subnet_option(subnet)]))
    host, _, port = server.rpartition(":")
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(_OneReply, remote_addr=(host, int(port)))
    try:
        transport.sendto(query.pack())
        data = await asyncio.wait_for(protocol.reply, QUERY_TIMEOUT_S)
    except (TimeoutError, OSError) as error:
        raise ResolveError(f"{server} did not answer for {name}: {error!r}") from error
    finally:
        transport.close()
    return _read(server, data, query_id)


def _read(server: str, data: bytes, query_id: int) -> Answer:
    try:
        reply = dnslib.DNSRecord.parse(data)
    except dnslib.DNSError as error:
        raise ResolveError(f"{server} answered with a malformed message: {error}") from error
    records = [rr for rr in reply.rr if rr.rtype == dnslib.QTYPE.A]
    if reply.header.id != query_id or reply.header.rcode != 0 or not records:
        rcode = dnslib.RCODE.get(reply.header.rcode)
        raise ResolveError(f"{server} answered {rcode} with {len(records)} addresses")
    scope = -1
    for record in reply.ar:
        for option in record.rdata if record.rtype == dnslib.QTYPE.OPT else ():
            if option.code == ECS_OPTION and len(option.data) >= 4:
                scope = option.data[3]
    return Answer(tuple(str(rr.rdata) for rr in records), min(rr.ttl for rr in records), scope)


class Resolver:
    """One resolver for one client network."""

    def __init__(self, servers: list[str], subnet: str, rng: random.Random) -> None:
        self._servers = servers
        self._subnet = IPv4Network(subnet)
        self._rng = rng
        self._kept: dict[str, tuple[float, Answer]] = {}
        self._lock = asyncio.Lock()
        self.failures = 0

    async def resolve(self, name: str, *, now_s: float) -> Answer:
        """From the cache while the TTL lasts, else from a server, else the stale answer. Raises ResolveError."""
        async with self._lock:
            until, answer = self._kept.get(name, (0.0, None))
            if answer is not None and now_s < until:
                return answer
            try:
                fresh = await self.query(name)
            except ResolveError:
                self.failures += 1
                if answer is None:
                    raise
                return answer
            self._kept[name] = (now_s + fresh.ttl_s, fresh)
            return fresh

    async def query(self, name: str) -> Answer:
        """Past the cache: each server once, in random order. Raises ResolveError with the last reason."""
        servers = self._rng.sample(self._servers, len(self._servers))
        for server in servers[:-1]:
            try:
                return await ask(server, name, self._subnet, self._rng.getrandbits(16))
            except ResolveError:
                continue
        return await ask(servers[-1], name, self._subnet, self._rng.getrandbits(16))
