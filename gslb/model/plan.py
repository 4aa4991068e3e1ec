"""Derived state: how much of each locality's demand goes to each datacenter, one plan a service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# datacenter -> share in 0..1; the shares of one locality sum to 1
Shares = Mapping[str, float]


class Stamp(NamedTuple):
    """Order of plans, compared left to right: readers only advance (design section 2)."""

    incarnation: int
    epoch: int
    version: int


ZERO_STAMP = Stamp(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one service.

    `contingencies[lost]` has the localities that use `lost` and, for each, how the part that goes to `lost` is shared
    among the others once it is lost (sums to 1). Their other parts stay as they are.
    """

    service: str
    stamp: Stamp = ZERO_STAMP
    shares: Mapping[str, Shares] = field(default_factory=dict)  # by locality
    demand_rps: Mapping[str, float] = field(default_factory=dict)  # by locality, as planned for
    capacity_rps: Mapping[str, float] = field(default_factory=dict)  # by datacenter, as planned with
    load_rps: Mapping[str, float] = field(default_factory=dict)  # by datacenter, as placed
    contingencies: Mapping[str, Mapping[str, Shares]] = field(default_factory=dict)
    computed_at_s: float = 0.0  # seconds since the epoch, UTC
    notes: tuple[str, ...] = ()
