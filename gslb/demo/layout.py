"""What the demo's planet consists of: which processes, on which addresses. PURE.

Each datacenter has loopback addresses of its own (127.N.x.y), so that a task is known by its address as it would be in
the field; each client area is a loopback network too (127.10N.0.0/16), so that clients differ by address.
"""

from collections.abc import Mapping
from dataclasses import dataclass

USER = "shakespeare"
GFE_SERVICE = "shakespeare-gfe"
BACKEND_SERVICE = "shakespeare-backend"
WEB_NAME = "www.shakespeare.example"

# job -> tasks in each datacenter; the order is the order of start
JOBS: Mapping[str, int] = {"tablet": 1, "backend": 2, "frontend": 2, "gfe": 1}
_JOB_OCTET: Mapping[str, int] = {"tablet": 3, "backend": 1, "frontend": 2, "gfe": 4}
# Many: DNS moves whole networks, and a share of an area is only as fine as these are.
CLIENT_NETWORKS_PER_AREA = 128


@dataclass(frozen=True, slots=True)
class Site:
    """One datacenter of the demo and the client area next to it."""

    name: str
    octet: int
    area: str
    base_rps: float

    @property
    def agent_address(self) -> str:
        return f"127.{self.octet}.0.1"

    def task_address(self, job: str, index: int) -> str:
        """Each task has an address of its own."""
        return f"127.{self.octet}.{_JOB_OCTET[job]}.{index + 1}"

    def client_address(self, network: int) -> str:
        """A client in the area's `network`-th /24."""
        return f"127.{100 + self.octet}.{network}.10"

    def client_subnet(self, network: int) -> str:
        """The /24 that a resolver names in its queries (RFC 7871)."""
        return f"127.{100 + self.octet}.{network}.0/24"

    def task_name(self, job: str, index: int) -> str:
        """BNS name of a task."""
        return f"/bns/{self.name}/{USER}/{job}/{index}"


SITES = (
    Site("us-east1", 1, "north-america", 32.0),
    Site("europe-west1", 2, "europe", 31.0),
    Site("asia-east1", 3, "asia", 24.0),
    Site("southamerica-east1", 4, "south-america", 15.0),
)
SITE_OF_AREA: Mapping[str, Site] = {site.area: site for site in SITES}
SITE_NAMED: Mapping[str, Site] = {site.name: site for site in SITES}


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Where one task listens: its service port and its debug port, both on its own address."""

    site: Site
    job: str
    index: int
    port: int
    http_port: int

    @property
    def name(self) -> str:
        return self.site.task_name(self.job, self.index)

    @property
    def host(self) -> str:
        return self.site.task_address(self.job, self.index)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def http(self) -> str:
        return f"{self.host}:{self.http_port}"

    @property
    def label(self) -> str:
        """A name for files and messages."""
        return f"{self.site.name}-{self.job}-{self.index}"


def site_of_address(host: str) -> str:
    """The datacenter that an address of the demo belongs to; "" for an address that is none of ours."""
    octets = host.split(".")
    by_octet = {str(site.octet): site.name for site in SITES}
    return by_octet.get(octets[1], "") if len(octets) == 4 and octets[0] == "127" else ""
