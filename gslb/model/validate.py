"""What must hold of a resource beyond each field by itself, and of the whole catalog. PURE.

Nothing raises here but `require`: a caller that can say more (a file with line numbers, `gslb check`) wants them all.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network

from bns.names import InvalidNameError, check_label, parse_job, parse_task
from gslb.model import limits
from gslb.model.build import check_values, meta_values, spec_values
from gslb.model.errors import InvalidValueError
from gslb.model.fields import FieldProblem
from gslb.model.grammar import LABEL, MACHINE, shown
from gslb.model.resources import (
    Catalog,
    ClientArea,
    Datacenter,
    Drain,
    DrainScope,
    Objective,
    Policy,
    Resource,
    Service,
    kind_of,
)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a catalog: with whom, and what to do. Comparable, so that new ones can be told from old."""

    subject: str  # such as `service shakespeare-backend`
    message: str

    def line(self) -> str:
        return f"{self.subject}: {self.message}"


def check_resource(resource: Resource) -> list[FieldProblem]:
    """Everything wrong with one resource, looked at alone."""
    problems = list(check_values(kind_of(resource), meta_values(resource.meta), spec_values(resource)))
    return problems or list(check_relations(resource))


def require(resource: Resource) -> Resource:
    """The resource itself if it is good. Raises InvalidValueError that names the resource and its first problem."""
    problems = check_resource(resource)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InvalidValueError(f"{kind_of(resource)} {shown(resource.meta.name)}: {problems[0].line()}{more}")
    return resource


def check_relations(resource: Resource) -> Iterator[FieldProblem]:
    """What is wrong between the fields of a resource whose fields are each good."""
    match resource:
        case Service():
            yield from _check_service(resource)
        case ClientArea():
            yield from _check_area(resource)
        case Datacenter():
            yield from _check_unique((link.locality for link in resource.links), "spec.links")
        case Drain():
            yield from _check_drain(resource)
        case _:
            pass


def _check_service(service: Service) -> Iterator[FieldProblem]:
    jobs: dict[str, int] = {}
    datacenters: dict[str, int] = {}
    for index, backend in enumerate(service.backends):
        path = f"spec.backends[{index}].job"
        if backend.job in jobs:
            yield FieldProblem(path, f"{backend.job!r} is listed twice: keep one")
        elif backend.datacenter in datacenters:
            other = service.backends[datacenters[backend.datacenter]].job
            yield FieldProblem(
                path,
                f"{backend.job!r} and {other!r} are both in datacenter {backend.datacenter!r}:"
                " a service has one job in a datacenter",
            )
        jobs.setdefault(backend.job, index)
        datacenters.setdefault(backend.datacenter, index)
    yield from _check_unique(service.dns_names, "spec.dns_names")
    yield from _check_unique(service.alpn, "spec.alpn")
    if service.alpn and not service.dns_names:
        yield FieldProblem(
            "spec.alpn", "is for HTTPS records of spec.dns_names, and there are none: add one or leave it out"
        )
    yield from _check_failover(service, datacenters)
    yield from _check_objective(service)
    yield from _check_quotas(service)


def _check_failover(service: Service, datacenters: Collection[str]) -> Iterator[FieldProblem]:
    """The list and the policy that uses it belong together."""
    yield from _check_unique(service.failover, "spec.failover")
    if service.policy is Policy.FAILOVER and not service.failover:
        yield FieldProblem(
            "spec.failover", "policy failover needs a list: give its datacenters, the first choice first"
        )
    if service.failover and service.policy is not Policy.FAILOVER:
        yield FieldProblem("spec.failover", f"policy {service.policy.value} uses no list: leave it out")
    for index, name in enumerate(service.failover):
        if name not in datacenters:
            yield FieldProblem(
                f"spec.failover[{index}]", f"{name!r} has no backend of this service: add one or leave it out"
            )


def _check_objective(service: Service) -> Iterator[FieldProblem]:
    """Transfer time is that of a size."""
    if service.objective is Objective.THROUGHPUT:
        for index, backend in enumerate(service.backends):
            if backend.request_mbit <= 0:
                yield FieldProblem(
                    f"spec.backends[{index}].request_mbit",
                    "objective throughput needs to know how much a request sends: give it in megabits",
                )


def _check_quotas(service: Service) -> Iterator[FieldProblem]:
    """Each client has one quota, in one unit."""
    yield from _check_unique((quota.caller for quota in service.quotas), "spec.quotas")
    for index, quota in enumerate(service.quotas):
        if (quota.rps > 0) == (quota.cpu_cores > 0):
            yield FieldProblem(
                f"spec.quotas[{index}]",
                f"{quota.caller!r} has rps {quota.rps:g} and cpu_cores {quota.cpu_cores:g}:"
                " give one of the two, above 0, and leave the other out",
            )


def _check_unique(items: Iterable[str], path: str) -> Iterator[FieldProblem]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item in seen:
            yield FieldProblem(f"{path}[{index}]", f"{item!r} is listed twice: keep one")
        seen.add(item)


def _check_area(area: ClientArea) -> Iterator[FieldProblem]:
    yield from _check_unique(map(str, area.cidrs), "spec.cidrs")


def _check_drain(drain: Drain) -> Iterator[FieldProblem]:
    problem = target_problem(drain.scope, drain.target)
    if problem:
        yield FieldProblem("spec.target", problem)
    if drain.expires_at <= drain.starts_at:
        yield FieldProblem(
            "spec.expires_at",
            f"{drain.expires_at.isoformat()} is not after starts_at {drain.starts_at.isoformat()}: give a later end",
        )
    elif drain.expires_at - drain.starts_at > timedelta(seconds=limits.DRAIN_MAX_S):
        yield FieldProblem(
            "spec.expires_at",
            f"{drain.expires_at.isoformat()} is more than {limits.DRAIN_MAX_S / 3600:g} hours after starts_at:"
            " drain for less, and again when it ends",
        )
    elif drain.ramp_s > (drain.expires_at - drain.starts_at).total_seconds():
        yield FieldProblem(
            "spec.ramp_s", f"{drain.ramp_s:g} s is longer than the drain itself: give a shorter ramp or a later end"
        )


def _service_target(target: str) -> str | None:
    service, at, datacenter = target.partition("@")
    return LABEL.problem(service) or (LABEL.problem(datacenter) if at else None)


def _named(parse: Callable[[str], object]) -> Callable[[str], str | None]:
    def problem(target: str) -> str | None:
        try:
            parse(target)
        except InvalidNameError as error:
            return str(error)
        return None

    return problem


_TARGETS: Mapping[DrainScope, Callable[[str], str | None]] = {
    DrainScope.DATACENTER: _named(lambda target: check_label(target, "datacenter")),
    DrainScope.REGION: _named(lambda target: check_label(target, "region")),
    DrainScope.SERVICE: _service_target,
    DrainScope.JOB: _named(parse_job),
    DrainScope.TASK: _named(parse_task),
    DrainScope.MACHINE: MACHINE.problem,
}


def target_problem(scope: DrainScope, target: str) -> str | None:
    """Why `target` cannot be the name of what a drain of this scope drains; None when it can."""
    return _TARGETS[scope](target)


def validate(catalog: Catalog) -> list[Problem]:
    """Everything wrong between the resources of a catalog, each of which is good by itself; sorted."""
    return sorted(
        [
            *_check_localities(catalog),
            *_check_links(catalog),
            *_check_networks(catalog),
            *_check_backends(catalog),
            *_check_dns_names(catalog),
            *_check_drain_targets(catalog),
        ]
    )


def _check_localities(catalog: Catalog) -> Iterator[Problem]:
    for name in catalog.datacenters.keys() & catalog.areas.keys():
        yield Problem(
            f"area {name}", "a datacenter has the same name, and both are localities: give the area another name"
        )


def _check_links(catalog: Catalog) -> Iterator[Problem]:
    for name, datacenter in sorted(catalog.datacenters.items()):
        for link in datacenter.links:
            if catalog.coordinates_of(link.locality) is None:
                yield Problem(
                    f"datacenter {name}",
                    f"its link comes from {link.locality!r}, which is no datacenter and no client area:"
                    " correct the name or leave the link out",
                )


def _check_networks(catalog: Catalog) -> Iterator[Problem]:
    owners: dict[IPv4Network | IPv6Network, str] = {}
    for name, area in sorted(catalog.areas.items()):
        for cidr in area.cidrs:
            # Nested networks are fine: the longest prefix wins.
            owner = owners.setdefault(cidr, name)
            if owner != name:
                yield Problem(f"area {name}", f"{cidr} belongs to area {owner!r} already: leave it in one of them")


def _check_backends(catalog: Catalog) -> Iterator[Problem]:
    jobs: dict[str, str] = {}
    for name, service in sorted(catalog.services.items()):
        for backend in service.backends:
            if backend.datacenter not in catalog.datacenters:
                known = ", ".join(sorted(catalog.datacenters)) or "none"
                yield Problem(
                    f"service {name}",
                    f"job {backend.job!r} is in datacenter {backend.datacenter!r}, which is not known:"
                    f" apply a Datacenter of that name or correct the job (known: {known[:300]})",
                )
            owner = jobs.setdefault(backend.job, name)
            if owner != name:
                yield Problem(
                    f"service {name}",
                    f"job {backend.job!r} serves {owner!r} already: its capacity would be counted twice;"
                    " give each service a job of its own",
                )


def _check_dns_names(catalog: Catalog) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for name, service in sorted(catalog.services.items()):
        for dns_name in service.dns_names:
            owner = owners.setdefault(dns_name, name)
            if owner != name:
                yield Problem(f"service {name}", f"DNS name {dns_name!r} belongs to service {owner!r} already")


def _check_drain_targets(catalog: Catalog) -> Iterator[Problem]:
    """Drains of what is not known. Jobs, tasks and machines come and go in BNS, which this catalog does not hold."""
    regions = {datacenter.region for datacenter in catalog.datacenters.values()}
    for name, drain in sorted(catalog.drains.items()):
        service, _, datacenter = drain.target.partition("@")
        match drain.scope:
            case DrainScope.DATACENTER:
                known = drain.target in catalog.datacenters
            case DrainScope.REGION:
                known = drain.target in regions
            case DrainScope.SERVICE:
                known = service in catalog.services and (not datacenter or datacenter in catalog.datacenters)
            case _:
                known = True
        if not known:
            yield Problem(f"drain {name}", f"there is no {drain.scope.value} {drain.target!r}: undrain {name}")
