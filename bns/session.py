"""One agent's session on this replica: its liveness lease, and the task records it may write.

The agent's record at /bns-agent/DC/AGENT hangs on the lease and says which session holds it. Every write of a task is a
transaction that compares that record: a session that another one has followed, here or at another replica, can change
nothing any more. When the stream breaks, the lease is no longer renewed, and that is all: tasks stay.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from bns import limits
from bns.codec import decode_task, encode_agent, parse_agent_bytes, parse_record
from bns.errors import BadRecordError, RefusedError, UnavailableError, code_number
from bns.etcd.client import Client
from bns.etcd.errors import EtcdError, OutcomeUnknown
from bns.etcd.ops import KeyValue, compare_create, compare_mod, op_delete, op_put
from bns.etcd.v3 import rpc_pb2 as pb
from bns.keys import agent_key, task_key
from bns.model import Agent
from bns.names import parse_task
from bns.v1 import bns_pb2

log = logging.getLogger(__name__)

TRIES = 5
TASKS_PER_AGENT_MAX = 20_000
GOODBYE_PARALLEL = 16


@dataclass(frozen=True, slots=True)
class Hello:
    """Who wants a session; checked. `principal`: whom the transport says it is."""

    agent: str
    datacenter: str
    machine_id: str
    boot_id: str
    session_id: str
    principal: str

    @property
    def label(self) -> str:
        return f"{self.datacenter}/{self.agent}"


def refused(code: grpc.StatusCode, message: str) -> RefusedError:
    """An answer that is no."""
    return RefusedError(code_number(code), message)


class Session:
    """Made by the registry. `ended` is set when somebody else has taken the session over; `end_reason` says who."""

    def __init__(self, etcd: Client, hello: Hello, replica: str, ttl_s: int) -> None:
        self._etcd = etcd
        self._replica = replica
        self._ttl_s = ttl_s
        self._key = agent_key(hello.datacenter, hello.agent)
        self._lease = 0
        self.mod_revision = 0
        self._holder: asyncio.Task[None] | None = None
        self._attaching = asyncio.Lock()
        self.hello = hello
        self.names: set[str] = set()
        self.ended = asyncio.Event()
        self.end_reason: RefusedError | None = None

    # ---- liveness --------------------------------------------------------------------------------------------

    async def open(self) -> int:
        """Takes the agent's name, and over from its earlier session; the revision of that. Raises RefusedError."""
        revision = await self._attach(newcomer=True)
        self._holder = asyncio.create_task(self._hold(), name=f"bns-session-{self.hello.label}")
        return revision

    def end(self, reason: RefusedError) -> None:
        """Nothing is written from now on, and the lease is somebody else's."""
        if not self.ended.is_set():
            self.end_reason = reason
            self.ended.set()
        self.close()

    def close(self) -> None:
        """The stream is gone: the lease is no longer renewed."""
        if self._holder is not None and self._holder is not asyncio.current_task():
            self._holder.cancel()

    def check(self, seen: Agent | None, revision: int) -> None:
        """Ends the session when the agent's record, as of `revision`, is another session's."""
        if seen is not None and revision >= self.mod_revision and not self._is_ours(seen):
            self.end(self._superseded(seen))

    def _is_ours(self, record: Agent) -> bool:
        return record.session_id == self.hello.session_id and record.replica == self._replica

    def _superseded(self, by: Agent) -> RefusedError:
        return refused(
            grpc.StatusCode.ABORTED,
            f"agent {self.hello.label} has a newer session at replica {by.replica!r}: this one is over",
        )

    async def _hold(self) -> None:
        """Renews the lease, and makes a new one when it was lost while etcd was away."""
        rng = random.Random()
        while True:
            keeper = self._etcd.keep_alive(self._lease, self._ttl_s)
            try:
                await asyncio.wait({keeper})  # it ends when the lease is lost
            finally:
                keeper.cancel()
            log.warning("the liveness lease of agent %s was lost; making a new one", self.hello.label)
            delay_s = limits.BACKOFF_FIRST_S
            while not self.ended.is_set():
                try:
                    await self._attach(newcomer=False)
                    break
                except RefusedError as error:
                    self.end(error)
                    return
                except EtcdError:
                    await asyncio.sleep(delay_s * rng.uniform(0.5, 1.0))
                    delay_s = min(2 * delay_s, limits.BACKOFF_MAX_S)

    async def _attach(self, *, newcomer: bool) -> int:
        """Writes the agent's record under a lease that lives. Raises RefusedError, EtcdError."""
        missed = self.mod_revision
        async with self._attaching:
            if self.mod_revision != missed:
                return self.mod_revision  # it was done while we waited for our turn
            for _ in range(TRIES):
                kv = await self._etcd.get(self._key)
                if kv is not None:
                    self._admit(_agent_in(kv), newcomer=newcomer)
                lease = await self._lease_to_use(kv)
                try:
                    revision = await self._etcd.cas(
                        self._key, kv.mod_revision if kv else 0, self._record(lease), lease=lease
                    )
                except OutcomeUnknown:
                    continue  # read it, then decide
                if revision is not None:
                    self._lease, self.mod_revision = lease, revision
                    return revision
        raise refused(
            grpc.StatusCode.ABORTED, f"agent {self.hello.label} is being changed by others all the time: try again"
        )

    def _admit(self, present: Agent | None, *, newcomer: bool) -> None:
        """Raises RefusedError when the agent that is present is not the one that asks."""
        hello = self.hello
        if present is None or self._is_ours(present):
            return
        if not newcomer:
            raise self._superseded(present)
        if present.machine_id != hello.machine_id:
            raise refused(
                grpc.StatusCode.ALREADY_EXISTS,
                f"agent {hello.label} is alive on machine {present.machine_id!r}, and this is {hello.machine_id!r}:"
                f" give this agent another name, or end that one and wait {self._ttl_s} s",
            )
        if present.principal != hello.principal:
            raise refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"agent {hello.label} belongs to {present.principal!r}, and this is {hello.principal!r}:"
                f" use its certificate, or end it and wait {self._ttl_s} s",
            )

    async def _lease_to_use(self, kv: KeyValue | None) -> int:
        """The lease in the record, or the one we hold, while it lives; else a new one."""
        for lease in (kv.lease if kv is not None else 0, self._lease):
            if lease and (await self._etcd.time_to_live(lease)).TTL > 1:
                return lease
        return await self._etcd.grant(self._ttl_s)

    def _record(self, lease: int) -> bytes:
        hello = self.hello
        agent = Agent(
            name=hello.agent,
            datacenter=hello.datacenter,
            machine_id=hello.machine_id,
            boot_id=hello.boot_id,
            session_id=hello.session_id,
            lease_id=lease,
            replica=self._replica,
            principal=hello.principal,
            started_at=datetime.now(UTC),
        )
        return encode_agent(agent).SerializeToString()

    # ---- tasks -----------------------------------------------------------------------------------------------

    async def register(self, record: bns_pb2.TaskRecord) -> int:
        """Creates or updates a task; the revision at which it is visible.

        Raises BadRecordError, RefusedError, UnavailableError, EtcdError; then nothing was changed.
        """
        name = self._check(record)
        for _ in range(TRIES):
            kv, _ = await self._look(name)
            compares = [self._fence(), compare_mod(task_key(name), "==", kv.mod_revision if kv else 0)]
            present = None if kv is None else _task_in(kv)
            if present is not None and present.agent not in ("", self.hello.agent):
                compares.append(await self._may_take_over(present))
            wanted = self._stamped(record, present)
            if present is not None and kv is not None and wanted == present:
                self.names.add(name)
                return kv.mod_revision
            wanted.generation = max(wanted.generation, kv.version if kv else 0) + 1
            revision = await self._commit(compares, op_put(task_key(name), wanted.SerializeToString()))
            if revision:
                self.names.add(name)
                return revision
        raise _contended(name)

    async def deregister(self, name: str) -> int:
        """Removes a task; the revision at which it is gone. One that is not there is removed already. Raises as
        `register`."""
        self._check_datacenter(name)
        for _ in range(TRIES):
            kv, revision = await self._look(name)
            if kv is None:
                self.names.discard(name)
                return revision
            present = _task_in(kv)
            if present is not None and present.agent != self.hello.agent:
                raise refused(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"task {name} is held by agent {present.agent!r}: deregister it there",
                )
            compares = [self._fence(), compare_mod(task_key(name), "==", kv.mod_revision)]
            if done := await self._commit(compares, op_delete(task_key(name))):
                self.names.discard(name)
                return done
        raise _contended(name)

    async def goodbye(self) -> int:
        """Removes all tasks of this agent and ends its liveness; the revision of that. Raises as `register`."""
        limit = asyncio.Semaphore(GOODBYE_PARALLEL)
        revisions = await asyncio.gather(*(self._leave(name, limit) for name in sorted(self.names)))
        if self._holder is not None:
            self._holder.cancel()
        if (await self._etcd.txn([self._fence()], [op_delete(self._key)], idempotent=True)).succeeded:
            await self._etcd.revoke(self._lease)  # else it is a newer session's
        return max(revisions, default=self.mod_revision)

    async def _leave(self, name: str, limit: asyncio.Semaphore) -> int:
        async with limit:
            try:
                return await self.deregister(name)
            except RefusedError as error:
                if self.ended.is_set():
                    raise
                log.info("goodbye of agent %s: %s", self.hello.label, error)
                return 0  # somebody else's by now

    def _check(self, record: bns_pb2.TaskRecord) -> str:
        task = decode_task(record)
        self._check_datacenter(task.name)
        if task.agent not in ("", self.hello.agent):
            raise refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"task {task.name} names agent {task.agent!r}, and this is {self.hello.agent!r}: leave it empty",
            )
        if record.ByteSize() > limits.RECORD_MAX_BYTES // 2:
            raise BadRecordError(f"task {task.name}: a record of {record.ByteSize()} bytes is too large: shorten it")
        if task.name not in self.names and len(self.names) >= TASKS_PER_AGENT_MAX:
            raise refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"task {task.name}: agent {self.hello.label} holds {len(self.names)} tasks already: use more agents",
            )
        return task.name

    def _check_datacenter(self, name: str) -> None:
        if parse_task(name).datacenter != self.hello.datacenter:
            raise refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"task {name} is not in {self.hello.datacenter!r}, the datacenter of agent {self.hello.agent!r}:"
                " register it with an agent there",
            )

    def _stamped(self, record: bns_pb2.TaskRecord, present: bns_pb2.TaskRecord | None) -> bns_pb2.TaskRecord:
        """The record as it will be stored. What a newer agent put into it and we do not know stays in it."""
        wanted = bns_pb2.TaskRecord()
        wanted.CopyFrom(record)
        wanted.ClearField("deleted_at")
        wanted.agent = self.hello.agent
        wanted.machine = self.hello.machine_id
        wanted.principal.identity = self.hello.principal
        wanted.generation = present.generation if present is not None else 0
        return wanted

    async def _may_take_over(self, present: bns_pb2.TaskRecord) -> pb.Compare:
        """What must still hold when a task is taken from another agent. Raises RefusedError when that one lives."""
        key = agent_key(self.hello.datacenter, present.agent)
        if await self._etcd.get(key) is not None:
            raise refused(
                grpc.StatusCode.ALREADY_EXISTS,
                f"task {present.name} is held by agent {present.agent!r}, which is alive (machine {present.machine!r}):"
                " deregister it there, or choose another name",
            )
        return compare_create(key, "==", 0)

    def _fence(self) -> pb.Compare:
        return compare_mod(self._key, "==", self.mod_revision)

    async def _look(self, name: str) -> tuple[KeyValue | None, int]:
        """The stored task, and etcd's revision. Makes sure that the agent's record is still this session's."""
        if self.end_reason is not None:
            raise self.end_reason
        # What is written afterwards is fenced: the two need not be of one moment.
        tasks, agent = await asyncio.gather(self._etcd.range(task_key(name)), self._etcd.get(self._key))
        if agent is None:
            # Lapsed or removed by hand; the stream lives, so the agent does.
            await self._attach(newcomer=False)
        elif agent.mod_revision != self.mod_revision:
            self._admit_change(agent)
        return (tasks.kvs[0] if tasks.kvs else None), tasks.header.revision

    def _admit_change(self, kv: KeyValue) -> None:
        present = _agent_in(kv)
        if present is not None and self._is_ours(present):
            self.mod_revision = kv.mod_revision  # ours, by a write whose answer was lost
            return
        if kv.mod_revision > self.mod_revision:
            error = refused(
                grpc.StatusCode.ABORTED, f"the record of agent {self.hello.label} was replaced: this session is over"
            )
            self.end(error if present is None else self._superseded(present))
            raise self.end_reason or error

    async def _commit(self, compares: Sequence[pb.Compare], operation: pb.RequestOp) -> int:
        """The revision; 0: somebody was faster or the answer was lost, look again."""
        try:
            response = await self._etcd.txn(compares, [operation])
        except OutcomeUnknown:
            return 0
        return response.header.revision if response.succeeded else 0


def _agent_in(kv: KeyValue) -> Agent | None:
    try:
        return parse_agent_bytes(kv.value)
    except BadRecordError:
        return None  # quarantined; whoever says hello replaces it


def _task_in(kv: KeyValue) -> bns_pb2.TaskRecord | None:
    """None: nobody can read it, so nobody holds it."""
    try:
        record = parse_record(kv.value)
        decode_task(record)
    except BadRecordError:
        return None
    return record


def _contended(name: str) -> UnavailableError:
    return UnavailableError(
        f"task {name} is being changed by others all the time, or etcd's answers are lost: try again"
    )
