"""What a replica is told at its start."""

from dataclasses import dataclass, field
from pathlib import Path

from bns.transport import Tls
from gslb.model import limits
from gslb.recorder.ring import Bounds


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Where etcd is, and who we are to it."""

    endpoints: tuple[str, ...]
    tls: Tls | None = None
    user: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """See `gslb serve --help`. Periods in seconds; port 0: any."""

    etcd: EtcdSettings
    listen: str = "127.0.0.1:0"
    http: str = "127.0.0.1:0"
    replica: str = "replica"
    roles: frozenset[str] = frozenset({"cell", "global"})
    plan_period_s: float = limits.PLAN_PERIOD_S
    report_period_s: float = limits.LOAD_REPORT_PERIOD_S
    tls: Tls | None = None
    recorder: Path | None = None  # where every step is recorded; None: nowhere
    recorder_bounds: Bounds = field(default_factory=Bounds)
