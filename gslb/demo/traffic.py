"""The demo's browsers: an open loop of searches from every client area, through DNS, over HTTP keep-alive connections.

Open loop: requests start when they are due, whether or not earlier ones have ended, as on the real internet; what fails is
counted with its time and reason, so that a check can say exactly what a fault cost.
"""

import asyncio
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from gslb.demo.layout import CLIENT_NETWORKS_PER_AREA, SITES, WEB_NAME, Site, site_of_address
from gslb.demo.resolver import ResolveError, Resolver

REQUEST_TIMEOUT_S = 10.0
OUTCOMES_KEPT = 200_000
OUTSTANDING_MAX = 2_000

WORDS = [
    "love",
    "dagger",
    "rose",
    "tempest",
    "crown",
    "ghost",
    "blood",
    "heart",
    "night",
    "king",
    "queen",
    "sword",
    "moon",
    "honour",
    "death",
    "summer",
    "winter",
    "dream",
    "poison",
    "daughter",
    "brother",
    "villain",
    "fool",
    "murder",
    "jealousy",
    "mercy",
    "music",
    "garden",
    "thunder",
    "witches",
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it ended (monotonic seconds), from where, to which datacenter, how."""

    ended_s: float
    area: str
    datacenter: str
    latency_s: float
    error: str  # "" when it succeeded


def session_from(address: str) -> aiohttp.ClientSession:
    """An HTTP client whose connections come from `address`. Use inside a running loop; close it."""
    # Idle connections are given up well before a GFE does.
    connector = aiohttp.TCPConnector(local_addr=(address, 0), limit=0, keepalive_timeout=15.0)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S))


@dataclass(slots=True)
class Client:
    """The browsers of one client network, behind one resolver."""

    site: Site
    resolver: Resolver
    http: aiohttp.ClientSession


@dataclass(slots=True)
class Traffic:
    """Runs until cancelled. `rate_rps[area]` may be changed at any time."""

    dns_servers: list[str]
    gfe_port: int
    rng: random.Random
    rate_rps: dict[str, float] = field(default_factory=lambda: {site.area: site.base_rps for site in SITES})
    outcomes: deque[Outcome] = field(default_factory=lambda: deque(maxlen=OUTCOMES_KEPT))
    started: Counter[str] = field(default_factory=Counter)
    _clients: dict[str, list[Client]] = field(default_factory=dict)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Every area at its rate, for ever."""
        try:
            self._clients = {
                site.area: [self._client(site, n) for n in range(CLIENT_NETWORKS_PER_AREA)] for site in SITES
            }
            await asyncio.gather(*(self._area(site) for site in SITES))
        finally:
            for task in list(self._running):
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            for client in (client for clients in self._clients.values() for client in clients):
                await client.http.close()

    def dns_failures(self) -> int:
        """Queries that no server answered, so far."""
        return sum(client.resolver.failures for clients in self._clients.values() for client in clients)

    def since(self, start_s: float) -> list[Outcome]:
        """What ended at or after `start_s`, oldest first."""
        found: list[Outcome] = []
        for outcome in reversed(self.outcomes):
            if outcome.ended_s < start_s:
                break
            found.append(outcome)
        return found[::-1]

    def _client(self, site: Site, network: int) -> Client:
        resolver = Resolver(self.dns_servers, site.client_subnet(network), self.rng)
        return Client(site, resolver, session_from(site.client_address(network)))

    async def _area(self, site: Site) -> None:
        due_s = time.monotonic() + self.rng.random()
        while True:
            # Even spacing with a little jitter: bursts of our own would only blur what the balancer does.
            due_s += self.rng.uniform(0.7, 1.3) / max(0.1, self.rate_rps[site.area])
            now_s = time.monotonic()
            due_s = max(due_s, now_s - 1.0)  # after a stall of this machine: no catching up with a burst
            await asyncio.sleep(max(0.0, due_s - now_s))
            if len(self._running) < OUTSTANDING_MAX:
                client = self.rng.choice(self._clients[site.area])
                task = asyncio.create_task(self._request(client, self.rng.choice(WORDS)))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _request(self, client: Client, word: str) -> None:
        begun_s = time.monotonic()
        self.started[client.site.area] += 1
        datacenter, error = "", ""
        try:
            answer = await client.resolver.resolve(WEB_NAME, now_s=begun_s)
            datacenter, error = await self._get(client, answer.addresses[0], word)
        except aiohttp.ClientConnectorError as failure:
            datacenter, error = await self._elsewhere(
                client, failure.host, word, f"{type(failure).__name__}: {failure}"
            )
        except (ResolveError, aiohttp.ClientError, TimeoutError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        now_s = time.monotonic()
        self.outcomes.append(Outcome(now_s, client.site.area, datacenter, now_s - begun_s, error))

    async def _get(self, client: Client, address: str, word: str) -> tuple[str, str]:
        """(datacenter, error) of one request to one address. Raises aiohttp.ClientError, TimeoutError."""
        url = f"http://{address}:{self.gfe_port}/search?q={word}"
        async with client.http.get(url, headers={"Host": WEB_NAME}) as reply:
            await reply.read()
            error = "" if reply.status == HTTPStatus.OK else f"HTTP {reply.status}: {reply.headers.get('x-error', '')}"
        return site_of_address(address), error

    async def _elsewhere(self, client: Client, refused: str, word: str, error: str) -> tuple[str, str]:
        """What a browser does whose connection was refused: asks DNS again, and goes where it leads now, once."""
        try:
            answer = await client.resolver.resolve(WEB_NAME, now_s=time.monotonic(), refused=refused)
            if refused in answer.addresses:
                return site_of_address(refused), error
            return await self._get(client, answer.addresses[0], word)
        except (ResolveError, aiohttp.ClientError, TimeoutError) as failure:
            return site_of_address(refused), f"{type(failure).__name__}: {failure}"
