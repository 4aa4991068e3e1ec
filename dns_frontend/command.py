"""`gslb dns`: the command line of the DNS frontend."""

import asyncio
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import click

from bns.errors import BnsError
from bns.transport import Tls, parse_addresses, tls_options
from dns_frontend.errors import FrontendError
from dns_frontend.limits import (
    PROCESSES_MAX,
    QUERY_LOG_EVERY,
    QUERY_LOG_EVERY_MAX,
    QUERY_LOG_LINES_PER_S,
    THREADS_MAX,
)
from dns_frontend.local import Files
from dns_frontend.options import hardening_options
from dns_frontend.privileges import account
from dns_frontend.responder.guard import Hardening
from dns_frontend.responder.respond import Network
from dns_frontend.server import Frontend, Settings
from dns_frontend.tools import check_zone, reload
from dns_frontend.zone.name import BadNameError, from_text
from gslb.model.grammar import parse_network
from gslb.ops.http import OpsListenError

_NAME_MAX_CHARS = 200


@click.group("dns", invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
@click.option(
    "--listen",
    "listening",
    multiple=True,
    default=("127.0.0.1:5353",),
    show_default=True,
    metavar="HOST:PORT",
    help="Serve DNS here over UDP and TCP; may be given several times; port 0: any.",
)
@click.option(
    "--control",
    envvar="GSLB_CONTROL",
    metavar="HOST:PORT,...",
    help="The control-plane replicas; one is read from, all get demand. [env GSLB_CONTROL]",
)
@click.option(
    "--zone",
    "zones",
    multiple=True,
    metavar="ORIGIN=FILE",
    help="Serve this master file as the zone ORIGIN; may be given several times. Goes before the catalog's zone.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Serve the services and zones of this YAML, without a control plane.",
)
@click.option(
    "--bns",
    "bns_zones",
    multiple=True,
    metavar="ZONE",
    help="Serve names of tasks, TASK.JOB.USER.DATACENTER.bns.ZONE; may be given several times.",
)
@click.option(
    "--allow-transfer",
    "transfer",
    multiple=True,
    metavar="CIDR",
    help="Let these addresses have whole static zones (AXFR); may be given several times. Default: nobody.",
)
@click.option("--grpc", "grpc_address", metavar="HOST:PORT", help="Serve `explain dns` and `reload` here; port 0: any.")
@click.option("--http", metavar="HOST:PORT", help="Debug pages: /statusz /metrics /readyz ...; port 0: any.")
@click.option(
    "--snapshot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the last good state here: a restart answers from it at once, whoever else is down.",
)
@click.option("--name", help="Unique among all frontends. Default: this host and process.")
@click.option(
    "--default-locality",
    default="",
    metavar="NAME",
    help="The area or datacenter of clients that no area's networks cover. Default: all areas together.",
)
@click.option(
    "--geo",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="GSLB_GEO",
    metavar="FILE",
    help="An .mmdb (MaxMind's or DB-IP's schema): clients that no area's networks cover are at the datacenter nearest to"
    " where it says they are. Read anew by reload. [env GSLB_GEO]",
)
@click.option(
    "--threads",
    type=click.IntRange(0, THREADS_MAX),
    default=lambda: min(len(os.sched_getaffinity(0)), THREADS_MAX),
    show_default="one a core",
    help="Threads of the Rust data plane for each address. 0, or where it is not built: Python answers everything.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, PROCESSES_MAX),
    default=lambda: min(len(os.sched_getaffinity(0)), PROCESSES_MAX),
    show_default="one a core",
    help="Where there is no data plane: processes that answer, each on a socket and with a plan stream of its own.",
)
@click.option(
    "--query-log",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write some of the queries there, a line of JSON each. Off by default. Clients' addresses are in it.",
)
@click.option(
    "--query-log-every",
    type=click.IntRange(1, QUERY_LOG_EVERY_MAX),
    default=QUERY_LOG_EVERY,
    show_default=True,
    help=f"About one query in so many, by chance, and at most {QUERY_LOG_LINES_PER_S} a second.",
)
@hardening_options
@tls_options
@click.pass_context
def command(  # noqa: PLR0913  one parameter an option
    context: click.Context,
    *,
    listening: tuple[str, ...],
    control: str | None,
    zones: tuple[str, ...],
    config: Path | None,
    bns_zones: tuple[str, ...],
    transfer: tuple[str, ...],
    grpc_address: str | None,
    http: str | None,
    snapshot: Path | None,
    name: str | None,
    default_locality: str,
    geo: Path | None,
    threads: int,
    processes: int,
    query_log: Path | None,
    query_log_every: int,
    hardening: Hardening,
    cookie_secret: Path | None,
    user: str | None,
    group: str | None,
    tls: Tls | None,
) -> None:
    """Run a DNS frontend: it answers by the plan for where the client is, and from zone files.

    What it knows comes from a control plane (--control), from files (--config, --zone), or from a control plane and
    zone files. SIGHUP and `gslb dns reload` read the files anew.
    """
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    name = name or f"dns-{socket.gethostname()}-{os.getpid()}"
    if len(name) > _NAME_MAX_CHARS or not name.isprintable():
        raise click.UsageError(f"--name {name[:80]!r} is not 1 to {_NAME_MAX_CHARS} printable characters")
    settings = Settings(
        name=name,
        control=_control(control, config, alone=bool(zones or config)),
        listen=listening,
        grpc=grpc_address,
        http=http,
        snapshot=snapshot,
        default_locality=default_locality,
        tls=tls,
        threads=threads,
        processes=processes,
        files=Files(_zone_files(zones), config, geo),
        bns_zones=tuple(_origin(text) for text in bns_zones),
        transfer=tuple(_network(text) for text in transfer),
        query_log=query_log,
        query_log_every=query_log_every,
        hardening=hardening,
        cookie_secrets=cookie_secret,
    )
    try:
        settings = replace(settings, account=account(user, group))
        asyncio.run(_run(settings))
    except (FrontendError, BnsError, OpsListenError) as error:
        raise click.ClickException(str(error)) from error


command.add_command(check_zone)
command.add_command(reload)


def _control(control: str | None, config: Path | None, *, alone: bool) -> tuple[str, ...]:
    """The replicas. Raises click.UsageError."""
    if control is None:
        if not alone:
            raise click.UsageError("say where to learn what to serve: --control, or --config or --zone")
        return ()
    if config is not None:
        raise click.UsageError("--config serves without a control plane: leave it or --control (GSLB_CONTROL) out")
    try:
        return parse_addresses(control)
    except BnsError as error:
        raise click.UsageError(f"--control: {error}") from error


def _zone_files(zones: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    found = []
    for text in zones:
        origin, equals, file = text.partition("=")
        if not equals or not origin or not file:
            raise click.UsageError(f"--zone {text[:200]!r} is not ORIGIN=FILE, as example.com=zones/example.com.zone")
        found.append((origin, Path(file)))
    return tuple(found)


def _origin(text: str) -> bytes:
    try:
        return from_text(text).lower()
    except BadNameError as error:
        raise click.UsageError(f"--bns: {error}") from error


def _network(text: str) -> Network:
    try:
        return parse_network(text)
    except ValueError as error:
        raise click.UsageError(f"--allow-transfer: {error}") from error


async def _run(settings: Settings) -> None:
    frontend = Frontend(settings)
    loop = asyncio.get_running_loop()
    # From the first moment on: a signal that comes while starting must not kill half-way.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, frontend.stop)
    loop.add_signal_handler(signal.SIGHUP, frontend.reload_soon)
    try:
        await frontend.start()
    except BaseException:
        await frontend.close()
        raise
    await frontend.run()
