"""`gslb serve`: flags and environment into settings, errors into one line."""

import asyncio
import logging
import os
import socket
from pathlib import Path

import click

from bns.errors import BnsError
from bns.transport import Tls, parse_addresses, tls_options
from gslb.control.settings import EtcdSettings, Settings
from gslb.model import limits
from gslb.ops.http import OpsListenError
from gslb.recorder.ring import Bounds

_ROLES = frozenset({"cell", "global"})
_LOG_FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"


def _roles(_: click.Context, __: click.Parameter, text: str) -> frozenset[str]:
    roles = frozenset(part.strip() for part in text.split(",") if part.strip())
    if "cell" not in roles or roles - _ROLES:
        raise click.BadParameter(
            f"{text!r}: give cell (hears agents and clients, serves readers) or cell,global (also leads and publishes)"
        )
    return roles


def _addresses(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    try:
        return parse_addresses(text)
    except BnsError as error:
        raise click.BadParameter(str(error)) from error


def _recorder(_: click.Context, __: click.Parameter, text: str | None) -> Path | None:
    """Where to record: as told, else in the state directory that systemd gave us, else nowhere."""
    if text is None:
        state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        return Path(state) / "recorder" if state else None
    if not text:
        raise click.BadParameter("give a directory, or off")
    return None if text == "off" else Path(text)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--etcd", callback=_addresses, default="127.0.0.1:2379", metavar="A,B", help="Members of the etcd cluster."
)
@click.option("--listen", default="127.0.0.1:9001", metavar="HOST:PORT", help="gRPC address; port 0: any.")
@click.option("--http", default="127.0.0.1:9101", metavar="HOST:PORT", help="Debug pages; port 0: any.")
@click.option("--replica", default=None, metavar="NAME", help="Unique name of this replica.  [default: host and pid]")
@click.option(
    "--role",
    "roles",
    callback=_roles,
    default="cell,global",
    metavar="ROLES",
    help="cell, or cell,global: global ones lead.",
)
@click.option(
    "--plan-period",
    type=click.FloatRange(0.2, 60.0),
    default=limits.PLAN_PERIOD_S,
    metavar="S",
    help="Seconds between rounds of the balancer.",
)
@click.option(
    "--report-period",
    type=click.FloatRange(limits.LOAD_REPORT_PERIOD_MIN_S, limits.LOAD_REPORT_PERIOD_MAX_S),
    default=limits.LOAD_REPORT_PERIOD_S,
    metavar="S",
    help="Seconds between the agents' reports: a cold replica waits that long for them.",
)
@click.option("--etcd-user", default=None, metavar="NAME", help="User in etcd; the password is in $GSLB_ETCD_PASSWORD.")
@click.option("--etcd-ca", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Speak TLS to etcd.")
@click.option("--etcd-cert", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Our certificate.")
@click.option("--etcd-key", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Its private key.")
@click.option(
    "--recorder",
    callback=_recorder,
    default=None,
    metavar="DIR|off",
    help="Record every step of the balancer there, for `gslb replay`; a directory for each replica."
    "  [default: $STATE_DIRECTORY/recorder where systemd sets it, else off]",
)
@click.option(
    "--recorder-mb", type=click.IntRange(1, 1_000_000), default=256, metavar="MB", help="Most that it takes on disk."
)
@click.option(
    "--recorder-hours", type=click.FloatRange(0.1, 8760.0), default=24.0, metavar="H", help="Older steps are deleted."
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", help="On stderr."
)
@tls_options
def command(  # noqa: PLR0913 - one parameter a flag
    *,
    etcd: tuple[str, ...],
    listen: str,
    http: str,
    replica: str | None,
    roles: frozenset[str],
    plan_period: float,
    report_period: float,
    etcd_user: str | None,
    etcd_ca: Path | None,
    etcd_cert: Path | None,
    etcd_key: Path | None,
    recorder: Path | None,
    recorder_mb: int,
    recorder_hours: float,
    log_level: str,
    tls: Tls | None,
) -> None:
    """Run a control-plane replica: it mirrors etcd, takes reports, plans, and serves readers and `gslb`.

    Run two or three: one leads and publishes, all serve. An etcd that is not there is waited for.
    """
    logging.basicConfig(level=log_level.upper(), format=_LOG_FORMAT)
    from gslb.control.server import serve

    try:
        etcd_tls = Tls(cert=etcd_cert, key=etcd_key, ca=etcd_ca) if etcd_ca or etcd_cert or etcd_key else None
        settings = Settings(
            etcd=EtcdSettings(etcd, etcd_tls, etcd_user, os.environ.get("GSLB_ETCD_PASSWORD")),
            listen=listen,
            http=http,
            replica=replica or f"{socket.gethostname()}-{os.getpid()}",
            roles=roles,
            plan_period_s=plan_period,
            report_period_s=report_period,
            tls=tls,
            recorder=recorder,
            recorder_bounds=Bounds(recorder_mb * 2**20, recorder_hours * 3600.0),
        )
        asyncio.run(serve(settings))
    except (BnsError, OpsListenError) as error:
        raise click.ClickException(str(error)) from error
