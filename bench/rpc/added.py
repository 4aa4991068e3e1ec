"""What our channel adds to a call over a stock gRPC channel with round_robin: wall time and CPU, paired in one process.

Both channels call the same servers, one call after the other, in alternating rounds: what else the machine does meets
both. CPU is that of the whole calling process, gRPC's own threads included.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from bench.rows import Row, figure, quantile
from bench.rpc.channels import Servers, aio_channel_to, servers, sync_channel_to
from bench.rpc.target import METHOD
from bench.stage import Stage, progress
from bns.transport import Options
from gslb.rpc.client.api import endpoint_options

GOAL: Final = 1.05
TIMEOUT_S: Final = 5.0
_REQUEST: Final = b"x" * 100
_ROUND_ROBIN: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


@dataclass(frozen=True, slots=True)
class Size:
    """`pairs` rounds of `calls` calls on either channel."""

    pairs: int
    calls: int


FULL: Final = Size(400, 100)
QUICK: Final = Size(4, 50)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call, in seconds."""

    wall_s: float
    cpu_s: float


Pair = tuple[Cost, Cost]  # stock, ours
Round = Callable[[int], Awaitable[None]]


async def rows(size: Size) -> list[Row]:
    """All of them; about two minutes."""
    async with Stage("added") as stage:
        there = await servers(stage, {"near": 2})
        progress("added per RPC: blocking")
        blocking = await _blocking(there, size)
        progress("added per RPC: asyncio")
        waiting = await _asyncio(there, size)
    return [*_rows("a blocking call", blocking), *_rows("an asyncio call", waiting)]


def _stock(there: Servers) -> tuple[str, Options]:
    """Target and options of the stock channel: what ours gives its connections, and gRPC's own round_robin."""
    targets = ",".join(endpoint.target for endpoint in there.endpoints.values())
    return f"ipv4:{targets}", [*endpoint_options(None, ""), ("grpc.service_config", _ROUND_ROBIN)]


async def _blocking(there: Servers, size: Size) -> list[Pair]:
    target, options = _stock(there)
    with grpc.insecure_channel(target, options=options) as stock, sync_channel_to(there) as ours:

        def rounds(channel: grpc.Channel) -> Round:
            call = channel.unary_unary(METHOD, None, None)

            def many(calls: int) -> None:
                for _ in range(calls):
                    call(_REQUEST, timeout=TIMEOUT_S)

            return lambda calls: asyncio.to_thread(many, calls)

        return await _pairs(rounds(stock), rounds(ours), size)


async def _asyncio(there: Servers, size: Size) -> list[Pair]:
    target, options = _stock(there)
    async with grpc.aio.insecure_channel(target, options=options) as stock, aio_channel_to(there) as ours:

        def rounds(channel: grpc.aio.Channel) -> Round:
            call = channel.unary_unary(METHOD, None, None)

            async def many(calls: int) -> None:
                for _ in range(calls):
                    await call(_REQUEST, timeout=TIMEOUT_S)

            return many

        return await _pairs(rounds(stock), rounds(ours), size)


async def _pairs(stock: Round, ours: Round, size: Size) -> list[Pair]:
    """Rounds of both in turns, each first as often as second; a round before that connects and warms up."""
    for one in (stock, ours):
        await one(size.calls)
    found = []
    for number in range(size.pairs):
        if number % 2:
            mine, theirs = await _cost(ours, size.calls), await _cost(stock, size.calls)
        else:
            theirs, mine = await _cost(stock, size.calls), await _cost(ours, size.calls)
        found.append((theirs, mine))
    return found


async def _cost(one: Round, calls: int) -> Cost:
    wall_s, cpu_s = time.monotonic(), time.process_time()
    await one(calls)
    return Cost((time.monotonic() - wall_s) / calls, (time.process_time() - cpu_s) / calls)


def _rows(what: str, pairs: Sequence[Pair]) -> list[Row]:
    walls = [(theirs.wall_s, mine.wall_s) for theirs, mine in pairs]
    cpus = [(theirs.cpu_s, mine.cpu_s) for theirs, mine in pairs]
    return [
        *_measure(f"added: {what}, wall time", walls, GOAL),
        *_measure(f"added: {what}, CPU of the process", cpus, None),
    ]


def _measure(name: str, pairs: Sequence[tuple[float, float]], at_most: float | None) -> list[Row]:
    """The median ratio of pairs and the median of what is added; the middle half of the pairs beside each."""
    ratios = [mine / theirs for theirs, mine in pairs]
    added = [(mine - theirs) * 1e6 for theirs, mine in pairs]
    stock = statistics.median(theirs for theirs, _ in pairs) * 1e6
    return [
        Row(f"{name}: over stock round_robin", statistics.median(ratios), "x", middle(ratios), at_most),
        Row(f"{name}: added", statistics.median(added), "us", f"{middle(added)}; stock {figure(stock)}"),
    ]


def middle(values: Sequence[float]) -> str:
    """The middle half and the count, such as "1.01-1.06 (middle half), n=60"."""
    low, high = quantile(values, 0.25), quantile(values, 0.75)
    return f"{figure(low)}-{figure(high)} (middle half), n={len(values)}"
