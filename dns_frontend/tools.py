"""`gslb dns check-zone` and `gslb dns reload`: what an operator of zone files needs beside the server."""

import json
from pathlib import Path

import click
import grpc

from bns.errors import BnsError
from bns.transport import Tls, parse_addresses, sync_channel, tls_options
from dns_frontend.zone.master import BadZoneError
from dns_frontend.zone.name import from_text, to_text
from dns_frontend.zone.records import soa_serial
from dns_frontend.zonefiles import load_unnamed_zone, load_zone
from gslb.v1 import dns_pb2, dns_pb2_grpc

_RELOAD_TIMEOUT_S = 300.0  # large zones take their time


@click.command("check-zone", short_help="Say what is wrong with a zone file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--origin", metavar="NAME", help="The zone's name. Default: what its first $ORIGIN or its SOA says.")
def check_zone(file: Path, origin: str | None) -> None:
    """Read a zone's master file as the server would, and say what is wrong: FILE:LINE and the reason.

    Exit status: 0 it can be served (warnings go to stderr); 1 it cannot; 2 bad usage.
    """
    try:
        if origin is None:
            origin, reading = load_unnamed_zone(file)
        else:
            reading = load_zone(origin, file)
    except BadZoneError as error:
        raise click.ClickException(str(error)) from error
    for warning in reading.warnings:
        click.echo(f"warning: {warning}", err=True)
    records = sum(len(rrset.rdatas) for rrsets in reading.data.nodes.values() for rrset in rrsets.values())
    click.echo(
        f"{to_text(from_text(origin))} serial {soa_serial(reading.data.soa)}: {len(reading.data.nodes)} names,"
        f" {records} records, {reading.included} files included, {len(reading.warnings)} warnings"
    )


@click.command("reload", short_help="Have a running frontend read its files anew.")
@click.option(
    "--frontend",
    envvar="GSLB_DNS",
    default="127.0.0.1:9053",
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="The control port (--grpc) of the DNS frontend.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@tls_options
def reload(frontend: str, output: str, tls: Tls | None) -> None:
    """Have a running frontend read the files of --zone and --config anew, and show every zone that it serves.

    What is bad is told, and served on as it was. Exit status 1 if something is. SIGHUP does the same, and logs it.
    """
    try:
        address = parse_addresses(frontend)[0]
        with sync_channel(address, tls) as channel:
            reply = dns_pb2_grpc.DnsFrontendStub(channel).Reload(dns_pb2.ReloadRequest(), timeout=_RELOAD_TIMEOUT_S)
    except BnsError as error:
        raise click.UsageError(f"--frontend: {error}") from error
    except grpc.RpcError as error:
        raise click.ClickException(
            f"the DNS frontend at {frontend} does not reload: {(error.details() or '')[:200]};"
            " is it running with --grpc? (name it with --frontend or GSLB_DNS)"
        ) from error
    if output == "json":
        rows = [
            {"zone": zone.origin, "serial": zone.serial, "names": zone.names, "from": zone.source}
            for zone in reply.zones
        ]
        click.echo(json.dumps({"zones": rows, "problems": list(reply.problems)}, indent=2))
    else:
        width = max((len(zone.origin) for zone in reply.zones), default=0)
        for zone in reply.zones:
            click.echo(f"{zone.origin:{width}}  serial {zone.serial:<10}  {zone.names or '-':>8} names  {zone.source}")
    if reply.problems:
        raise click.ClickException("\n".join(reply.problems))
