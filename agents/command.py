"""`gslb agent`: runs the node agent of this machine."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import click

from agents import limits
from agents.config import load
from agents.errors import AgentError
from agents.node import Agent, Settings, default_machine_id
from bns.errors import BnsError
from bns.names import InvalidNameError, check_label
from bns.transport import Tls, parse_addresses, tls_options
from gslb.model.limits import LOAD_REPORT_PERIOD_MAX_S, LOAD_REPORT_PERIOD_MIN_S, LOAD_REPORT_PERIOD_S
from gslb.ops.http import OpsListenError

MACHINE_ID_MAX_CHARS = 200


def _label(_context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return check_label(value, f"--{parameter.name}")
    except InvalidNameError as error:
        raise click.UsageError(str(error)) from error


@click.command(name="agent")
@click.option("--name", required=True, callback=_label, help="This agent's name, one per machine.")
@click.option("--datacenter", required=True, callback=_label, help="The datacenter of this machine.")
@click.option("--control", required=True, metavar="HOST:PORT,...", help="Every control-plane replica of the cell.")
@click.option("--socket", "socket_path", required=True, type=click.Path(path_type=Path), help="Local socket for tasks.")
@click.option("--http", metavar="HOST:PORT", help="Debug pages: /statusz /metrics /healthz ...; port 0: any.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML of tasks; SIGHUP reloads it.")
@click.option("--check-config", is_flag=True, help="Only say what is wrong with --config.")
@click.option("--state", type=click.Path(path_type=Path), metavar="FILE", help="Remembers the tasks over restarts.")
@click.option(
    "--period",
    "period_s",
    type=click.FloatRange(LOAD_REPORT_PERIOD_MIN_S, LOAD_REPORT_PERIOD_MAX_S),
    default=LOAD_REPORT_PERIOD_S,
    show_default=True,
    help="Seconds between load reports.",
)
@click.option("--machine-id", default=default_machine_id, help="Default: /etc/machine-id, else the host's name.")
@click.option(
    "--machine-cpu/--no-machine-cpu",
    default=True,
    show_default=True,
    help="Report the CPU of the whole machine: its tasks count for less when it nears its limit."
    " Leave it out where several agents, each for a machine of its own, run on one.",
)
@click.option(
    "--remote-probes",
    type=click.IntRange(0, limits.REMOTE_PROBES_MAX),
    default=limits.REMOTE_PROBES_DEFAULT,
    show_default=True,
    help="How many tasks of other datacenters to probe at most.",
)
@tls_options
def command(  # noqa: PLR0913  one parameter an option
    *,
    name: str,
    datacenter: str,
    control: str,
    socket_path: Path,
    http: str | None,
    config: Path | None,
    check_config: bool,
    state: Path | None,
    period_s: float,
    machine_id: str,
    machine_cpu: bool,
    remote_probes: int,
    tls: Tls | None,
) -> None:
    """Run the node agent of this machine: it looks after the tasks that run here."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    if not 0 < len(machine_id) <= MACHINE_ID_MAX_CHARS or not machine_id.isprintable():
        raise click.UsageError(
            f"--machine-id {machine_id[:80]!r} is not 1 to {MACHINE_ID_MAX_CHARS} printable characters"
        )
    try:
        addresses = parse_addresses(control)
    except BnsError as error:
        raise click.UsageError(f"--control: {error}") from error
    settings = Settings(
        name=name,
        datacenter=datacenter,
        control=addresses,
        socket=socket_path,
        machine_id=machine_id,
        machine_cpu=machine_cpu,
        http=http,
        config=config,
        state=state,
        period_s=period_s,
        remote_probes=remote_probes,
        tls=tls,
    )
    try:
        if check_config:
            _check(settings)
        else:
            asyncio.run(_run(settings))
    except (AgentError, BnsError, OpsListenError) as error:
        raise click.ClickException(str(error)) from error


def _check(settings: Settings) -> None:
    if settings.config is None:
        raise click.UsageError("--check-config needs --config")
    tasks = load(settings.config, settings.datacenter)
    click.echo(f"{settings.config}: {len(tasks)} tasks, no problems", err=True)


async def _run(settings: Settings) -> None:
    agent = Agent(settings)
    loop = asyncio.get_running_loop()
    # From the first moment on: a signal that comes while starting must not kill.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    await agent.start()
    await agent.run()
