"""A command's connection to the control plane: which replica, how it fails, and the options that say so."""

import functools
from collections.abc import Callable
from typing import TypeVar

import click
import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bns.errors import AddressError, TlsError
from bns.transport import Tls, parse_addresses, sync_channel, tls_options
from gslb.cli.output import say
from gslb.v1 import admin_pb2, admin_pb2_grpc

CONTROL_DEFAULT = "127.0.0.1:9001"  # where `gslb serve` listens
CONNECT_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 15.0

# What a call that got no answer may have done all the same.
CHANGING = (
    admin_pb2.ApplyRequest,
    admin_pb2.DeleteRequest,
    admin_pb2.DrainRequest,
    admin_pb2.UndrainRequest,
    admin_pb2.ImportRequest,
)
# The replica's details name the value and what to do: nothing needs to be said before them.
SPEAKING = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION})

R = TypeVar("R", bound=Message)
F = TypeVar("F", bound=Callable[..., object])


class Session:
    """Calls the admin API of the first replica that answers.

    One that is down is passed over before anything was asked of it, and one that says it cannot answer (it is cold, or
    has lost etcd) too; `silent` has both, with the reason.
    """

    def __init__(self, control: str, tls: Tls | None) -> None:
        try:
            self.addresses = parse_addresses(control)
        except AddressError as error:
            raise click.UsageError(f"--control: {error}") from error
        self.silent: dict[str, str] = {}
        self._tls = tls
        self._channel: grpc.Channel | None = None
        self._address = ""

    def call(self, method: Callable[[admin_pb2_grpc.AdminStub], Callable[..., R]], request: Message) -> R:
        """One RPC: `session.call(lambda admin: admin.Get, GetRequest())`. Raises click.ClickException, saying why."""
        while True:
            stub = admin_pb2_grpc.AdminStub(self._connected())
            try:
                return method(stub)(request, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                code, details = refusal_of(error)
                # Every call may be made twice: the second finds done what the first did, and says so.
                if code is not grpc.StatusCode.UNAVAILABLE or len(self.silent) + 1 == len(self.addresses):
                    raise _refusal(code, details, request) from error
                self._pass_over(self._address, details)
                self.close()
            except KeyboardInterrupt:
                if isinstance(request, CHANGING):
                    say("interrupted: what was asked for may be done all the same; `gslb get` shows whether it was")
                raise

    def close(self) -> None:
        """Ends the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def begin_anew(self) -> None:
        """Forgets which replicas were silent: for commands that go on asking."""
        self.close()
        self.silent.clear()

    def answers(self, address: str) -> bool:
        """Whether a replica can be reached."""
        channel = self._dial(address)
        if channel is None:
            return False
        channel.close()
        return True

    def _connected(self) -> grpc.Channel:
        if self._channel is not None:
            return self._channel
        for address in self.addresses:
            if address in self.silent:
                continue
            channel = self._dial(address)
            if channel is not None:
                self._channel, self._address = channel, address
                return channel
            if len(self.addresses) > 1:
                self._pass_over(address, "it does not answer")
        raise click.ClickException(
            f"no control-plane replica answers at {', '.join(self.addresses)}: is one running?"
            " (name them with --control or GSLB_CONTROL; give --tls-ca, --tls-cert and --tls-key if they speak TLS)"
        )

    def _pass_over(self, address: str, why: str) -> None:
        self.silent[address] = why
        if len(self.silent) < len(self.addresses):
            say(f"replica {address} is passed over: {why}")

    def _dial(self, address: str) -> grpc.Channel | None:
        """A channel to a replica that answers; None when nobody does."""
        try:
            channel = sync_channel(address, self._tls)
        except TlsError as error:
            raise click.UsageError(str(error)) from error
        try:
            # Any answer will do: a cold replica, too, takes changes and says what it knows.
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CONNECT_TIMEOUT_S)
        except grpc.RpcError as error:
            if refusal_of(error)[0] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                channel.close()
                return None
        return channel


def refusal_of(error: Exception) -> tuple[grpc.StatusCode | None, str]:
    """Code and details of what a gRPC call raised."""
    if isinstance(error, grpc.Call):
        return error.code(), error.details() or ""
    return None, str(error)


def _refusal(code: grpc.StatusCode | None, details: str, request: Message) -> click.ClickException:
    """What the replica said, as one message."""
    if code in SPEAKING:
        return click.ClickException(details)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        doubt = "; what was asked for may be done all the same: look with `gslb get`"
        return click.ClickException(
            f"the control plane did not answer in {CALL_TIMEOUT_S:g} s{doubt if isinstance(request, CHANGING) else ''}"
        )
    name = code.name if code is not None else "UNKNOWN"
    return click.ClickException(f"the control plane answered {name}: {details}")


def with_session(command: F) -> F:
    """Adds --control and --tls-*; the command gets an open `session: Session`."""

    @functools.wraps(command)
    def wrapped(*args: object, control: str, tls: Tls | None, **kwargs: object) -> object:
        session = Session(control, tls)
        try:
            return command(*args, session=session, **kwargs)
        finally:
            session.close()

    option = click.option(
        "--control",
        envvar="GSLB_CONTROL",
        default=CONTROL_DEFAULT,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT,...",
        help="Control-plane replicas; the first that answers is asked.",
    )
    return option(tls_options(wrapped))  # type: ignore[return-value]  # click keeps the signature, its types do not
