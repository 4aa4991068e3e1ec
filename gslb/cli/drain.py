"""`gslb drain` and `gslb undrain`: take load away from a place, and give it back."""

import getpass
import re
from datetime import timedelta

import click

from gslb.cli.output import Column, say, show, with_format
from gslb.cli.session import Session, with_session
from gslb.model.limits import DRAIN_DEFAULT_S, DRAIN_MAX_S
from gslb.model.resources import DrainScope
from gslb.v1 import admin_pb2
from gslb.wire.resources import encode_scope

SCOPES = tuple(scope.value for scope in DrainScope)
EFFECTS = (
    Column("service", "service"), Column("datacenter", "datacenter"), Column("capacity", "capacity_before_rps"),
    Column("-> after", "capacity_after_rps"), Column("load", "load_before_rps"), Column("-> after", "load_after_rps"),
    Column("used after", "used_after"), Column("why", "why"),
)  # fmt: skip
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def parse_duration_s(text: str) -> float:
    """`90s`, `30m`, `2h`, `1h30m` -> seconds. Raises click.BadParameter."""
    if _DURATION.fullmatch(text) is None:
        raise click.BadParameter(f"{text!r} is no duration: write 90s, 30m, 2h or 1h30m")
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd])", text))
    if seconds <= 0:
        # On the wire 0 stands for the default.
        raise click.BadParameter(f"{text!r} is no time at all: write 90s, 30m, 2h or 1h30m")
    return seconds


def _duration(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    return parse_duration_s(value)


def _optional_duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float:
    return parse_duration_s(value) if value else 0.0


def _author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@click.command(short_help="Take load away from a place.")
@click.argument("scope", type=click.Choice(SCOPES))
@click.argument("target")
@click.option(
    "--for", "duration_s", default=f"{DRAIN_DEFAULT_S / 3600:g}h", show_default=True, callback=_duration, metavar="DURATION",
    help=f"When it ends by itself; at most {DRAIN_MAX_S / 3600:g}h.",
)  # fmt: skip
@click.option(
    "--over", "ramp_s", callback=_optional_duration, metavar="DURATION",
    help="Take the load away little by little; default: at once.",
)  # fmt: skip
@click.option("--reason", required=True, help="Why; others will read it.")
@click.option("--author", default=_author, help="Who; default: the user who runs this.")
@click.option("--dry-run", is_flag=True, help="Show every datacenter's load before and after; drain nothing.")
@click.option(
    "--override", is_flag=True, help="Drain although what remains is less than demand. The reason is recorded."
)
@with_format
@with_session
def drain(  # noqa: PLR0913, PLR0917 - one parameter an option
    session: Session, scope: str, target: str, duration_s: float, ramp_s: float, reason: str, author: str,
    dry_run: bool, override: bool, output: str,
) -> None:  # fmt: skip
    """Take load away from a datacenter, region, service (or SERVICE@DATACENTER), job, task or machine.

    \b
    gslb drain datacenter us-east1 --for 2h --reason "network maintenance"
    gslb drain region na --over 10m --reason "power work"
    gslb drain service web@us-east1 --reason "bad release" --dry-run
    gslb drain task /bns/us-east1/web/server/3 --reason "slow disk"

    A drain that would leave less capacity than demand is refused, with the numbers; so is one that moves callers to where
    the services that they call do not fit. It ends by itself.
    """
    request = admin_pb2.DrainRequest(
        scope=encode_scope(DrainScope(scope)), target=target, duration_s=duration_s, reason=reason, author=author,
        dry_run=dry_run, override=override, ramp_s=ramp_s,
    )  # fmt: skip
    reply = session.call(lambda admin: admin.Drain, request)
    rows = [
        {"service": e.service, "datacenter": e.datacenter, "capacity_before_rps": e.capacity_before_rps,
         "capacity_after_rps": e.capacity_after_rps, "load_before_rps": e.load_before_rps, "load_after_rps": e.load_after_rps,
         "used_after": f"{100 * e.load_after_rps / e.capacity_after_rps:.0f} %" if e.capacity_after_rps else "-",
         "why": e.why}
        for e in reply.effects
    ]  # fmt: skip
    show(output, rows, EFFECTS)
    for violation in reply.violations:
        say(f"{'would be refused' if dry_run and not override else 'overridden'}: {violation}")
    if dry_run:
        say("dry run: nothing was drained")
    else:
        written = reply.drain.drain
        until = written.expires_at.ToDatetime()
        if written.ramp_s:
            gone = written.starts_at.ToDatetime() + timedelta(seconds=written.ramp_s)
            say(f"its capacity falls little by little until {gone:%Y-%m-%d %H:%M:%S} UTC")
        say(f"{scope} {target} is drained until {until:%Y-%m-%d %H:%M:%S} UTC (drain {reply.name})")
        say(f"to end it earlier: gslb undrain {scope} {target}")


@click.command(short_help="End a drain.")
@click.argument("scope_or_name", metavar="SCOPE|NAME")
@click.argument("target", default="")
@with_session
def undrain(session: Session, scope_or_name: str, target: str) -> None:
    """End a drain: `gslb undrain datacenter us-east1`, or by the drain's own name (`gslb get drains`)."""
    if target and scope_or_name not in SCOPES:
        raise click.UsageError(f"{scope_or_name!r} is no scope: use one of {', '.join(SCOPES)}, or only a drain's name")
    if target:
        request = admin_pb2.UndrainRequest(scope=encode_scope(DrainScope(scope_or_name)), target=target)
    else:
        request = admin_pb2.UndrainRequest(name=scope_or_name)
    for name in session.call(lambda admin: admin.Undrain, request).removed:
        say(f"drain {name} ended")
