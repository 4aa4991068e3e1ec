"""What the balancer is given: one immutable value a step. The control plane fills it, the simulator too."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bns.model import HealthStatus
from gslb.model.plan import Plan
from gslb.model.resources import Catalog

# By callee and (locality, caller): the part of the callee's demand from that locality that the caller makes, 0..1.
Callers = Mapping[str, Mapping[tuple[str, str], float]]


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task of a service as it was last seen.

    `health` is the effective one: lame duck and operator's drain are DRAINING.
    """

    name: str  # BNS path
    datacenter: str
    job: str  # /bns/DATACENTER/USER/JOB
    health: HealthStatus
    ok_rps: float = 0.0
    error_rps: float = 0.0
    cpu_utilization: float = math.nan  # of the task's cpu_cores; NaN unknown
    report_age_s: float = math.inf  # inf: never reported
    drained: bool = False  # known to be drained; active drains of the catalog are added by the step
    machine: str = ""
    machine_cpu: float = math.nan  # of all cores of the machine, 0..1; NaN or 0: unknown
    machine_part: float = math.nan  # the task's cpu_cores over the machine's cores
    report: int = 0  # number of the report that the load is from, another for each; 0: reports are not numbered


@dataclass(frozen=True, slots=True)
class Deleted:
    """Names that an operator deleted: they may go, while what vanishes by itself is held (`gslb.balancer.safety`)."""

    services: frozenset[str] = frozenset()
    localities: frozenset[str] = frozenset()


NOTHING_DELETED: Final = Deleted()


@dataclass(frozen=True, slots=True)
class Inputs:
    """Desired and observed state at one moment.

    Pass the same tuple in `tasks[service]` and the same mapping in `demand[service]` while they have not changed: the
    step compares by identity before it compares by value.
    """

    catalog: Catalog
    tasks: Mapping[str, tuple[TaskState, ...]] = field(default_factory=dict)  # by service
    demand: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by service and locality, smoothed, rps
    rtt_ms: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by (locality, datacenter), measured
    previous: Mapping[str, Plan] = field(default_factory=dict)  # by service, as published
    # Who asks for the demand, as far as services do: moves nothing by itself, what-ifs follow it (`gslb.balancer.callees`).
    callers: Callers = field(default_factory=dict)
    deleted: Deleted = NOTHING_DELETED
    # Services whose tasks may differ from the last step's; None: any. Everything else is always looked at.
    changed: frozenset[str] | None = None
