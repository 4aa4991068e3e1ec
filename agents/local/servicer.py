"""bns.v1.NodeAgent: what tasks of this machine say to their agent.

A stream is a task: its first message is the task's record, then come counters, lame duck and at last detach. A stream
that breaks deregisters nothing, it makes the agent look at the task at once. Clients are processes of this machine and
may be broken all the same: messages are small, read at a bounded rate, and checked.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from typing_extensions import override

from agents import limits
from agents.errors import AttachError
from agents.keeper import Keeper
from agents.load.rates import to_counters
from agents.registration.session import Session
from bns.codec import decode_task, encode_health, encode_task
from bns.errors import BadRecordError, code_number
from bns.model import HealthStatus
from bns.v1 import agent_pb2, agent_pb2_grpc

log = logging.getLogger(__name__)

Requests = AsyncIterator[agent_pb2.AttachRequest]
Context = grpc.aio.ServicerContext[agent_pb2.AttachRequest, agent_pb2.AttachResponse]
ListContext = grpc.aio.ServicerContext[agent_pb2.ListTasksRequest, agent_pb2.ListTasksResponse]

_CODES = {code_number(code): code for code in grpc.StatusCode}


class StreamAttachment:
    """One stream, as the keeper sees it. The newest state is what is sent; nothing queues up."""

    def __init__(self) -> None:
        self.is_registered = False
        self.health = HealthStatus.UNKNOWN
        self.error: AttachError | None = None
        self.wake = asyncio.Event()

    def health_changed(self, health: HealthStatus) -> None:
        """To be told to the task."""
        self.health = health
        self.wake.set()

    def registered(self) -> None:
        """BNS holds the task."""
        self.is_registered = True
        self.wake.set()

    def refused(self, code: int, message: str) -> None:
        """BNS will not have the task: the stream ends."""
        self.error = AttachError(code, message)
        self.wake.set()

    def replaced(self) -> None:
        """The same task opened another stream."""
        self.refused(code_number(grpc.StatusCode.ABORTED), "the task opened another stream to its agent")


class _Pace:
    """Reads from one stream no faster than the limit, bursts aside: the rest waits in the sender."""

    def __init__(self) -> None:
        self._credit = limits.LOCAL_MESSAGES_PER_S
        self._at_s = time.monotonic()

    async def message(self) -> None:
        """One message was read."""
        now = time.monotonic()
        rate = limits.LOCAL_MESSAGES_PER_S
        self._credit = min(self._credit + (now - self._at_s) * rate, rate) - 1.0
        self._at_s = now
        if self._credit < 0.0:
            await asyncio.sleep(-self._credit / rate)


class NodeAgentServicer(agent_pb2_grpc.NodeAgentServicer):
    """Serves the local socket from `keeper`; `session` knows what BNS has acknowledged."""

    def __init__(self, agent: str, datacenter: str, keeper: Keeper, session: Session) -> None:
        self._agent = agent
        self._datacenter = datacenter
        self._keeper = keeper
        self._session = session

    @override
    async def Attach(self, request_iterator: Requests, context: Context) -> None:  # type: ignore[override]
        """One task's stream."""
        attachment = StreamAttachment()
        try:
            name = await self._begin(request_iterator, attachment)
        except AttachError as error:
            await _refuse(context, error)
            return
        reader = asyncio.create_task(self._read(name, request_iterator))
        writer = asyncio.create_task(self._write(name, attachment, context))
        detached = False
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                detached = task.result() or detached
        except AttachError as error:
            await _refuse(context, error)
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            if not detached:
                self._keeper.stream_lost(name, attachment)
        if detached:
            await self._detach(name, context)

    @override
    async def ListTasks(self, request: agent_pb2.ListTasksRequest, context: ListContext) -> agent_pb2.ListTasksResponse:
        """Everything this agent looks after."""
        response = agent_pb2.ListTasksResponse(agent=self._agent, datacenter=self._datacenter)
        for kept in self._keeper.all():
            response.tasks.add(
                task=encode_task(kept.task),
                health=encode_health(kept.health.status),
                cpu_utilization=kept.cpu_utilization,
                attached=kept.attachment is not None,
                reason=kept.health.reason,
            )
        return response

    async def _begin(self, requests: Requests, attachment: StreamAttachment) -> str:
        """Takes the first message; the task's name. Raises AttachError."""
        try:
            async with asyncio.timeout(limits.LOCAL_FIRST_MESSAGE_S):
                first = await anext(requests, None)
        except TimeoutError:
            raise _bad(f"no task came within {limits.LOCAL_FIRST_MESSAGE_S:g} s: send it first") from None
        if first is None or first.WhichOneof("kind") != "task":
            raise _bad("the first message of a stream is the task")
        try:
            task = decode_task(first.task)
        except BadRecordError as error:
            raise _bad(str(error)) from error
        kept = self._keeper.attach(task, attachment)
        attachment.health = kept.health.status
        attachment.is_registered = self._session.is_settled(task.name)
        attachment.wake.set()
        return task.name

    async def _read(self, name: str, requests: Requests) -> bool:
        """Until the stream ends; whether by a detach."""
        pace = _Pace()
        async for request in requests:
            match request.WhichOneof("kind"):
                case "counters":
                    counters = request.counters
                    self._keeper.count(name, to_counters(counters.ok[:4], counters.error[:4], counters.in_flight))
                case "lame_duck":
                    self._keeper.lame_duck(name, request.lame_duck)
                case "detach" if request.detach:
                    return True
                case "task":
                    raise _bad(f"task {name} is registered on this stream already: open another for the next one")
                case _:
                    pass  # of a newer client
            await pace.message()
        return False

    async def _write(self, name: str, attachment: StreamAttachment, context: Context) -> bool:
        """Tells the task what changes, for ever. Raises AttachError when it is refused."""
        while True:
            await attachment.wake.wait()
            attachment.wake.clear()
            if attachment.error is not None:
                raise attachment.error
            await context.write(
                agent_pb2.AttachResponse(registered=attachment.is_registered, health=encode_health(attachment.health))
            )

    async def _detach(self, name: str, context: Context) -> None:
        """Deregisters, and tells the task when BNS has forgotten it (or that it could not be told in time)."""
        self._keeper.drop(name, "it detached")
        done = await self._session.until_settled(name, limits.DETACH_WAIT_S)
        error = "" if done else "no control-plane replica answered yet; the agent deregisters the task when one does"
        await context.write(agent_pb2.AttachResponse(registered=False, error=error))


def _bad(message: str) -> AttachError:
    return AttachError(code_number(grpc.StatusCode.INVALID_ARGUMENT), message)


async def _refuse(context: Context, error: AttachError) -> None:
    """Says why in a message, for clients that show it, and in the status, for those that look there."""
    await context.write(agent_pb2.AttachResponse(registered=False, error=str(error)))
    await context.abort(_CODES.get(error.code, grpc.StatusCode.UNKNOWN), str(error)[:1000])
