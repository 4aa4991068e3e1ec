"""`gslb.rpc.aio_channel`: the asyncio twin of `gslb.rpc.channel`."""

from collections.abc import Sequence

import grpc
import grpc.aio
from typing_extensions import Unpack

from gslb.rpc.client.aio_channel import AioServiceChannel
from gslb.rpc.client.api import ChannelOptions, connection_of, endpoint_options, settings_of


def aio_channel(
    service: str,
    *,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    **given: Unpack[ChannelOptions],
) -> AioServiceChannel:
    """A `grpc.aio.Channel` to `service`, wherever it runs; call it inside the loop that uses it.

    Arguments as for `gslb.rpc.channel`. `interceptors` see each attempt: of a call that is retried, more than one.
    Raises ConfigurationError. Nothing is dialled before it is needed.
    """
    settings = settings_of(service, given)
    merged = endpoint_options(given.get("options"), settings.caller)
    credentials = given.get("credentials")

    def dial(target: str) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=merged, interceptors=interceptors)
        return grpc.aio.secure_channel(target, credentials, options=merged, interceptors=interceptors)

    return AioServiceChannel(settings, connection_of(given, settings.locality), dial)
