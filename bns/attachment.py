"""A server's side of its node agent's socket: attach for ever, report counters, go lame, detach.

A daemon thread with blocking gRPC does the work, so that threaded servers, asyncio servers and plain scripts use it alike;
its methods are safe from any thread and, but for the ones that say so, return at once. An agent that is away, or is
restarted, is attached to again with jittered back-off; meanwhile the server serves on.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc

from bns.codec import decode_health, decode_task, encode_task
from bns.errors import AddressError, RefusedError, UnavailableError, code_number
from bns.model import HealthStatus, Task
from bns.retry import Backoff
from bns.transport import UNIX_PATH_MAX_BYTES, parse_addresses, sync_channel
from bns.v1 import agent_pb2, agent_pb2_grpc

log = logging.getLogger(__name__)

COUNTERS_PERIOD_S = 1.0
# A refusal may pass by itself: the lease of the agent that held the name lapses.
REFUSED_DELAY_S = 2.0


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests since the task started, by criticality (CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS, SHEDDABLE)."""

    ok: tuple[int, ...] = (0, 0, 0, 0)
    error: tuple[int, ...] = (0, 0, 0, 0)
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class AttachmentState:
    """`refusal`: why the agent or BNS does not take the task; empty otherwise. `problem`: why it is not attached."""

    attached: bool = False
    registered: bool = False
    health: HealthStatus = HealthStatus.UNKNOWN
    refusal: str = ""
    problem: str = "the agent was not asked yet"


def agent_target(address: str) -> str:
    """`unix:PATH`, a plain PATH, or HOST:PORT of a node agent, as gRPC dials it. Raises AddressError."""
    if address.startswith("/") or (address and ":" not in address):
        address = f"unix:{address}"
    if address.startswith("unix:"):
        if not 1 <= len(address.removeprefix("unix:").encode()) <= UNIX_PATH_MAX_BYTES:
            raise AddressError(f"agent socket {address[:200]!r}: its path has 1 to {UNIX_PATH_MAX_BYTES} bytes")
        return address
    return parse_addresses(address)[0]


class AgentAttachment:
    """`counters`: asked every `period_s` in the attachment's thread; should be quick and must not raise."""

    def __init__(
        self,
        agent: str,
        task: Task,
        *,
        counters: Callable[[], Counters] | None = None,
        period_s: float = COUNTERS_PERIOD_S,
        on_change: Callable[[AttachmentState], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._target = agent_target(agent)
        self._record = encode_task(task)
        decode_task(self._record)  # a bad task is the caller's mistake, and named at once
        self._counters = counters
        self._period_s = period_s
        self._on_change = on_change
        self._backoff = Backoff(rng or random.Random(), max_s=2.0)
        self._changed = threading.Condition()
        self._state = AttachmentState()
        self._wake = threading.Event()
        self._lame = False
        self._detaching = False
        self._closed = False
        self._deregistered = False
        self._cancel: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run, name=f"bns-attachment-{task.name}", daemon=True)

    @property
    def state(self) -> AttachmentState:
        """What the agent said last."""
        return self._state

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    def start(self) -> None:
        """Attaches in the background, for ever."""
        self._thread.start()

    def wait_registered(self, timeout_s: float) -> None:
        """Blocks until the task is registered. Raises RefusedError, or UnavailableError after `timeout_s`; it goes on
        being tried in either case."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.registered or self._state.refusal, timeout_s)
            state = self._state
        if state.registered:
            return
        if state.refusal:
            raise RefusedError(code_number(grpc.StatusCode.FAILED_PRECONDITION), state.refusal)
        raise UnavailableError(
            f"the agent at {self._target} did not register {self._record.name} in {timeout_s:g} s: {state.problem}"
        )

    async def registered(self, timeout_s: float) -> None:
        """As `wait_registered`, without blocking the event loop."""
        await asyncio.to_thread(self.wait_registered, timeout_s)

    def lame_duck(self) -> None:
        """Still serves, asks for no more: the agent reports DRAINING. Remembered over re-attachments."""
        self._lame = True
        self._wake.set()

    def detach(self, timeout_s: float = 5.0) -> bool:
        """Blocks until the agent has deregistered the task or `timeout_s` have passed; whether it has. It ends then."""
        if not self._thread.is_alive():
            return self._deregistered
        self._detaching = True
        self._wake.set()
        self._thread.join(timeout_s)
        self.close()
        return self._deregistered

    async def detached(self, timeout_s: float = 5.0) -> bool:
        """As `detach`, without blocking the event loop."""
        return await asyncio.to_thread(self.detach, timeout_s)

    def close(self) -> None:
        """Ends the attachment without detaching: the task stays registered."""
        self._closed = True
        self._wake.set()
        cancel = self._cancel
        if cancel is not None:
            cancel()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    # ---- in the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        with sync_channel(self._target) as channel:
            stub = agent_pb2_grpc.NodeAgentStub(channel)
            while True:
                problem = self._attach_once(stub)
                if self._is_over():
                    return  # whether or not the agent was there to be told
                before = self._state
                if before.attached:
                    log.warning("the agent at %s is lost (%s); attaching anew", self._target, problem)
                self._set(AttachmentState(health=before.health, refusal=before.refusal, problem=problem))
                self._wake.clear()
                if self._is_over():
                    return
                # A wake-up in between is a detach, a close or a lame duck: none needs to wait for the rest.
                self._wake.wait(REFUSED_DELAY_S if before.refusal else 0.01 + self._backoff.delay_s())

    def _is_over(self) -> bool:
        return self._closed or self._detaching

    def _attach_once(self, stub: "agent_pb2_grpc.NodeAgentStub") -> str:
        """One stream until it ends; why it did."""
        ended = threading.Event()
        try:
            call = stub.Attach(self._requests(ended))
            cancel: Callable[[], object] = call.cancel
            self._cancel = cancel
            if self._closed:
                cancel()
            for response in call:
                self._on_response(response)
            return "the agent ended the stream"
        except grpc.RpcError as error:
            return _problem(error)
        finally:
            self._cancel = None
            ended.set()
            self._wake.set()

    def _requests(self, ended: threading.Event) -> Iterator[agent_pb2.AttachRequest]:
        """What is told: the task, then counters each period, a change to lame duck, and the end."""
        yield agent_pb2.AttachRequest(task=self._record)
        told_lame = False
        while not ended.is_set() and not self._closed:
            if self._lame and not told_lame:
                told_lame = True
                yield agent_pb2.AttachRequest(lame_duck=True)
            if self._counters is not None:
                yield agent_pb2.AttachRequest(counters=_encode(self._counters()))
            if self._detaching:
                yield agent_pb2.AttachRequest(detach=True)
                return
            self._wake.wait(self._period_s)
            self._wake.clear()

    def _on_response(self, response: agent_pb2.AttachResponse) -> None:
        if self._detaching and not response.registered:
            self._deregistered = not response.error
            self._set(AttachmentState(attached=True, problem=response.error))
            return
        if response.error and response.error != self._state.refusal:
            log.error("task %s is refused: %s", self._record.name, response.error)
        if response.registered:
            self._backoff.reset()
        self._set(
            AttachmentState(True, response.registered, decode_health(response.health), response.error, problem="")
        )

    def _set(self, state: AttachmentState) -> None:
        with self._changed:
            changed, self._state = state != self._state, state
            self._changed.notify_all()
        if changed and self._on_change is not None:
            self._on_change(state)


def _problem(error: grpc.RpcError) -> str:
    """RpcErrors of a call say what happened; the class does not."""
    if isinstance(error, grpc.Call):
        return str(error.details() or error.code())
    return repr(error)


def _encode(counters: Counters) -> agent_pb2.TaskCounters:
    return agent_pb2.TaskCounters(ok=counters.ok, error=counters.error, in_flight=counters.in_flight)
