"""`gslb get` and `gslb describe`: what is desired and what is seen."""

import click
import yaml
from typing_extensions import override

from bns.model import HealthStatus
from gslb.cli.kinds import ALIASES, OBSERVED, decoded, kind_named, row_of
from gslb.cli.output import Column, Row, show, table, with_format
from gslb.cli.session import Session, with_session
from gslb.config.dump import as_document, dump
from gslb.v1 import admin_pb2

COLUMNS = {
    "datacenter": (
        Column("name", "name"), Column("region", "region"), Column("latitude", "latitude"),
        Column("longitude", "longitude"), Column("uplink mbps", "uplink_mbps", wide=True),
    ),
    "area": (
        Column("name", "name"), Column("latitude", "latitude"), Column("longitude", "longitude"),
        Column("cidrs", "cidrs"),
    ),
    "service": (
        Column("name", "name"), Column("source", "source"), Column("datacenters", "datacenters"),
        Column("dns names", "dns_names"), Column("ttl s", "ttl_s", wide=True),
        Column("max utilization", "max_utilization", wide=True),
    ),
    "drain": (
        Column("name", "name"), Column("scope", "scope"), Column("target", "target"), Column("expires at", "expires_at"),
        Column("reason", "reason"), Column("author", "author"), Column("overridden", "overridden", wide=True),
    ),
    "zone": (Column("name", "name"), Column("lines", "lines")),
    "tasks": (
        Column("task", "task"), Column("address", "address"), Column("health", "health"), Column("rps", "served_rps"),
        Column("errors/s", "error_rps"), Column("cpu", "cpu_utilization", percent=True), Column("agent", "agent", wide=True),
    ),
    "agents": (
        Column("agent", "agent"), Column("datacenter", "datacenter"), Column("alive", "alive"),
        Column("report age s", "report_age_s"), Column("tasks", "tasks"),
    ),
    "plans": (
        Column("service", "service"), Column("locality", "locality"), Column("demand rps", "demand_rps"),
        Column("shares", "shares"), Column("stamp", "stamp", wide=True),
    ),
    "quotas": (
        Column("service", "service"), Column("caller", "caller"), Column("unit", "unit"), Column("quota", "quota"),
        Column("asked", "asked"), Column("used", "used"), Column("standing", "standing"),
        Column("servers", "servers", wide=True),
    ),
}  # fmt: skip


class Shares(dict[str, float]):
    """Datacenter -> share; in tables as `us-east1:75.0% europe-west1:25.0%`."""

    @override
    def __str__(self) -> str:
        return " ".join(f"{name}:{100 * share:.1f}%" for name, share in self.items())


def _is_named(row: Row, name: str) -> bool:
    """Whether the first column is `name`, or a task under it."""
    first = str(next(iter(row.values())))
    return name in {"", first} or first.startswith(f"{name.removesuffix('/')}/")


def health_name(number: int) -> str:
    """HEALTHY, ...; a number that this version does not know stays a number."""
    return HealthStatus(number).name if number in set(HealthStatus) else str(number)


def _show_resources(session: Session, kind: str, name: str, output: str) -> None:
    """Tables, or the documents themselves: what `-o yaml` prints, `gslb apply` takes."""
    reply = session.call(lambda admin: admin.Get, admin_pb2.GetRequest(kind=kind, name=name))
    resources = decoded(reply.resources)
    match output:
        case "yaml":
            click.echo(dump(resources, history=True), nl=False)
        case "json":
            show(output, [as_document(resource, history=True) for resource in resources], ())
        case _:
            show(output, [row_of(resource) for resource in resources], COLUMNS[kind])


def _observed_rows(session: Session, what: str) -> list[Row]:
    status = session.call(lambda admin: admin.Status, admin_pb2.StatusRequest())
    match what:
        case "tasks":
            return [
                {"task": t.task, "address": t.address, "health": health_name(t.health), "served_rps": t.served_rps,
                 "error_rps": t.error_rps, "cpu_utilization": t.cpu_utilization, "agent": t.agent}
                for t in status.tasks
            ]  # fmt: skip
        case "agents":
            return [
                {
                    "agent": a.agent,
                    "datacenter": a.datacenter,
                    "alive": a.alive,
                    "report_age_s": a.report_age_s,
                    "tasks": a.tasks,
                }
                for a in status.agents
            ]
        case "quotas":
            return [
                {"service": q.service, "caller": q.caller, "unit": q.unit, "quota": q.quota, "asked": q.asked,
                 "used": q.used, "standing": q.standing, "servers": q.servers}
                for q in status.quotas
            ]  # fmt: skip
        case _:
            return [plan_row(service, locality) for service in status.services for locality in service.localities]


def plan_row(service: admin_pb2.ServiceStatus, locality: admin_pb2.LocalityStatus) -> Row:
    """One locality of a plan."""
    pairs = sorted(zip(locality.datacenters, locality.share, strict=True), key=lambda pair: -pair[1])
    stamp = service.stamp
    return {
        "service": service.service,
        "locality": locality.locality,
        "demand_rps": locality.demand_rps,
        "shares": Shares((name, share) for name, share in pairs if share > 0),
        "stamp": f"{stamp.incarnation}.{stamp.epoch}.{stamp.version}",
    }


@click.command(short_help="List resources, tasks, agents, plans or quotas.")
@click.argument("kind", metavar="KIND")
@click.argument("name", default="")
@with_format
@with_session
def get(session: Session, kind: str, name: str, output: str) -> None:
    """List what is there. KIND: datacenters, areas, services, drains, zones; or tasks, agents, plans, quotas as seen now.

    \b
    gslb get services
    gslb get service web -o yaml       what `gslb apply -f` takes
    gslb get tasks /bns/us-east1/web   a task, or all under a prefix
    gslb get plans web                 where each locality's requests go
    gslb get quotas web                what each client with a quota asks
    """
    what = OBSERVED.get(kind.lower())
    if what:
        rows = [row for row in _observed_rows(session, what) if _is_named(row, name)]
        if name and not rows:
            raise click.ClickException(f"there is no {what.removesuffix('s')} {name!r}: `gslb get {what}` lists all")
        show(output, rows, COLUMNS[what])
        return
    if kind.lower() not in ALIASES:
        raise click.UsageError(
            f"{kind!r} is nothing to get: use one of {', '.join(sorted({*ALIASES.values(), *OBSERVED.values()}))}"
        )
    _show_resources(session, kind_named(kind), name, output)


@click.command(short_help="Show one resource with everything known about it.")
@click.argument("kind")
@click.argument("name")
@with_session
def describe(session: Session, kind: str, name: str) -> None:
    """Show one resource as YAML and, for a service or a datacenter, how it stands now."""
    kind = kind_named(kind)
    reply = session.call(lambda admin: admin.Get, admin_pb2.GetRequest(kind=kind, name=name))
    click.echo(dump(decoded(reply.resources), history=True), nl=False)
    if kind not in {"service", "datacenter"}:
        return
    status = session.call(lambda admin: admin.Status, admin_pb2.StatusRequest())
    rows = [
        {"service": s.service, "datacenter": b.datacenter, "healthy": f"{b.healthy_tasks}/{b.tasks}",
         "capacity": b.capacity_rps,
         "planned": b.load_rps, "served": b.served_rps, "errors": b.error_rps, "cpu": b.cpu_utilization, "drain": b.drain}
        for s in status.services for b in s.backends if name in {s.service, b.datacenter}
    ]  # fmt: skip
    click.echo("\n# now, in requests per second")
    headings = ("service", "datacenter", "healthy", "capacity", "planned", "served", "errors", "cpu", "drain")
    click.echo(table(rows, [Column(heading, heading, percent=heading == "cpu") for heading in headings]))
    for service in status.services:
        if service.service != name:
            continue
        click.echo("\n# shares by locality")
        plans = [plan_row(service, locality) for locality in service.localities]
        click.echo(table(plans, COLUMNS["plans"][1:]))
        if service.notes:
            click.echo("\n# notes\n" + yaml.safe_dump(list(service.notes)), nl=False)
