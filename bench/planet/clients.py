"""What a client pays for each look-up: a name in its own view of BNS, and gslb.rpc's choice of a task.

View and channel are real ones that follow a real replica. One thread, the loop's own cost included.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from bench import rpc_pick
from bench.load.fleet import PLACES, Fleet
from bench.planet.control import Operator
from bench.rows import Row, median_row
from bench.stage import BenchError, Stage, progress, until
from bns.client import BnsClient, ClientView
from gslb.rpc.client.api import channel
from gslb.rpc.client.connection import ControlConnection
from gslb.rpc.client.connection import Identity as ClientIdentity
from gslb.rpc.client.protection import Outcome
from gslb.rpc.client.sync_channel import ServiceChannel

GOAL_US = 2.0
TIMEOUT_S = 30.0
ENDPOINTS = 20


@dataclass(frozen=True, slots=True)
class Size:
    """`repeats` times `calls` calls."""

    jobs: int
    calls: int
    repeats: int

    @property
    def fleet(self) -> Fleet:
        return Fleet(1, 10, self.jobs * ENDPOINTS // 10, tasks_per_job=ENDPOINTS)


FULL = Size(jobs=50, calls=200_000, repeats=9)
QUICK = Size(jobs=10, calls=10_000, repeats=3)


async def rows(size: Size) -> list[Row]:
    fleet = size.fleet
    async with Stage("clients") as stage:
        etcd = await stage.etcd()
        replica = await stage.replica("control", etcd)
        async with Operator(replica.address) as operator:
            await operator.apply(fleet.resources())
        agents = await stage.worker("agents", "bench.load.registrants")
        await agents.ask("connect", address=replica.address, fleet=asdict(fleet))
        async with BnsClient(replica.address) as client, ClientView(client) as view:
            await until("the view has every task", lambda: _tasks(view) == fleet.tasks, TIMEOUT_S)
            progress("clients: resolve")
            result = [_resolve(view, size)]
        progress("clients: pick")
        connection = ControlConnection([replica.address], ClientIdentity(locality=PLACES[0][0]))
        chosen = channel("service0", control=connection, locality=PLACES[0][0])
        try:
            if not await asyncio.to_thread(chosen.core.wait_ready, TIMEOUT_S):
                raise BenchError(f"the channel has nobody to pick: {chosen.core.reason()}")
            result += _picks(chosen, size)
        finally:
            chosen.close()
            await asyncio.to_thread(connection.close)
    return result + rpc_pick.measured()


def _tasks(view: ClientView) -> int:
    return sum(len(tasks) for tasks in view.jobs().values())


def _resolve(view: ClientView, size: Size) -> Row:
    names = random.Random(0).choices(sorted(view.jobs()), k=size.calls)
    if any(len(view.resolve(name)) != ENDPOINTS for name in names):
        raise BenchError(f"a job of the view has not {ENDPOINTS} endpoints")
    resolve = view.resolve

    def work() -> None:
        for name in names:
            resolve(name)

    name = f"resolve a job of {ENDPOINTS} tasks from a client's own view of {_tasks(view)}"
    return median_row(name, _microseconds(work, size), "us", GOAL_US)


def _picks(chosen: ServiceChannel, size: Size) -> list[Row]:
    pick, core = chosen.pick, chosen.core
    rounds = range(size.calls)

    def only_pick() -> None:
        for _ in rounds:
            pick()

    def counted() -> None:
        for _ in rounds:
            link = core.begin([])
            assert link is not None
            core.finish(link, Outcome())

    what = f"rpc: pick, a channel that follows a replica, {ENDPOINTS} tasks"
    return [
        median_row(what, _microseconds(only_pick, size), "us", GOAL_US),
        median_row(f"{what}, with the counting in flight", _microseconds(counted, size), "us"),
    ]


def _microseconds(work: Callable[[], None], size: Size) -> Sequence[float]:
    """Microseconds a call, once for each repeat."""
    took = []
    for _ in range(size.repeats):
        started_s = time.perf_counter()
        work()
        took.append(1e6 * (time.perf_counter() - started_s) / size.calls)
    return took
