"""From the drain RPC to no traffic: when readers' shares are zero, and when the last RPC hits a drained server.

Real gslb.rpc clients in the drained datacenter call real servers there; with the drain they all go to the other
datacenter, and with its end they come back.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.planet import serving
from bench.planet.control import Operator
from bench.planet.serving import SERVICE, Reader
from bench.rows import Row, median_row
from bench.stage import Stage, Worker, progress, until
from gslb.v1 import admin_pb2, config_pb2

HERE, THERE = "us-east1", "europe-west1"
TASK_CAPACITY_RPS = 500.0
SERVERS = 2
TIMEOUT_S = 30.0
# How long after the shares are zero it is waited for stragglers.
STRAGGLERS_S = 2.0
GOAL_S = 5.0
NAME = "datacenter drained, from the RPC: until"


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int
    readers: int
    rps: float


FULL = Size(rounds=10, readers=8, rps=100.0)
QUICK = Size(rounds=1, readers=2, rps=30.0)


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds from the drain RPC's start."""

    answered_s: float
    shares_zero_s: float
    last_rpc_s: float


async def rows(size: Size) -> list[Row]:
    async with Stage("drain") as stage:
        etcd = await stage.etcd()
        replicas = [await stage.replica(f"control-{number}", etcd) for number in range(2)]
        control = ",".join(replica.address for replica in replicas)
        async with Operator(replicas[0].address) as operator:
            await operator.apply(serving.resources([HERE, THERE], TASK_CAPACITY_RPS))
            drained = await serving.start_servers(stage, HERE, SERVERS, control)
            await serving.start_servers(stage, THERE, SERVERS, control)
            readers = await serving.readers_of(replicas, size.readers, 2 * SERVERS)
            callers = await stage.worker("callers", "bench.load.callers")
            await callers.ask("start", control=control, service=SERVICE, locality=HERE, rps=size.rps)
            rounds = []
            for _ in range(size.rounds):
                await _until_served(drained, readers)
                rounds.append(await _round(operator, drained, readers))
                await operator.admin.Undrain(
                    admin_pb2.UndrainRequest(scope=config_pb2.DRAIN_SCOPE_DATACENTER, target=HERE), timeout=10.0
                )
            counts = await callers.ask("stats")
        await asyncio.gather(*(reader.stop() for reader in readers))
    return _rows(rounds, counts, size)


def _rows(rounds: Sequence[Round], counts: dict[str, object], size: Size) -> list[Row]:
    failed = counts["failed"]
    assert isinstance(failed, dict)
    under = f"{size.rps:g} rps"
    return [
        median_row(f"{NAME} it is answered", [one.answered_s for one in rounds], "s"),
        median_row(f"{NAME} its shares are 0 in every reader's view", [one.shares_zero_s for one in rounds], "s"),
        median_row(f"{NAME} the last RPC of gslb.rpc ({under})", [one.last_rpc_s for one in rounds], "s", GOAL_S),
        Row(
            f"failed RPCs meanwhile ({under})",
            sum(failed.values()),
            "RPCs",
            f"of {counts['sent']}{f', {failed}' if failed else ''}",
            0.0,
        ),
    ]


async def _until_served(drained: Sequence[Worker], readers: Sequence[Reader]) -> None:
    """The plan sends the clients here, and they come."""
    for reader in readers:
        await reader.when(lambda view: serving.largest_share(view, HERE) > 0.9, TIMEOUT_S)
    before = await _calls(drained)

    async def called() -> bool:
        return await _calls(drained) > before + 20

    await until(f"{HERE} serves", called, TIMEOUT_S)


async def _calls(servers: Sequence[Worker]) -> int:
    return sum([int(str((await server.ask("stats"))["calls"])) for server in servers])


async def _round(operator: Operator, drained: Sequence[Worker], readers: Sequence[Reader]) -> Round:
    request = admin_pb2.DrainRequest(
        scope=config_pb2.DRAIN_SCOPE_DATACENTER, target=HERE, duration_s=600.0, reason="benchmark", author="bench"
    )
    started_s = time.monotonic()
    watching = asyncio.gather(
        *(reader.when(lambda view: serving.largest_share(view, HERE) == 0.0, TIMEOUT_S) for reader in readers)
    )
    await operator.admin.Drain(request, timeout=10.0)
    answered_s = time.monotonic()
    zero_s = max(await watching)
    await asyncio.sleep(STRAGGLERS_S)
    last_s = max([float(str((await server.ask("stats"))["last_s"])) for server in drained])
    done = Round(answered_s - started_s, zero_s - started_s, last_s - started_s)
    progress(
        f"drain: answered after {done.answered_s:.3f} s, shares 0 after {done.shares_zero_s:.3f} s,"
        f" last RPC after {done.last_rpc_s:.3f} s"
    )
    return done
