"""What the balancer remembers from step to step, and what it decides. PURE values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gslb.balancer.bandwidth import NO_BANDWIDTH, Bandwidth
from gslb.balancer.capacity import NO_CAPACITY, ServiceCapacity
from gslb.balancer.coverage import Coverage
from gslb.balancer.damping import Held
from gslb.balancer.flaps import NO_FLAPS, Flaps
from gslb.balancer.following import Matrix, Rerouted
from gslb.balancer.inputs import TaskState
from gslb.balancer.learning import UNLEARNED, Learning
from gslb.balancer.network import Network
from gslb.balancer.outstanding import Outstanding
from gslb.balancer.safety import NO_NAMES, RemovalBudget
from gslb.balancer.sharing import NOTHING_SHARED, Pair, Sharing, Use
from gslb.balancer.solver import Vector
from gslb.model.plan import Plan
from gslb.model.resources import Service


@dataclass(frozen=True, slots=True)
class ServiceDecision:
    """What the step says of one service. `plan` is unstamped; None: nothing was ever known to serve it."""

    plan: Plan | None
    changed: bool = False  # worth publishing: some share differs from the published plan by more than a basis point
    recomputed: bool = False  # the program was solved in this step
    notes: tuple[str, ...] = ()
    held: str = ""  # why the plan is an older one, the rule with its numbers; empty: it is today's
    capacity: ServiceCapacity = NO_CAPACITY
    overload: float = 1.0  # demand over capacity, at least 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What the step says. `removed`: services that are gone for good, whose plans may be deleted."""

    services: Mapping[str, ServiceDecision] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    recomputed: int = 0
    uses: tuple[Use, ...] = ()  # what the plans take of what services share


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """The last program of a service and what it was made from, to tell whether it has to be solved again."""

    used_rps: tuple[float, ...]  # capacity planned with, by datacenter
    demand_rps: Vector  # by locality
    stickiness_since_s: float  # when stickiness was last at its full value
    gain_ms: float
    overload: float
    held: Held  # the plan in force, to tell whether it may stay


@dataclass(frozen=True, slots=True, eq=False)
class ServiceMemory:
    """What the balancer keeps of one service. The first four are compared by identity."""

    service: Service
    tasks: tuple[TaskState, ...] = ()
    network: Network = field(default_factory=Network)
    coverage: Coverage = field(default_factory=Coverage)
    budget: RemovalBudget = NO_NAMES
    solved: Solved | None = None
    demand_seen: Mapping[str, float] | None = None
    budgets: Mapping[Pair, float] = field(default_factory=dict)  # of all services, compared by identity
    bandwidth: Bandwidth = NO_BANDWIDTH  # compared by identity
    moves: Matrix | None = None  # what losses move of its demand, compared by identity
    backing_rps: Vector | None = None  # what its callees can take, by datacenter of the network, compared by identity
    outstanding: Outstanding | None = None  # answers, of a service that DNS steers
    compared: Plan | None = None  # the published plan that `decision.changed` was found against
    decision: ServiceDecision = ServiceDecision(None)
    learning: Learning = UNLEARNED
    flaps: Flaps = NO_FLAPS
    quiet_until_s: float = -math.inf  # nothing but news changes anything before

    def holding(self, reason: str, published: Plan | None) -> "ServiceMemory":
        """With the decision that the service keeps its last plan, best the `published` one."""
        decision = ServiceDecision(
            published or self.decision.plan,
            notes=(f"held: {reason}",),
            held=reason,
            capacity=self.decision.capacity,
            overload=self.decision.overload,
        )
        return replace(self, compared=published, decision=decision)


@dataclass(frozen=True, slots=True, eq=False)
class BalancerState:
    """Carried from one step to the next; losing it loses only the gradual part of moves under way."""

    network: Network = field(default_factory=Network)
    coverage: Coverage = field(default_factory=Coverage)
    services: Mapping[str, ServiceMemory] = field(default_factory=dict)
    service_names: RemovalBudget = NO_NAMES
    locality_names: RemovalBudget = NO_NAMES
    sharing: Sharing = NOTHING_SHARED
    bandwidths: Mapping[str, Bandwidth] = field(default_factory=dict)  # by service
    # By service that calls others; follows from its plan, and is kept because it takes a while to find.
    rerouted: Mapping[str, Rerouted] = field(default_factory=dict)
