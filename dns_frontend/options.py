"""The options of `gslb dns` against abuse: cookies, rate limits, who we say we are, and whom to become."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from dns_frontend.limits import (
    NSID_MAX_OCTETS,
    RRL_RATE_DEFAULT,
    RRL_RATE_MAX,
    RRL_SLIP_DEFAULT,
    RRL_SLIP_MAX,
    STALE_AFTER_S,
)
from dns_frontend.responder.guard import LOOPBACK, Hardening, Network
from dns_frontend.responder.rrl import Rule
from gslb.model.grammar import parse_network

_NOBODY: Final = "none"

_OPTIONS: Final = (
    click.option(
        "--cookies",
        type=click.Choice(["on", "required", "off"]),
        default="on",
        show_default=True,
        help="DNS cookies (RFC 9018). required: over UDP, a client that sends cookies must show a good one.",
    ),
    click.option(
        "--cookie-secret",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Secrets of cookies, 32 hexadecimal digits a line: the first makes cookies, all prove them. Read anew by"
        " reload. Default: one of this process alone.",
    ),
    click.option(
        "--rrl-rate",
        type=click.IntRange(0, RRL_RATE_MAX),
        default=RRL_RATE_DEFAULT,
        show_default=True,
        help="Answers a second over UDP to one /24 or /56, of one class; 0: no limit.",
    ),
    click.option(
        "--rrl-slip",
        type=click.IntRange(0, RRL_SLIP_MAX),
        default=RRL_SLIP_DEFAULT,
        show_default=True,
        help="Every Nth answer beyond the limit becomes an empty one that says: ask over TCP. 0: all are dropped.",
    ),
    click.option(
        "--rrl-exempt",
        multiple=True,
        default=tuple(str(network) for network in LOOPBACK),
        show_default=True,
        metavar="CIDR",
        help="Do not limit these clients; may be given several times; none: limit everybody.",
    ),
    click.option("--nsid", default="", metavar="TEXT", help="Say this to who asks which server answers (RFC 5001)."),
    click.option(
        "--stale-after",
        type=click.FloatRange(min=0),
        default=STALE_AFTER_S,
        show_default=True,
        metavar="SECONDS",
        help="Without a control plane for this long, answers say so (RFC 8914). They never end.",
    ),
)


def hardening_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options; the command gets `hardening`, `cookie_secret`, `user` and `group`."""

    @functools.wraps(command)
    def wrapped(
        *arguments: object,
        cookies: str,
        rrl_rate: int,
        rrl_slip: int,
        rrl_exempt: tuple[str, ...],
        nsid: str,
        stale_after: float,
        **more: object,
    ) -> None:
        if len(nsid.encode()) > NSID_MAX_OCTETS:
            raise click.UsageError(f"--nsid is longer than {NSID_MAX_OCTETS} octets")
        more["hardening"] = Hardening(
            cookies=cookies != "off",
            cookies_required=cookies == "required",
            rule=Rule(rrl_rate, rrl_slip),
            exempt=tuple(_network(text) for text in rrl_exempt if text != _NOBODY),
            nsid=nsid.encode(),
            stale_after_s=stale_after,
        )
        command(*arguments, **more)

    made: Callable[..., None] = wrapped
    made = click.option("--group", metavar="NAME", help="With --user: its group. Default: the user's own.")(made)
    made = click.option("--user", metavar="NAME", help="Become this user once the ports are bound.")(made)
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def _network(text: str) -> Network:
    try:
        return parse_network(text)
    except ValueError as error:
        raise click.UsageError(f"--rrl-exempt: {error}") from error
