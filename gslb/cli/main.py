"""The `gslb` command: a group whose members are imported only when they are asked for.

An SRE's `gslb get` must not wait for the import of a DNS server, and a machine that runs only the agent need not have
the control plane's packages: a missing extra is one clear line.
"""

import importlib
import os
from collections.abc import Mapping
from types import MappingProxyType

import click
from typing_extensions import override

# command -> (module:attribute, the extra that brings its packages, one line of help)
_MEMBERS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "serve": ("gslb.control.command:command", "server", "Run a control-plane replica."),
        "dns": ("dns_frontend.command:command", "dns", "Run a DNS frontend."),
        "agent": ("agents.command:command", "agent", "Run the node agent of this machine."),
        "demo": ("gslb.demo.command:command", "demo", "Run a small planet on this machine."),
        "apply": ("gslb.cli.apply:apply", "server", "Create or change resources from YAML."),
        "delete": ("gslb.cli.apply:delete", "server", "Delete a resource."),
        "export": ("gslb.cli.apply:export", "server", "Write all desired state as YAML."),
        "import": ("gslb.cli.apply:import_", "server", "Restore desired state from an export."),
        "get": ("gslb.cli.get:get", "server", "List resources, tasks, agents, plans or quotas."),
        "describe": ("gslb.cli.get:describe", "server", "Show one resource with everything known about it."),
        "drain": ("gslb.cli.drain:drain", "server", "Take load away from a place."),
        "undrain": ("gslb.cli.drain:undrain", "server", "End a drain."),
        "explain": ("gslb.cli.explain:explain", "server", "Say why traffic goes where it goes."),
        "geo": ("gslb.cli.geo:geo", "dns", "Install and ask geo databases."),
        "check": ("gslb.cli.check:check", "server", "Say what is wrong now, and what to do."),
        "plan": ("gslb.cli.plan:plan", "server", "Say what to build before it is needed."),
        "replay": ("gslb.cli.replay:replay_command", "server", "Run a recorded moment again, with what-ifs."),
        "sim": ("gslb.cli.sim:sim", "server", "Play a story on a simulated planet."),
        "top": ("gslb.cli.top:top", "server", "Show every backend's load, live."),
    }
)


class LazyGroup(click.Group):
    """Lists every member from the table above and imports the one that is called."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_MEMBERS})

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MEMBERS:
            return super().get_command(ctx, cmd_name)
        path, extra, _ = _MEMBERS[cmd_name]
        module, _, attribute = path.partition(":")
        # gRPC's own log lines are not meant for the reader of a command's messages; it looks when it is imported.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"`gslb {cmd_name}` needs the package {error.name!r}: pip install 'gslb[{extra}]'"
            ) from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{path} is not a click command")
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, _MEMBERS[name][2] if name in _MEMBERS else self.commands[name].get_short_help_str(70))
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gslb")
def main() -> None:
    """Global software load balancer: send every client to the nearest place with room.

    \b
    Environment:
      GSLB_CONTROL   replicas of the control plane, HOST:PORT,...
      GSLB_DNS       control port of a DNS frontend, HOST:PORT (explain dns only)

    \b
    Exit status:
      0 success; 1 refused or failed; 2 bad usage. Data goes to stdout, messages to stderr.

    Shell completion: eval "$(_GSLB_COMPLETE=bash_source gslb)", or zsh_source, fish_source.
    """
