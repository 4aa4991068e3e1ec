"""The gRPC service bns.v1.Bns: Resolve, List, Watch and Register.

Reads come from the mirror and go on while etcd is away, except those that ask for more: a linearizable Resolve, and the
later pages of a List whose revision this replica no longer remembers. Watch hands out bytes that `bns.fanout` encoded
once for all watchers, so the service is added by `add_to` and not by the generated code.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

import grpc
import grpc.aio

from bns import limits
from bns.codec import encode_endpoint, encode_task
from bns.errors import BadRecordError, RefusedError, UnavailableError, code_number
from bns.etcd.client import Client
from bns.etcd.errors import Compacted, EtcdError
from bns.etcd.ops import prefix_end
from bns.fanout import Fanout, HealthOf
from bns.keys import task_key
from bns.model import Endpoint, Task
from bns.names import InvalidNameError, check_prefix, parse_job, parse_task
from bns.paging import PageToken, parse_page_token
from bns.registry import BnsRegistry, parse_hello
from bns.session import Session
from bns.store import BnsStore, read_record
from bns.transport import principal_of
from bns.v1 import bns_pb2
from bns.view import BnsView

log = logging.getLogger(__name__)

SERVICE = "bns.v1.Bns"
HELLO_TIMEOUT_S = 10.0
# How long a watcher may be ahead of this replica's mirror before it is told to start over.
CATCH_UP_S = 0.5
REMEMBERED_VIEWS = 16
WATCHERS_MAX = 50_000

_Answer = TypeVar("_Answer")

Context = grpc.aio.ServicerContext[bns_pb2.RegisterRequest, bns_pb2.RegisterResponse]


class BnsServicer:
    """`health_of`: a task's health as this replica knows it. `ready`: whether reads may be answered (a cold replica
    answers nobody); without it, as soon as the mirror stands."""

    def __init__(
        self,
        store: BnsStore,
        registry: BnsRegistry,
        health_of: HealthOf,
        *,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._etcd: Client = store.etcd
        self._health_of = health_of
        self._ready = ready or store.synced.is_set
        self._views: OrderedDict[int, BnsView] = OrderedDict()
        self.fanout = Fanout(store, health_of)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serves bns.v1.Bns on `server`."""
        pb2 = bns_pb2
        handlers = {
            "Resolve": grpc.unary_unary_rpc_method_handler(
                self.resolve, pb2.ResolveRequest.FromString, pb2.ResolveResponse.SerializeToString
            ),
            "List": grpc.unary_unary_rpc_method_handler(
                self.list_tasks, pb2.ListRequest.FromString, pb2.ListResponse.SerializeToString
            ),
            # No serializer: the bytes are encoded already.
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, pb2.WatchRequest.FromString, None),
            "Register": grpc.stream_stream_rpc_method_handler(
                self.register, pb2.RegisterRequest.FromString, pb2.RegisterResponse.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def health_changed(self, names: Iterable[str]) -> None:
        """The health of these tasks is another one now: watchers are told."""
        self.fanout.health_changed(names)

    async def close(self) -> None:
        """No further change is passed on, and no lease renewed."""
        self.fanout.close()
        await self._registry.close()

    # ---- reading ---------------------------------------------------------------------------------------------

    async def resolve(self, request: bns_pb2.ResolveRequest, context: Context) -> bns_pb2.ResolveResponse:
        """Resolve."""
        return await _answered(self._resolve(request), context)

    async def _resolve(self, request: bns_pb2.ResolveRequest) -> bns_pb2.ResolveResponse:
        name = request.name.rstrip("/")
        is_task = name.count("/") == 5
        name = str(parse_task(name)) if is_task else str(parse_job(name))
        self._check_ready()
        if request.linearizable:
            tasks, revision = await self._read_through(name, is_task=is_task)
        else:
            view = self._store.view
            tasks, revision = view.tasks.under(name if is_task else name + "/"), view.revision
        if not tasks:
            raise RefusedError(
                code_number(grpc.StatusCode.NOT_FOUND),
                f"nothing is registered as {name}: `bns ls /bns/` lists what is",
            )
        return bns_pb2.ResolveResponse(endpoints=self._endpoints(tasks), revision=revision)

    async def _read_through(self, name: str, *, is_task: bool) -> tuple[list[Task], int]:
        if is_task:
            response = await self._etcd.range(task_key(name))
        else:
            prefix = task_key(name + "/")
            response = await self._etcd.range(prefix, prefix_end(prefix))
        found = (read_record(kv.key.decode("utf-8", "replace"), kv.value).value for kv in response.kvs)
        return [task for task in found if isinstance(task, Task)], response.header.revision

    async def list_tasks(self, request: bns_pb2.ListRequest, context: Context) -> bns_pb2.ListResponse:
        """List."""
        return await _answered(self._list(request), context)

    async def _list(self, request: bns_pb2.ListRequest) -> bns_pb2.ListResponse:
        prefix = check_prefix(request.prefix or "/bns/")
        size = min(request.page_size or limits.PAGE_SIZE_DEFAULT, limits.PAGE_SIZE_MAX)
        self._check_ready()
        if not request.page_token:
            view = self._store.view
            tasks, revision = view.tasks.under(prefix)[: size + 1], view.revision
        else:
            token = parse_page_token(request.page_token)
            revision = token.revision
            tasks = await self._page(prefix, token, size + 1)
        response = bns_pb2.ListResponse(endpoints=self._endpoints(tasks[:size]), revision=revision)
        if len(tasks) > size:
            response.next_page_token = PageToken(revision, tasks[size - 1].name).encode()
            if not request.page_token:
                self._remember(self._store.view)
        return response

    async def _page(self, prefix: str, token: PageToken, count: int) -> list[Task]:
        """Up to `count` tasks behind the token, as they were at its revision."""
        view = self._views.get(token.revision)
        if view is not None:
            return [task for task in view.tasks.under(prefix) if task.name > token.after][:count]
        start, end = max(task_key(token.after) + b"\0", task_key(prefix)), prefix_end(task_key(prefix))
        if start >= end:
            return []
        tasks: list[Task] = []
        while True:
            response = await self._etcd.range(start, end, limit=count - len(tasks), revision=token.revision)
            found = (read_record(kv.key.decode("utf-8", "replace"), kv.value).value for kv in response.kvs)
            tasks += [task for task in found if isinstance(task, Task)]
            if not response.more or len(tasks) >= count:
                return tasks
            start = response.kvs[-1].key + b"\0"

    def _remember(self, view: BnsView) -> None:
        """So that the next pages come from memory, also while etcd is away. Views share almost everything."""
        self._views[view.revision] = view
        self._views.move_to_end(view.revision)
        while len(self._views) > REMEMBERED_VIEWS:
            self._views.popitem(last=False)

    def _endpoints(self, tasks: Iterable[Task]) -> Iterable[bns_pb2.Endpoint]:
        return [encode_endpoint(Endpoint(task, self._health_of(task.name))) for task in tasks]

    def _check_ready(self) -> None:
        if not (self._store.synced.is_set() and self._ready()):
            raise UnavailableError("this replica is still warming up: ask another one, or again in some seconds")

    # ---- watching --------------------------------------------------------------------------------------------

    async def watch(self, request: bns_pb2.WatchRequest, context: Context) -> AsyncIterator[bytes]:
        """Watch: encoded WatchResponses."""
        prefix = await _answered(self._start_watch(request), context)
        slot = self.fanout.open(prefix, request.start_revision)
        try:
            while True:
                yield (await self.fanout.take(slot)).data
        finally:
            self.fanout.shut(slot)

    async def _start_watch(self, request: bns_pb2.WatchRequest) -> str:
        prefix = check_prefix(request.prefix or "/bns/")
        self._check_ready()
        if self.fanout.watchers >= WATCHERS_MAX:
            raise RefusedError(
                code_number(grpc.StatusCode.RESOURCE_EXHAUSTED),
                f"this replica has {WATCHERS_MAX} watchers already: use another one",
            )
        if request.start_revision > self._store.view.revision:
            # Another replica was a little ahead; or etcd was restored, and then a snapshot is due.
            try:
                await self._store.wait_for_revision(request.start_revision, CATCH_UP_S)
            except UnavailableError:
                log.info("a watcher of %s is ahead of this replica and gets a snapshot", prefix)
        return prefix

    # ---- registering -----------------------------------------------------------------------------------------

    async def register(
        self, requests: AsyncIterator[bns_pb2.RegisterRequest], context: Context
    ) -> AsyncIterator[bns_pb2.RegisterResponse]:
        """Register: hello, then register, deregister and goodbye, each with its ack."""
        first = await _answered(_first(requests), context)
        session, adopted = await _answered(self._open(first, context), context)
        try:
            yield bns_pb2.RegisterResponse(
                request_id=first.request_id,
                welcome=bns_pb2.RegisterWelcome(
                    liveness_ttl_s=self._registry.liveness_ttl_s, adopted=[encode_task(task) for task in adopted]
                ),
            )
            while (request := await _next_or_end(requests, session)) is not None:
                yield bns_pb2.RegisterResponse(request_id=request.request_id, ack=await _ack(session, request))
                if request.WhichOneof("kind") == "goodbye":
                    return
            if session.end_reason is not None:
                await _abort(session.end_reason, context)
        finally:
            self._registry.leave(session)

    async def _open(self, first: bns_pb2.RegisterRequest, context: Context) -> tuple[Session, list[Task]]:
        return await self._registry.open(parse_hello(first.hello, principal_of(context)))


async def _first(requests: AsyncIterator[bns_pb2.RegisterRequest]) -> bns_pb2.RegisterRequest:
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            first = await anext(requests, None)
    except TimeoutError as error:
        raise BadRecordError(f"no hello came in {HELLO_TIMEOUT_S:g} s: send it first") from error
    if first is None or first.WhichOneof("kind") != "hello":
        raise BadRecordError("the first message of a Register stream is a hello")
    return first


async def _next_or_end(
    requests: AsyncIterator[bns_pb2.RegisterRequest], session: Session
) -> bns_pb2.RegisterRequest | None:
    """The next request; None when the client has finished or the session is over."""
    following = asyncio.ensure_future(anext(requests, None))
    over = asyncio.ensure_future(session.ended.wait())
    try:
        await asyncio.wait({following, over}, return_when=asyncio.FIRST_COMPLETED)
        return None if over.done() or not following.done() else following.result()
    finally:
        following.cancel()
        over.cancel()


async def _ack(session: Session, request: bns_pb2.RegisterRequest) -> bns_pb2.RegisterAck:
    try:
        return bns_pb2.RegisterAck(revision=await _carry_out(session, request))
    except (BadRecordError, InvalidNameError, RefusedError, UnavailableError, EtcdError) as error:
        code, message = status_of(error)
        return bns_pb2.RegisterAck(code=code_number(code), message=message)


async def _carry_out(session: Session, request: bns_pb2.RegisterRequest) -> int:
    match request.WhichOneof("kind"):
        case "register":
            return await session.register(request.register)
        case "deregister":
            return await session.deregister(str(parse_task(request.deregister)))
        case "goodbye":
            return await session.goodbye()
        case "hello":
            raise BadRecordError("a Register stream has one hello: open another stream for another agent")
        case _:
            raise BadRecordError("this request is of a kind that this replica does not know: is the agent newer?")


_STATUS: dict[type[Exception], grpc.StatusCode] = {
    BadRecordError: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidNameError: grpc.StatusCode.INVALID_ARGUMENT,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}
_CODES = {code_number(code): code for code in grpc.StatusCode}


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """What a client is told about an error of ours or of etcd."""
    if isinstance(error, RefusedError):
        return _CODES.get(error.code, grpc.StatusCode.UNKNOWN), str(error)
    if isinstance(error, Compacted):
        return (
            grpc.StatusCode.OUT_OF_RANGE,
            "the revision of this page_token is compacted, so its other pages are gone: start without a token",
        )
    if isinstance(error, EtcdError):
        return grpc.StatusCode.UNAVAILABLE, f"etcd does not do what this needs; try again: {error}"
    return _STATUS.get(type(error), grpc.StatusCode.INTERNAL), str(error)


async def _answered(work: Awaitable[_Answer], context: Context) -> _Answer:
    """The result of `work`, or the call ends with the status of its error."""
    try:
        return await work
    except (BadRecordError, InvalidNameError, RefusedError, UnavailableError, EtcdError) as error:
        await _abort(error, context)
        raise


async def _abort(error: Exception, context: Context) -> None:
    code, message = status_of(error)
    await context.abort(code, message)
