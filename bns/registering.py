"""`bns register`: a task is registered while its command runs."""

import asyncio
import contextlib
import os
import random
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bns.attachment import AgentAttachment
from bns.codec import decode_task, encode_task
from bns.errors import RefusedError, UnavailableError
from bns.model import Task
from bns.names import parse_task
from bns.registration import Callbacks, Identity, Registration, boot_id, machine_id
from bns.running import Child, Signals, check_command
from bns.transport import Tls

REFUSED_DELAY_S = 5.0
LEAVE_TIMEOUT_S = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where to register: `agent`, a node agent's socket, when given, else `servers`, the control plane."""

    agent: str = ""
    servers: str = ""
    tls: Tls | None = None
    timeout_s: float = 10.0


def stamped(task: Task) -> Task:
    """With what is known here: this process stands for its command, whose parent it is."""
    return Task(
        name=task.name,
        address=task.address,
        port=task.port,
        named_ports=task.named_ports,
        metadata=task.metadata,
        cpu_cores=task.cpu_cores,
        probe=task.probe,
        pid=os.getpid(),
        start_time=datetime.now(UTC),
    )


async def register_while_running(task: Task, command: Sequence[str], place: Place, say: Say) -> int:
    """The command's exit code. Raises BnsError, and then the command was not started."""
    check_command(command)
    decode_task(encode_task(task))  # a bad value is named before anybody is asked
    enter = _through_agent if place.agent else _directly
    leave = await enter(stamped(task), place, say)
    try:
        child = await Child.start(command)
        with Signals(child.forward):
            return await child.wait()
    finally:
        await leave()


async def _through_agent(task: Task, place: Place, say: Say) -> Callable[[], Awaitable[None]]:
    attachment = AgentAttachment(place.agent, task)
    attachment.start()
    try:
        await attachment.registered(place.timeout_s)
    except BaseException:
        attachment.close()
        raise

    async def leave() -> None:
        if not await attachment.detached(LEAVE_TIMEOUT_S):
            say(f"the agent at {place.agent} was not there to deregister {task.name}: it does so when it is back")

    return leave


async def _directly(task: Task, place: Place, say: Say) -> Callable[[], Awaitable[None]]:
    background: set[asyncio.Task[None]] = set()

    def on_refused(name: str, error: RefusedError) -> None:
        say(f"{name} is no longer registered, and is tried again: {error}")
        retry = asyncio.create_task(_again(registration, task))
        background.add(retry)
        retry.add_done_callback(background.discard)

    registration = Registration(
        place.servers, own_identity(task.name), tls=place.tls, callbacks=Callbacks(on_refused=on_refused)
    )
    registration.start()
    try:
        await registration.wait_attached(place.timeout_s)
        await registration.register(task, place.timeout_s)
    except RefusedError:
        # Without a goodbye the session would be shown as an agent until its lease lapses.
        with contextlib.suppress(RefusedError, UnavailableError):
            await registration.goodbye(LEAVE_TIMEOUT_S)
        raise
    except BaseException:
        await registration.close()
        raise

    async def leave() -> None:
        for retry in background:
            retry.cancel()
        try:
            await registration.goodbye(LEAVE_TIMEOUT_S)
        except (RefusedError, UnavailableError) as error:
            say(f"{task.name} was not deregistered, and stays until it is reaped: {error}")

    return leave


async def _again(registration: Registration, task: Task) -> None:
    """Somebody else has taken the name, or a replica disagrees: maybe not for long."""
    while True:
        await asyncio.sleep(REFUSED_DELAY_S)
        try:
            await registration.register(task)
            return
        except (RefusedError, UnavailableError):
            continue


def own_identity(name: str) -> Identity:
    """This process is an agent of its own for one task."""
    host = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().lower())[:30].strip("-") or "host"
    agent = f"register-{host}-{os.getpid()}-{random.SystemRandom().randrange(1 << 24):06x}"
    return Identity(agent, parse_task(name).datacenter, machine_id(), boot_id())
