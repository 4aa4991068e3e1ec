"""A command's connection to the control plane: which replica, how it fails, and the options that say so."""

import functools
from collections.abc import Callable
from typing import TypeVar

import click
import grpc
from google.protobuf.message import Message

from bns.errors import AddressError, TlsError
from bns.transport import Tls, parse_addresses, sync_channel, tls_options
from gslb.v1 import admin_pb2_grpc

CONTROL_DEFAULT = "127.0.0.1:9001"
CONNECT_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 15.0

R = TypeVar("R", bound=Message)
F = TypeVar("F", bound=Callable[..., object])


class Session:
    """Calls the admin API of the first replica that can be reached."""

    def __init__(self, control: str, tls: Tls | None) -> None:
        try:
            self._addresses = parse_addresses(control)
        except AddressError as error:
            raise click.UsageError(f"--control: {error}") from error
        self._tls = tls
        self._channel: grpc.Channel | None = None

    def call(self, method: Callable[[admin_pb2_grpc.AdminStub], Callable[..., R]], request: Message) -> R:
        """One RPC: `session.call(lambda admin: admin.Get, GetRequest())`. Raises click.ClickException, saying why."""
        stub = admin_pb2_grpc.AdminStub(self._connected())
        try:
            return method(stub)(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise _refusal(error) from error

    def close(self) -> None:
        """Ends the connection."""
        if self._channel is not None:
            self._channel.close()

    def _connected(self) -> grpc.Channel:
        """A channel that has connected: a replica that is down is passed over before anything was asked of it."""
        if self._channel is not None:
            return self._channel
        for address in self._addresses:
            try:
                channel = sync_channel(address, self._tls)
            except TlsError as error:
                raise click.UsageError(str(error)) from error
            try:
                grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_S)
            except grpc.FutureTimeoutError:
                channel.close()
                continue
            self._channel = channel
            return channel
        raise click.ClickException(
            f"no control-plane replica answers at {', '.join(self._addresses)}: is one running?"
            " (name them with --control or GSLB_CONTROL)"
        )


def refusal_of(error: Exception) -> tuple[grpc.StatusCode | None, str]:
    """Code and details of what a gRPC call raised."""
    if isinstance(error, grpc.Call):
        return error.code(), error.details() or ""
    return None, str(error)


def _refusal(error: grpc.RpcError) -> click.ClickException:
    """What the replica said, as one message; its details already name the value and what to do."""
    code, details = refusal_of(error)
    if code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}:
        return click.ClickException(details)
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
