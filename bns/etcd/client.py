"""A thin asyncio client of etcd v3: what this project needs of it, and nothing else.

`docs/adr` says why it is our own. It goes on where others give up: a watch survives restarts and hung members, a
mirror survives everything, and nothing is sent twice unless that is safe.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

import grpc
from grpc import aio

from bns.etcd import election, methods
from bns.etcd import lease as leases
from bns.etcd.election import Leadership
from bns.etcd.errors import EtcdError, Unavailable, error_of
from bns.etcd.mirror import Mirror, MirrorSpec, OnBatch, OnSnapshot
from bns.etcd.ops import KeyValue, compare_mod, op_put
from bns.etcd.pool import Pool
from bns.etcd.scan import PAGE, scan
from bns.etcd.v3 import rpc_pb2 as pb
from bns.etcd.watch import Batch, Watcher, WatchSpec, check_spec


class Client:
    """One client of one etcd cluster. All methods raise EtcdError and its kinds (bns.etcd.errors).

    `endpoints`: HOST:PORT of the members. `credentials`: TLS; None: plain text. `timeout_s`: a call's whole deadline.
    `attempt_timeout_s`: how long one member may take before the next one is asked.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        credentials: grpc.ChannelCredentials | None = None,
        user: str | None = None,
        password: str | None = None,
        timeout_s: float = 5.0,
        attempt_timeout_s: float = 1.0,
    ) -> None:
        self._pool = Pool(
            endpoints,
            credentials=credentials,
            login=(user, password or "") if user else None,
            timeout_s=timeout_s,
            attempt_timeout_s=attempt_timeout_s,
        )
        self._keepers: dict[int, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls, watches and renewals. Leases are left to expire."""
        keepers = list(self._keepers.values())
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await self._pool.close()

    @property
    def endpoints(self) -> Sequence[str]:
        """HOST:PORT of the members."""
        return tuple(member.target for member in self._pool.members)

    @property
    def current_endpoint(self) -> str:
        """The member that is asked now."""
        return self._pool.member.target

    def silent_s(self) -> float | None:
        """Seconds since etcd last answered anything (a running watch hears it every heartbeat); None: never yet."""
        return self._pool.silent_s()

    # Keys --------------------------------------------------------------------------------------------------------

    async def range(
        self, key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0, serializable: bool = False
    ) -> pb.RangeResponse:
        """Keys in [key, end), linearizable unless `serializable`."""
        request = pb.RangeRequest(key=key, range_end=end, limit=limit, revision=revision, serializable=serializable)
        return await self._pool.call(methods.RANGE, request, idempotent=True)

    async def get(self, key: bytes, *, revision: int = 0) -> KeyValue | None:
        """One key, linearizable; None when it does not exist."""
        response = await self.range(key, revision=revision)
        return response.kvs[0] if response.kvs else None

    async def scan(
        self, prefix: bytes, page: int = PAGE, revision: int = 0, *, keys_only: bool = False
    ) -> tuple[list[KeyValue], int]:
        """All keys under `prefix` at one revision, read in pages. -> (keys, revision)"""
        return await scan(self._pool, prefix, page=page, revision=revision, keys_only=keys_only)

    async def put(self, key: bytes, value: bytes, lease: int = 0, *, idempotent: bool = False) -> int:
        """Write a key. -> the revision. `idempotent`: we alone write it, so that it may be sent again when an answer
        is lost; otherwise that raises OutcomeUnknown."""
        request = pb.PutRequest(key=key, value=value, lease=lease)
        return (await self._pool.call(methods.PUT, request, idempotent=idempotent)).header.revision

    async def delete(self, key: bytes, end: bytes = b"", *, idempotent: bool = False) -> int:
        """Delete a key, or all in [key, end). -> how many there were. `idempotent`: as for put."""
        request = pb.DeleteRangeRequest(key=key, range_end=end)
        return (await self._pool.call(methods.DELETE_RANGE, request, idempotent=idempotent)).deleted

    async def txn(
        self,
        compare: Sequence[pb.Compare],
        success: Sequence[pb.RequestOp],
        failure: Sequence[pb.RequestOp] = (),
        *,
        idempotent: bool = False,
    ) -> pb.TxnResponse:
        """All of `success` when all of `compare` hold, else all of `failure` (see bns.etcd.ops).

        Raises ValueError when nothing would be written in either case: an etcd before 3.5.6 dies of a transaction that
        only reads when its caller's deadline passes meanwhile (etcd issue 14110), so read with `range`.
        """
        if all(operation.HasField("request_range") for operation in (*success, *failure)):
            raise ValueError("a transaction that only reads may end the etcd member: use range")
        request = pb.TxnRequest(compare=compare, success=success, failure=failure)
        return await self._pool.call(methods.TXN, request, idempotent=idempotent)

    async def cas(self, key: bytes, mod_revision: int, value: bytes, lease: int = 0) -> int | None:
        """Write `key` if its last change was at `mod_revision` (0: it must not exist). -> the new revision, or None.

        Raises OutcomeUnknown when the answer was lost: read before trying again.
        """
        response = await self.txn([compare_mod(key, "==", mod_revision)], [op_put(key, value, lease)])
        return response.header.revision if response.succeeded else None

    async def compact(self, revision: int, *, physical: bool = False) -> None:
        """Forget the history before `revision`. `physical`: wait until it is gone from the disk."""
        request = pb.CompactionRequest(revision=revision, physical=physical)
        await self._pool.call(methods.COMPACT, request, idempotent=True)

    # Leases ------------------------------------------------------------------------------------------------------

    async def grant(self, ttl_s: int) -> int:
        """A new lease. -> its id. (Sent twice, the one nobody knows of expires.)"""
        response = await self._pool.call(methods.LEASE_GRANT, pb.LeaseGrantRequest(TTL=ttl_s), idempotent=True)
        return response.ID

    async def revoke(self, lease: int) -> None:
        """End a lease and what hangs on it, and its renewal. No error when it is gone already."""
        keeper = self._keepers.pop(lease, None)
        if keeper is not None:
            keeper.cancel()
        try:
            await self._pool.call(methods.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease), idempotent=True)
        except EtcdError as error:
            if "lease not found" not in str(error):
                raise

    async def time_to_live(self, lease: int, *, keys: bool = False) -> pb.LeaseTimeToLiveResponse:
        """What is left of a lease: TTL in seconds, -1 when it is gone; with `keys`, what hangs on it."""
        request = pb.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        return await self._pool.call(methods.LEASE_TIME_TO_LIVE, request, idempotent=True)

    def keep_alive(self, lease: int, ttl_s: float, on_lost: Callable[[int], None] | None = None) -> asyncio.Task[None]:
        """Renew `lease`, which was just granted for `ttl_s`, until the task is cancelled or the lease is lost. Then
        `on_lost(lease)` is called once and the task ends."""
        keeper = asyncio.create_task(leases.keep(self._pool, lease, ttl_s, on_lost), name=f"etcd-lease-{lease:x}")
        self._keepers[lease] = keeper
        keeper.add_done_callback(lambda done: self._forget_keeper(lease, done))
        return keeper

    def _forget_keeper(self, lease: int, keeper: asyncio.Task[None]) -> None:
        if self._keepers.get(lease) is keeper:
            del self._keepers[lease]

    # Watching ----------------------------------------------------------------------------------------------------

    async def watch(
        self, key: bytes, end: bytes = b"", start_revision: int = 0, heartbeat_s: float = 2.0
    ) -> AsyncGenerator[Batch, None]:
        """Changes in [key, end) from `start_revision` (0: now) on, for ever, over restarts and failovers.

        The first batch is a progress one: the watch stands. Raises Compacted when the history is gone.
        """
        spec = check_spec(WatchSpec(key, end, start_revision, heartbeat_s))
        async with aclosing(Watcher(self._pool, spec).batches()) as batches:
            async for batch in batches:
                yield batch

    def new_mirror(self, spec: MirrorSpec, on_snapshot: OnSnapshot, on_batch: OnBatch) -> Mirror:
        """As `mirror`, to be run by the caller, who can look at its `stats`."""
        return Mirror(self._pool, spec, on_snapshot, on_batch)

    async def mirror(
        self, prefix: bytes, on_snapshot: OnSnapshot, on_batch: OnBatch, *, check_interval_s: float = 300.0
    ) -> None:
        """List and watch `prefix` until cancelled. `on_snapshot(kvs, revision)` replaces all that was known,
        `on_batch(batch)` changes it. When etcd is away, at the start too, nothing is called and nothing raised."""
        await self.new_mirror(MirrorSpec(prefix, check_interval_s=check_interval_s), on_snapshot, on_batch).run()

    # Leadership --------------------------------------------------------------------------------------------------

    async def campaign(self, prefix: bytes, value: bytes, lease: int) -> Leadership:
        """Wait until we lead. Raises LeaseLost when the lease, which the caller keeps alive, ends first."""
        return await election.campaign(self._pool, prefix, value, lease)

    async def resign(self, leadership: Leadership) -> bool:
        """Give up leadership at once. -> False when it had ended already."""
        return await election.resign(self._pool, leadership)

    async def leader(self, prefix: bytes) -> Leadership | None:
        """Who leads now."""
        return await election.leader(self._pool, prefix)

    # Maintenance -------------------------------------------------------------------------------------------------

    async def status(self) -> pb.StatusResponse:
        """Version, database size and raft state of the current member."""
        return await self._pool.call(methods.STATUS, pb.StatusRequest(), idempotent=True)

    async def statuses(self) -> Mapping[str, pb.StatusResponse | EtcdError]:
        """The status of every member, by endpoint: the answer, or why there is none."""
        members = self._pool.members
        answers = await asyncio.gather(*(self._status_at(member.target) for member in members))
        return {member.target: answer for member, answer in zip(members, answers, strict=True)}

    async def _status_at(self, target: str) -> pb.StatusResponse | EtcdError:
        member = next(member for member in self._pool.members if member.target == target)
        try:
            token = await self._pool.token(member)
            metadata = self._pool.metadata(token)
            return await member.unary(methods.STATUS, pb.StatusRequest(), self._pool.attempt_timeout_s, metadata)
        except aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                return Unavailable(f"etcd does not answer at {target}: {error.details()}")
            return error_of(f"Status at {target}", error.code(), error.details() or "")

    async def alarms(self) -> Sequence[pb.AlarmMember]:
        """The alarms that are raised: NOSPACE stops all writes, CORRUPT means what it says."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        return (await self._pool.call(methods.ALARM, request, idempotent=True)).alarms
