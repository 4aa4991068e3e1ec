"""`gslb.rpc.channel`: from a service's name to a channel, with defaults from the environment."""

import os
from collections.abc import Callable, Sequence

import grpc

from bns.transport import Options, channel_options
from gslb.model.criticality import Criticality
from gslb.model.errors import InvalidValueError
from gslb.rpc.client.connection import ControlConnection
from gslb.rpc.client.core import Settings
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.client.shared import control as shared_control
from gslb.rpc.client.sync_channel import ServiceChannel
from gslb.wire.scalars import label

Control = ControlConnection | str | Sequence[str] | None
Idempotent = bool | Callable[[str], bool]


def settings_of(
    service: str,
    *,
    locality: str | None,
    caller: str | None,
    idempotent: Idempotent,
    criticality: Criticality | None,
) -> Settings:
    """What a channel was asked for, checked. Raises ConfigurationError."""
    try:
        label(service, "service")
        where = os.environ.get("GSLB_LOCALITY", "") if locality is None else locality
        who = os.environ.get("GSLB_SERVICE", "") if caller is None else caller
        for what, text in (("locality", where), ("caller", who)):
            if text:
                label(text, what)
    except InvalidValueError as error:
        raise ConfigurationError(f"channel: {error}") from error
    return Settings(
        service=service,
        locality=where,
        caller=who,
        idempotent=idempotent if callable(idempotent) else lambda _method: bool(idempotent),
        criticality=criticality,
    )


def connection_of(control: Control, locality: str) -> ControlConnection:
    """The control connection that was given, or the shared one."""
    if isinstance(control, ControlConnection):
        return control
    return shared_control(control, locality=locality)


def endpoint_options(extra: Sequence[tuple[str, int | str]] | None) -> Options:
    """gRPC options of the connections to tasks."""
    # Core's transparent retries (of requests that a server never saw) are wanted; policy retries are configured nowhere.
    common = [option for option in channel_options() if option[0] != "grpc.enable_retries"]
    return [*common, *(extra or ())]


def channel(  # noqa: PLR0913  # each is a choice of its own, and all but the first have defaults
    service: str,
    *,
    control: Control = None,
    locality: str | None = None,
    caller: str | None = None,
    idempotent: Idempotent = False,
    criticality: Criticality | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, int | str]] | None = None,
) -> ServiceChannel:
    """A `grpc.Channel` to `service`, wherever it runs.

    `control`: addresses of the control plane, or a connection; default GSLB_CONTROL.
    `locality`: where this process is (its datacenter's name); default GSLB_LOCALITY.
    `caller`: the service that this process is; default GSLB_SERVICE.
    `idempotent`: whether requests may be executed twice, for all methods or by a method's full name (`/pkg.Svc/Get`).
        Then requests whose connection broke are sent again to another task; those that never left are in any case.
    `criticality`: of every request; None: inherited from the request being served, else CRITICAL.
    `credentials`, `options`: of the connections to tasks.
    Raises ConfigurationError. Nothing is dialled before it is needed.
    """
    settings = settings_of(service, locality=locality, caller=caller, idempotent=idempotent, criticality=criticality)
    merged = endpoint_options(options)

    def dial(target: str) -> grpc.Channel:
        if credentials is None:
            return grpc.insecure_channel(target, options=merged)
        return grpc.secure_channel(target, credentials, options=merged)

    return ServiceChannel(settings, connection_of(control, settings.locality), dial)
