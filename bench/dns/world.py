"""What every server in the benchmark serves: a thousand names, three datacenters, a client network for each; and queries."""

import ipaddress
import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bns.model import HealthStatus
from dns_frontend.zone.name import from_text
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Service, Zone
from gslb.steer.view import ServiceView
from gslb.wire.reader import ReaderView
from gslb.wire.snapshot import to_bytes

NAMES: Final = 1000
ZONE: Final = "bench.example"
TTL_S: Final = 30
# Datacenter: its address, and the network whose clients are nearest to it. The load generator is on 127.0.0.1.
PLACES: Final = {
    "us-east1": ("192.0.2.1", "10.0.0.0/8"),
    "europe-west1": ("192.0.2.2", "127.0.0.0/8"),
    "asia-east1": ("192.0.2.3", "12.0.0.0/8"),
}
SEED: Final = 20261122


def names() -> list[str]:
    """The names that have addresses."""
    return [f"n{number:04d}.{ZONE}" for number in range(NAMES)]


def view() -> ReaderView:
    """A service for each name, with an address in each datacenter and a plan that sends every area to its own."""
    where = Coordinates(0.0, 0.0)
    zone = f"$TTL {TTL_S}\n@ SOA ns1 hostmaster 1 3600 600 604800 60\n@ NS ns1\nns1 A 127.0.0.1\n"
    known = Catalog(
        datacenters={name: Datacenter(Meta(name), "region", where) for name in PLACES},
        areas={
            f"near-{name}": ClientArea(Meta(f"near-{name}"), where, (ipaddress.ip_network(network),))
            for name, (_, network) in PLACES.items()
        },
        zones={ZONE: Zone(Meta(ZONE), zone)},
    )
    return ReaderView({view.name: view for view in _services()}, known, synced=True, replica="bench")


def _services() -> Iterator[ServiceView]:
    shares = {f"near-{name}": {name: 1.0} for name in PLACES}
    for name in names():
        key = name.partition(".")[0]
        backends = tuple(Backend(f"/bns/{datacenter}/bench/{key}", 100.0) for datacenter in PLACES)
        members = {
            f"/bns/{datacenter}/bench/{key}/0": ServiceEndpoint(
                f"/bns/{datacenter}/bench/{key}/0", address, 80, HealthStatus.HEALTHY
            )
            for datacenter, (address, _) in PLACES.items()
        }
        service = Service(Meta(key), backends, dns_names=(name,), ttl_s=TTL_S)
        yield ServiceView.build(key, service, Plan(key, Stamp(1, 1, 1), shares, computed_at_s=1.0), members)


def write_snapshot(path: Path) -> None:
    """What `gslb dns --snapshot` starts from, without a control plane."""
    path.write_bytes(to_bytes(view()))


def write_dnsperf(directory: Path) -> tuple[Path, Path]:
    """Queries for dnsperf: every name, and a hundred thousand that do not exist."""
    rng = random.Random(SEED)
    hits, misses = directory / "hits", directory / "misses"
    shuffled = names()
    rng.shuffle(shuffled)
    hits.write_text("".join(f"{name} A\n" for name in shuffled), encoding="ascii")
    misses.write_text("".join(f"x{rng.getrandbits(48):012x}.{ZONE} A\n" for _ in range(100_000)), encoding="ascii")
    return hits, misses


def _packets(subnets: Sequence[str | None]) -> Iterator[bytes]:
    """A query for an A record with each of the client subnets, of a random name."""
    rng = random.Random(SEED)
    known = names()
    for subnet in subnets:
        option = b""
        if subnet is not None:
            network = ipaddress.ip_network(subnet)
            octets = network.network_address.packed[: (network.prefixlen + 7) // 8]
            option = struct.pack("!HHHBB", 8, 4 + len(octets), 1, network.prefixlen, 0) + octets
        question = from_text(rng.choice(known)) + struct.pack("!HH", 1, 1)
        record = b"\x00" + struct.pack("!HHIH", 41, 1232, 0, len(option)) + option
        yield struct.pack("!HHHHHH", rng.getrandbits(16), 0, 1, 0, 0, 1) + question + record


def write_packets(directory: Path) -> tuple[Path, Path]:
    """Queries for `load`: ten thousand with EDNS and nothing in it, and as many with a client subnet each of its own."""
    rng = random.Random(SEED)
    subnets = [f"{rng.choice((10, 12, 127))}.{number >> 8}.{number & 255}.0/24" for number in range(10_000)]
    plain, told = directory / "plain", directory / "subnets"
    for path, which in ((plain, [None] * len(subnets)), (told, subnets)):
        path.write_bytes(b"".join(struct.pack("!H", len(packet)) + packet for packet in _packets(which)))
    return plain, told
