"""What goes wrong in the benchmark of failures: a fault begins at real processes, and is undone."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.rpc import target
from bench.rpc.callers import Client
from bench.rpc.channels import NEAR, Servers, endpoint_of, start, task_name
from bench.stage import Stage
from bns.etcd.embedded import free_port
from gslb.model.resources import Catalog

# How long an answer takes.
ANSWER_S: Final = 0.01
SLOW_S: Final = 10 * ANSWER_S


@dataclass(frozen=True, slots=True)
class Set:
    """What a fault is worked on."""

    stage: Stage
    servers: Servers
    clients: Sequence[Client]


Work = Callable[[Set, Sequence[str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scene:
    """`tasks` of them fail in NEAR; `begin` and `end` are given their names.

    `lasting`: the tasks answer all the same, some or all requests, and should get some: their part of the picks is told and
    not the last one. `asyncio`: played with an asyncio channel, too.
    """

    name: str
    begin: Work
    end: Work
    tasks: int = 1
    lasting: bool = False
    asyncio: bool = False


async def behave(stage: Set, tasks: Sequence[str], how: str, answer_s: float = ANSWER_S) -> None:
    """All of these behave so from now on."""
    workers = stage.servers.workers
    await asyncio.gather(*(workers[task].ask("behave", how=how, answer_s=answer_s) for task in tasks))


def _behaviour(how: str, answer_s: float = ANSWER_S) -> Work:
    return lambda stage, tasks: behave(stage, tasks, how, answer_s)


async def _kill(stage: Set, tasks: Sequence[str]) -> None:
    await asyncio.gather(*(stage.servers.workers[task].kill() for task in tasks))


async def _start_anew(stage: Set, tasks: Sequence[str]) -> None:
    started = await asyncio.gather(*(start(stage.stage, task) for task in tasks))
    for task, (worker, endpoint) in zip(tasks, started, strict=True):
        stage.servers.workers[task] = worker
        stage.servers.endpoints[task] = endpoint
    await behave(stage, tasks, target.WELL)


async def _signal(stage: Set, tasks: Sequence[str], number: signal.Signals) -> None:
    for task in tasks:
        os.kill(stage.servers.workers[task].pid, number)


async def _list_one_more(stage: Set, _: Sequence[str]) -> None:
    """A task that was never there, at a port where nobody listens."""
    phantom = endpoint_of(PHANTOM, free_port())
    for client in stage.clients:
        client.core.on_view(stage.servers.view(phantom), Catalog())


async def _nothing(stage: Set, tasks: Sequence[str]) -> None:
    """The next channel starts without it."""


PHANTOM: Final = task_name(NEAR, 99)
WELL: Final = _behaviour(target.WELL)


def _stopped(stage: Set, tasks: Sequence[str]) -> Awaitable[None]:
    return _signal(stage, tasks, signal.SIGSTOP)


def _continued(stage: Set, tasks: Sequence[str]) -> Awaitable[None]:
    return _signal(stage, tasks, signal.SIGCONT)


def scenes(datacenter: int) -> tuple[Scene, ...]:
    """All of them; `datacenter`: how many tasks one has."""
    return (
        Scene("kill -9", _kill, _start_anew, asyncio=True),
        Scene("SIGSTOP", _stopped, _continued, asyncio=True),
        Scene("mute (connected, answers pings, no requests)", _behaviour(target.MUTE), WELL),
        Scene("blackhole (takes connections, never answers)", _behaviour(target.BLACKHOLE), WELL),
        Scene("connection refused (listed, never there)", _list_one_more, _nothing, tasks=0),
        Scene("flapping (a second down, a second up)", _behaviour(target.FLAPPING), WELL, lasting=True),
        Scene("slow (10 x latency)", _behaviour(target.WELL, SLOW_S), WELL, lasting=True),
        Scene("error-fast (INTERNAL at once)", _behaviour(target.ERRORS), WELL, lasting=True),
        Scene("all of a datacenter killed", _kill, _start_anew, tasks=datacenter),
        Scene("all of a datacenter stopped", _stopped, _continued, tasks=datacenter),
    )
