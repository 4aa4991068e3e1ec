"""How many tasks a service needs in each region for its peak. PURE.

A region needs N tasks for its own peak, and k more, because one of them is being upgraded while another one breaks (N+k,
SRE book, chapter 2). That serves the peak wherever it is near, and says nothing yet about the loss of a whole region: what
the others have left then is shown for each, and with `survive_region_loss` the fewest tasks are added so that any one
region can be lost at the peak of all.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gslb.model import limits
from gslb.model.errors import InvalidValueError

REGIONS_MAX: Final = 500
TASKS_MAX: Final = 1_000_000
SPARE_DEFAULT: Final = 2
# 1,400 rps at 100 rps a task are 14 tasks, whatever the last bit of a double says.
ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class RegionDemand:
    """The peak of one region's own clients. `spare`: k of N+k."""

    name: str
    peak_rps: float
    spare: int = SPARE_DEFAULT


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be planned for. `headroom`: the fraction of each task's capacity that the peak shall leave free."""

    task_capacity_rps: float
    regions: tuple[RegionDemand, ...]
    spare: int = SPARE_DEFAULT  # of everything in one place
    headroom: float = 0.0
    survive_region_loss: bool = False


@dataclass(frozen=True, slots=True)
class RegionLoss:
    """All regions' peak together, with one of them lost."""

    remaining_rps: float
    short_rps: float  # of the demand that must be shed, >= 0

    @property
    def absorbed(self) -> bool:
        return self.short_rps <= 0


@dataclass(frozen=True, slots=True)
class RegionTasks:
    """One region: N for its peak, k spare, more for the loss of another region."""

    name: str
    peak_rps: float
    needed: int
    spare: int
    added: int
    capacity_rps: float
    if_lost: RegionLoss

    @property
    def tasks(self) -> int:
        return self.needed + self.spare + self.added


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """Regions in the order given. `one_place`: the tasks if all stood in one place, N+k."""

    demand_rps: float
    one_place: int
    regions: tuple[RegionTasks, ...]

    @property
    def tasks(self) -> int:
        return sum(region.tasks for region in self.regions)

    @property
    def largest(self) -> RegionTasks:
        """The region whose loss takes most capacity; of equals the first by name."""
        return min(self.regions, key=lambda region: (-region.capacity_rps, region.name))


def tasks_for(rps: float, capacity_rps: float, headroom: float) -> int:
    """N: the fewest tasks that serve `rps` and leave `headroom` of their capacity free."""
    return math.ceil(rps / (capacity_rps * (1.0 - headroom)) - ROUNDING)


def plan_capacity(demand: Demand) -> CapacityPlan:
    """The tasks by region. Raises InvalidValueError for numbers that make no sense, or more tasks than TASKS_MAX."""
    _check(demand)
    total = math.fsum(region.peak_rps for region in demand.regions)
    capacity, headroom = demand.task_capacity_rps, demand.headroom
    whole = tasks_for(total, capacity, headroom)
    if whole > TASKS_MAX:
        raise InvalidValueError(f"{total:.6g} rps at {capacity:.6g} rps a task need {whole} tasks: at most {TASKS_MAX}")
    needed = [tasks_for(region.peak_rps, capacity, headroom) for region in demand.regions]
    base = [count + region.spare for count, region in zip(needed, demand.regions, strict=True)]
    added = _for_a_loss(base, demand, whole) if demand.survive_region_loss else [0] * len(base)
    served = capacity * (sum(base) + sum(added))
    regions = []
    for region, count, more in zip(demand.regions, needed, added, strict=True):
        own = capacity * (count + region.spare + more)
        loss = RegionLoss(served - own, max(0.0, total - (served - own)))
        regions.append(RegionTasks(region.name, region.peak_rps, count, region.spare, more, own, loss))
    return CapacityPlan(total, whole + demand.spare, tuple(regions))


def _for_a_loss(base: Sequence[int], demand: Demand, whole: int) -> list[int]:
    """The fewest tasks more, so that without any one region `whole` remain.

    The largest region has m tasks, so all together whole + m are needed; no other may outgrow m, or more would be.
    """
    if len(base) < 2:
        raise InvalidValueError("survive_region_loss: there is one region only: give at least two, or leave it out")
    most = max(*base, math.ceil(whole / (len(base) - 1)))
    missing = whole + most - sum(base)
    added = [0] * len(base)
    # Where a task relieves most: the region with the most peak for each task that it has.
    queue = [
        (-region.peak_rps / max(1, count), i)
        for i, (region, count) in enumerate(zip(demand.regions, base, strict=True))
        if count < most
    ]
    heapq.heapify(queue)
    while missing > 0 and queue:
        _, i = heapq.heappop(queue)
        added[i] += 1
        missing -= 1
        count = base[i] + added[i]
        if count < most:
            heapq.heappush(queue, (-demand.regions[i].peak_rps / count, i))
    return added


def _check(demand: Demand) -> None:
    if not 0 < demand.task_capacity_rps <= limits.TASK_CAPACITY_MAX_RPS:
        raise InvalidValueError(
            f"task_capacity_rps is {demand.task_capacity_rps}: it must be above 0 and at most"
            f" {limits.TASK_CAPACITY_MAX_RPS:g}"
        )
    if not 0 <= demand.headroom < 1:
        raise InvalidValueError(f"headroom is {demand.headroom}: it must be at least 0 and below 1")
    if not 1 <= len(demand.regions) <= REGIONS_MAX:
        raise InvalidValueError(f"there are {len(demand.regions)} regions: give 1 to {REGIONS_MAX}")
    names = [region.name for region in demand.regions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidValueError(f"region {twice[0]} is given twice: keep one")
    for region in demand.regions:
        if not 0 <= region.peak_rps <= limits.RATE_MAX_RPS:
            raise InvalidValueError(f"peak_rps of {region.name} is {region.peak_rps}: it must be 0 to 1e9")
        if not 0 <= region.spare <= TASKS_MAX:
            raise InvalidValueError(f"spare of {region.name} is {region.spare}: it must be 0 to {TASKS_MAX}")
    if not any(region.peak_rps > 0 for region in demand.regions):
        raise InvalidValueError("no region has any peak_rps: give the rps of its busiest time")


def with_growth(demand: Demand, factor: float) -> Demand:
    """The same with every peak times `factor`. Raises InvalidValueError."""
    if not 0 < factor <= 1e6:
        raise InvalidValueError(f"growth is {factor}: it must be above 0 and at most 1e6")
    return replace(
        demand, regions=tuple(replace(region, peak_rps=region.peak_rps * factor) for region in demand.regions)
    )
