"""Uplinks and limited paths: what is sent over them, by whom, and how much arrives."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gslb.model.resources import Datacenter

# (locality, datacenter) of a path; of an uplink the locality is empty
Pipe = tuple[str, str]


@dataclass(slots=True)
class Pipes:
    """Services that share a pipe lose the same part of what they send, judged by what the others sent in the last tick."""

    mbps: Mapping[Pipe, float]  # those that are limited
    asked: dict[tuple[Pipe, str], float] = field(default_factory=dict)  # Mbit/s by pipe and service, in this tick
    before: dict[tuple[Pipe, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, datacenters: Mapping[str, Datacenter]) -> "Pipes":
        uplinks = {("", name): place.uplink_mbps for name, place in datacenters.items() if place.uplink_mbps > 0}
        paths = {(link.locality, name): link.mbps for name, place in datacenters.items() for link in place.links}
        return cls({**uplinks, **paths})

    def turn(self) -> None:
        """A tick begins."""
        self.before, self.asked = self.asked, {}

    def carry(self, pipe: Pipe, service: str, mbps: float) -> float:
        """The part of `mbps` that arrives, 0..1."""
        limit = self.mbps.get(pipe, 0.0)
        if limit <= 0 or mbps <= 0:
            return 1.0
        self.asked[pipe, service] = self.asked.get((pipe, service), 0.0) + mbps
        others = sum(asked for (where, who), asked in self.before.items() if where == pipe and who != service)
        return min(1.0, limit / (others + self.asked[pipe, service]))

    def uses(self) -> dict[Pipe, float]:
        """What was sent in this tick over what each pipe carries."""
        used = dict.fromkeys(self.mbps, 0.0)
        for (pipe, _), mbps in self.asked.items():
            used[pipe] += mbps / self.mbps[pipe]
        return used
