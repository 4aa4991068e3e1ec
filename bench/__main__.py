"""`python -m bench`, which `make bench` calls: measures, prints a table a benchmark, writes bench/out/NAME.json.

A missed goal is a result and not an error; a figure that could not be measured is one.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import click

from bench import balancer, output
from bench.dns import everything as dns
from bench.planet import everything as planet
from bench.rows import Row
from bench.rpc import everything as rpc

Benchmark = Callable[[frozenset[str], bool], Awaitable[list[Row]]]

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "planet": lambda only, quick: planet.rows(only, quick=quick),
        "balancer": lambda only, quick: balancer.rows(only, quick=quick),
        "dns": lambda only, quick: dns.rows(only, quick=quick),
        "rpc": lambda only, quick: rpc.rows(only, quick=quick),
    }
)
PARTS = (*planet.PARTS, *rpc.PARTS)
OUT = Path(__file__).parent / "out"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Small sizes, to see that it works; written to OUT/quick.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Only this part; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="Where NAME.json goes.  [default: bench/out]")
def main(*, names: tuple[str, ...], quick: bool, only: tuple[str, ...], out: Path) -> None:
    """Measure NAME... (default: all) on this machine.

    Benchmarks: planet, balancer, dns, rpc. Everything runs on loopback, in processes of its own, and ends by itself. What is
    written after --only has only those rows.
    """
    failed = False
    for name in names or tuple(BENCHMARKS):
        head = output.header(name, quick=quick)
        rows = asyncio.run(_measure(name, frozenset(only), quick))
        path = (out / "quick" if quick else out) / f"{name}.json"
        output.write(path, head, rows)
        click.echo(output.table(head, rows))
        click.echo(f"wrote {path}", err=True)
        failed = failed or any(row.value is None for row in rows)
    if failed:
        sys.exit(1)


async def _measure(name: str, only: frozenset[str], quick: bool) -> list[Row]:
    return await BENCHMARKS[name](only, quick)


if __name__ == "__main__":
    main()
