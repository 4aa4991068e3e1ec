"""What a simulated planet is made of before time begins: places, services, and how much work a request is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from gslb.model import limits
from gslb.model.resources import Catalog, Service

# A rejection costs a server this part of what a served request costs (SRE book, chapter 21: it is not free).
REJECTION_COST: Final = 0.1


class Overload(Enum):
    """What a server does with more than it can do.

    SHED: it refuses at once, the least critical first. QUEUE: it takes everything and lets it wait, so that in the end
    all it serves is too late. CRASH: as QUEUE, and a task whose queue stands too long dies and comes back later.
    """

    SHED = "shed"
    QUEUE = "queue"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Work:
    """What a request of a service is to the machines; `serves_rps` requests a second fill one core of a task."""

    serves_rps: float
    idle_utilization: float = 0.0  # of the task's core, without any request
    rejection_cost: float = REJECTION_COST  # in ok requests
    size_kbit: float = 0.0  # over the uplink of the datacenter that serves it
    deadline_s: float = 1.0
    overload: Overload = Overload.SHED
    # Part of the demand by criticality, most critical first.
    classes: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Call:
    """Each request that `caller` serves makes `ratio` requests to `callee` from the same datacenter."""

    caller: str
    callee: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Setup:
    """The planet. `tasks`: number by job."""

    catalog: Catalog = field(default_factory=Catalog)
    tasks: Mapping[str, int] = field(default_factory=dict)
    work: Mapping[str, Work] = field(default_factory=dict)  # by service
    calls: tuple[Call, ...] = ()

    def service(self, name: str) -> Service:
        return self.catalog.services[name]


@dataclass(slots=True)
class Knobs:
    """What a story may turn at any time."""

    seed: int = 1
    tick_s: float = 1.0
    plan_period_s: float = limits.PLAN_PERIOD_S
    report_period_s: float = limits.LOAD_REPORT_PERIOD_S
    report_age_s: float = 0.0  # how long any report is under way
    noise: float = 0.0  # demand of a locality is off by up to this fraction, anew each plan period
    day_s: float = 0.0  # length of a day; 0: demand does not follow the sun
    ignore_ttl: float = 0.1  # part of the resolvers that keep answers far too long
    control_up: bool = True
