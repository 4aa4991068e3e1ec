"""A plan is published: how long until the answer on the wire is the new one.

A control plane of one method, here in this process, sends a plan over a real Discovery stream to a real frontend; a client
asks until it hears the new address. What is in it: gRPC, the frontend's validation, its table, the data plane's swap, a query.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Final

import dns.message
import grpc.aio
from typing_extensions import override

from bench.dns import world
from bench.rows import Row, quantile_row
from bench.stage import BenchError, Stage, progress, until
from bns.etcd.embedded import free_port
from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Service, Zone
from gslb.steer.view import ServiceView
from gslb.v1 import discovery_pb2, discovery_pb2_grpc
from gslb.wire.codec import encode_plan
from gslb.wire.reader import ReaderView
from gslb.wire.snapshot import to_update

SERVICES: Final = 100
PLANS: Final = 200
_TIMEOUT_S: Final = 5.0
_ASK_AGAIN_S: Final = 0.002
_PAUSE_S: Final = 0.05
_HERE: Final = "near-everybody"


class _Discovery(discovery_pb2_grpc.DiscoveryServicer):
    """Sends a first state, then whatever is put into `news`."""

    def __init__(self, first: discovery_pb2.Update) -> None:
        self._first = first
        self.news: asyncio.Queue[discovery_pb2.Update] = asyncio.Queue()

    @override
    async def Subscribe(
        self, request_iterator: AsyncIterator[discovery_pb2.SubscribeRequest], context: object
    ) -> AsyncIterator[discovery_pb2.Update]:
        await anext(aiter(request_iterator))
        yield self._first
        while True:
            yield await self.news.get()


async def rows(stage: Stage, *, quick: bool) -> list[Row]:
    """The row of this measurement."""
    name = "plan published, until the answer on the wire is the new one"
    discovery = _Discovery(to_update(_view()))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    discovery_pb2_grpc.add_DiscoveryServicer_to_server(discovery, server)
    control = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        port = free_port()
        stage.python("gslb, published to", "gslb", "dns", "--listen", f"127.0.0.1:{port}", "--control", control)
        places = tuple(world.PLACES)
        await _heard(port, places[0], first=True)
        waits: list[float] = []
        progress("plans until they are on the wire")
        for number in range(2, 2 + (20 if quick else PLANS)):
            to = places[number % len(places)]
            begin = time.monotonic()
            discovery.news.put_nowait(_news(number, to))
            await _heard(port, to)
            waits.append(1e3 * (time.monotonic() - begin))
            await asyncio.sleep(_PAUSE_S)
    except BenchError as error:
        return [Row(name, None, "ms", str(error), at_most=100.0)]
    finally:
        await server.stop(0)
    return [quantile_row(name, waits, 0.99, "ms", at_most=100.0)]


def _service(number: int) -> Service:
    backends = tuple(Backend(f"/bns/{place}/bench/s{number}", 100.0) for place in world.PLACES)
    return Service(Meta(f"s{number}"), backends, dns_names=(f"s{number}.{world.ZONE}",), ttl_s=world.TTL_S)


def _plan(name: str, version: int, to: str) -> Plan:
    return Plan(name, Stamp(1, 1, version), {_HERE: {to: 1.0}}, computed_at_s=time.time())


def _view() -> ReaderView:
    views = {}
    for number in range(SERVICES):
        served = _service(number)
        members = {
            f"/bns/{place}/bench/s{number}/0": ServiceEndpoint(
                f"/bns/{place}/bench/s{number}/0", world.PLACES[place].address, 80, HealthStatus.HEALTHY
            )
            for place in world.PLACES
        }
        views[served.name] = ServiceView.build(
            served.name, served, _plan(served.name, 1, next(iter(world.PLACES))), members
        )
    known = Catalog(
        datacenters={
            name: Datacenter(Meta(name), "region", Coordinates(place.latitude, 0.0))
            for name, place in world.PLACES.items()
        },
        areas={_HERE: ClientArea(Meta(_HERE), Coordinates(0.0, 0.0), ())},
        zones={world.ZONE: Zone(Meta(world.ZONE), "$TTL 30\n@ SOA ns1 h 1 3600 600 604800 60\n@ NS ns1\n")},
    )
    return ReaderView(views, known, synced=True, replica="bench")


def _news(version: int, to: str) -> discovery_pb2.Update:
    change = discovery_pb2.ServiceUpdate(service="s7", plan=encode_plan(_plan("s7", version, to)))
    return discovery_pb2.Update(replica="bench", synced=True, services=[change])


async def _heard(port: int, place: str, *, first: bool = False) -> None:
    """Asks until the answer is the address of `place`. Raises BenchError."""
    expected = socket.inet_aton(world.PLACES[place].address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect(("127.0.0.1", port))
        wire = dns.message.make_query(f"s7.{world.ZONE}", "A").to_wire()

        def right() -> bool:
            with contextlib.suppress(OSError):
                asking.send(wire)
            with contextlib.suppress(OSError):
                while answer := asking.recv(4096):
                    if answer.endswith(expected):
                        return True
            return False

        if first:
            await until(f"the frontend answers {world.PLACES[place].address}", right)
            return
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not right():
            if time.monotonic() > deadline_s:
                raise BenchError(f"no answer with {place} in {_TIMEOUT_S:g} s")
            await asyncio.sleep(_ASK_AGAIN_S)
