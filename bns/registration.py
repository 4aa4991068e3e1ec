"""An agent's side of Register: a session that lasts for ever, and the tasks that shall be registered.

What is wanted is kept here and told again to whichever replica the session moves to, so that a caller says once what it
wants. Refusals are answers and go to the caller; everything else is tried again with jittered back-off.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from bns import limits
from bns.client import Replicas
from bns.codec import decode_task, encode_task
from bns.errors import BadRecordError, RefusedError, UnavailableError, code_number
from bns.model import Task
from bns.retry import Backoff
from bns.transport import Tls
from bns.v1 import bns_pb2

log = logging.getLogger(__name__)

WELCOME_TIMEOUT_S = 10.0
# A session that ended sooner says that something is wrong, such as two agents of one name: the next tries come slower.
STABLE_S = 5.0
_UNAVAILABLE = code_number(grpc.StatusCode.UNAVAILABLE)
_ABORTED = code_number(grpc.StatusCode.ABORTED)
_TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
)

Call = grpc.aio.StreamStreamCall[bns_pb2.RegisterRequest, bns_pb2.RegisterResponse]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the agent is. Adoption goes by (machine_id, boot_id); `session_id` is this process's own."""

    agent: str
    datacenter: str
    machine_id: str
    boot_id: str
    session_id: str = field(default_factory=lambda: uuid.uuid4().hex)


def machine_id() -> str:
    """This machine's id; one that does not outlive a boot where there is none."""
    try:
        found = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        found = ""
    return found or boot_id()


def boot_id() -> str:
    """The kernel's id of this boot (Linux); elsewhere the hardware address stands in."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{uuid.getnode():x}"


@dataclass(slots=True, eq=False)
class _Operation:
    """One thing to tell BNS. `record` None: deregister `name`; `goodbye`: end the session."""

    name: str
    record: bns_pb2.TaskRecord | None = None
    goodbye: bool = False
    answer: "asyncio.Future[int] | None" = None

    def request(self, request_id: int) -> bns_pb2.RegisterRequest:
        if self.goodbye:
            return bns_pb2.RegisterRequest(request_id=request_id, goodbye=True)
        if self.record is None:
            return bns_pb2.RegisterRequest(request_id=request_id, deregister=self.name)
        return bns_pb2.RegisterRequest(request_id=request_id, register=self.record)

    def resolve(self, revision: int) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(revision)

    def fail(self, error: Exception) -> bool:
        """Whether somebody was waiting to hear it."""
        if self.answer is None or self.answer.done():
            return False
        self.answer.set_exception(error)
        return True


@dataclass(slots=True)
class Callbacks:
    """Called in the event loop. `on_welcome(adopted)`: a session stands, and BNS holds these for the agent.
    `on_refused(name, error)`: a task that was registered before is refused on re-attachment, and given up."""

    on_welcome: Callable[[Sequence[Task]], None] = lambda _: None
    on_refused: Callable[[str, RefusedError], None] = lambda _name, _error: None


class Registration:
    """A direct session with the control plane. Use as an async context manager, or `start` and `close`."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        identity: Identity,
        *,
        tls: Tls | None = None,
        callbacks: Callbacks | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._replicas = Replicas(addresses, tls, rng)
        self._identity = identity
        self._callbacks = callbacks or Callbacks()
        self._wanted: dict[str, bns_pb2.TaskRecord] = {}
        self._pending: dict[str, _Operation] = {}
        self._in_flight: dict[int, _Operation] = {}
        self._next_id = 1
        self._wake = asyncio.Event()
        self._attached = asyncio.Event()
        self._failed: RefusedError | None = None
        self._tried = asyncio.Event()  # a first hello was answered, one way or the other
        self._problem = "no replica was asked yet"
        self._task: asyncio.Task[None] | None = None
        self.adopted: tuple[Task, ...] = ()

    @property
    def attached(self) -> bool:
        """Whether a session stands now."""
        return self._attached.is_set()

    @property
    def problem(self) -> str:
        """Why no session stands, or why the last one ended."""
        return self._problem

    @property
    def replica(self) -> str:
        """The address of the replica that is used or tried now."""
        return self._replicas.current

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Attaches in the background, for ever."""
        self._task = asyncio.create_task(self._run(), name=f"bns-registration-{self._identity.agent}")

    async def wait_attached(self, timeout_s: float) -> Sequence[Task]:
        """The adopted tasks, when the first session stands. Raises RefusedError when it is refused (it goes on being
        tried), UnavailableError after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._tried.wait()
        except TimeoutError as error:
            raise UnavailableError(f"no control plane answered in {timeout_s:g} s: {self._problem}") from error
        if self._failed is not None:
            raise self._failed
        return self.adopted

    async def register(self, task: Task, timeout_s: float = 10.0) -> int:
        """Registers or updates a task, now and after every re-attachment; the revision at which it is visible.

        Raises RefusedError (then it is given up), BadRecordError, UnavailableError after `timeout_s` (then it goes on
        being tried).
        """
        record = encode_task(task)
        decode_task(record)
        self._wanted[task.name] = record
        return await self._submit(_Operation(task.name, record), timeout_s)

    async def deregister(self, name: str, timeout_s: float = 10.0) -> int:
        """Removes a task. Raises as `register`."""
        self._wanted.pop(name, None)
        return await self._submit(_Operation(name), timeout_s)

    async def goodbye(self, timeout_s: float = 10.0) -> int:
        """Removes all tasks of this agent and ends the session for good. Raises as `register`."""
        self._wanted.clear()
        for operation in self._pending.values():
            operation.fail(UnavailableError("the agent is saying goodbye"))
        self._pending.clear()
        try:
            return await self._submit(_Operation("", goodbye=True), timeout_s)
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the session without a goodbye: the tasks stay."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for operation in [*self._pending.values(), *self._in_flight.values()]:
            operation.fail(UnavailableError("the registration was closed"))
        await self._replicas.close()

    async def _submit(self, operation: _Operation, timeout_s: float) -> int:
        operation.answer = asyncio.get_running_loop().create_future()
        former = self._pending.pop(operation.name, None)
        if former is not None:
            former.fail(RefusedError(_ABORTED, f"{operation.name}: a later request took this one's place"))
        self._pending[operation.name] = operation
        self._wake.set()
        done, _ = await asyncio.wait({operation.answer}, timeout=timeout_s)
        if not done:
            operation.answer = None
            raise UnavailableError(
                f"{operation.name or 'goodbye'}: no control plane acknowledged it in {timeout_s:g} s: {self._problem}"
            )
        return operation.answer.result()

    # ---- the session -----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        backoff = Backoff(self._replicas.rng)
        loop = asyncio.get_running_loop()
        while True:
            address = self._replicas.current
            started_s = loop.time()
            try:
                await self._session()
                self._problem = f"{address}: the stream ended"
            except grpc.aio.AioRpcError as error:
                self._problem = f"{address}: {error.details() or error.code().name}"
                if error.code() not in _TRANSIENT:
                    self._failed = RefusedError(code_number(error.code()), error.details() or error.code().name)
                    self._tried.set()
            except TimeoutError:
                self._problem = f"{address}: no welcome in {WELCOME_TIMEOUT_S:g} s"
            if self._attached.is_set():
                log.warning("agent %s lost its session (%s) and attaches anew", self._identity.agent, self._problem)
                if loop.time() - started_s > STABLE_S:
                    backoff.reset()
            self._attached.clear()
            self._requeue_all()
            self._replicas.rotate(address)
            await asyncio.sleep(backoff.delay_s())

    async def _session(self) -> None:
        """One stream, until it ends. Raises AioRpcError, TimeoutError."""
        call = self._replicas.stub().Register()  # type: ignore[call-arg]  # we write to the call itself
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                await call.write(bns_pb2.RegisterRequest(hello=self._hello()))
                first = await call.read()
            if not isinstance(first, bns_pb2.RegisterResponse):
                await call.code()  # the stream ended: let its status be raised
                return
            self._welcome(first.welcome)
            writer = asyncio.create_task(self._write(call))
            try:
                # Not `async for`: a call is either read or iterated, and the welcome was read.
                while isinstance(response := await call.read(), bns_pb2.RegisterResponse):
                    self._on_ack(response)
                await call.code()
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        finally:
            call.cancel()

    def _hello(self) -> bns_pb2.RegisterHello:
        who = self._identity
        return bns_pb2.RegisterHello(
            agent=who.agent,
            datacenter=who.datacenter,
            machine_id=who.machine_id,
            boot_id=who.boot_id,
            session_id=who.session_id,
        )

    def _welcome(self, welcome: bns_pb2.RegisterWelcome) -> None:
        self.adopted = tuple(_good(welcome.adopted))
        for name, record in self._wanted.items():
            if name not in self._pending:
                self._pending[name] = _Operation(name, record)
        self._failed = None
        self._attached.set()
        self._tried.set()
        self._wake.set()
        self._callbacks.on_welcome(self.adopted)

    async def _write(self, call: Call) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                operation = self._pending.pop(next(iter(self._pending)))
                number, self._next_id = self._next_id, self._next_id + 1
                self._in_flight[number] = operation
                await call.write(operation.request(number))

    def _on_ack(self, response: bns_pb2.RegisterResponse) -> None:
        operation = self._in_flight.pop(response.request_id, None)
        if operation is None:
            return
        ack = response.ack
        if ack.code == 0:
            operation.resolve(ack.revision)
            return
        self._problem = f"{self._replicas.current}: {ack.message}"
        if ack.code in (_UNAVAILABLE, _ABORTED):
            delay_s = self._replicas.rng.uniform(limits.BACKOFF_FIRST_S, 10 * limits.BACKOFF_FIRST_S)
            asyncio.get_running_loop().call_later(delay_s, self._requeue, operation)
            return
        self._give_up(operation, RefusedError(ack.code, ack.message))

    def _give_up(self, operation: _Operation, error: RefusedError) -> None:
        if self._wanted.get(operation.name) is operation.record:
            self._wanted.pop(operation.name, None)
        if not operation.fail(error) and operation.record is not None:
            log.warning("task %s is refused and given up: %s", operation.name, error)
            self._callbacks.on_refused(operation.name, error)

    def _requeue(self, operation: _Operation) -> None:
        """Unless something newer is to be told about the same name."""
        if operation.name in self._pending or operation.record is not self._wanted.get(operation.name):
            operation.fail(RefusedError(_ABORTED, f"{operation.name}: a later request took this one's place"))
            return
        self._pending[operation.name] = operation
        self._wake.set()

    def _requeue_all(self) -> None:
        in_flight, self._in_flight = list(self._in_flight.values()), {}
        for operation in in_flight:
            self._requeue(operation)


def _good(records: Sequence[bns_pb2.TaskRecord]) -> list[Task]:
    found = []
    for record in records:
        try:
            found.append(decode_task(record))
        except BadRecordError as error:
            log.warning("BNS holds a record for this agent that is left alone: %s", error)
    return found
