"""Desired state: what people say should be. One frozen type a kind; validation is in `gslb.model.validate`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from gslb.model import limits
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.quota import Quota


@dataclass(frozen=True, slots=True)
class Link:
    """The path from a locality to a datacenter, where it carries less than the datacenter's uplink."""

    locality: str
    mbps: float  # of all services together


@dataclass(frozen=True, slots=True)
class Datacenter:
    """The unit of capacity and of drain."""

    meta: Meta
    region: str
    coordinates: Coordinates
    uplink_mbps: float = 0.0  # 0: not limited
    cpu_cores: float = 0.0  # that all services here share; 0: not limited
    links: tuple[Link, ...] = ()  # paths to here that are limited; others are not

    @property
    def name(self) -> str:
        return self.meta.name


@dataclass(frozen=True, slots=True)
class ClientArea:
    """A locality that browsers' demand comes from, with the operator's networks of its clients."""

    meta: Meta
    coordinates: Coordinates
    cidrs: tuple[IPv4Network | IPv6Network, ...] = ()

    @property
    def name(self) -> str:
        return self.meta.name


class DemandSource(Enum):
    """Where a service's demand is read from: one source per service, never summed (design section 4)."""

    RPC = "rpc"
    EDGE = "edge"
    DNS = "dns"


class CapacityMode(Enum):
    """RATE: what the owner declared; UTILIZATION: what CPU says."""

    RATE = "rate"
    UTILIZATION = "utilization"


class Policy(Enum):
    """What is preferred where there is room."""

    NEAREST = "nearest"
    WATERFALL_BY_REGION = "waterfall-by-region"  # stay in the locality's region until it is full
    SPRAY_TO_REGION = "spray-to-region"  # spread over the locality's region by capacity
    FAILOVER = "failover"  # the first of a list that has room, whatever the distance


class Objective(Enum):
    """What a request of the service wants of the place that it goes to."""

    LATENCY = "latency"  # the least round-trip time
    THROUGHPUT = "throughput"  # the least transfer time: it goes where the bandwidth is


@dataclass(frozen=True, slots=True)
class Backend:
    """One BNS job of a service in one datacenter, with its capacity."""

    job: str  # /bns/DATACENTER/USER/JOB
    task_capacity_rps: float
    mode: CapacityMode = CapacityMode.RATE
    target_utilization: float = limits.MAX_UTILIZATION_DEFAULT
    request_cpu_s: float = 0.0  # of the datacenter's cores; 0: takes none
    request_mbit: float = 0.0  # over the datacenter's uplink; 0: takes none
    guaranteed_rps: float = 0.0  # what other services cannot take where they share a limit

    @property
    def datacenter(self) -> str:
        return self.job.split("/")[2]


@dataclass(frozen=True, slots=True)
class Service:
    """A symbolic name and the backends that serve it."""

    meta: Meta
    backends: tuple[Backend, ...]
    source: DemandSource = DemandSource.RPC
    max_utilization: float = limits.MAX_UTILIZATION_DEFAULT
    dns_names: tuple[str, ...] = ()
    ttl_s: int = limits.TTL_DEFAULT_S
    addresses_per_answer: int = limits.ADDRESSES_PER_ANSWER_DEFAULT
    port_name: str = ""
    policy: Policy = Policy.NEAREST
    failover: tuple[str, ...] = ()  # datacenters, the first choice first; policy FAILOVER
    objective: Objective = Objective.LATENCY
    latency_critical: bool = False  # channels that name no policy choose tasks by prequal
    quotas: tuple[Quota, ...] = ()  # of clients that have one
    alpn: tuple[str, ...] = ()  # what its endpoints speak over TLS; given: its DNS names get HTTPS records (RFC 9460)

    @property
    def name(self) -> str:
        return self.meta.name


class DrainScope(Enum):
    """What a drain takes load away from."""

    DATACENTER = "datacenter"
    SERVICE = "service"  # target SERVICE or SERVICE@DATACENTER
    JOB = "job"
    TASK = "task"
    REGION = "region"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator's intent to take load away, until `expires_at` (UTC)."""

    meta: Meta
    scope: DrainScope
    target: str
    reason: str
    author: str
    starts_at: datetime
    expires_at: datetime
    overridden: bool = False
    ramp_s: float = 0.0  # capacity falls linearly over so long from starts_at; 0: at once

    @property
    def name(self) -> str:
        return self.meta.name

    def active(self, now: datetime) -> bool:
        """Whether it holds at `now` (UTC)."""
        return self.starts_at <= now < self.expires_at

    def progress(self, now: datetime) -> float:
        """Of an active drain: which part of the capacity it has taken at `now`, 0..1."""
        elapsed_s = (now - self.starts_at).total_seconds()
        return min(max(elapsed_s / self.ramp_s, 0.0), 1.0) if self.ramp_s > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Zone:
    """Static records, RFC 1035 master-file text, of a zone that the DNS frontends are authoritative for."""

    meta: Meta
    records: str

    @property
    def origin(self) -> str:
        return self.meta.name


Resource = Datacenter | ClientArea | Service | Drain | Zone

# The name of each kind in YAML, on the command line and in etcd's keys.
KINDS: Mapping[str, type[Resource]] = {
    "datacenter": Datacenter,
    "area": ClientArea,
    "service": Service,
    "drain": Drain,
    "zone": Zone,
}


def kind_of(resource: Resource) -> str:
    """The kind's name, a key of KINDS."""
    return next(kind for kind, cls in KINDS.items() if cls is type(resource))


@dataclass(frozen=True, slots=True)
class Catalog:
    """All desired state at one moment, by kind and name, tombstones left out."""

    datacenters: Mapping[str, Datacenter] = field(default_factory=dict)
    areas: Mapping[str, ClientArea] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    drains: Mapping[str, Drain] = field(default_factory=dict)
    zones: Mapping[str, Zone] = field(default_factory=dict)

    def coordinates_of(self, locality: str) -> Coordinates | None:
        """Where a locality (a datacenter or a client area) is; None when it is unknown."""
        place = self.datacenters.get(locality) or self.areas.get(locality)
        return place.coordinates if place else None
