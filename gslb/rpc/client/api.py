"""`gslb.rpc.channel`: from a service's name to a channel, with defaults from the environment."""

import os
import re
from collections.abc import Callable, Sequence
from typing import TypedDict

import grpc
from typing_extensions import Unpack

from bns.transport import Options, channel_options
from gslb.model.criticality import Criticality
from gslb.model.errors import InvalidValueError
from gslb.model.grammar import shown
from gslb.rpc.client.connection import ControlConnection
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.client.settings import Settings
from gslb.rpc.client.shared import control as shared_control
from gslb.rpc.client.sync_channel import ServiceChannel
from gslb.rpc.context import CALLER_KEY
from gslb.rpc.policy.rules import NAMES, RING_HASH
from gslb.wire.scalars import label

Control = ControlConnection | str | Sequence[str] | None
_AGENT = "grpc.primary_user_agent"
_METADATA_KEY = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
Idempotent = bool | Callable[[str], bool]


class ChannelOptions(TypedDict, total=False):
    """What `channel` and `aio_channel` may be given besides the service's name."""

    control: Control  # addresses of the control plane, or a connection; default GSLB_CONTROL
    locality: str | None  # where this process is (its datacenter's name); default GSLB_LOCALITY
    caller: str | None  # the service that this process is; default GSLB_SERVICE
    # Whether requests may be executed twice, for all methods or by a method's full name (`/pkg.Svc/Get`). Then requests
    # whose connection broke are sent again to another task; those that never left are in any case.
    idempotent: Idempotent
    criticality: Criticality | None  # of every request; None: inherited from the request being served, else CRITICAL
    # Whether idempotent calls with one request and one response are sent a second time, elsewhere, when they take longer than
    # nearly all do (the 95th percentile): the first answer counts. At most a twentieth of the calls. Default: no.
    hedging: bool
    # How the task is chosen: a name in `gslb.rpc.policy.rules`; default least_request, or prequal where the service's
    # configuration says latency_critical.
    policy: str | None
    affinity: str | None  # the metadata key whose value brings requests to one and the same task: policy ring_hash
    credentials: grpc.ChannelCredentials | None  # of the connections to tasks
    options: Sequence[tuple[str, int | str]] | None  # of the connections to tasks


def settings_of(service: str, given: ChannelOptions) -> Settings:
    """What a channel was asked for, checked. Raises ConfigurationError."""
    if unknown := sorted(given.keys() - ChannelOptions.__annotations__.keys()):
        known = ", ".join(sorted(ChannelOptions.__annotations__))
        raise ConfigurationError(f"channel: no argument {unknown[0]!r}; there are {known}")
    locality, caller, idempotent = given.get("locality"), given.get("caller"), given.get("idempotent", False)
    try:
        label(service, "service")
        where = os.environ.get("GSLB_LOCALITY", "") if locality is None else locality
        who = os.environ.get("GSLB_SERVICE", "") if caller is None else caller
        for what, text in (("locality", where), ("caller", who)):
            if text:
                label(text, what)
    except InvalidValueError as error:
        raise ConfigurationError(f"channel: {error}") from error
    hedging = given.get("hedging", False)
    if hedging and not idempotent:
        raise ConfigurationError(
            "channel: hedging=True sends calls twice, and idempotent=False forbids it: say which may be"
        )
    return Settings(
        service=service,
        locality=where,
        caller=who,
        idempotent=idempotent if callable(idempotent) else lambda _method: bool(idempotent),
        criticality=given.get("criticality"),
        hedging=hedging,
        policy=_policy(given.get("policy"), given.get("affinity")),
        affinity=given.get("affinity") or "",
    )


def _policy(policy: str | None, affinity: str | None) -> str:
    """The policy that was asked for; empty: none was. Raises ConfigurationError."""
    if policy is not None and policy not in NAMES:
        raise ConfigurationError(f"channel: no policy is called {policy!r}; there are {', '.join(NAMES)}")
    if affinity is None:
        if policy == RING_HASH:
            raise ConfigurationError(
                f"channel: policy {RING_HASH} needs to know by which key of a request's metadata: give affinity=..."
            )
        return policy or ""
    if not _METADATA_KEY.fullmatch(affinity):
        raise ConfigurationError(
            f"channel: affinity {shown(affinity)} is no key of gRPC metadata: a-z, 0-9, '-', '_' and '.', at most 64"
        )
    if policy not in {None, RING_HASH}:
        raise ConfigurationError(f"channel: policy {policy} knows no affinity; leave it out, or use {RING_HASH}")
    return RING_HASH


def connection_of(given: ChannelOptions, locality: str) -> ControlConnection:
    """The control connection that was given, or the shared one."""
    control = given.get("control")
    if isinstance(control, ControlConnection):
        return control
    return shared_control(control, locality=locality)


def endpoint_options(extra: Sequence[tuple[str, int | str]] | None, caller: str) -> Options:
    """gRPC options of the connections to tasks. `caller`: the service that this process is; empty: nothing is said of it.

    Who calls is said in the user agent, which goes along anyway: metadata of its own would cost each call as much as
    everything else that we do for it.
    """
    # Core's transparent retries (of requests that a server never saw) are wanted; policy retries are configured nowhere.
    own = {"grpc.enable_retries", *(name for name, _ in extra or ())}  # gRPC takes the first of two with one name
    common = [option for option in channel_options() if option[0] not in own]
    return [*common, *_naming(extra or (), caller)]


def _naming(extra: Sequence[tuple[str, int | str]], caller: str) -> Options:
    if not caller:
        return list(extra)
    agents = [str(value) for name, value in extra if name == _AGENT]
    others = [option for option in extra if option[0] != _AGENT]
    return [(_AGENT, " ".join([f"{CALLER_KEY}/{caller}", *agents[:1]])), *others]


def channel(service: str, **given: Unpack[ChannelOptions]) -> ServiceChannel:
    """A `grpc.Channel` to `service`, wherever it runs; what may be given besides is in `ChannelOptions`.

    Raises ConfigurationError. Nothing is dialled before it is needed.
    """
    settings = settings_of(service, given)
    merged = endpoint_options(given.get("options"), settings.caller)
    credentials = given.get("credentials")

    def dial(target: str) -> grpc.Channel:
        if credentials is None:
            return _own(grpc.insecure_channel)(target, options=merged)
        return _own(grpc.secure_channel)(target, credentials, options=merged)

    return ServiceChannel(settings, connection_of(given, settings.locality), dial)


def _own(make: Callable[..., grpc.Channel]) -> Callable[..., grpc.Channel]:
    """gRPC's own function where automatic instrumentation has put one around it: its streams of responses are no calls."""
    found: Callable[..., grpc.Channel] = getattr(make, "__wrapped__", make)
    return found
