"""`gslb dns`: the command line of the DNS frontend."""

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import click

from bns.errors import BnsError
from bns.transport import Tls, parse_addresses, tls_options
from dns_frontend.errors import FrontendError
from dns_frontend.limits import THREADS_MAX
from dns_frontend.server import Frontend, Settings
from gslb.ops.http import OpsListenError

_NAME_MAX_CHARS = 200


@click.command("dns")
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
    required=True,
    envvar="GSLB_CONTROL",
    metavar="HOST:PORT,...",
    help="The control-plane replicas; one is read from, all get demand. [env GSLB_CONTROL]",
)
@click.option("--grpc", "grpc_address", metavar="HOST:PORT", help="Serve `gslb explain dns` here; port 0: any.")
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
    "--threads",
    type=click.IntRange(0, THREADS_MAX),
    default=lambda: min(len(os.sched_getaffinity(0)), THREADS_MAX),
    show_default="one a core",
    help="Threads of the Rust data plane for each address. 0, or where it is not built: Python answers everything.",
)
@tls_options
def command(  # noqa: PLR0913  one parameter an option
    *,
    listening: tuple[str, ...],
    control: str,
    grpc_address: str | None,
    http: str | None,
    snapshot: Path | None,
    name: str | None,
    default_locality: str,
    threads: int,
    tls: Tls | None,
) -> None:
    """Run a DNS frontend: it answers by the plan for where the client is."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    name = name or f"dns-{socket.gethostname()}-{os.getpid()}"
    if len(name) > _NAME_MAX_CHARS or not name.isprintable():
        raise click.UsageError(f"--name {name[:80]!r} is not 1 to {_NAME_MAX_CHARS} printable characters")
    try:
        addresses = parse_addresses(control)
    except BnsError as error:
        raise click.UsageError(f"--control: {error}") from error
    settings = Settings(
        name=name,
        control=addresses,
        listen=listening,
        grpc=grpc_address,
        http=http,
        snapshot=snapshot,
        default_locality=default_locality,
        tls=tls,
        threads=threads,
    )
    try:
        asyncio.run(_run(settings))
    except (FrontendError, BnsError, OpsListenError) as error:
        raise click.ClickException(str(error)) from error


async def _run(settings: Settings) -> None:
    frontend = Frontend(settings)
    loop = asyncio.get_running_loop()
    # From the first moment on: a signal that comes while starting must not kill half-way.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, frontend.stop)
    try:
        await frontend.start()
    except BaseException:
        await frontend.close()
        raise
    await frontend.run()
