"""Tasks, endpoints, health: the values of BNS. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum


class HealthStatus(IntEnum):
    """As in xDS, with the same numbers."""

    UNKNOWN = 0
    HEALTHY = 1
    UNHEALTHY = 2
    DRAINING = 3
    TIMEOUT = 4


class ProbeKind(IntEnum):
    """How an agent finds out a task's health."""

    TCP = 1
    HTTP = 2
    GRPC = 3


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """How often to probe, how long to wait, and how many results in a row change the verdict."""

    kind: ProbeKind = ProbeKind.TCP
    path: str = ""  # HTTP: request path; gRPC: service name
    port_name: str = ""  # which named port; empty: the main one
    interval_s: float = 1.0
    timeout_s: float = 1.0
    rise: int = 2
    fall: int = 2


@dataclass(frozen=True, slots=True)
class Task:
    """One running server as BNS knows it."""

    name: str
    address: str
    port: int
    agent: str = ""
    named_ports: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    start_time: datetime | None = None
    cpu_cores: float = 1.0
    probe: ProbeSpec = ProbeSpec()
    pid: int = 0
    generation: int = 0
    principal: str = "anonymous"
    machine: str = ""

    @property
    def datacenter(self) -> str:
        return self.name.split("/")[2]

    @property
    def job(self) -> str:
        """/bns/DATACENTER/USER/JOB"""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent's session: it is live while the lease that its record hangs on is."""

    name: str
    datacenter: str
    machine_id: str
    boot_id: str
    session_id: str
    lease_id: int = 0
    replica: str = ""  # which control-plane replica terminates its stream
    principal: str = "anonymous"
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A task with its health, as a resolver answers it."""

    task: Task
    health: HealthStatus = HealthStatus.UNKNOWN

    @property
    def target(self) -> str:
        """host:port as gRPC and URLs want it."""
        host = f"[{self.task.address}]" if ":" in self.task.address else self.task.address
        return f"{host}:{self.task.port}"
