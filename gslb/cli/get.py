"""`gslb get` and `gslb describe`: what is desired and what is seen."""

from typing import Any

import click
import yaml

from bns.model import HealthStatus
from gslb.cli.kinds import ALIASES, OBSERVED, decoded, kind_named, row_of
from gslb.cli.output import Column, Row, show, table, with_format
from gslb.cli.session import Session, with_session
from gslb.config.dump import dump
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
        Column("errors/s", "error_rps"), Column("cpu", "cpu_utilization"), Column("agent", "agent", wide=True),
    ),
    "agents": (
        Column("agent", "agent"), Column("datacenter", "datacenter"), Column("alive", "alive"),
        Column("report age s", "report_age_s"), Column("tasks", "tasks"),
    ),
    "plans": (
        Column("service", "service"), Column("locality", "locality"), Column("demand rps", "demand_rps"),
        Column("shares", "shares"), Column("stamp", "stamp", wide=True),
    ),
}  # fmt: skip


def health_name(number: int) -> str:
    """HEALTHY, ...; a number that this version does not know stays a number."""
    return HealthStatus(number).name if number in set(HealthStatus) else str(number)


def _resource_rows(session: Session, kind: str, name: str) -> list[Row]:
    reply = session.call(lambda admin: admin.Get, admin_pb2.GetRequest(kind=kind, name=name))
    rows = [row_of(resource) for resource in decoded(reply.resources)]
    for row in rows:
        backends: Any = row.get("backends", [])
        row["datacenters"] = [backend["job"].split("/")[2] for backend in backends]
        row["lines"] = str(row.get("records", "")).count("\n")
    hidden = (
        {"datacenters", "lines"}
        - ({"datacenters"} if kind == "service" else set())
        - ({"lines"} if kind == "zone" else set())
    )
    return [{key: value for key, value in row.items() if key not in hidden} for row in rows]


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
        "shares": " ".join(f"{name}:{100 * share:.1f}%" for name, share in pairs if share > 0),
        "stamp": f"{stamp.incarnation}.{stamp.epoch}.{stamp.version}",
    }


@click.command(short_help="List resources, tasks, agents or plans.")
@click.argument("kind", metavar="KIND")
@click.argument("name", default="")
@with_format
@with_session
def get(session: Session, kind: str, name: str, output: str) -> None:
    """List what is there. KIND: datacenters, areas, services, drains, zones; or tasks, agents, plans as seen now."""
    if kind in OBSERVED:
        rows = [row for row in _observed_rows(session, kind) if name in {"", *map(str, list(row.values())[:1])}]
        if name and not rows:
            raise click.ClickException(f"there is no {kind.removesuffix('s')} {name!r}")
        show(output, rows, COLUMNS[kind])
        return
    if kind.lower() not in ALIASES:
        raise click.UsageError(
            f"{kind!r} is nothing to get: use one of {', '.join(sorted({*ALIASES.values(), *OBSERVED}))}"
        )
    show(output, _resource_rows(session, kind_named(kind), name), COLUMNS[kind_named(kind)])


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
    click.echo(table(rows, [Column(heading, heading) for heading in headings]))
    for service in status.services:
        if service.service != name:
            continue
        click.echo("\n# shares by locality")
        plans = [plan_row(service, locality) for locality in service.localities]
        click.echo(table(plans, COLUMNS["plans"][1:]))
        if service.notes:
            click.echo("\n# notes\n" + yaml.safe_dump(list(service.notes)), nl=False)
