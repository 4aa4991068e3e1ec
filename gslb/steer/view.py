"""What a reader holds of one service, arranged for the choice that is made with each request. PURE.

A view is built once per change and read a million times between changes: whatever a choice needs (cumulative shares by
locality, the endpoints by datacenter that may serve now) is laid out here, so that a choice costs a lookup.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.plan import Plan, Shares
from gslb.model.resources import Service
from gslb.steer.table import ShareTable, table_of

Endpoints = tuple[ServiceEndpoint, ...]
_ALL = frozenset(HealthStatus)


def _admitted(endpoints: Collection[ServiceEndpoint]) -> frozenset[HealthStatus]:
    """Which health may get requests, given everybody's: see `serving`."""
    seen = {endpoint.health for endpoint in endpoints}
    if HealthStatus.HEALTHY in seen:
        return frozenset({HealthStatus.HEALTHY})
    return _ALL - {HealthStatus.DRAINING} if seen - {HealthStatus.DRAINING} else _ALL


def serving(endpoints: Collection[ServiceEndpoint]) -> Endpoints:
    """Those that may get requests: the HEALTHY ones; if none is, all but the DRAINING ones; else all.

    The second and third are panic mode (invariant 2): a check that fails everywhere is likelier wrong than right.
    """
    admitted = _admitted(endpoints)
    return tuple(endpoint for endpoint in endpoints if endpoint.health in admitted)


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service as a reader knows it. Make it with `build`, change it with `with_*`: the derived fields follow."""

    name: str
    service: Service | None = None
    plan: Plan | None = None
    endpoints: Mapping[str, ServiceEndpoint] = field(default_factory=dict)  # by task
    # Tasks that the control plane took away, and that stay because nothing else is left (invariant 2).
    condemned: frozenset[str] = frozenset()
    # Derived from the above:
    by_datacenter: Mapping[str, Endpoints] = field(default_factory=dict)
    serving: Mapping[str, Endpoints] = field(
        default_factory=dict
    )  # datacenters that may get requests now, and who there
    panic: bool = False  # no endpoint anywhere is HEALTHY: `serving` has others
    tables: Mapping[str, ShareTable] = field(default_factory=dict)  # by locality
    overall: Shares = field(default_factory=dict)  # all localities together, weighted by demand

    @classmethod
    def build(
        cls,
        name: str,
        service: Service | None = None,
        plan: Plan | None = None,
        endpoints: Mapping[str, ServiceEndpoint] | None = None,
    ) -> "ServiceView":
        """A view with everything derived."""
        return cls(name, service).with_plan(plan).with_endpoints(endpoints or {})

    def with_service(self, service: Service | None) -> "ServiceView":
        return replace(self, service=service)

    def with_plan(self, plan: Plan | None) -> "ServiceView":
        """The same with another plan; O(its localities)."""
        shares = plan.shares if plan else {}
        tables = {locality: table for locality, row in shares.items() if (table := table_of(row))}
        return replace(self, plan=plan, tables=tables, overall=_overall(plan) if plan else {})

    def with_endpoints(
        self, endpoints: Mapping[str, ServiceEndpoint], condemned: frozenset[str] = frozenset()
    ) -> "ServiceView":
        """The same with other endpoints; O(their number)."""
        grouped: dict[str, list[ServiceEndpoint]] = {}
        for endpoint in endpoints.values():
            grouped.setdefault(endpoint.datacenter, []).append(endpoint)
        by_datacenter = {
            # Sorted, so that every reader that walks the list walks the same one.
            datacenter: tuple(sorted(members, key=lambda endpoint: endpoint.task))
            for datacenter, members in sorted(grouped.items())
        }
        admitted = _admitted(endpoints.values())
        # Judged over the whole service: while one datacenter is healthy, an ill one gets nothing.
        chosen = {
            datacenter: tuple(endpoint for endpoint in members if endpoint.health in admitted)
            for datacenter, members in by_datacenter.items()
        }
        return replace(
            self,
            endpoints=endpoints,
            condemned=condemned,
            by_datacenter=by_datacenter,
            serving={datacenter: members for datacenter, members in chosen.items() if members},
            panic=bool(endpoints) and len(admitted) > 1,
        )


def _overall(plan: Plan) -> dict[str, float]:
    """Share of each datacenter in the whole demand of a plan; sums to 1 unless the plan is empty."""
    totals: dict[str, float] = {}
    weights = {locality: max(plan.demand_rps.get(locality, 0.0), 0.0) for locality in plan.shares}
    if not any(weights.values()):
        weights = dict.fromkeys(plan.shares, 1.0)
    for locality, shares in plan.shares.items():
        for datacenter, share in shares.items():
            totals[datacenter] = totals.get(datacenter, 0.0) + weights[locality] * share
    whole = sum(totals.values())
    return {datacenter: total / whole for datacenter, total in sorted(totals.items()) if total > 0} if whole else {}
