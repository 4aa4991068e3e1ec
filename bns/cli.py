"""The `bns` command: look names up, watch them, run things under a name.

The commands' own modules are imported when they are called, so that help and completion are quick.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import CompletionItem

from bns.tls import tls_options

if TYPE_CHECKING:
    from typing import TextIO

    from bns.model import ProbeSpec
    from bns.tls import Tls

_Decorated = TypeVar("_Decorated", bound=Callable[..., object])
_Result = TypeVar("_Result")

NOT_FOUND_CODE = 127  # as shells have it for a command that is not there
COMPLETION_TIMEOUT_S = 1.0
SERVER_DEFAULT = "127.0.0.1:9001"
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _say(message: str) -> None:
    click.echo(message, err=True)


def _run(work: Coroutine[object, object, _Result]) -> _Result:
    """Runs it, and turns errors that a user can understand into one line and an exit code."""
    from bns.errors import AddressError, BadRecordError, BnsError, TlsError
    from bns.names import InvalidNameError
    from bns.running import CommandNotFoundError

    try:
        return asyncio.run(work)
    except (AddressError, TlsError, InvalidNameError, BadRecordError) as error:
        raise click.UsageError(str(error)) from error
    except CommandNotFoundError as error:
        _say(f"Error: {error}")
        sys.exit(NOT_FOUND_CODE)
    except BnsError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)


def _complete_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Asks the servers for names that begin so; nothing when they do not answer at once."""
    from bns.errors import BnsError
    from bns.names import InvalidNameError
    from bns.reading import Source

    servers = context.params.get("server") or os.environ.get("BNS_SERVER", SERVER_DEFAULT)

    async def ask() -> list[str]:
        async with Source(servers, None, COMPLETION_TIMEOUT_S).client() as client:
            return [each.task.name for each in await client.list_tasks(incomplete.rpartition("/")[0] or "/bns")]

    try:
        names = asyncio.run(ask())
    except (BnsError, InvalidNameError):
        return []
    return [CompletionItem(part) for part in next_parts(names, incomplete)]


def next_parts(names: Sequence[str], incomplete: str) -> list[str]:
    """How `incomplete` may go on: up to the next `/` of each name.

    >>> next_parts(["/bns/a/b/c/0", "/bns/a/x/c/0"], "/bns/a/")
    ['/bns/a/b/', '/bns/a/x/']
    """
    found = set()
    for name in names:
        if name.startswith(incomplete):
            end = name.find("/", len(incomplete))
            found.add(name if end < 0 else name[: end + 1])
    return sorted(found)


def _server_options(command: _Decorated) -> _Decorated:
    """--server, --timeout and the TLS files."""
    command = tls_options(command)
    command = click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0.1, 3600),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for an answer.",
    )(command)
    return click.option(
        "--server",
        envvar="BNS_SERVER",
        default=SERVER_DEFAULT,
        show_default=True,
        metavar="HOST:PORT,...",
        help="Replicas of the control plane. [env: BNS_SERVER]",
    )(command)


def _output_option(command: _Decorated) -> _Decorated:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="How to print the answer.",
    )(command)


@click.group(context_settings=_HELP)
@click.version_option(package_name="gslb", prog_name="bns")
def main() -> None:
    """BNS: names to addresses.

    A server has the name /bns/DATACENTER/USER/JOB/TASK, and its job is /bns/DATACENTER/USER/JOB. Names are kept in etcd
    and served by the replicas of the control plane; a reader gets the same answer from any of them.

    \b
    Examples:
      bns ls /bns/us-east1/
      bns resolve /bns/us-east1/shakespeare/backend
      bns watch /bns/
      bns register /bns/us-east1/me/web/0 127.0.0.1:8080 -- python3 -m http.server 8080
      bns elect nightly-cleanup -- ./cleanup.sh

    \b
    Environment:
      BNS_SERVER   replicas of the control plane, HOST:PORT,...
      BNS_AGENT    socket of this machine's node agent
      BNS_ETCD     members of etcd, HOST:PORT,... (elect only)

    \b
    Exit status:
      0 success; 1 refused or failed; 2 bad usage;
      register and elect: the command's own, 128+N when signal N ended it, 127 when there is no such command.

    Shell completion: eval "$(_BNS_COMPLETE=bash_source bns)", or zsh_source, fish_source.
    """
    # gRPC's own log lines are not meant for the reader of a command's messages.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@main.command(context_settings=_HELP)
@click.argument("prefix", default="/bns/", shell_complete=_complete_names)
@_output_option
@_server_options
def ls(prefix: str, output: str, server: str, timeout_s: float, tls: "Tls | None") -> None:
    """List the tasks under PREFIX.

    Without PREFIX, everything; all as of one moment. PREFIX ends at a border of parts: /bns/us-east1 lists that
    datacenter, and not us-east10.
    """
    from bns import reading

    source = reading.Source(server, tls, timeout_s)
    _run(reading.ls(source, prefix, json_output=output == "json", out=click.echo))


@main.command(context_settings=_HELP)
@click.argument("name", shell_complete=_complete_names)
@click.option("--linearizable", is_flag=True, help="Ask etcd's quorum instead of the replica's mirror.")
@_output_option
@_server_options
def resolve(name: str, linearizable: bool, output: str, server: str, timeout_s: float, tls: "Tls | None") -> None:
    """Print the addresses of NAME.

    NAME is a task, or a job: then all of its tasks. A name under which nothing is registered is a failure (exit status
    1). The answer comes from a replica's mirror, which is some milliseconds old and there even while etcd is not;
    --linearizable reads through etcd.
    """
    from bns import reading

    source = reading.Source(server, tls, timeout_s)
    _run(reading.resolve(source, name, linearizable=linearizable, json_output=output == "json", out=click.echo))


@main.command(context_settings=_HELP)
@click.argument("prefix", default="/bns/", shell_complete=_complete_names)
@_output_option
@_server_options
def watch(prefix: str, output: str, server: str, timeout_s: float, tls: "Tls | None") -> None:
    """Print every change under PREFIX, until interrupted.

    First comes what is there now. A line begins with `=` (everything follows anew), `+` (a task is there or has
    changed) or `-` (a task is gone). With -o json each line is one update. The watch goes on at another replica when
    its own is lost; a slow reader gets the newest state of each name, not every step to it.
    """
    from bns import reading

    source = reading.Source(server, tls, timeout_s)
    _run(reading.watch(source, prefix, json_output=output == "json", out=_echo_now))


def _echo_now(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _pairs(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE", param=parameter)
        found[key] = rest
    return found


def _ports(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for name, text in _pairs(context, parameter, values).items():
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
            raise click.BadParameter(f"port {name}: {text!r} is not from 1 to 65535", param=parameter)
        found[name] = int(text)
    return found


def _probe(_: click.Context, parameter: click.Parameter, value: str) -> "ProbeSpec":
    from bns.model import ProbeKind, ProbeSpec

    kind, _colon, path = value.partition(":")
    kinds = {"tcp": ProbeKind.TCP, "http": ProbeKind.HTTP, "grpc": ProbeKind.GRPC}
    if kind not in kinds or (kind == "tcp" and path) or (kind == "http" and path and not path.startswith("/")):
        raise click.BadParameter(f"{value!r} is none of tcp, http:/PATH, grpc:SERVICE", param=parameter)
    return ProbeSpec(kinds[kind], path or ("/" if kind == "http" else ""))


@main.command(context_settings=_HELP)
@click.argument("name")
@click.argument("address", metavar="ADDR")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option(
    "--agent", envvar="BNS_AGENT", metavar="PATH", help="Socket of this machine's node agent. [env: BNS_AGENT]"
)
@click.option("--port", "ports", multiple=True, callback=_ports, metavar="NAME=PORT", help="A further, named port.")
@click.option("--metadata", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="Kept with the record.")
@click.option(
    "--cpu-cores",
    type=click.FloatRange(0, 4096, min_open=True),
    default=1.0,
    show_default=True,
    help="How many cores the task may use.",
)
@click.option(
    "--probe",
    default="tcp",
    show_default=True,
    callback=_probe,
    metavar="PROBE",
    help="How the agent finds out the task's health: tcp, http:/PATH or grpc:SERVICE.",
)
@_server_options
def register(  # noqa: PLR0913 - one parameter an option
    *,
    name: str,
    address: str,
    command: tuple[str, ...],
    agent: str | None,
    ports: dict[str, int],
    metadata: dict[str, str],
    cpu_cores: float,
    probe: "ProbeSpec",
    server: str,
    timeout_s: float,
    tls: "Tls | None",
) -> None:
    """Keep NAME registered while COMMAND runs.

    NAME is /bns/DATACENTER/USER/JOB/TASK. ADDR is IP:PORT, IPv6 in brackets: [::1]:8080. With --agent the task is handed
    to this machine's node agent, which probes it and reports its health and load; else a session with the control plane
    (--server) holds it, and its health stays UNKNOWN.

    The name is registered first; when that is refused, or nobody answers in --timeout seconds, COMMAND is not started.
    Signals are passed on to it. When it ends the name is deregistered and its exit status returned. When this process
    is killed, COMMAND dies with it, and the name stays until the agent sees it, or it is reaped.
    """
    from bns.model import Task
    from bns.registering import Place, register_while_running
    from bns.transport import split_address

    async def work() -> int:
        host, port = split_address(address)
        task = Task(name, host, port, named_ports=ports, metadata=metadata, cpu_cores=cpu_cores, probe=probe)
        place = Place(agent or "", server, tls, timeout_s)
        return await register_while_running(task, command, place, _say)

    sys.exit(_run(work()))


def _elect_options(command: _Decorated) -> _Decorated:
    command = tls_options(command)
    for option in (
        click.option("--etcd", envvar="BNS_ETCD", metavar="HOST:PORT,...", help="Members of etcd. [env: BNS_ETCD]"),
        click.option("--etcd-user", envvar="BNS_ETCD_USER", metavar="USER", help="[env: BNS_ETCD_USER]"),
        click.option(
            "--etcd-password-file",
            type=click.File(),
            metavar="FILE",
            help="Password of --etcd-user; else the variable BNS_ETCD_PASSWORD.",
        ),
        click.option(
            "--ttl",
            "ttl_s",
            type=click.IntRange(2, 3600),
            default=10,
            show_default=True,
            metavar="SECONDS",
            help="How long a dead leader is waited for.",
        ),
        click.option(
            "--grace",
            "grace_s",
            type=click.FloatRange(0, 3600),
            default=5.0,
            show_default=True,
            metavar="SECONDS",
            help="Between TERM and KILL to the command when leadership is lost.",
        ),
    ):
        command = option(command)
    return command


@main.command(context_settings=_HELP)
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@_elect_options
def elect(  # noqa: PLR0913 - one parameter an option
    *,
    name: str,
    command: tuple[str, ...],
    etcd: str | None,
    etcd_user: str | None,
    etcd_password_file: "TextIO | None",
    ttl_s: int,
    grace_s: float,
    tls: "Tls | None",
) -> None:
    """Run COMMAND on one of all who run this.

    All who run it with the same NAME are candidates, on whatever machine. Each waits for its turn; the one that leads
    runs COMMAND, and exits with its status when it ends. When the leader dies, another takes over within --ttl seconds;
    when it ends by itself, at once. When leadership is lost (etcd is out of reach for --ttl seconds, or the key is
    deleted), COMMAND gets TERM, after --grace seconds KILL, and the candidate stands again.

    COMMAND finds in its environment BNS_FENCING_TOKEN, a number that grows from leader to leader, and BNS_ELECTION_KEY,
    the key in etcd that exists while it leads. No lease can stop a process that is paused: give the token to whatever
    COMMAND writes to, and let it refuse a smaller one than it has seen.
    """
    from bns.electing import Election, Elector, check_election, etcd_problem
    from bns.etcd.client import Client
    from bns.etcd.errors import EtcdError
    from bns.transport import channel_credentials, parse_addresses

    if not etcd:
        raise click.UsageError("no etcd is given: use --etcd HOST:PORT or set BNS_ETCD")
    password = etcd_password_file.read().strip() if etcd_password_file else os.environ.get("BNS_ETCD_PASSWORD", "")

    async def work() -> int:
        election = Election(check_election(name), ttl_s, grace_s)
        credentials = channel_credentials(tls) if tls is not None else None
        async with Client(parse_addresses(etcd), credentials=credentials, user=etcd_user, password=password) as client:
            try:
                return await Elector(client, election, command, _say).run()
            except EtcdError as error:
                raise etcd_problem(etcd, error) from error

    sys.exit(_run(work()))
