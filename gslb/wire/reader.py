"""What a reader (RPC client, GFE, DNS frontend) holds, and how an update from a control plane changes it.

`fold(view, update)` never raises and never makes a view worse (design, invariants 2, 5 and 8):
- each part of an update stands by itself: a bad part is dropped and reported, the last good stays, the rest goes on;
- plans only advance: an older stamp, from a replica that lags or a leader that was deposed, is refused;
- a service that has endpoints keeps some, whatever arrives; only `deleted`, the operator's word, takes a name away;
- what has shrunk by more than the removal budget is not believed: a plan for fewer than half of the localities that are
  still there, a catalog without most of the zones or places that nobody deleted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.errors import InvalidValueError
from gslb.model.grammar import shown
from gslb.model.plan import ZERO_STAMP, Plan
from gslb.model.resources import Catalog, ClientArea, Datacenter, Resource, Zone
from gslb.steer.view import ServiceView
from gslb.v1 import discovery_pb2
from gslb.wire.endpoints import decode_endpoint
from gslb.wire.plans import decode_plan
from gslb.wire.resources import decode_resource, decode_service
from gslb.wire.scalars import label

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class ReaderView:
    """Everything a reader knows at one moment. Immutable: a reader swaps one for the next."""

    services: Mapping[str, ServiceView] = field(default_factory=dict)
    catalog: Catalog = field(default_factory=Catalog)  # datacenters, areas and zones; services are in `services`
    synced: bool = False  # everything subscribed has arrived at least once
    replica: str = ""  # who sent the last update
    unknown: frozenset[str] = frozenset()  # subscribed, and the control plane knows no such service
    # Plans that were refused because they had shrunk, by service: once the catalog has shrunk as well, they are right.
    withheld: Mapping[str, Plan] = field(default_factory=dict)


def fold(view: ReaderView, update: discovery_pb2.Update) -> tuple[ReaderView, list[str]]:
    """The view after an update, and what of the update was refused, one line each."""
    folding = _Folding(dict(view.services), dict(view.withheld), view.catalog)
    if update.HasField("catalog"):
        folding.take_catalog(update.catalog)
    for change in update.services[: limits.SERVICES_MAX]:
        folding.take_service(change)
    if len(update.services) > limits.SERVICES_MAX:
        folding.problems.append(
            f"an update of {len(update.services)} services: the first {limits.SERVICES_MAX} were read"
        )
    folded = replace(
        view,
        services=folding.services,
        withheld=folding.withheld,
        catalog=folding.catalog,
        synced=view.synced or update.synced,
        replica=update.replica[: limits.NAME_MAX_CHARS * 4] or view.replica,
        unknown=_fold_unknown(view.unknown, update),
    )
    return folded, folding.problems


def _fold_unknown(unknown: frozenset[str], update: discovery_pb2.Update) -> frozenset[str]:
    arrived = {change.service for change in update.services if not change.deleted}
    said = update.unknown_services[: limits.SERVICES_MAX]
    return frozenset((unknown | set(said)) - arrived) if arrived or said else unknown


@dataclass(slots=True)
class _Folding:
    """A view in the making."""

    services: dict[str, ServiceView]
    withheld: dict[str, Plan]
    catalog: Catalog
    problems: list[str] = field(default_factory=list)

    def take_catalog(self, catalog: discovery_pb2.Catalog) -> None:
        """The catalog, and the plans that had shrunk too much for the one before and have not for this one."""
        self.catalog = _fold_catalog(self.catalog, catalog, self.problems)
        for name, plan in list(self.withheld.items()):
            held = self.services.get(name)
            if held is None:
                del self.withheld[name]
            elif not _shrunk(name, held.plan, plan, self.catalog):
                self.services[name] = held.with_plan(self.withheld.pop(name))

    def take_service(self, change: discovery_pb2.ServiceUpdate) -> None:
        """One service."""
        try:
            name = label(change.service, "service")
        except InvalidValueError as error:
            self.problems.append(str(error))
            return
        if change.deleted:
            self.services.pop(name, None)
            self.withheld.pop(name, None)
            return
        if name not in self.services and len(self.services) >= limits.SERVICES_MAX:
            self.problems.append(f"service {name}: dropped, {limits.SERVICES_MAX} services are held already")
            return
        held = self.services.get(name) or ServiceView(name)
        if change.HasField("config"):
            try:
                held = held.with_service(decode_service(name, change.config))
            except InvalidValueError as error:
                self.problems.append(f"the last good configuration stays: {error}")
        if change.HasField("plan"):
            held = self._with_plan(held, change)
        if change.endpoints_snapshot or change.upserted or change.removed:
            held = _fold_endpoints(held, change, self.problems)
        if held.service or held.plan or held.endpoints:
            self.services[name] = held

    def _with_plan(self, held: ServiceView, change: discovery_pb2.ServiceUpdate) -> ServiceView:
        try:
            plan = decode_plan(change.plan)
        except InvalidValueError as error:
            self.problems.append(f"the last good plan stays: {error}")
            return held
        problem = _why_not(held.name, held.plan, plan)
        if not problem and (problem := _shrunk(held.name, held.plan, plan, self.catalog)):
            self.withheld[held.name] = plan
        if problem:
            self.problems.append(problem)
            return held
        self.withheld.pop(held.name, None)
        current = held.plan.stamp if held.plan else ZERO_STAMP
        return held if plan.stamp == current else held.with_plan(plan)


def _shrunk(name: str, held: Plan | None, plan: Plan, catalog: Catalog) -> str | None:
    """Why this plan has shrunk too much to be believed: a plan covers every locality that there is (invariant 2)."""
    if held is None:
        return None
    served = [locality for locality in held.shares if locality in catalog.datacenters or locality in catalog.areas]
    lost = [locality for locality in served if locality not in plan.shares]
    if len(lost) <= len(served) * limits.REMOVAL_BUDGET_FRACTION:
        return None
    return (
        f"service {name}: refused plan {tuple(plan.stamp)}, without {len(lost)} of the {len(served)} localities that "
        f"{tuple(held.stamp)} serves, such as {shown(min(lost))}: the last good plan stays"
    )


def _why_not(name: str, held: Plan | None, plan: Plan) -> str | None:
    """Why this plan cannot follow the one that is held; None when it can, or is the same."""
    if plan.service != name:
        return f"service {name}: refused a plan that is for {plan.service!r}"
    if not plan.stamp.version:
        return f"service {name}: refused a plan without a stamp"
    if held and plan.stamp < held.stamp:
        return f"service {name}: refused plan {tuple(plan.stamp)}, older than {tuple(held.stamp)}, which is held"
    return None


def _fold_endpoints(held: ServiceView, change: discovery_pb2.ServiceUpdate, problems: list[str]) -> ServiceView:
    name = held.name
    arrived = len(change.upserted)
    if arrived > limits.ENDPOINTS_PER_SERVICE_MAX:
        problems.append(f"service {name}: an update of {arrived} endpoints was refused: the last good ones stay")
        return held
    target: dict[str, ServiceEndpoint] = {}
    if not change.endpoints_snapshot:
        target = {task: endpoint for task, endpoint in held.endpoints.items() if task not in held.condemned}
    for task in change.removed:
        target.pop(task, None)
    for message in change.upserted:
        try:
            endpoint = decode_endpoint(message)
        except InvalidValueError as error:
            problems.append(f"service {name}: {error}")
            # A snapshot forgets what it does not list; this one it lists, badly.
            if message.task in held.endpoints:
                target[message.task] = held.endpoints[message.task]
            continue
        target[endpoint.task] = endpoint
    return _settle(held, target, problems)


def _settle(held: ServiceView, target: dict[str, ServiceEndpoint], problems: list[str]) -> ServiceView:
    """The view with the endpoints that an update asked for, unless none or too many would be left."""
    if len(target) > limits.ENDPOINTS_PER_SERVICE_MAX:
        problems.append(f"service {held.name}: {len(target)} endpoints would be held: the last good ones stay")
        return held
    if not target and held.endpoints:
        problems.append(
            f"service {held.name}: an update that would leave no endpoint was refused: {len(held.endpoints)} stay"
        )
        # They go as soon as there is anything better.
        return held.with_endpoints(held.endpoints, frozenset(held.endpoints))
    if target == held.endpoints and not held.condemned:
        return held
    return held.with_endpoints(target)


def _fold_catalog(held: Catalog, catalog: discovery_pb2.Catalog, problems: list[str]) -> Catalog:
    """The catalog that arrived; resources in it that are bad keep their last good value."""
    most = limits.DATACENTERS_MAX + 2 * limits.LOCALITIES_MAX
    if len(catalog.resources) > most:
        problems.append(f"a catalog of {len(catalog.resources)} resources was refused: at most {most} are read")
        return held
    good: list[Resource] = []
    deleted: set[str] = set()
    for message in catalog.resources:
        try:
            resource = decode_resource(message)
            good.append(resource)
            if resource.meta.deleted_at is not None:
                deleted.add(resource.meta.name)
        except InvalidValueError as error:
            problems.append(f"the last good value stays: {error}")
            good.extend(_last_good(held, message.WhichOneof("kind"), message.meta.name))
    folded = catalog_of(good)
    if not folded.datacenters and held.datacenters:
        problems.append(
            f"a catalog without datacenters was refused: {len(held.datacenters)} are held, "
            f"such as {shown(min(held.datacenters))}"
        )
        return held
    return Catalog(
        datacenters=_believed(held.datacenters, folded.datacenters, deleted, "datacenters", problems),
        areas=_believed(held.areas, folded.areas, deleted, "client areas", problems),
        zones=_believed(held.zones, folded.zones, deleted, "zones", problems),
    )


def _believed(
    held: Mapping[str, Kept], arrived: Mapping[str, Kept], deleted: set[str], what: str, problems: list[str]
) -> Mapping[str, Kept]:
    """What arrived; with what is missing of it, if that is more than may vanish without a tombstone."""
    missing = held.keys() - arrived.keys() - deleted
    if len(missing) <= len(held) * limits.REMOVAL_BUDGET_FRACTION:
        return arrived
    problems.append(
        f"a catalog that lacks {len(missing)} of {len(held)} {what}, such as {shown(min(missing))}, which nobody "
        "deleted: they are served as before"
    )
    return {**arrived, **{name: held[name] for name in missing}}


def _last_good(held: Catalog, field_name: str | None, name: str) -> Iterable[Resource]:
    kinds: dict[str | None, Mapping[str, Resource]] = {
        "datacenter": held.datacenters,
        "client_area": held.areas,
        "zone": held.zones,
    }
    known = kinds.get(field_name, {}).get(name)
    return (known,) if known else ()


def catalog_of(resources: Iterable[Resource]) -> Catalog:
    """The datacenters, areas and zones among these that are not deleted: what readers need of the catalog."""
    alive = [resource for resource in resources if resource.meta.deleted_at is None]
    return Catalog(
        datacenters={resource.name: resource for resource in alive if isinstance(resource, Datacenter)},
        areas={resource.name: resource for resource in alive if isinstance(resource, ClientArea)},
        zones={resource.origin: resource for resource in alive if isinstance(resource, Zone)},
    )
