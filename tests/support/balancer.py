"""A small planet for the balancer's tests: real places, round numbers, one line a change."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bns.model import HealthStatus
from gslb.balancer.inputs import Inputs, TaskState
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan
from gslb.model.resources import Backend, Catalog, ClientArea, Datacenter, Drain, DrainScope, Service

NOW_S = 1_800_000_000.0
# Rounding of shares below a millionth may leave this much of a datacenter's capacity overbooked.
ROUNDING = 1e-5

PLACES = {
    "us-east1": ("na", 33.2, -80.0),
    "europe-west1": ("eu", 50.4, 3.8),
    "asia-east1": ("asia", 24.1, 120.6),
    "southamerica-east1": ("sa", -23.5, -46.6),
}
AREAS = {
    "north-america": (41.9, -87.6),
    "europe": (48.9, 2.4),
    "asia": (35.7, 139.7),
    "south-america": (-34.6, -58.4),
}
DATACENTERS = {name: Datacenter(Meta(name), region, Coordinates(a, b)) for name, (region, a, b) in PLACES.items()}
CLIENT_AREAS = {name: ClientArea(Meta(name), Coordinates(a, b)) for name, (a, b) in AREAS.items()}


def job(datacenter: str, service: str = "backend") -> str:
    return f"/bns/{datacenter}/shakespeare/{service}"


def service(name: str = "backend", rps: float = 50.0, datacenters: Collection[str] = tuple(PLACES)) -> Service:
    """A service with one job in each of `datacenters`, each task serving `rps`."""
    return Service(Meta(name), tuple(Backend(job(datacenter, name), rps) for datacenter in datacenters))


def tasks_of(
    declared: Service, count: int | Mapping[str, int] = 2, health: HealthStatus = HealthStatus.HEALTHY
) -> tuple[TaskState, ...]:
    """`count` tasks in each datacenter of the service, or as many as the mapping says."""
    return tuple(
        TaskState(f"{backend.job}/{i}", backend.datacenter, backend.job, health, machine=f"m-{backend.datacenter}-{i}")
        for backend in declared.backends
        for i in range(count if isinstance(count, int) else count.get(backend.datacenter, 0))
    )


def planet(
    demand: Mapping[str, float] | None = None,
    *,
    rps: float = 50.0,
    count: int | Mapping[str, int] = 2,
    name: str = "backend",
) -> Inputs:
    """Four datacenters, four client areas, one service; by default 100 rps in each datacenter."""
    declared = service(name, rps)
    catalog = Catalog(DATACENTERS, CLIENT_AREAS, {name: declared})
    return Inputs(catalog, {name: tasks_of(declared, count)}, {name: dict(demand or {})})


def drain(scope: DrainScope, target: str, *, from_s: float = NOW_S, for_s: float = 3600.0, name: str = "") -> Drain:
    start = datetime.fromtimestamp(from_s, UTC)
    label = name or f"drain-{scope.value}-{target.strip('/').replace('/', '-').replace('@', '-')}"
    return Drain(Meta(label), scope, target, "test", "tester", start, start + timedelta(seconds=for_s))


def drained(inputs: Inputs, *drains: Drain) -> Inputs:
    """`inputs` with exactly these drains."""
    return replace(inputs, catalog=replace(inputs.catalog, drains={each.name: each for each in drains}))


def with_health(inputs: Inputs, name: str, health: HealthStatus, where: Collection[str] = tuple(PLACES)) -> Inputs:
    """`inputs` with every task of `name` in `where` in this health."""
    states = tuple(
        replace(state, health=health) if state.datacenter in where else state for state in inputs.tasks[name]
    )
    return replace(inputs, tasks={**inputs.tasks, name: states})


def utilizations(plan: Plan) -> dict[str, float]:
    """Load over capacity, of the datacenters that have any."""
    return {name: plan.load_rps.get(name, 0.0) / rps for name, rps in plan.capacity_rps.items() if rps > 0}


def assert_well_formed(plan: Plan, localities: Collection[str]) -> None:
    """Every locality has shares that sum to 1, and the load adds up to the demand."""
    assert set(plan.shares) == set(localities)
    for shares in plan.shares.values():
        assert abs(math.fsum(shares.values()) - 1) < 1e-12
        assert all(1e-7 < share <= 1 for share in shares.values())
    assert math.isclose(
        math.fsum(plan.load_rps.values()), math.fsum(plan.demand_rps.values()), rel_tol=1e-9, abs_tol=1e-9
    )
