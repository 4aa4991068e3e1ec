"""Lays out a large world for DNS in a process of its own: time and memory of tables, whole and patched."""

import ctypes
import ipaddress
import os
import random
import time
from dataclasses import dataclass, field

from bench.load.worker import Json, run
from bench.stage import memory_mb
from bns.model import HealthStatus
from dns_frontend.metrics import Transport
from dns_frontend.native import NativeTable, load_library
from dns_frontend.responder.locate import Source
from dns_frontend.table.compile import Compiled, compiled
from dns_frontend.table.serving import Serving
from dns_frontend.zone.name import from_text
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Shares, Stamp
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Service
from gslb.steer.view import ServiceView

DATACENTERS = [f"dc{number:02d}" for number in range(20)]
PER_SERVICE = 5  # datacenters
TASKS = 4  # in each of them


@dataclass
class State:
    """What the commands hold between them."""

    rng: random.Random = field(default_factory=lambda: random.Random(20261122))
    views: dict[str, ServiceView] = field(default_factory=dict)
    catalog: Catalog = field(default_factory=Catalog)
    serving: Serving = field(default_factory=Serving)
    made: Compiled | None = None
    table: NativeTable | None = None
    localities: list[str] = field(default_factory=list)


STATE = State()


def _service(state: State, number: int, version: int) -> ServiceView:
    """Of the localities, nine of ten go to one datacenter, and one to two; endpoints in five datacenters."""
    rng = state.rng
    name = f"service{number:05d}"
    used = rng.sample(DATACENTERS, PER_SERVICE)
    whole: list[Shares] = [{datacenter: 1.0} for datacenter in used]
    shares: dict[str, Shares] = {}
    for locality in state.localities:
        if rng.random() < 0.1:
            one, other = rng.sample(used, 2)
            part = rng.random()
            shares[locality] = {one: part, other: 1.0 - part}
        else:
            shares[locality] = rng.choice(whole)
    members = {}
    for datacenter in used:
        for index in range(TASKS):
            task = f"/bns/{datacenter}/bench/{name}/{index}"
            address = str(ipaddress.IPv4Address(rng.getrandbits(32)))
            members[task] = ServiceEndpoint(task, address, 80, HealthStatus.HEALTHY)
    backends = tuple(Backend(f"/bns/{datacenter}/bench/{name}", 100.0) for datacenter in used)
    service = Service(Meta(name), backends, dns_names=(f"{name}.bench.example",))
    return ServiceView.build(name, service, Plan(name, Stamp(1, 1, version), shares, computed_at_s=1.0), members)


async def world(request: Json) -> Json:
    """Makes services and localities."""
    where = Coordinates(0.0, 0.0)
    STATE.localities = [f"area{number:03d}" for number in range(int(str(request["localities"])))]
    networks = [ipaddress.ip_network(f"10.{number}.0.0/16") for number in range(len(STATE.localities))]
    STATE.catalog = Catalog(
        datacenters={name: Datacenter(Meta(name), "region", where) for name in DATACENTERS},
        areas={
            name: ClientArea(Meta(name), where, (network,))
            for name, network in zip(STATE.localities, networks, strict=True)
        },
    )
    services = int(str(request["services"]))
    STATE.views = {view.name: view for view in (_service(STATE, number, 1) for number in range(services))}
    return {"mb": memory_mb(_pid())}


async def whole(_: Json) -> Json:
    """Everything from nothing: what the reference serves, then the table."""
    _trim()
    before_mb = memory_mb(_pid())
    begin, begin_cpu = time.perf_counter(), time.process_time()
    STATE.serving = Serving().advance(STATE.catalog, STATE.views)
    laid_out = time.perf_counter()
    made = compiled(STATE.serving, "")
    STATE.table = NativeTable(load_library(), made.octets)
    end, end_cpu = time.perf_counter(), time.process_time()
    STATE.made = made.kept()
    octets = len(made.octets)
    del made
    _trim()
    return {
        "s": end - begin,
        "cpu_s": end_cpu - begin_cpu,
        "compile_s": end - laid_out,
        "octets": octets,
        "mb": memory_mb(_pid()) - before_mb,
        "process_mb": memory_mb(_pid()),
    }


async def change(_: Json) -> Json:
    """Another plan and other endpoints for one service, until the table answers by them."""
    number = STATE.rng.randrange(len(STATE.views))
    fresh = _service(STATE, number, 2)
    views = {**STATE.views, fresh.name: fresh}
    begin, begin_cpu = time.perf_counter(), time.process_time()
    serving = STATE.serving.advance(STATE.catalog, views)
    made = compiled(serving, "", STATE.made)
    assert made.is_patch
    STATE.table = NativeTable(load_library(), made.octets, STATE.table)
    end, end_cpu = time.perf_counter(), time.process_time()
    STATE.views, STATE.serving, STATE.made = views, serving, made.kept()
    _check(fresh.name)
    return {"s": end - begin, "cpu_s": end_cpu - begin_cpu, "octets": len(made.octets)}


def _check(name: str) -> None:
    """The table gives an address that the service has now."""
    packet = b"\x00\x07\x00\x00\x00\x01" + bytes(6) + from_text(f"{name}.bench.example") + b"\x00\x01\x00\x01"
    assert STATE.table is not None
    found = STATE.table.answer(packet, Source(4, 0x0A070001), Transport.UDP)
    assert found is not None
    assert found[0] is not None
    address = str(ipaddress.IPv4Address(found[0][-4:]))
    assert address in {endpoint.address for endpoint in STATE.views[name].endpoints.values()}


def _pid() -> int:
    return os.getpid()


def _trim() -> None:
    """What is free goes back to the system, so that what is measured is what is used."""
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    run({"world": world, "whole": whole, "change": change})
