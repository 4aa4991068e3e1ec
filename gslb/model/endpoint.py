"""What a reader needs to know of one task of a service."""

from dataclasses import dataclass

from bns.model import HealthStatus

USABLE = frozenset({HealthStatus.HEALTHY})


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """A task's address for one service; `weight` is relative, > 0. DRAINING: drained by an operator, or lame duck."""

    task: str  # BNS path
    address: str  # IPv4 or IPv6 literal
    port: int
    health: HealthStatus
    weight: float = 1.0
    started_s: float = 0.0  # Unix seconds; 0: unknown

    @property
    def datacenter(self) -> str:
        return self.task.split("/")[2]

    @property
    def target(self) -> str:
        """host:port as gRPC wants it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
