"""Asking BNS: resolve, list, watch, and a view of one's own that answers in a microsecond.

A client knows several replicas and asks one until it fails. What a server says is checked like anything else from
outside: an endpoint that makes no sense is dropped and counted, the rest is used.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from bns import limits
from bns.codec import decode_endpoint
from bns.errors import BadRecordError, NotFoundError, RefusedError, UnavailableError, code_number
from bns.model import Endpoint
from bns.names import check_prefix
from bns.retry import Backoff
from bns.transport import Tls, aio_channel, parse_addresses
from bns.v1 import bns_pb2, bns_pb2_grpc

log = logging.getLogger(__name__)

ATTEMPT_TIMEOUT_S = 2.0
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


@dataclass(frozen=True, slots=True)
class Update:
    """What a watch tells, to be applied as a whole. `snapshot`: `upserted` is everything there is."""

    revision: int
    snapshot: bool
    upserted: tuple[Endpoint, ...]
    removed: tuple[str, ...]


class Replicas:
    """Channels to the replicas of the control plane, opened when first used; one of them is the current one."""

    def __init__(
        self, addresses: str | Sequence[str], tls: Tls | None = None, rng: random.Random | None = None
    ) -> None:
        text = addresses if isinstance(addresses, str) else ",".join(addresses)
        self.rng = rng or random.Random()
        found = list(parse_addresses(text))
        # Clients spread over the replicas.
        self.rng.shuffle(found)
        self._addresses = tuple(found)
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._current = 0

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def current(self) -> str:
        """The address that is used now."""
        return self._addresses[self._current]

    def stub(self) -> "bns_pb2_grpc.BnsAsyncStub":
        """The service at the current address."""
        if self.current not in self._channels:
            self._channels[self.current] = aio_channel(self.current, self._tls)
        return bns_pb2_grpc.BnsStub(self._channels[self.current])

    def rotate(self, failed: str) -> None:
        """`failed` did not answer: the next one becomes the current one."""
        if failed == self.current:
            self._current = (self._current + 1) % len(self._addresses)

    async def close(self) -> None:
        """Ends all calls."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close(None)


class BnsClient:
    """Reads of BNS. `addresses`: "A,B" or a sequence. Raises AddressError, TlsError."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        tls: Tls | None = None,
        timeout_s: float = limits.CALL_TIMEOUT_S,
        rng: random.Random | None = None,
    ) -> None:
        self._replicas = Replicas(addresses, tls, rng)
        self._timeout_s = timeout_s
        self.bad_endpoints = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all calls."""
        await self._replicas.close()

    async def resolve(self, name: str, *, linearizable: bool = False) -> tuple[Endpoint, ...]:
        """The endpoints of a task or a job. Raises NotFoundError, RefusedError, UnavailableError."""
        request = bns_pb2.ResolveRequest(name=name, linearizable=linearizable)
        response = await self._call(lambda stub, timeout_s: stub.Resolve(request, timeout=timeout_s))
        return self._endpoints(response.endpoints)

    async def list_tasks(self, prefix: str, *, page_size: int = 0) -> tuple[Endpoint, ...]:
        """All endpoints under a prefix, at one revision. Raises RefusedError, UnavailableError."""
        while True:
            try:
                return await self._list_once(prefix, page_size)
            except RefusedError as error:
                # Compaction went past the pages' revision: start again at a newer one.
                if error.code != code_number(grpc.StatusCode.OUT_OF_RANGE):
                    raise

    async def _list_once(self, prefix: str, page_size: int) -> tuple[Endpoint, ...]:
        found: list[Endpoint] = []
        request = bns_pb2.ListRequest(prefix=prefix, page_size=page_size)
        while True:
            response = await self._call(lambda stub, timeout_s: stub.List(request, timeout=timeout_s))
            found += self._endpoints(response.endpoints)
            if not response.next_page_token:
                return tuple(found)
            request.page_token = response.next_page_token

    async def watch(self, prefix: str) -> AsyncIterator[Update]:
        """A snapshot, then changes, for ever: it goes on at another replica where it was lost.

        Raises RefusedError when the request itself is refused.
        """
        backoff = Backoff(self._replicas.rng)
        request = bns_pb2.WatchRequest(prefix=prefix)
        while True:
            address = self._replicas.current
            call = self._replicas.stub().Watch(request)
            try:
                async for response in call:
                    backoff.reset()
                    request.start_revision = response.revision
                    yield Update(
                        response.revision,
                        response.snapshot,
                        self._endpoints(response.upserted),
                        tuple(response.removed),
                    )
                problem = "the stream ended"
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise _refusal(error) from error
                problem = error.details() or error.code().name
            finally:
                call.cancel()
            log.info("the watch of %s at %s was lost (%s) and goes on elsewhere", prefix, address, problem)
            self._replicas.rotate(address)
            await asyncio.sleep(backoff.delay_s())

    async def _call(
        self,
        start: "Callable[[bns_pb2_grpc.BnsAsyncStub, float], grpc.aio.UnaryUnaryCall[_Request, _Response]]",
    ) -> _Response:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._timeout_s
        backoff = Backoff(self._replicas.rng)
        while True:
            address = self._replicas.current
            left_s = deadline_s - loop.time()
            try:
                return await start(self._replicas.stub(), max(min(left_s, ATTEMPT_TIMEOUT_S), 0.05))
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise _refusal(error) from error
                self._replicas.rotate(address)
                delay_s = backoff.delay_s()
                if loop.time() + delay_s >= deadline_s:
                    raise UnavailableError(
                        f"no control plane answered in {self._timeout_s:g} s;"
                        f" the last one asked was {address}: {error.details() or error.code().name}"
                    ) from error
                await asyncio.sleep(delay_s)

    def _endpoints(self, messages: Iterable[bns_pb2.Endpoint]) -> tuple[Endpoint, ...]:
        found = []
        for message in messages:
            try:
                found.append(decode_endpoint(message))
            except BadRecordError as error:
                if self.bad_endpoints == 0:
                    log.warning("a control plane sent an endpoint that is dropped: %s", error)
                self.bad_endpoints += 1
        return tuple(found)


def _refusal(error: grpc.aio.AioRpcError) -> RefusedError | NotFoundError:
    message = error.details() or error.code().name
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return NotFoundError(message)
    return RefusedError(code_number(error.code()), message)


class ClientView:
    """A mirror of a prefix in this process: `resolve` is a look-up in a dictionary, and never stops answering."""

    def __init__(self, client: BnsClient, prefix: str = "/bns/") -> None:
        self._client = client
        self._prefix = check_prefix(prefix)
        self._jobs: dict[str, dict[str, Endpoint]] = {}
        self._answers: dict[str, tuple[Endpoint, ...]] = {}
        self._subscribers: list[Callable[[Update], None]] = []
        self._task: asyncio.Task[None] | None = None
        self.revision = 0
        self.synced = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Begins to follow; `synced` is set when the first snapshot is there."""
        self._task = asyncio.create_task(self._follow(), name=f"bns-view-{self._prefix}")

    async def close(self) -> None:
        """Follows no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def subscribe(self, callback: Callable[[Update], None]) -> None:
        """Calls `callback` in the event loop after each update was applied."""
        self._subscribers.append(callback)

    def resolve(self, name: str) -> tuple[Endpoint, ...]:
        """The endpoints of a task or a job; empty when nothing is registered under it."""
        return self._answers.get(name, ())

    def jobs(self) -> Mapping[str, Mapping[str, Endpoint]]:
        """/bns/DC/USER/JOB -> its endpoints by task name."""
        return MappingProxyType(self._jobs)

    async def _follow(self) -> None:
        async for update in self._client.watch(self._prefix):
            self.apply(update)

    def apply(self, update: Update) -> None:
        """Takes over an update."""
        touched = {_job_of(name) for name in update.removed}
        gone = list(update.removed)
        if update.snapshot:
            present = {endpoint.task.name for endpoint in update.upserted}
            gone += [name for tasks in self._jobs.values() for name in tasks if name not in present]
            touched |= {_job_of(name) for name in gone}
        for name in gone:
            self._jobs.get(_job_of(name), {}).pop(name, None)
            self._answers.pop(name, None)
        for endpoint in update.upserted:
            job = endpoint.task.job
            touched.add(job)
            self._jobs.setdefault(job, {})[endpoint.task.name] = endpoint
            self._answers[endpoint.task.name] = (endpoint,)
        for job in touched:
            self._rebuild(job)
        self.revision = update.revision
        self.synced.set()
        for callback in tuple(self._subscribers):
            callback(update)

    def _rebuild(self, job: str) -> None:
        tasks = self._jobs.get(job)
        if tasks:
            self._answers[job] = tuple(tasks[name] for name in sorted(tasks))
        else:
            self._jobs.pop(job, None)
            self._answers.pop(job, None)


def _job_of(name: str) -> str:
    return name.rpartition("/")[0]
