"""gslb.v1.Discovery over gRPC: one coroutine writes a stream, another takes its changes of subscription."""

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from gslb.control.fanout.hub import Hub, Subscriber
from gslb.model.errors import InvalidValueError
from gslb.v1 import discovery_pb2

log = logging.getLogger(__name__)

# Changes that arrive together travel together.
COALESCE_S = 0.01

Context = grpc.aio.ServicerContext[discovery_pb2.SubscribeRequest, bytes]
Requests = AsyncIterator[discovery_pb2.SubscribeRequest]


class DiscoveryServicer:
    """Streams of the hub's state. Responses are serialised already, so the handler is registered by hand."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def register(self, server: grpc.aio.Server) -> None:
        """Adds gslb.v1.Discovery to a server."""
        service = discovery_pb2.DESCRIPTOR.services_by_name["Discovery"]
        handler = grpc.stream_stream_rpc_method_handler(
            self.subscribe,
            request_deserializer=discovery_pb2.SubscribeRequest.FromString,
            response_serializer=None,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service.full_name, {"Subscribe": handler}),)
        )

    async def subscribe(self, requests: Requests, context: Context) -> None:
        """One reader, until it goes or the replica does."""
        try:
            subscriber = self._hub.attach()
        except InvalidValueError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        reader = asyncio.create_task(self._read(requests, subscriber))
        try:
            await self._write(subscriber, context)
        finally:
            self._hub.detach(subscriber)
            reader.cancel()

    async def _read(self, requests: Requests, subscriber: Subscriber) -> None:
        try:
            async for request in requests:
                self._hub.subscribe(subscriber, request)
        except InvalidValueError as error:
            subscriber.refuse(str(error))
        except grpc.RpcError:
            # The reader went away; the writing side learns it by itself.
            log.debug("a discovery stream ended")

    async def _write(self, subscriber: Subscriber, context: Context) -> None:
        while not self._hub.closed:
            await subscriber.changed()
            if subscriber.refusal:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, subscriber.refusal)
            if self._hub.closed:
                return
            if not (self._hub.warm and subscriber.subscribed):
                continue
            await asyncio.sleep(COALESCE_S)
            for message in subscriber.messages():
                await context.write(message)
