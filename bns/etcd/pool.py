"""Channels to the members of an etcd cluster: failover, deadlines, retries and the login.

One member is current; everything goes there until it fails, then to the next. What may be sent again is decided by a
table (`_judge`), because a write that is sent twice is applied twice: only an answer that proves that nothing was
proposed, or a call that its caller declares idempotent, is retried.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, NoReturn

import grpc
from grpc import aio

from bns.etcd.backoff import Backoff
from bns.etcd.errors import EtcdError, OutcomeUnknown, Unavailable, error_of
from bns.etcd.methods import AUTHENTICATE, Method, RequestT, ResponseT
from bns.etcd.v3 import rpc_pb2 as pb

if TYPE_CHECKING:
    from grpc.aio import Metadata, StreamStreamCall

log = logging.getLogger(__name__)

LOGINS_PER_CALL_MAX = 3

_OPTIONS: tuple[tuple[str, int], ...] = (
    # etcd really sends messages of 16 MB when a watch catches up; the default limit of 4 MiB would end it for ever.
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also the time a connection attempt may take: not less than a slow TLS handshake.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # An http_proxy in the environment is not meant for us.
    ("grpc.enable_http_proxy", 0),
)


class _Verdict(Enum):
    """What a failed attempt says about the request."""

    NOT_APPLIED = auto()  # it reached nobody, or was refused before it was proposed: safe to send again
    AMBIGUOUS = auto()  # it may have been applied
    LOGIN_AGAIN = auto()  # the token is not known any more, and nothing was applied
    FINAL = auto()  # the answer will not change


# gRPC gives no better sign than the text of a failure to connect; etcd's own texts are part of its API.
_NEVER_SENT = (
    "failed to connect to all addresses",
    "dns resolution failed",
    "etcdserver: no leader",
    "etcdserver: not capable",
    "etcdserver: too many requests",
)
_NO_ANSWER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
)
_STALE_LOGIN = ("invalid auth token", "revision of auth store is old")


def _judge(code: grpc.StatusCode, details: str) -> _Verdict:
    text = details.lower()
    if any(sign in text for sign in _STALE_LOGIN):
        return _Verdict.LOGIN_AGAIN
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED) and text.startswith(_NEVER_SENT):
        return _Verdict.NOT_APPLIED
    return _Verdict.AMBIGUOUS if code in _NO_ANSWER else _Verdict.FINAL


def parse_endpoint(endpoint: str, *, tls: bool) -> str:
    """HOST:PORT of an endpoint, which may be written as a URL; then its scheme must fit `tls`. Raises EtcdError."""
    target = endpoint.strip()
    if target.startswith("https://" if not tls else "http://"):
        want = "give a certificate authority, or write http://" if not tls else "write https://"
        raise EtcdError(f"etcd endpoint {endpoint[:200]!r} and TLS {'on' if tls else 'off'} do not fit: {want}")
    target = target.removeprefix("https://" if tls else "http://").rstrip("/")
    host, colon, port = target.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise EtcdError(f"etcd endpoint {endpoint[:200]!r} is not HOST:PORT: write for instance 127.0.0.1:2379")
    return target


class Member:
    """One endpoint. Its channel is made at the first use, when there is a running loop."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.target = target
        self._credentials = credentials
        self._channel: aio.Channel | None = None

    def channel(self) -> aio.Channel:
        """The channel to it."""
        if self._channel is None:
            if self._credentials is None:
                self._channel = aio.insecure_channel(self.target, options=_OPTIONS)
            else:
                self._channel = aio.secure_channel(self.target, self._credentials, options=_OPTIONS)
        return self._channel

    async def unary(
        self, method: Method[RequestT, ResponseT], request: RequestT, timeout_s: float, metadata: "Metadata"
    ) -> ResponseT:
        """One call, one attempt. Raises AioRpcError."""
        callable_ = self.channel().unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        response: ResponseT = await callable_(request, timeout=timeout_s, metadata=metadata)
        return response

    def stream(
        self, method: Method[RequestT, ResponseT], metadata: "Metadata"
    ) -> "StreamStreamCall[RequestT, ResponseT]":
        """A bidirectional stream."""
        callable_ = self.channel().stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return callable_(None, metadata=metadata)

    async def close(self) -> None:
        """End the channel and all that runs on it."""
        if self._channel is not None:
            await self._channel.close(None)


class Pool:
    """The members, which of them is current, and who we are."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        credentials: grpc.ChannelCredentials | None,
        login: tuple[str, str] | None,
        timeout_s: float,
        attempt_timeout_s: float,
    ) -> None:
        if not endpoints:
            raise EtcdError("no etcd endpoint was given: name at least one HOST:PORT")
        self.rng = random.Random()
        self._members = [
            Member(parse_endpoint(endpoint, tls=credentials is not None), credentials) for endpoint in endpoints
        ]
        # Clients spread over the members; each begins somewhere else.
        self.rng.shuffle(self._members)
        self._current = 0
        self._login = login
        self._token = ""
        self._login_lock: asyncio.Lock | None = None
        self._timeout_s = timeout_s
        self._attempt_timeout_s = attempt_timeout_s
        self._contact_s: float | None = None
        self.closed = False

    @property
    def member(self) -> Member:
        """The current one."""
        return self._members[self._current]

    @property
    def members(self) -> Sequence[Member]:
        """All of them."""
        return tuple(self._members)

    @property
    def attempt_timeout_s(self) -> float:
        """How long one member may take before the next one is asked."""
        return self._attempt_timeout_s

    @property
    def has_login(self) -> bool:
        """There is a user and a password to log in with."""
        return self._login is not None

    def rotate(self, member: Member) -> None:
        """`member` failed: go to the next, unless somebody else already did."""
        if self.member is member:
            self._current = (self._current + 1) % len(self._members)

    def touch(self) -> None:
        """etcd has just answered."""
        self._contact_s = asyncio.get_running_loop().time()

    def silent_s(self) -> float | None:
        """Seconds since etcd last answered; None when it never has."""
        return None if self._contact_s is None else asyncio.get_running_loop().time() - self._contact_s

    async def close(self) -> None:
        """End all channels."""
        self.closed = True
        await asyncio.gather(*(member.close() for member in self._members))

    def check_open(self) -> None:
        """Raises EtcdError when close() was called."""
        if self.closed:
            raise EtcdError("the etcd client is closed")

    # The login ---------------------------------------------------------------------------------------------------

    def forget_token(self, token: str) -> None:
        """`token` was refused: the next call logs in again, unless another call already has."""
        if self._token == token:
            self._token = ""

    def forget_stale_token(self, token: str, error: aio.AioRpcError) -> bool:
        """As forget_token, if `error` says so. -> whether it does"""
        stale = _judge(error.code(), error.details() or "") is _Verdict.LOGIN_AGAIN
        if stale:
            self.forget_token(token)
        return stale

    async def token(self, member: Member) -> str:
        """A token, "" when there is no login. Raises AioRpcError."""
        if self._login is None or self._token:
            return self._token
        if self._login_lock is None:
            self._login_lock = asyncio.Lock()
        async with self._login_lock:
            if not self._token:
                name, password = self._login
                request = pb.AuthenticateRequest(name=name, password=password)
                # bcrypt on the server takes its time: not less than a second.
                timeout_s = max(1.0, self._attempt_timeout_s)
                response = await member.unary(AUTHENTICATE, request, timeout_s, aio.Metadata())
                self._token = response.token
        return self._token

    @staticmethod
    def metadata(token: str) -> "Metadata":
        """What goes with every call. `hasleader`: a member without a leader refuses, instead of serving for itself."""
        pairs = [("hasleader", "true")]
        if token:
            pairs.append(("token", token))
        return aio.Metadata(*pairs)

    # Calls -------------------------------------------------------------------------------------------------------

    async def call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        *,
        idempotent: bool,
        timeout_s: float | None = None,
    ) -> ResponseT:
        """Ask the current member; on failure the next, as long as it is safe and there is time.

        `idempotent`: applying it twice is as good as once. Raises EtcdError and its kinds.
        """
        deadline_s = asyncio.get_running_loop().time() + (self._timeout_s if timeout_s is None else timeout_s)
        attempt = _Attempt(self, deadline_s)
        backoff = Backoff(self.rng, first_s=0.02, most_s=0.5)
        while True:
            self.check_open()
            try:
                response = await attempt.run(method, request)
            except aio.AioRpcError as error:
                again = attempt.may_go_on(method.name, error, idempotent=idempotent)
                if not again:
                    self._give_up(method.name, attempt, error, idempotent=idempotent)
                await asyncio.sleep(min(backoff.next_s(), max(0.0, attempt.left_s())))
            except asyncio.CancelledError:
                # Closing the channel cancels its calls from below: that is no cancellation of our caller.
                task = asyncio.current_task()
                if self.closed and (task is None or not task.cancelling()):
                    raise EtcdError("the etcd client was closed during a call") from None
                raise
            else:
                self.touch()
                return response

    def _give_up(self, name: str, attempt: "_Attempt", error: aio.AioRpcError, *, idempotent: bool) -> NoReturn:
        details = error.details() or ""
        if attempt.verdict in (_Verdict.FINAL, _Verdict.LOGIN_AGAIN):
            raise error_of(name, error.code(), details) from error
        where = ", ".join(member.target for member in self._members)
        shown = " ".join(details.split())[:200]
        if attempt.maybe_applied and not idempotent:
            raise OutcomeUnknown(
                f"etcd at {where} did not answer {name} ({error.code().name}: {shown}): "
                "it may or may not have been applied; read before writing again"
            ) from error
        raise Unavailable(
            f"etcd does not answer at {where} ({name}: {error.code().name}: {shown}): "
            "check that it runs and that the endpoints are right"
        ) from error


class _Attempt:
    """The attempts of one call: what they said, and whether another one is allowed."""

    def __init__(self, pool: Pool, deadline_s: float) -> None:
        self._pool = pool
        self._deadline_s = deadline_s
        self._count = 0
        self._logins = 0
        self._sent = False
        self._token = ""
        self._member = pool.member
        self.verdict = _Verdict.NOT_APPLIED
        self.maybe_applied = False

    def left_s(self) -> float:
        """Seconds until the caller's deadline."""
        return self._deadline_s - asyncio.get_running_loop().time()

    async def run(self, method: Method[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """Ask the current member once. Raises AioRpcError."""
        self._member = self._pool.member
        self._sent = False
        self._token = await self._pool.token(self._member)
        self._sent = True
        return await self._member.unary(method, request, self._timeout_s(), self._pool.metadata(self._token))

    def _timeout_s(self) -> float:
        """A hung member costs one attempt, not the whole deadline; with each round attempts get twice as long, so
        that an answer that really takes long comes through. With one member there is nobody else to ask."""
        left_s = max(0.001, self.left_s())
        members = len(self._pool.members)
        if members == 1:
            return left_s
        rounds = min(self._count // members, 10)
        return min(left_s, self._pool.attempt_timeout_s * 2.0**rounds)

    def may_go_on(self, name: str, error: aio.AioRpcError, *, idempotent: bool) -> bool:
        """Judge a failure; True when the call may be sent again."""
        self._count += 1
        code, details = error.code(), error.details() or ""
        self.verdict = _judge(code, details)
        if self.verdict is _Verdict.AMBIGUOUS and not self._sent:
            self.verdict = _Verdict.NOT_APPLIED  # it was the login that failed
        if self.verdict is _Verdict.FINAL:
            return False
        if self.verdict is _Verdict.LOGIN_AGAIN:
            self._logins += 1
            self._pool.forget_token(self._token)
            return self._pool.has_login and self._logins <= LOGINS_PER_CALL_MAX and self.left_s() > 0
        self._pool.rotate(self._member)
        if self.verdict is _Verdict.AMBIGUOUS:
            self.maybe_applied = True
            if not idempotent:
                return False
        log.debug("etcd %s at %s: %s %s", name, self._member.target, code.name, details)
        return self.left_s() > 0
