"""What must hold of every plan before it may be published, as rules that name themselves and their numbers. PURE."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from gslb.balancer.capacity import DatacenterCapacity, ServiceCapacity
from gslb.model import limits
from gslb.model.plan import Plan, Shares

# Each window allows another half of what is left. Bounded, so that the loss of every name is never within the budget.
WINDOWS_MAX = 20


@dataclass(frozen=True, slots=True)
class RemovalBudget:
    """Registered names, of which at most half may vanish in a window (design section 6, invariant 3).

    While more than that are missing, the last good plan is held. Each further window allows half of what the ones
    before left, so that a real shrinking is published in the end; the loss of every name never is.
    """

    names: frozenset[str] = frozenset()  # there when the window began
    accepted: frozenset[str] = frozenset()  # there when last all was well
    since_s: float | None = None  # start of the window; None: no name is missing
    held: bool = False
    judged_s: float | None = None  # when it was last asked; only time that passed between two answers counts

    def judge(self, present: frozenset[str], what: str, *, now_s: float) -> tuple["RemovalBudget", str]:
        """The next budget, and why `present` may not be planned with now; empty: it may."""
        names, since_s = self.names, self._since(now_s)
        if since_s is not None and not self.held and now_s - since_s >= limits.REMOVAL_BUDGET_WINDOW_S:
            names, since_s = self.accepted, None
        missing = len(names - present)
        if not missing:
            return RemovalBudget(present, present, judged_s=now_s), ""
        if since_s is None:
            since_s = now_s
        windows = 1 + max(0, math.floor((now_s - since_s) / limits.REMOVAL_BUDGET_WINDOW_S))
        allowed = len(names) * (1 - (1 - limits.REMOVAL_BUDGET_FRACTION) ** min(windows, WINDOWS_MAX))
        if missing > allowed:
            return RemovalBudget(names, self.accepted, since_s, held=True, judged_s=now_s), (
                f"removal budget: {missing} of {len(names)} {what} vanished within "
                f"{windows * limits.REMOVAL_BUDGET_WINDOW_S:g} s, {math.floor(allowed)} may"
            )
        return RemovalBudget(names | present, present, since_s, judged_s=now_s), ""

    def _since(self, now_s: float) -> float | None:
        """Start of the window on today's clock: a clock that jumps neither ends a window nor begins it anew."""
        if self.since_s is None or self.judged_s is None:
            return self.since_s
        passed_s = min(max(now_s - self.judged_s, 0.0), limits.REMOVAL_BUDGET_WINDOW_S)
        return now_s - passed_s - (self.judged_s - self.since_s)

    def without(self, names: frozenset[str]) -> "RemovalBudget":
        """Not counting `names`: an operator deleted them, so they did not vanish."""
        if not self.names & names:
            return self
        return replace(self, names=self.names - names, accepted=self.accepted - names)


NO_NAMES = RemovalBudget()


def auto_drained(capacity: ServiceCapacity, before: ServiceCapacity, demand_rps: float) -> ServiceCapacity:
    """`capacity` without the datacenters where so few tasks are healthy that the place itself must be ill.

    A few survivors of a datacenter that is going down are no capacity to plan with. The worst goes first; together with
    what is dead already never more than half of what is registered goes, and nothing that demand needs.
    """
    if capacity.panic:
        return capacity
    out = {site.datacenter for site in before.datacenters if site.withdrawn}
    registered = math.fsum(site.declared_rps for site in capacity.datacenters)
    gone = math.fsum(site.declared_rps for site in capacity.datacenters if site.capacity_rps <= 0)
    left = capacity.total_rps
    ill = sorted(
        (
            site
            for site in capacity.datacenters
            if site.capacity_rps > 0 and _is_ill(site, was_out=site.datacenter in out)
        ),
        key=lambda site: (site.serving / site.tasks, site.datacenter),
    )
    withdrawn: dict[str, str] = {}
    for site in ill:
        too_much = gone + site.declared_rps > limits.AUTO_DRAIN_CAPACITY_MAX * registered
        if too_much or left - site.capacity_rps < demand_rps:
            continue
        gone, left = gone + site.declared_rps, left - site.capacity_rps
        withdrawn[site.datacenter] = (
            f"auto-drain: {site.serving} of {site.tasks - site.drained} tasks in {site.datacenter} are healthy, "
            f"fewer than {limits.AUTO_DRAIN_HEALTHY_MIN:.0%}: nothing is sent there"
        )
    if not withdrawn:
        return capacity
    sites = tuple(
        replace(site, capacity_rps=0.0, withdrawn=withdrawn[site.datacenter]) if site.datacenter in withdrawn else site
        for site in capacity.datacenters
    )
    return replace(capacity, datacenters=sites, notes=(*capacity.notes, *withdrawn.values()))


def _is_ill(site: DatacenterCapacity, *, was_out: bool) -> bool:
    """Of the tasks that nobody drained, too few are healthy; to come back it takes more than it took to go."""
    tasks = site.tasks - site.drained
    least = limits.AUTO_DRAIN_HEALTHY_BACK if was_out else limits.AUTO_DRAIN_HEALTHY_MIN
    return tasks > 0 and site.serving < least * tasks


def plan_violations(plan: Plan, localities: Collection[str], datacenters: Collection[str]) -> tuple[str, ...]:
    """Why `plan` may not be published; empty: it may. `datacenters` are those that it may name."""
    if not plan.shares:
        return (f"never empty: the plan of {plan.service} has no shares",)
    lost = sorted(name for name in localities if name not in plan.shares)
    violations = (
        [f"lost localities: {len(lost)} of {len(localities)} have no shares, among them {lost[0]}"] if lost else []
    )
    known = frozenset(datacenters)
    for locality, shares in plan.shares.items():
        fault = _shares_fault(shares, known)
        if fault:
            violations.append(f"{fault} (service {plan.service}, locality {locality})")
            break
    numbers = (*plan.demand_rps.values(), *plan.capacity_rps.values(), *plan.load_rps.values())
    wrong = [value for value in numbers if not 0 <= value < math.inf]
    if wrong:
        violations.append(f"finite numbers: the plan of {plan.service} carries a rate of {wrong[0]} rps")
    return tuple(violations)


def _shares_fault(shares: Shares, datacenters: frozenset[str]) -> str:
    if not shares:
        return "never empty: no datacenter has a share"
    unknown = [name for name in shares if name not in datacenters]
    if unknown:
        return f"known datacenters: a share goes to {unknown[0]}, which is no datacenter of the service"
    wrong = [value for value in shares.values() if not 0 <= value <= 1 + limits.SHARE_SUM_TOLERANCE]
    if wrong:
        return f"shares in 0..1: one is {wrong[0]}"
    total = math.fsum(shares.values())
    if abs(total - 1) > limits.SHARE_SUM_TOLERANCE:
        return f"shares sum to 1: they sum to {total:.9f}"
    return ""
