"""`gslb apply`, `gslb delete`, `gslb export`, `gslb import`: desired state in and out."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from gslb.cli.kinds import decoded, kind_named
from gslb.cli.output import Column, say, show, with_format
from gslb.cli.session import Session, with_session
from gslb.cli.zones import ZoneFiles
from gslb.config.dump import dump
from gslb.config.errors import ConfigError
from gslb.config.load import load
from gslb.model.limits import CONFIG_MAX_BYTES
from gslb.model.resources import Resource
from gslb.v1 import admin_pb2
from gslb.wire.resources import encode_resource

COLUMNS = (
    Column("kind", "kind"),
    Column("name", "name"),
    Column("action", "action"),
    Column("generation", "generation"),
)
# The first line of an export.
HEADING = "# gslb export, incarnation {}"
_HEADING = re.compile(rb"# gslb export, incarnation (\d{1,18})\r?\n")


@dataclass(frozen=True, slots=True)
class Given:
    """What files hold. `incarnation`: the highest that an export among them names; 0: none does."""

    resources: list[Resource]
    incarnation: int


def read_files(files: tuple[str, ...]) -> Given:
    """Every document of the files (`-`: stdin; a directory: its *.yaml). Raises click.ClickException with all errors."""
    resources: list[Resource] = []
    problems: list[str] = []
    incarnation = 0
    for path in [path for name in files for path in _paths(name)]:
        try:
            text = _read(path)
            if heading := _HEADING.match(text):
                incarnation = max(incarnation, int(heading[1]))
            zones = ZoneFiles(Path() if path is None else path.parent)
            resources += load(text, "stdin" if path is None else str(path), zones)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}: name a file, a directory, or - for stdin")
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise click.ClickException("\n".join(problems))
    if not resources:
        raise click.ClickException(f"{', '.join(files)}: there is no *.yaml in it; nothing was changed")
    return Given(resources, incarnation)


def _paths(name: str) -> list[Path | None]:
    """The files that an argument names; None is stdin."""
    if name == "-":
        return [None]
    return [*sorted(Path(name).glob("*.yaml"))] if Path(name).is_dir() else [Path(name)]


def _read(path: Path | None) -> bytes:
    """At most one byte more than may be loaded, which is enough to be refused. Raises OSError."""
    if path is None:
        return sys.stdin.buffer.read(CONFIG_MAX_BYTES + 1)
    with path.open("rb") as file:
        return file.read(CONFIG_MAX_BYTES + 1)


def _show(applied: Iterable[admin_pb2.Applied], output: str) -> None:
    rows = [{"kind": a.kind, "name": a.name, "action": a.action, "generation": a.generation} for a in applied]
    show(output, rows, COLUMNS)


@click.command(short_help="Create or change resources from YAML.")
@click.option(
    "-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="YAML file, directory, or - (stdin)."
)
@click.option("--dry-run", is_flag=True, help="Check everything and say what would change; change nothing.")
@with_format
@with_session
def apply(session: Session, files: tuple[str, ...], dry_run: bool, output: str) -> None:
    """Create or change resources from YAML: all of them or, when one is refused, none.

    A file may hold several documents. Kinds: Datacenter, ClientArea, Service, Drain, Zone. What is the same already
    stays unchanged; what the files do not name is left alone. A Zone may name its master file, as `file`, instead of
    having `records`: it is read here, relative to the YAML, with all that it includes.
    """
    resources = [encode_resource(resource) for resource in read_files(files).resources]
    request = admin_pb2.ApplyRequest(resources=resources, dry_run=dry_run)
    _show(session.call(lambda admin: admin.Apply, request).applied, output)
    if dry_run:
        say("dry run: nothing was changed")


@click.command(short_help="Delete a resource.")
@click.argument("kind")
@click.argument("name")
@with_session
def delete(session: Session, kind: str, name: str) -> None:
    """Delete a resource. What others depend on is refused, with their names."""
    session.call(lambda admin: admin.Delete, admin_pb2.DeleteRequest(kind=kind_named(kind), name=name))
    say(f"{kind_named(kind)} {name} deleted")


@click.command(short_help="Write all desired state as YAML.")
@with_session
def export(session: Session) -> None:
    """Write all desired state, with its history, to stdout as YAML that `gslb import` (and `gslb apply`) reads.

    The first line is a comment with the incarnation of the plans: readers only take plans of the same or a later one.
    """
    reply = session.call(lambda admin: admin.Export, admin_pb2.ExportRequest())
    click.echo(HEADING.format(reply.incarnation))
    click.echo(dump(decoded(reply.resources), history=True), nl=False)


@click.command(name="import", short_help="Restore desired state from an export.")
@click.option(
    "-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="What `gslb export` wrote; - is stdin."
)
@click.option(
    "--new-incarnation",
    is_flag=True,
    help="etcd was lost or restored from a backup: readers take the plans that follow.",
)
@with_format
@with_session
def import_(session: Session, files: tuple[str, ...], new_incarnation: bool, output: str) -> None:
    """Restore desired state from an export: all of it or, when something is refused, nothing.

    Generations go on from where the export was, and drains that are over by now are left out. What exists and is not in
    the export stays.
    """
    given = read_files(files)
    request = admin_pb2.ImportRequest(
        resources=[encode_resource(resource) for resource in given.resources],
        new_incarnation=new_incarnation,
        incarnation=given.incarnation,
    )
    reply = session.call(lambda admin: admin.Import, request)
    _show(reply.applied, output)
    say(f"incarnation {reply.incarnation}")
