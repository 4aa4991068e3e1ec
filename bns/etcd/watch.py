"""A watch that outlives connections, members and restarts.

It resumes behind the last event seen. Silence is told from death by asking: after a quiet spell a progress request goes
out, and no answer to it declares the stream dead (HTTP/2 keepalive did not notice a hung member in 40 s). Progress
answers are a sign of life and nothing else: old servers send them out of order, so they never move the resume point.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc import aio

from bns.etcd.backoff import Backoff
from bns.etcd.errors import Compacted, EtcdError, PermissionDenied, error_of
from bns.etcd.methods import WATCH
from bns.etcd.pool import Member, Pool
from bns.etcd.v3 import rpc_pb2 as pb

if TYPE_CHECKING:
    from grpc.aio import StreamStreamCall

log = logging.getLogger(__name__)

# A catch-up message may be large and the line slow: each silent death doubles our patience, up to this.
PATIENCE_MAX_S = 30.0

_HOPELESS = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one or more whole revisions.

    `revision` is the resume point: everything up to it has been delivered. `progress`: no events, a sign of life.
    `resumed`: the first batch after the stream was lost and found again.
    """

    revision: int
    events: Sequence[pb.Event]
    progress: bool = False
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """What to watch. `start_revision` 0: from now on. `heartbeat_s`: quiet seconds before we ask for a sign of life."""

    key: bytes
    end: bytes = b""
    start_revision: int = 0
    heartbeat_s: float = 2.0
    prev_kv: bool = False
    deletes_only: bool = False


class _StreamLostError(Exception):
    """This stream is of no use any more; another one may be."""


class _SilentError(_StreamLostError):
    """The member accepts bytes and says nothing."""


class _Stream:
    """One watch stream, read with a heartbeat."""

    def __init__(self, call: "StreamStreamCall[pb.WatchRequest, pb.WatchResponse]", patience_s: float) -> None:
        self._call = call
        self._patience_s = patience_s
        self._read: asyncio.Future[object] | None = None
        self._created = False

    async def send(self, request: pb.WatchRequest) -> None:
        """Raises _SilentError when it cannot be sent in time."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._call.write(request)
        except TimeoutError as error:
            raise _SilentError(f"could not send in {self._patience_s:.1f} s") from error

    async def read(self) -> pb.WatchResponse:
        """The next response. Raises _StreamLostError, AioRpcError."""
        # Not wait_for: cancelling a read ends the whole call.
        self._read = asyncio.ensure_future(self._call.read())
        if not await self._wait():
            if not self._created:
                raise _SilentError(f"the watch was not created in {self._patience_s:.1f} s")
            await self.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
            if not await self._wait():
                raise _SilentError(f"no sign of life in {2 * self._patience_s:.1f} s")
        if self._read.cancelled():
            raise _StreamLostError("the channel was closed")
        response = self._read.result()
        if not isinstance(response, pb.WatchResponse):
            raise _StreamLostError("the stream ended")
        self._created = self._created or response.created
        return response

    async def _wait(self) -> bool:
        assert self._read is not None
        done, _ = await asyncio.wait({self._read}, timeout=self._patience_s)
        return bool(done)

    def close(self) -> None:
        """End the call."""
        if self._read is not None:
            self._read.cancel()
        self._call.cancel()


class Watcher:
    """See `batches`."""

    def __init__(self, pool: Pool, spec: WatchSpec) -> None:
        self._pool = pool
        self._spec = spec
        self._next = spec.start_revision
        self._resumed = False
        self._connected = True
        self._silences = 0
        self._token = ""
        self._denials = 0
        self._backoff = Backoff(pool.rng)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Yields for ever. Raises Compacted when the history behind the resume point is gone, PermissionDenied, and
        EtcdError when the client is closed or the request makes no sense."""
        while True:
            self._pool.check_open()
            member = self._pool.member
            stream = None
            try:
                self._token = await self._pool.token(member)
                stream = _Stream(member.stream(WATCH, self._pool.metadata(self._token)), self._patience_s())
                await stream.send(self._create_request())
                while True:
                    response = await stream.read()
                    self._pool.touch()
                    batch = self._accept(response)
                    if batch is not None:
                        yield batch
            except (aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError, _StreamLostError) as error:
                self._lose(member, error)
            finally:
                if stream is not None:
                    stream.close()
            await asyncio.sleep(self._backoff.next_s())

    def _patience_s(self) -> float:
        return min(self._spec.heartbeat_s * 2.0 ** min(self._silences, 10), max(PATIENCE_MAX_S, self._spec.heartbeat_s))

    def _create_request(self) -> pb.WatchRequest:
        return pb.WatchRequest(
            create_request=pb.WatchCreateRequest(
                key=self._spec.key,
                range_end=self._spec.end,
                start_revision=self._next,
                prev_kv=self._spec.prev_kv,
                filters=[pb.WatchCreateRequest.NOPUT] if self._spec.deletes_only else [],
                progress_notify=True,
                # Fragments make the replay of a backlog ten times slower.
                fragment=False,
            )
        )

    def _accept(self, response: pb.WatchResponse) -> Batch | None:
        if response.compact_revision:
            raise Compacted(response.compact_revision)
        if response.canceled:
            self._cancelled(response.cancel_reason)
        if response.created:
            self._backoff.reset()
            self._connected = True
            if not self._next:
                self._next = response.header.revision + 1
        elif not response.events:
            self._silences = 0
        if response.events:
            self._silences = 0
            self._denials = 0
            self._next = response.events[-1].kv.mod_revision + 1
        resumed, self._resumed = self._resumed, False
        return Batch(self._next - 1, response.events, progress=not response.events, resumed=resumed)

    def _cancelled(self, reason: str) -> None:
        if "permission denied" in reason or "auth token" in reason or "user name is empty" in reason:
            # A token that the member forgot looks the same as a missing permission: a fresh one tells them apart.
            self._denials += 1
            self._pool.forget_token(self._token)
            if not self._pool.has_login or self._denials > 2:
                raise PermissionDenied(f"etcd refused to watch {self._spec.key!r}: {reason[:200]}")
        raise _StreamLostError(reason[:200] or "cancelled by etcd")

    def _lose(self, member: Member, error: Exception) -> None:
        self._resumed = True
        if isinstance(error, _SilentError):
            self._silences += 1
        if isinstance(error, aio.AioRpcError):
            code, details = error.code(), error.details() or ""
            if not self._pool.forget_stale_token(self._token, error) and code in _HOPELESS:
                raise error_of(f"to watch {self._spec.key!r}", code, details) from error
        shown = error.details() if isinstance(error, aio.AioRpcError) else error
        # Once per outage, however long it lasts.
        level = logging.INFO if self._connected else logging.DEBUG
        self._connected = False
        log.log(
            level,
            "etcd watch of %r at %s was lost (%s); it resumes at revision %d",
            self._spec.key,
            member.target,
            shown,
            self._next,
        )
        self._pool.rotate(member)


def check_spec(spec: WatchSpec) -> WatchSpec:
    """`spec` itself. Raises EtcdError."""
    if not spec.heartbeat_s > 0:
        raise EtcdError(f"heartbeat_s is {spec.heartbeat_s}: it must be above 0")
    return spec
