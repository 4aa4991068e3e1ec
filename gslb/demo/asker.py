"""Asks DNS servers the same question again and again and notes when they said what, in a process of its own.

What is timed must not wait for who times it: the demo's own loop is a few hundred browsers, and for half a second after
a datacenter is gone it is busy with them. Each line of the output is one round: when its last answer was there (seconds of the
machine's monotonic clock), and every server's addresses.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path

import click

from gslb.demo.resolver import ResolveError, ask

PERIOD_S = 0.025
ENDS_AFTER_S = 300.0


def rounds(text: str) -> list[tuple[float, tuple[str, ...]]]:
    """What was written, oldest first: (when, addresses); the last line may be half written."""
    found = []
    for line in text.splitlines(keepends=True):
        ended, *addresses = line.split()
        if line.endswith("\n") and addresses:
            found.append((float(ended), tuple(addresses)))
    return found


async def _run(servers: Iterable[str], name: str, subnet: IPv4Network, out: Path) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    ends_s = time.monotonic() + ENDS_AFTER_S
    turn = 0
    with out.open("w", encoding="utf-8") as file:
        while not ended.is_set() and time.monotonic() < ends_s:
            turn += 1
            # A server that does not answer is no news; nor is a round that is not whole.
            with contextlib.suppress(ResolveError):
                answers = await asyncio.gather(*(ask(server, name, subnet, turn % 65536) for server in servers))
                addresses = " ".join(address for answer in answers for address in answer.addresses)
                file.write(f"{time.monotonic():.4f} {addresses}\n")
                file.flush()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PERIOD_S)


@click.command()
@click.option("--servers", required=True, help="DNS servers, HOST:PORT,...")
@click.option("--name", required=True, help="What to ask for: its IPv4 addresses.")
@click.option("--subnet", required=True, help="The client's network, as a resolver would name it.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write to.")
def main(servers: str, name: str, subnet: str, out: Path) -> None:
    """Ask until SIGTERM, at most five minutes."""
    asyncio.run(_run(servers.split(","), name, IPv4Network(subnet), out))


if __name__ == "__main__":
    main()
