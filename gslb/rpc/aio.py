"""`gslb.rpc.aio.channel`: under the name that users of `grpc.aio` look for."""

from gslb.rpc.client.aio_api import aio_channel as channel

__all__ = ["channel"]
