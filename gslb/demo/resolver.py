"""A small caching stub resolver: what stands between a browser and an authoritative server.

It names its clients' network in every query (RFC 7871), keeps answers for their TTL, asks the other server when one does not
answer, and serves what it has when none does (RFC 8767), as large resolvers do.
"""

import asyncio
import random
from dataclasses import dataclass
from ipaddress import IPv4Network

import dns.edns
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
from typing_extensions import override

QUERY_TIMEOUT_S = 1.0


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


def client_subnet_query(name: str, subnet: IPv4Network, query_id: int) -> dns.message.QueryMessage:
    """An A query that names the client's network (RFC 7871 section 6)."""
    option = dns.edns.ECSOption(str(subnet.network_address), subnet.prefixlen)
    query = dns.message.make_query(name, "A", use_edns=0, payload=1232, options=[option], flags=0)
    query.id = query_id
    return query


async def ask(server: str, name: str, subnet: IPv4Network, query_id: int) -> Answer:
    """One A query to one server (`HOST:PORT`). Raises ResolveError."""
    query = client_subnet_query(name, subnet, query_id)
    host, _, port = server.rpartition(":")
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(_OneReply, remote_addr=(host, int(port)))
    try:
        transport.sendto(query.to_wire())
        data = await asyncio.wait_for(protocol.reply, QUERY_TIMEOUT_S)
    except (TimeoutError, OSError) as error:
        raise ResolveError(f"{server} did not answer for {name}: {error!r}") from error
    finally:
        transport.close()
    return _read(server, data, query)


def _read(server: str, data: bytes, query: dns.message.Message) -> Answer:
    try:
        reply = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError) as error:
        raise ResolveError(f"{server} answered with a malformed message: {error}") from error
    records = [rrset for rrset in reply.answer if rrset.rdtype == dns.rdatatype.A]
    if not query.is_response(reply) or reply.rcode() != dns.rcode.NOERROR or not records:
        raise ResolveError(f"{server} answered {dns.rcode.to_text(reply.rcode())} with {len(records)} address sets")
    scopes = [option.scopelen for option in reply.options if isinstance(option, dns.edns.ECSOption)]
    addresses = tuple(record.address for rrset in records for record in rrset)
    return Answer(addresses, min(rrset.ttl for rrset in records), scopes[0] if scopes else -1)


class Resolver:
    """One resolver for one client network."""

    def __init__(self, servers: list[str], subnet: str, rng: random.Random) -> None:
        self._servers = servers
        self._subnet = IPv4Network(subnet)
        self._rng = rng
        self._kept: dict[str, tuple[float, Answer]] = {}
        self._lock = asyncio.Lock()
        self.failures = 0

    async def resolve(self, name: str, *, now_s: float, refused: str = "") -> Answer:
        """From the cache while the TTL lasts, else from a server, else the stale answer. Raises ResolveError.

        `refused`: an address that took no connection; an answer that leads there is not taken from the cache.
        """
        async with self._lock:
            until, answer = self._kept.get(name, (0.0, None))
            if answer is not None and now_s < until and refused not in answer.addresses:
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
