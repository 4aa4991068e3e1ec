"""`gslb top`: every backend's load, live."""

import contextlib
import time

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gslb.cli.output import Column, cell, show, with_format
from gslb.cli.session import Session, with_session
from gslb.v1 import admin_pb2

REFRESH_S = 1.0
COLUMNS = (
    Column("service", "service"), Column("datacenter", "datacenter"), Column("planned", "load_rps"),
    Column("served", "served_rps"), Column("errors", "error_rps"), Column("capacity", "capacity_rps"),
    Column("cpu", "cpu_utilization", percent=True), Column("healthy", "healthy"), Column("drain", "drain"),
)  # fmt: skip


def rows_of(status: admin_pb2.StatusResponse, service: str) -> list[dict[str, object]]:
    """One row a backend."""
    return [
        {"service": s.service, "datacenter": b.datacenter, "load_rps": b.load_rps, "served_rps": b.served_rps,
         "error_rps": b.error_rps, "capacity_rps": b.capacity_rps, "cpu_utilization": b.cpu_utilization,
         "healthy": f"{b.healthy_tasks}/{b.tasks}", "drain": b.drain}
        for s in status.services if service in {"", s.service} for b in s.backends
    ]  # fmt: skip


def _picture(status: admin_pb2.StatusResponse, service: str) -> RenderableType:
    table = Table(expand=True)
    for column in COLUMNS:
        table.add_column(
            column.heading, justify="left" if column.key in {"service", "datacenter", "drain"} else "right"
        )
    for row in rows_of(status, service):
        load, capacity = float(str(row["load_rps"])), float(str(row["capacity_rps"]))
        style = "red" if load > capacity else "yellow" if row["drain"] else ""
        table.add_row(*[cell(row[column.key], percent=column.percent) for column in COLUMNS], style=style)
    age = f"etcd answered {status.etcd_age_s:.0f} s ago"
    return Group(
        table, Text(f"asked {status.replica}; leader {status.leader or 'none'}; {age}; Ctrl-C ends", style="dim")
    )


@click.command(short_help="Show every backend's load, live.")
@click.argument("service", default="")
@click.option("--once", is_flag=True, help="Print it once (what happens anyway when stdout is no terminal).")
@with_format
@with_session
def top(session: Session, service: str, once: bool, output: str) -> None:
    """Show planned and served requests per second, capacity, CPU and health of every backend (of one SERVICE)."""
    console = Console()
    status = session.call(lambda admin: admin.Status, admin_pb2.StatusRequest())
    if service and not rows_of(status, service):
        raise click.ClickException(f"there is no service {service!r}: see `gslb get services`")
    if once or output != "table" or not console.is_terminal:
        show(output, rows_of(status, service), COLUMNS)
        return
    live = Live(_picture(status, service), console=console, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), live:
        while True:
            time.sleep(REFRESH_S)
            try:
                status = session.call(lambda admin: admin.Status, admin_pb2.StatusRequest())
            except click.ClickException as error:
                # What is shown stays: whoever watches wants to see the control plane come back.
                live.update(Group(_picture(status, service), Text(error.message, style="red")), refresh=True)
                session.begin_anew()
                continue
            live.update(_picture(status, service), refresh=True)
