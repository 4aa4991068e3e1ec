"""`gslb.rpc.aio_channel`: the asyncio twin of `gslb.rpc.channel`."""

from collections.abc import Sequence

import grpc
import grpc.aio

from gslb.model.criticality import Criticality
from gslb.rpc.client.aio_channel import AioServiceChannel
from gslb.rpc.client.api import Control, Idempotent, connection_of, endpoint_options, settings_of


def aio_channel(  # noqa: PLR0913  # each is a choice of its own, and all but the first have defaults
    service: str,
    *,
    control: Control = None,
    locality: str | None = None,
    caller: str | None = None,
    idempotent: Idempotent = False,
    criticality: Criticality | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, int | str]] | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
) -> AioServiceChannel:
    """A `grpc.aio.Channel` to `service`, wherever it runs; call it inside the loop that uses it.

    Arguments as for `gslb.rpc.channel`. `interceptors` see each attempt: of a call that is retried, more than one.
    Raises ConfigurationError. Nothing is dialled before it is needed.
    """
    settings = settings_of(service, locality=locality, caller=caller, idempotent=idempotent, criticality=criticality)
    merged = endpoint_options(options)

    def dial(target: str) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=merged, interceptors=interceptors)
        return grpc.aio.secure_channel(target, credentials, options=merged, interceptors=interceptors)

    return AioServiceChannel(settings, connection_of(control, settings.locality), dial)
