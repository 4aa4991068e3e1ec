"""The benchmark `dns`: all servers at once, rounds taken in turns, so that whatever else the machine does meets them alike."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import dns.exception
import dns.message
import dns.query

from bench.dns import flood, peers, publish, slow_tcp, world
from bench.dns.load import LOAD_CORE, SERVER_CORE, Round, dnsperf, packets, pin, ratio
from bench.dns.peers import Server
from bench.rows import Row, figure, median_row, spread
from bench.stage import BenchError, Stage, progress, until

ROUNDS: Final = 5
SECONDS: Final = 2.0
OURS, LIMITED, TWO, PYTHON = "gslb", "gslb, rate limit on", "gslb, two threads", "gslb, Python only"
FLOODED = "gslb, flooded"
ECHO, GDNSD = "echo", "gdnsd geoip"
# Every client takes part in cookies: the server makes one for each answer.
COOKIE: Final = ("-E", "10:0123456789abcdef")
# A rate that nobody reaches, for clients on loopback as for all others.
LIMIT: Final = ("--rrl-rate", "1000000", "--rrl-exempt", "none")
_Measure = Callable[[Server], Round]


async def rows(_only: frozenset[str], *, quick: bool) -> list[Row]:
    """Every row. A server that cannot be measured has a row that says why."""
    made: list[Row] = []
    async with Stage("dns") as stage:
        servers = await _servers(stage, made)
        hits, misses = world.write_dnsperf(stage.directory)
        plain, subnets = world.write_packets(stage.directory)
        generator = peers.compiled(stage, "load")
        rounds, seconds = (2, 0.5) if quick else (ROUNDS, SECONDS)

        def perf(queries: Path, *options: str) -> _Measure:
            return lambda server: dnsperf(stage, server, queries, seconds, options)

        def ready(queries: Path) -> _Measure:
            return lambda server: packets(stage, generator, server, queries, seconds)

        alone = {label: server for label, server in servers.items() if label not in {TWO, FLOODED}}
        found = _in_turns("geo A hits", alone, {"hits": perf(hits, *COOKIE)}, rounds)
        made += _hits(found, alone)
        slow = {label: servers[label] for label in (PYTHON, GDNSD) if label in servers}
        bare = _in_turns("without cookies", slow, {"bare": perf(hits)}, rounds)
        made.append(_ratio_row("Python only over gdnsd, without cookies", bare, (PYTHON, "bare"), (GDNSD, "bare"), 0.3))
        one = {label: servers[label] for label in (OURS,) if label in servers}
        ways = {
            "hits": perf(hits, *COOKIE),
            "misses": perf(misses, *COOKIE),
            "plain": ready(plain),
            "subnets": ready(subnets),
        }
        own = _in_turns("other queries", one, ways, rounds)
        made += [
            _ratio_row("random NXDOMAIN over own hits", own, (OURS, "misses"), (OURS, "hits"), 0.8),
            _ratio_row("client subnets, 10,000 prefixes, over own hits", own, (OURS, "subnets"), (OURS, "plain"), 0.85),
        ]
        pair = {label: servers[label] for label in (OURS, TWO) if label in servers}
        for server in pair.values():
            pin(server, [SERVER_CORE, LOAD_CORE])
        both = _in_turns("two threads", pair, {"hits": perf(hits, *COOKIE)}, rounds)
        made.append(_ratio_row("two threads over one, per CPU-second", both, (TWO, "hits"), (OURS, "hits"), 0.9))
        if OURS in servers:
            made += slow_tcp.rows(stage, servers[OURS], hits, rounds, seconds)
        if FLOODED in servers:
            progress("a flood from one network")
            made += flood.rows(servers[FLOODED], 1.0 if quick else 10.0)
        made += await publish.rows(stage, quick=quick)
        made += await _scale(stage, quick=quick)
    return made


async def _scale(stage: Stage, *, quick: bool) -> list[Row]:
    """A large table: time, memory, one service changed."""
    services, localities = (200, 20) if quick else (10_000, 200)
    what = f"{services} services x {localities} localities"
    progress(what)
    worker = await stage.worker("table", "bench.load.dnstable")
    await worker.ask("world", services=services, localities=localities)
    whole = await worker.ask("whole")
    changes = [1e3 * float(str((await worker.ask("change"))["s"])) for _ in range(20)]

    def number(name: str) -> float:
        return float(str(whole[name]))

    note = f"CPU {figure(number('cpu_s'))}; the table is {number('octets') / 1e6:.1f} MB of octets"
    memory = f"the frontend's view of the same services beside it: {figure(number('process_mb') - number('mb'))} MB"
    return [
        Row(f"{what}: laid out and compiled from nothing", number("s"), "s", note, at_most=10.0),
        Row(f"{what}: memory of what is laid out and compiled", number("mb"), "MB", memory, at_most=300.0),
        median_row(f"{what}: one service changed, until it is served", changes, "ms", 20.0),
    ]


async def _servers(stage: Stage, made: list[Row]) -> dict[str, Server]:
    """Everything that can be started, by label; the rows of `made` name what cannot."""
    starts: dict[str, Callable[[], Server]] = {
        ECHO: lambda: peers.echo(stage),
        OURS: lambda: peers.ours(stage, OURS, 1),
        LIMITED: lambda: peers.ours(stage, LIMITED, 1, *LIMIT),
        TWO: lambda: peers.ours(stage, TWO, 2),
        PYTHON: lambda: peers.ours(stage, PYTHON, 0),
        FLOODED: lambda: peers.ours(stage, FLOODED, 1, *flood.FLAGS),
    }
    for peer in peers.PEERS:
        if peer.installed:
            starts[peer.label] = partial(peer.start, stage)
        else:
            progress(f"skipped: {peer.label}, for {peer.program} is not installed")
            made.append(Row(f"skipped: {peer.label}: {peer.program} is not installed", 0.0, "q/CPU-s"))
    servers: dict[str, Server] = {}
    for label, start in starts.items():
        try:
            server = start()
            await _answers(stage, server)
        except BenchError as error:
            progress(f"{label}: {error}")
            made.append(Row(f"{label}: queries", None, "q/CPU-s", str(error)))
            continue
        pin(server, [SERVER_CORE])
        servers[label] = server
    return servers


async def _answers(stage: Stage, server: Server) -> None:
    """Waits until the server gives the answer that a client on 127/8 is to get. Raises BenchError."""
    query = dns.message.make_query(world.names()[7], "A")
    expected = world.PLACES["europe-west1"].address

    def right() -> bool:
        stage.require_alive(server.label)
        try:
            answer = dns.query.udp(query, "127.0.0.1", 0.5, server.port)
        except (dns.exception.DNSException, OSError):
            return False
        return server.label == ECHO or any(expected in str(rrset) for rrset in answer.answer)

    await until(f"{server.label} answers {expected}", right)


_Found = Mapping[tuple[str, str], Sequence[Round]]


def _in_turns(what: str, servers: Mapping[str, Server], ways: Mapping[str, _Measure], rounds: int) -> _Found:
    """`rounds` of each way with each server, all of one round before the next; the first, to warm up, is not counted."""
    found: dict[tuple[str, str], list[Round]] = {(label, way): [] for label in servers for way in ways}
    for number in range(rounds + 1):
        progress(f"{what}, round {number} of {rounds}")
        for label, server in servers.items():
            for way, measure in ways.items():
                if (label, way) not in found:
                    continue
                try:
                    seen = measure(server)
                except BenchError as error:
                    progress(f"left out: {error}")
                    del found[label, way]
                    continue
                if number:
                    found[label, way].append(seen)
    return found


def _hits(found: _Found, servers: Mapping[str, Server]) -> list[Row]:
    made = []
    for label in servers:
        seen = found.get((label, "hits"), ())
        if not seen:
            made.append(Row(f"{label}: geo A hits, one thread", None, "q/CPU-s", "it did not answer under load"))
            continue
        values = [each.per_cpu_s for each in seen]
        lost = sum(each.lost for each in seen) / max(1, sum(each.answers + each.lost for each in seen))
        wall = statistics.median(each.per_wall_s for each in seen)
        note = f"{spread(values)}; {figure(wall)} a second of wall, {lost:.2%} lost"
        made.append(Row(f"{label}: geo A hits, one thread", statistics.median(values), "q/CPU-s", note))
    made += [
        _ratio_row("geo A hits over gdnsd", found, (OURS, "hits"), (GDNSD, "hits"), 1.0),
        _ratio_row("geo A hits over the echo", found, (OURS, "hits"), (ECHO, "hits"), 0.93),
        _ratio_row("geo A hits with the rate limit on over gdnsd", found, (LIMITED, "hits"), (GDNSD, "hits"), 0.95),
        _ratio_row(
            "Python only over gdnsd, a new cookie for each answer", found, (PYTHON, "hits"), (GDNSD, "hits"), 0.3
        ),
    ]
    return made


def _ratio_row(name: str, found: _Found, one: tuple[str, str], other: tuple[str, str], at_least: float) -> Row:
    """The median of the rounds' ratios."""
    for missing in (one, other):
        if missing not in found:
            return Row(name, None, "x", f"{missing[0]} was not measured", at_least=at_least)
    values = ratio(found[one], found[other])
    return Row(name, statistics.median(values), "x", spread(values), at_least=at_least)
