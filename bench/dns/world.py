"""What every server in the benchmark serves: a thousand names, three datacenters, a client network for each; and queries."""

import ipaddress
import json
import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from dns_frontend.zone.name import from_text

NAMES: Final = 1000
ZONE: Final = "bench.example"
TTL_S: Final = 30
NAMES_PER_SERVICE: Final = 100


class Place(NamedTuple):
    """A datacenter: its address, the network whose clients are nearest to it, and where it is."""

    address: str
    network: str
    latitude: float


# The load generator is on 127.0.0.1.
PLACES: Final = {
    "us-east1": Place("192.0.2.1", "10.0.0.0/8", 0.0),
    "europe-west1": Place("192.0.2.2", "127.0.0.0/8", 30.0),
    "asia-east1": Place("192.0.2.3", "12.0.0.0/8", 60.0),
}
SEED: Final = 20261122


def names() -> list[str]:
    """The names that have addresses."""
    return [f"n{number:04d}.{ZONE}" for number in range(NAMES)]


def write_config(path: Path) -> None:
    """What `gslb dns --config` serves: services of a hundred names each, as many as one may have; nobody is probed."""
    served = names()
    config = {
        "zones": {ZONE: "zone"},
        "datacenters": {name: {"latitude": place.latitude, "longitude": 0} for name, place in PLACES.items()},
        "areas": {
            f"near-{name}": {"latitude": place.latitude, "longitude": 0, "cidrs": [place.network]}
            for name, place in PLACES.items()
        },
        "services": {
            f"s{first:04d}": {
                "dns_names": served[first : first + NAMES_PER_SERVICE],
                "ttl_s": TTL_S,
                "port": 0,
                "addresses": {name: [place.address] for name, place in PLACES.items()},
            }
            for first in range(0, NAMES, NAMES_PER_SERVICE)
        },
    }
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    text = f"$TTL {TTL_S}\n@ SOA ns1 hostmaster 1 3600 600 604800 60\n@ NS ns1\nns1 A 127.0.0.1\n"
    path.with_name("zone").write_text(text, encoding="ascii")


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
