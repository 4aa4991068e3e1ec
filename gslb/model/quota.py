"""How much a client may ask of a service: what is declared, and what one server is told to let in of it. PURE."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

# Everybody who has no quota of his own, and who does not say who he is: all of them together.
ANYBODY: Final = "*"


class Unit(Enum):
    """What a quota counts, per second."""

    RPS = "rps"
    CPU = "CPU cores"


@dataclass(frozen=True, slots=True)
class Quota:
    """Of one client, over all servers of the service; exactly one of the two limits is above 0."""

    caller: str  # the service that calls, or ANYBODY
    rps: float = 0.0
    cpu_cores: float = 0.0  # CPU seconds per second

    @property
    def unit(self) -> Unit:
        return Unit.CPU if self.cpu_cores > 0 else Unit.RPS

    @property
    def rate(self) -> float:
        """Per second, in its unit."""
        return self.cpu_cores if self.cpu_cores > 0 else self.rps


@dataclass(frozen=True, slots=True)
class Share:
    """What one server may let in of one client; rates per second, in the unit."""

    unit: Unit
    rate: float
    quota: float  # of all servers
    over: bool = False  # the client asks for more than its quota

    @property
    def shared(self) -> bool:
        """Whether this is a part of the quota, and all servers' sum up to it; else each may let in the whole."""
        return self.rate < self.quota


@dataclass(frozen=True, slots=True)
class Usage:
    """What one client asked of one server in one period; amounts in the unit: requests, or CPU seconds."""

    caller: str
    unit: Unit
    asked: float  # what was refused included, at what a request takes
    used: float
    requests: int  # refused ones included
