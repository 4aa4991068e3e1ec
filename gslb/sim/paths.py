"""Who can reach whom, how long it takes, and which datacenters are gone."""

from dataclasses import dataclass, field
from typing import Final

# The name of the control plane as one end of a cut.
CONTROL: Final = "control"


@dataclass(slots=True)
class Paths:
    """Mutable: faults of the network and of whole datacenters."""

    lost: set[str] = field(default_factory=set)  # datacenters without power
    cuts: set[frozenset[str]] = field(default_factory=set)  # pairs of places whose packets vanish
    slow_ms: dict[tuple[str, str], float] = field(default_factory=dict)  # added to what geography says

    def reaches(self, locality: str, place: str) -> bool:
        """Whether anything sent from `locality` arrives at `place` (a datacenter, or CONTROL)."""
        if not self.lost and not self.cuts:
            return True
        return locality not in self.lost and place not in self.lost and frozenset({locality, place}) not in self.cuts

    def refused(self, datacenter: str) -> bool:
        """Whether a failure is seen at once. A cut path is silent: it takes a keepalive to notice."""
        return datacenter in self.lost
