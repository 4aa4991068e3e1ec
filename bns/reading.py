"""`bns ls`, `bns resolve` and `bns watch`: asking, and showing the answer as a table or as JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bns.client import BnsClient, Update
from bns.model import Endpoint
from bns.transport import Tls

Out = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """Whom to ask, and how long to wait."""

    servers: str
    tls: Tls | None
    timeout_s: float

    def client(self) -> BnsClient:
        """Raises AddressError, TlsError."""
        return BnsClient(self.servers, tls=self.tls, timeout_s=self.timeout_s)


def as_json(endpoint: Endpoint) -> dict[str, object]:
    """The stable schema of `-o json`."""
    task = endpoint.task
    return {
        "name": task.name,
        "address": endpoint.target,
        "health": endpoint.health.name,
        "agent": task.agent,
        "machine": task.machine,
        "named_ports": dict(task.named_ports),
        "metadata": dict(task.metadata),
        "cpu_cores": task.cpu_cores,
        "pid": task.pid,
        "start_time": None if task.start_time is None else task.start_time.isoformat(),
        "generation": task.generation,
        "principal": task.principal,
    }


def as_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, two spaces between."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


async def ls(source: Source, prefix: str, *, json_output: bool, out: Out) -> None:
    """Every task under a prefix."""
    async with source.client() as client:
        endpoints = await client.list_tasks(prefix)
    if json_output:
        out(json.dumps([as_json(endpoint) for endpoint in endpoints], indent=2))
        return
    rows = [(each.task.name, each.target, each.health.name, each.task.agent) for each in endpoints]
    for line in as_table(("NAME", "ADDRESS", "HEALTH", "AGENT"), rows):
        out(line)


async def resolve(source: Source, name: str, *, linearizable: bool, json_output: bool, out: Out) -> None:
    """The endpoints of a task or a job."""
    async with source.client() as client:
        endpoints = await client.resolve(name, linearizable=linearizable)
    if json_output:
        out(json.dumps([as_json(endpoint) for endpoint in endpoints], indent=2))
        return
    for line in as_table(
        ("ADDRESS", "HEALTH", "NAME"), [(each.target, each.health.name, each.task.name) for each in endpoints]
    ):
        out(line)


async def watch(source: Source, prefix: str, *, json_output: bool, out: Out) -> None:
    """Changes under a prefix, for ever."""
    async with source.client() as client:
        async for update in client.watch(prefix):
            for line in _json_lines(update) if json_output else _plain_lines(update):
                out(line)


def _json_lines(update: Update) -> list[str]:
    return [
        json.dumps(
            {
                "revision": update.revision,
                "snapshot": update.snapshot,
                "upserted": [as_json(endpoint) for endpoint in update.upserted],
                "removed": list(update.removed),
            }
        )
    ]


def _plain_lines(update: Update) -> list[str]:
    lines = [f"= {len(update.upserted)} tasks at revision {update.revision}"] if update.snapshot else []
    lines += [f"+ {each.task.name} {each.target} {each.health.name}" for each in update.upserted]
    lines += [f"- {name}" for name in update.removed]
    return lines
