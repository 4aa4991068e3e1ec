"""What the demo shows: a live table on a terminal, plain lines elsewhere. Drawing only: the numbers come as a Frame."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bns.model import HealthStatus
from gslb.demo.layout import BACKEND_SERVICE, SITES
from gslb.demo.traffic import Outcome
from gslb.v1 import admin_pb2

WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything that one picture needs. `outcomes` ended within the last `WINDOW_S`."""

    outcomes: Sequence[Outcome]
    status: admin_pb2.StatusResponse | None
    drains: Sequence[str]
    hint: str


def _area_table(frame: Frame) -> Table:
    table = Table(
        title="browsers: requests per second by client area, and the datacenter whose GFE answers", expand=True
    )
    table.add_column("client area")
    table.add_column("rps", justify="right")
    for site in SITES:
        table.add_column(site.name, justify="right")
    table.add_column("failed", justify="right")
    table.add_column("p50 / p99 ms", justify="right")
    for site in SITES:
        mine = [outcome for outcome in frame.outcomes if outcome.area == site.area]
        by_datacenter = Counter(outcome.datacenter for outcome in mine)
        failed = sum(1 for outcome in mine if outcome.error)
        shares = (
            f"{100 * by_datacenter[other.name] / len(mine):.0f} %" if by_datacenter[other.name] else ""
            for other in SITES
        )
        table.add_row(
            site.area,
            f"{len(mine) / WINDOW_S:.0f}",
            *shares,
            Text(str(failed), style="red" if failed else ""),
            _latency(mine),
        )
    return table


def _latency(outcomes: Sequence[Outcome]) -> str:
    ordered = sorted(outcome.latency_s for outcome in outcomes)
    if not ordered:
        return "-"
    return (
        f"{ordered[len(ordered) // 2] * 1e3:.0f} / {ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3:.0f}"
    )


def _datacenter_table(status: admin_pb2.StatusResponse) -> Table:
    table = Table(title="backends: what the plan places, what they serve", expand=True)
    for heading in ("datacenter", "planned rps", "served rps", "capacity", "used", "CPU", "healthy", "drain"):
        table.add_column(heading, justify="left" if heading in {"datacenter", "drain"} else "right")
    for backend in _backends(status):
        used = backend.served_rps / backend.capacity_rps if backend.capacity_rps else 0.0
        table.add_row(
            backend.datacenter,
            f"{backend.load_rps:.0f}",
            f"{backend.served_rps:.0f}",
            f"{backend.capacity_rps:.0f}",
            Text(f"{100 * used:.0f} %", style="red" if used > 1 else "green"),
            f"{100 * backend.cpu_utilization:.0f} %",
            f"{backend.healthy_tasks}/{backend.tasks}",
            Text(backend.drain, style="yellow"),
        )
    return table


def _backends(status: admin_pb2.StatusResponse) -> Sequence[admin_pb2.BackendStatus]:
    return next((service.backends for service in status.services if service.service == BACKEND_SERVICE), ())


def _tasks_line(status: admin_pb2.StatusResponse) -> str:
    counts = Counter(HealthStatus(task.health).name for task in status.tasks)
    health = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"leader {status.leader or 'none'}; tasks: {health or 'none'}; plans published: {status.plans_published}"


def picture(frame: Frame) -> RenderableType:
    """The live table."""
    parts: list[RenderableType] = [_area_table(frame)]
    if frame.status is not None:
        parts += [_datacenter_table(frame.status), Text(_tasks_line(frame.status))]
    else:
        parts.append(Text("no control-plane replica answers; serving goes on from the last plan", style="yellow"))
    parts.append(Text("drains: " + ("; ".join(frame.drains) or "none"), style="yellow" if frame.drains else ""))
    parts.append(Text(frame.hint, style="dim"))
    return Group(*parts)


def line(frame: Frame) -> str:
    """The same in one line, for what is no terminal."""
    parts = []
    for site in SITES:
        mine = [outcome for outcome in frame.outcomes if outcome.area == site.area]
        by_datacenter = Counter(outcome.datacenter for outcome in mine)
        shares = ",".join(f"{name}:{100 * n / len(mine):.0f}%" for name, n in by_datacenter.most_common())
        parts.append(f"{site.area} {len(mine) / WINDOW_S:.0f}rps {shares or '-'}")
    failed = sum(1 for outcome in frame.outcomes if outcome.error)
    used = (
        [f"{b.datacenter}:{b.served_rps:.0f}/{b.capacity_rps:.0f}" for b in _backends(frame.status)]
        if frame.status
        else []
    )
    drains = "; ".join(frame.drains) or "none"
    return f"{' | '.join(parts)} | failed {failed} | backends {' '.join(used) or '?'} | drains {drains}"
