"""`gslb demo`: a small planet on this machine.

gslb demo                      show it until Ctrl-C
gslb demo --once --json FILE   break it in every way it must survive, write what was seen, exit 1 if a check failed
"""

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import click
import grpc
from rich.console import Console
from rich.live import Live

from bns.etcd.errors import EtcdError
from gslb.demo import directory
from gslb.demo.checks.bench import METRICS_TIMEOUT_S
from gslb.demo.checks.runner import CHECKS, Bench, run_checks
from gslb.demo.layout import WEB_NAME
from gslb.demo.planet import CONTROL_PORT, LOG_SAMPLE, Planet
from gslb.demo.screen import WINDOW_S, Frame, line, picture
from gslb.demo.supervisor import StartError
from gslb.demo.traffic import Traffic
from gslb.v1 import admin_pb2

REFRESH_S = 1.0
CONTROL_DEFAULT = f"127.0.0.1:{CONTROL_PORT}"  # where `gslb` looks by itself
PLAIN_LINE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    once: bool
    json_file: Path | None
    state_file: Path | None
    texts: Path
    only: tuple[str, ...]
    duration_s: float
    log_sample: float


def _say(message: str) -> None:
    click.echo(f"demo: {message}", err=True)


async def _frame(planet: Planet, traffic: Traffic) -> Frame:
    status: admin_pb2.StatusResponse | None = None
    drains: list[str] = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        status = await planet.status()
        got = await planet.admin(planet.replicas[0]).Get(admin_pb2.GetRequest(kind="drain"), timeout=1.0)
        drains = [
            f"{r.drain.target} until {r.drain.expires_at.ToDatetime():%H:%M}Z ({r.drain.reason})" for r in got.resources
        ]
    first = planet.replicas[0].address
    elsewhere = "" if first == CONTROL_DEFAULT else f" --control {first}"
    hint = (
        f"browser: http://{planet.tasks_of('us-east1', 'gfe')[0].address}/   "
        f"dig @127.0.0.1 -p {planet.dns_servers[0].rpartition(':')[2]} {WEB_NAME} +subnet=198.51.100.0/24   "
        f"gslb drain datacenter us-east1 --for 10m --reason test{elsewhere}   Ctrl-C ends it"
    )
    return Frame(traffic.since(time.monotonic() - WINDOW_S), status, drains, hint)


async def _show(planet: Planet, traffic: Traffic, until_s: float) -> None:
    console = Console()
    if not console.is_terminal:
        click.echo((await _frame(planet, traffic)).hint)
        while time.monotonic() < until_s:
            await asyncio.sleep(min(PLAIN_LINE_EVERY_S, max(0.0, until_s - time.monotonic())))
            click.echo(line(await _frame(planet, traffic)))
        return
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while time.monotonic() < until_s:
            live.update(picture(await _frame(planet, traffic)), refresh=True)
            await asyncio.sleep(REFRESH_S)


async def _run(options: Options) -> int:
    for path in directory.remove_abandoned():
        _say(f"removed {path}, left behind by an earlier run")
    own = directory.create()
    planet: Planet | None = None
    load: asyncio.Task[None] | None = None
    code = 1
    try:
        async with directory.starting():
            planet = Planet.create(own.path, options.texts, _say, options.log_sample)
            await planet.start()
        if options.state_file is not None:
            _write_json(options.state_file, await planet.state())
        traffic = Traffic(planet.dns_servers, planet.gfe_port, random.Random())
        load = asyncio.create_task(traffic.run())
        if options.once:
            code = await _checks(planet, traffic, options)
        else:
            await _show(planet, traffic, time.monotonic() + options.duration_s)
            code = 0
        return code
    except asyncio.CancelledError:
        code = 0
        raise
    finally:
        _say("ending every process ...")
        if load is not None:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        if planet is not None:
            await planet.stop()
        if code == 0:
            own.remove()
        else:
            own.leave()
            _say(f"logs are in {own.path / 'logs'} until the next demo")


async def _checks(planet: Planet, traffic: Traffic, options: Options) -> int:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=METRICS_TIMEOUT_S)) as http:
        results = await run_checks(Bench(planet, traffic, options.texts, http), options.only, _say)
    if options.json_file is not None:
        _write_json(options.json_file, results)
    return 0 if results["ok"] else 1


def _write_json(path: Path, value: object) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, default=str) + "\n")
    part.replace(path)


async def _main(options: Options) -> int:
    """_run, with Ctrl-C and SIGTERM as an orderly end."""
    work = asyncio.create_task(_run(options))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        return 1 if options.once else 0
    except (StartError, EtcdError, OSError) as error:
        _say(str(error))
        return 1


@click.command(name="demo", short_help="Run a small planet on this machine.")
@click.option("--once", is_flag=True, help="Run every check by itself, then end; exit code 1 if one failed.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="With --once: write what was seen to FILE.")
@click.option("--state", "state_file", type=click.Path(path_type=Path), help="Write every address and pid to FILE.")
@click.option(
    "--only", multiple=True, type=click.Choice(sorted(CHECKS)), help="With --once: only this check (repeatable)."
)
@click.option("--for", "duration_s", type=click.FloatRange(1), default=float("inf"), help="End after so many seconds.")
@click.option(
    "--texts", type=click.Path(path_type=Path), default=Path(".cache/shakespeare/texts"), show_default=True,
    help="Directory of the works of Shakespeare (`make texts`).",
)  # fmt: skip
@click.option(
    "--log-sample", type=click.FloatRange(0, 1), default=LOG_SAMPLE, show_default=True,
    help="Share of the requests that the servers log, by trace id.",
)  # fmt: skip
def command(  # noqa: PLR0913, PLR0917 - one parameter an option
    once: bool,
    json_file: Path | None,
    state_file: Path | None,
    only: tuple[str, ...],
    duration_s: float,
    texts: Path,
    log_sample: float,
) -> None:
    """Run a small planet on this machine, with Shakespeare served through it.

    etcd, two control-plane replicas, four datacenters (each with an agent, two backends, two frontends, a tablet and a
    GFE), two DNS frontends, and browsers in four client areas. Everything listens on loopback addresses only and ends with
    this command, whatever ends it.
    """
    if not texts.is_dir():
        raise click.ClickException(f"{texts} is not there: run 'make texts', or name the directory with --texts")
    for file in (json_file, state_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise click.ClickException(f"cannot write {file}: its directory does not exist")
    sys.exit(asyncio.run(_main(Options(once, json_file, state_file, texts, only, duration_s, log_sample))))
