"""Listens to one control replica at a time: plans, endpoints, catalog."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import grpc
from typing_extensions import override

from gslb.model import limits
from gslb.rpc.client.stream import Dial, LastingStream, StreamCall
from gslb.v1 import discovery_pb2, discovery_pb2_grpc

OnUpdate = Callable[[discovery_pb2.Update], None]


class Discovery(LastingStream[discovery_pb2.SubscribeRequest, discovery_pb2.Update]):
    """One stream for all services of this process; fails over to another replica when it breaks or falls silent."""

    def __init__(
        self, addresses: Sequence[str], dial: Dial, subscriber: str, locality: str, on_update: OnUpdate
    ) -> None:
        super().__init__("gslb-rpc-discovery", addresses, dial)
        self._subscriber = subscriber
        self._locality = locality
        self._on_update = on_update
        self._services: set[str] = set()
        self._subscribing = threading.Lock()
        self.opened_s = 0.0  # monotonic; when the present stream began
        self._patience_s = limits.CONTROL_SILENCE_S

    def subscribe(self, service: str) -> None:
        """Adds a service; nothing happens when it is subscribed already."""
        with self._subscribing:
            if service in self._services:
                return
            self._services.add(service)
        self.send(self._request())

    def _request(self) -> discovery_pb2.SubscribeRequest:
        with self._subscribing:
            services = sorted(self._services)
        return discovery_pb2.SubscribeRequest(
            subscriber=self._subscriber, services=services, catalog=True, locality=self._locality
        )

    @override
    def open(
        self, channel: grpc.Channel, requests: Iterator[discovery_pb2.SubscribeRequest]
    ) -> StreamCall[discovery_pb2.Update]:
        self.opened_s = time.monotonic()
        stub: discovery_pb2_grpc.DiscoveryStub = discovery_pb2_grpc.DiscoveryStub(channel)
        return stub.Subscribe(requests)

    @override
    def greeting(self) -> Sequence[discovery_pb2.SubscribeRequest]:
        return [self._request()]

    @override
    def on_message(self, message: discovery_pb2.Update) -> None:
        self._patience_s = limits.CONTROL_SILENCE_S
        self._on_update(message)

    def mute_s(self, now_s: float) -> float:
        """Seconds that the present stream has lasted without its first message; 0 after that, or without a stream."""
        return now_s - self.opened_s if self.address and self.received_s < self.opened_s else 0.0

    def should_leave(self, now_s: float, silent: Callable[[str], bool]) -> str:
        """Why another replica should be tried; empty: stay. `silent`: it acknowledges no reports, others do."""
        if self.mute_s(now_s) > self._patience_s:
            said = f"it said nothing in {self._patience_s:g} s"
            # A first message may be large and the line slow: more time for each that is tried in vain.
            self._patience_s = min(2 * self._patience_s, limits.CONTROL_PATIENCE_MAX_S)
            return said
        if self.address and silent(self.address):
            return "it acknowledges no reports while others do"
        return ""
