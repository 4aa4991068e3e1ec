"""The agent's session with BNS: one Register stream to one control replica at a time, for ever.

When the replica fails, hangs or refuses, the next one is tried after a jittered delay; there the agent is recognised by
its session id, so that nothing changes for anybody else. What the ledger still wants is sent again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio

from agents import limits
from agents.backoff import Backoff
from agents.health.schedule import Rng
from agents.registration.ledger import Ledger, Outcome, Register
from agents.replicas import Ended, Replica, both, connect, converse
from bns.codec import decode_task, encode_task
from bns.errors import BadRecordError
from bns.model import Task
from bns.v1 import bns_pb2, bns_pb2_grpc

log = logging.getLogger(__name__)

Call = grpc.aio.StreamStreamCall[bns_pb2.RegisterRequest, bns_pb2.RegisterResponse]

# Apart from the ledger's, which count from 1.
_GOODBYE_ID = 1 << 63


class Listener(Protocol):
    """What the session tells."""

    def adopted(self, tasks: Sequence[Task]) -> None:
        """BNS holds these for this agent, and nobody here knows them."""

    def settled(self, outcome: Outcome) -> None:
        """BNS answered a request."""


class Session:
    """Keeps `ledger` and BNS in step. `hello` names the agent, its machine, boot and process."""

    def __init__(
        self, hello: bns_pb2.RegisterHello, replicas: Sequence[Replica], ledger: Ledger, listener: Listener, rng: Rng
    ) -> None:
        self._hello = hello
        self._replicas = list(replicas)
        self._ledger = ledger
        self._listener = listener
        self._backoff = Backoff(rng)
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._goodbye: asyncio.Event | None = None
        self._turn = 0
        self._complained = ""
        self.welcomed = asyncio.Event()
        self.replica: str | None = None  # which one it is registered with now
        self.problem = "no replica answered yet"
        self.sessions = 0

    def changed(self) -> None:
        """The ledger wants something new."""
        self._wake.set()

    async def run(self) -> None:
        """Registers for ever, or until the goodbye was heard; cancel it to end."""
        await converse(self._attempt, self._failed, self._backoff)

    async def goodbye(self) -> bool:
        """Deregisters all tasks and ends the session; False when no replica said yes in time."""
        # Without a session there is only the hope for one.
        timeout_s = limits.GOODBYE_TIMEOUT_S if self.replica is not None else limits.GOODBYE_DETACHED_S
        self._goodbye = asyncio.Event()
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._goodbye.wait()
        except TimeoutError:
            return False
        return True

    async def until_settled(self, name: str, timeout_s: float) -> bool:
        """Waits until BNS holds `name` as wanted, or no longer; whether it did in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._ledger.is_settled(name):
                    self._answered.clear()
                    await self._answered.wait()
        return self._ledger.is_settled(name)

    def is_settled(self, name: str) -> bool:
        """Whether BNS holds `name` as wanted, or no longer."""
        return self._ledger.is_settled(name)

    def _failed(self, problem: str) -> None:
        self.problem = f"{self._replicas[self._turn % len(self._replicas)].address}: {problem}"
        self._turn += 1
        if self._complained != self.problem:
            self._complained = self.problem
            log.warning("not registered with %s; trying the next replica", self.problem)

    async def _attempt(self) -> bool:
        """One session with the replica whose turn it is. True after a goodbye."""
        replica = self._replicas[self._turn % len(self._replicas)]
        await connect(replica, limits.CONNECT_TIMEOUT_S)
        call: Call = bns_pb2_grpc.BnsStub(replica.channel).Register()  # type: ignore[call-arg]  # written to, not iterated
        try:
            await call.write(bns_pb2.RegisterRequest(hello=self._hello))
            await self._welcome(call, replica)
            await both(self._read(call), self._write(call))
        finally:
            call.cancel()
            self.replica = None
            self._ledger.disconnected()
        return self._goodbye is not None and self._goodbye.is_set()

    async def _welcome(self, call: Call, replica: Replica) -> None:
        try:
            async with asyncio.timeout(limits.WELCOME_TIMEOUT_S):
                response = await call.read()
        except TimeoutError:
            raise Ended(f"did not welcome us within {limits.WELCOME_TIMEOUT_S:g} s") from None
        if not isinstance(response, bns_pb2.RegisterResponse):
            await _raise_status(call)
            raise Ended("ended the stream without a welcome")
        if response.WhichOneof("kind") != "welcome":
            # A refusal of the hello itself comes as an acknowledgement with its code.
            raise Ended(response.ack.message[:500] or "its first answer is not a welcome")
        self.replica, self.problem, self._complained = replica.address, "", ""
        self.sessions += 1
        self._backoff.reset()
        log.info("registered with %s", replica.address)
        held = list(_decoded(response.welcome))
        self._listener.adopted(self._ledger.connected(held, time.monotonic()))
        self.welcomed.set()

    async def _read(self, call: Call) -> None:
        while True:
            response = await call.read()
            if not isinstance(response, bns_pb2.RegisterResponse):
                await _raise_status(call)
                raise Ended("ended the stream")
            if response.WhichOneof("kind") != "ack":
                continue
            if response.request_id == _GOODBYE_ID and self._goodbye is not None:
                if response.ack.code:
                    raise Ended(f"refused our goodbye: {response.ack.message[:500]}")
                self._goodbye.set()
                return
            self._acked(response.request_id, response.ack)

    def _acked(self, request_id: int, ack: bns_pb2.RegisterAck) -> None:
        outcome = self._ledger.acked(request_id, ack.code, ack.message[:500], time.monotonic())
        if outcome is not None:
            self._listener.settled(outcome)
            self._wake.set()
            self._answered.set()

    async def _write(self, call: Call) -> None:
        while True:
            self._wake.clear()
            if self._goodbye is not None:
                await call.write(bns_pb2.RegisterRequest(request_id=_GOODBYE_ID, goodbye=True))
                await asyncio.Event().wait()  # until the reader sees the answer
            for request in self._ledger.take(time.monotonic()):
                if isinstance(request, Register):
                    message = bns_pb2.RegisterRequest(request_id=request.request_id, register=encode_task(request.task))
                else:
                    message = bns_pb2.RegisterRequest(request_id=request.request_id, deregister=request.name)
                await call.write(message)
            self._answered.set()  # what needed no request is settled too
            await self._until_due()

    async def _until_due(self) -> None:
        """Until the ledger has something to send. Raises Ended when the replica owes an answer for too long."""
        now = time.monotonic()
        due, oldest = self._ledger.next_due(), self._ledger.oldest_unanswered_s()
        deadline = None if oldest is None else oldest + limits.ACK_TIMEOUT_S
        if deadline is not None and deadline <= now:
            raise Ended(f"did not answer within {limits.ACK_TIMEOUT_S:g} s")
        first = min((at for at in (due, deadline) if at is not None), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if first is None else max(first - now, 0.0)):
                await self._wake.wait()


async def _raise_status(call: Call) -> None:
    """Raises what the peer ended the stream with, unless that was OK."""
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        raise Ended(f"{code.name}: {(await call.details() or '')[:500]}")


def _decoded(welcome: bns_pb2.RegisterWelcome) -> list[Task]:
    tasks: list[Task] = []
    for record in welcome.adopted[: limits.TASKS_MAX]:
        try:
            tasks.append(decode_task(record))
        except BadRecordError as error:
            log.error("not adopting a bad record: %s", error)
    return tasks
