"""A small real control plane for DNS tests, and worlds to feed it with."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.edns
import dns.message
import grpc
import grpc.aio
import pytest
from typing_extensions import override

from bns.model import HealthStatus
from dns_frontend.metrics import Counters, Transport
from dns_frontend.native import Library, NoDataPlaneError, load_library
from dns_frontend.responder.locate import Source
from dns_frontend.responder.respond import Responder
from dns_frontend.server import Frontend, Settings
from dns_frontend.table.serving import Serving
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Service, Zone
from gslb.steer.view import ServiceView
from gslb.v1 import discovery_pb2, discovery_pb2_grpc, report_pb2, report_pb2_grpc
from gslb.wire.codec import encode_endpoint, encode_plan, encode_resource, encode_service
from gslb.wire.reader import ReaderView
from gslb.wire.snapshot import to_update

WAIT_S = 10.0

ZONE_TEXT = r"""$TTL 300
@           IN SOA ns1 hostmaster ( 2026112101 3600 600 604800 60 )
            NS  ns1
            NS  ns2
            MX  10 mail
            TXT "v=spf1 -all"
ns1         A    127.0.0.1
ns2         A    127.0.0.2
            AAAA ::2
mail        A    127.0.0.3
alias       CNAME www
chain       CNAME alias
loop1       CNAME loop2
loop2       CNAME loop1
away        CNAME www.elsewhere.test.
broken      CNAME nothing.here
d           DNAME data
x.data      A    127.0.0.4
*.wild      TXT  "wild"
*.wild      A    127.0.0.5
a.b.wild    A    127.0.0.6
deep.er.ent A    127.0.0.7
_sip._tcp   SRV  1 2 5060 mail
odd         TYPE65280 \# 3 010203
sub         NS   ns.sub
sub         NS   ns2
sub         DS   12345 13 2 49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC4921
ns.sub      A    127.0.0.8
hid.d2      A    127.0.0.9
"""
# Too long for a datagram of 512 octets; too long for any that we send.
ZONE_TEXT += "big TXT ({})\n".format(" ".join(['"' + "0123456789" * 7 + '"'] * 8))
ZONE_TEXT += "".join(f'huge TXT "{str(n) * 250}"\n' for n in range(7))

DATACENTERS = {
    "us-east1": Coordinates(33.2, -80.0),
    "europe-west1": Coordinates(50.4, 3.8),
    "asia-east1": Coordinates(24.0, 120.5),
}
AREAS = {
    "na": (Coordinates(40.0, -95.0), ("10.0.0.0/8", "2001:db8:1::/48")),
    "eu": (Coordinates(50.0, 10.0), ("11.0.0.0/8", "2001:db8:2::/48")),
    "asia": (Coordinates(30.0, 110.0), ("12.0.0.0/8", "10.200.0.0/16")),
}
# Where in 127/8 the endpoints of a datacenter are.
OCTETS = {"us-east1": 1, "europe-west1": 2, "asia-east1": 3}


def networks(*cidrs: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(cidr) for cidr in cidrs)


def catalog(zones: Mapping[str, str] | None = None, areas: Mapping[str, Iterable[str]] | None = None) -> Catalog:
    """Three datacenters, three client areas (or `areas`), and `zones` (default: ZONE_TEXT as shakespeare.example)."""
    known = {name: (place, cidrs) for name, (place, cidrs) in AREAS.items()}
    if areas is not None:
        known = {name: (Coordinates(0.0, 0.0), tuple(cidrs)) for name, cidrs in areas.items()}
    texts = {"shakespeare.example": ZONE_TEXT} if zones is None else zones
    return Catalog(
        datacenters={name: Datacenter(Meta(name), "region", place) for name, place in DATACENTERS.items()},
        areas={name: ClientArea(Meta(name), place, networks(*cidrs)) for name, (place, cidrs) in known.items()},
        zones={name: Zone(Meta(name), text) for name, text in texts.items()},
    )


def service(
    *dns_names: str, name: str = "gfe", ttl_s: int = 30, addresses: int = 2, alpn: tuple[str, ...] = ()
) -> Service:
    backends = tuple(Backend(f"/bns/{datacenter}/test/gfe", 100.0) for datacenter in DATACENTERS)
    return Service(Meta(name), backends, dns_names=dns_names, ttl_s=ttl_s, addresses_per_answer=addresses, alpn=alpn)


def endpoints(
    counts: Mapping[str, int], *, job: str = "gfe", ipv6: bool = False, health: HealthStatus = HealthStatus.HEALTHY
) -> dict[str, ServiceEndpoint]:
    """`counts` tasks a datacenter, at 127.OCTET.0.1 and on, or 2001:db8:OCTET::1 and on."""
    made: dict[str, ServiceEndpoint] = {}
    for datacenter, count in counts.items():
        octet = OCTETS[datacenter]
        for index in range(count):
            task = f"/bns/{datacenter}/test/{job}{'6' if ipv6 else ''}/{index}"
            address = f"2001:db8:{octet}::{index + 1:x}" if ipv6 else f"127.{octet}.{index >> 8}.{(index & 255) + 1}"
            made[task] = ServiceEndpoint(task, address, 80, health)
    return made


NEAREST = {
    "na": {"us-east1": 1.0},
    "eu": {"europe-west1": 1.0},
    "asia": {"asia-east1": 1.0},
}


def plan(
    shares: Mapping[str, Mapping[str, float]] = NEAREST, *, version: int = 1, name: str = "gfe", epoch: int = 1
) -> Plan:
    return Plan(name, Stamp(1, epoch, version), shares, computed_at_s=1_700_000_000.0)


ONE_EACH = dict.fromkeys(DATACENTERS, 2)


def view_of(
    served: Service | None = None,
    planned: Plan | None = None,
    members: Mapping[str, ServiceEndpoint] | None = None,
) -> ServiceView:
    served = served or service("www.shakespeare.example")
    return ServiceView.build(
        served.name, served, planned or plan(name=served.name), endpoints(ONE_EACH) if members is None else members
    )


def reader_view(*views: ServiceView, known: Catalog | None = None) -> ReaderView:
    return ReaderView({view.name: view for view in views}, known or catalog(), synced=True, replica="test")


def responder_for(*views: ServiceView, known: Catalog | None = None, default_locality: str = "") -> Responder:
    """A responder that serves these views, without any socket."""
    made = Responder(Counters(), default_locality)
    made.serving = Serving().advance(known or catalog(), {view.name: view for view in views})
    return made


ANYBODY = Source(4, int(ipaddress.ip_address("10.1.2.3")))


def source(address: str) -> Source:
    parsed = ipaddress.ip_address(address)
    return Source(parsed.version, int(parsed))


def ask(
    responder: Responder,
    name: str,
    rtype: str = "A",
    *,
    client: str = "10.1.2.3",
    subnet: str | None = None,
    transport: Transport = Transport.TCP,
    payload: int = 1232,
    edns: bool = False,
) -> dns.message.Message:
    """One query through the responder's octets, parsed by dnspython."""
    options = []
    if subnet is not None:
        network = ipaddress.ip_network(subnet)
        options.append(dns.edns.ECSOption(str(network.network_address), network.prefixlen))
    # dnspython turns EDNS on when any of its parameters is given.
    extra = {"use_edns": 0, "options": options or None, "payload": payload} if edns or options else {}
    query = dns.message.make_query(name, rtype, **extra)
    answer = responder.respond(query.to_wire(), source(client), transport)
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert query.is_response(message)
    return message


def addresses_in(message: dns.message.Message) -> set[str]:
    return {rdata.address for rrset in message.answer for rdata in rrset if hasattr(rdata, "address")}


def subnet_of(message: dns.message.Message) -> dns.edns.ECSOption | None:
    return next((option for option in message.options if isinstance(option, dns.edns.ECSOption)), None)


@dataclass
class _Stream:
    request: discovery_pb2.SubscribeRequest
    queue: asyncio.Queue[discovery_pb2.Update | None] = field(default_factory=asyncio.Queue)


class ControlPlane(discovery_pb2_grpc.DiscoveryServicer, report_pb2_grpc.ReportsServicer):
    """Discovery and Reports of one replica, on a real port: sends what the test says, keeps what it is told."""

    def __init__(self) -> None:
        self.first: list[discovery_pb2.Update] = []  # what a new stream gets at once
        self.requests: list[discovery_pb2.SubscribeRequest] = []
        self.reports: list[report_pb2.DemandReport] = []
        self.address = ""
        self._streams: list[_Stream] = []
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str = "127.0.0.1:0") -> str:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        discovery_pb2_grpc.add_DiscoveryServicer_to_server(self, server)
        report_pb2_grpc.add_ReportsServicer_to_server(self, server)
        port = server.add_insecure_port(address)
        await server.start()
        self._server = server
        self.address = f"127.0.0.1:{port}"
        return self.address

    async def stop(self) -> None:
        for stream in self._streams:
            stream.queue.put_nowait(None)
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    def serve(self, view: ReaderView) -> None:
        """New streams begin with this view."""
        self.first = [to_update(view)]

    def push(self, update: discovery_pb2.Update) -> None:
        """To every open stream."""
        for stream in self._streams:
            stream.queue.put_nowait(update)

    @property
    def streams(self) -> int:
        return len(self._streams)

    @override
    async def Subscribe(self, request_iterator, context):
        request = await anext(aiter(request_iterator))
        self.requests.append(request)
        stream = _Stream(request)
        for update in self.first:
            stream.queue.put_nowait(update)
        self._streams.append(stream)
        try:
            while (update := await stream.queue.get()) is not None:
                yield update
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        finally:
            self._streams.remove(stream)

    @override
    async def ReportDemand(self, request_iterator, context):
        async for report in request_iterator:
            self.reports.append(report)
            yield report_pb2.ReportAck(seq=report.seq, accepted=True)


def service_update(view: ServiceView, *, synced: bool = True) -> discovery_pb2.Update:
    """Everything of one service."""
    return discovery_pb2.Update(
        replica="test",
        synced=synced,
        services=[
            discovery_pb2.ServiceUpdate(
                service=view.name,
                config=encode_service(view.service) if view.service else None,
                plan=encode_plan(view.plan) if view.plan else None,
                endpoints_snapshot=True,
                upserted=[encode_endpoint(endpoint) for endpoint in view.endpoints.values()],
            )
        ],
    )


def catalog_update(known: Catalog) -> discovery_pb2.Update:
    resources = [*known.datacenters.values(), *known.areas.values(), *known.zones.values()]
    return discovery_pb2.Update(
        replica="test",
        synced=True,
        catalog=discovery_pb2.Catalog(resources=[encode_resource(resource) for resource in resources]),
    )


@asynccontextmanager
async def running(
    *control: str,
    snapshot: Path | None = None,
    listen: tuple[str, ...] = ("127.0.0.1:0",),
    default_locality: str = "",
    name: str = "dns-test",
    threads: int = 0,
    alone: bool = False,
    **more,
) -> AsyncIterator[Frontend]:
    """A whole frontend in this process, on real sockets; with `threads`, the data plane answers over UDP.

    `alone`: without a control plane; `more`: other settings.
    """
    frontend = Frontend(
        Settings(
            name=name,
            control=() if alone else control or ("127.0.0.1:1",),
            listen=listen,
            grpc="127.0.0.1:0",
            http="127.0.0.1:0",
            snapshot=snapshot,
            default_locality=default_locality,
            threads=threads,
            **more,
        )
    )
    await frontend.start()
    task = asyncio.create_task(frontend.run())
    try:
        yield frontend
    finally:
        frontend.stop()
        await task


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Waits for a condition, not for ever."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_S
    while not condition():
        assert loop.time() < end, f"not within {WAIT_S} s: {what or condition}"
        await asyncio.sleep(0.01)


def data_plane_or_skip() -> Library:
    """The data plane's library, where it is built."""
    try:
        return load_library()
    except NoDataPlaneError as error:
        pytest.skip(str(error))
