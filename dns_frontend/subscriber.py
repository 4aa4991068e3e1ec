"""The stream of plans, endpoints and catalog from a control plane: one at a time, another when it fails."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from bns.transport import Tls, aio_channel
from dns_frontend.limits import FIRST_UPDATE_S, RECONNECT_MAX_S, RECONNECT_MIN_S
from gslb.model import limits
from gslb.v1 import discovery_pb2, discovery_pb2_grpc

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Who we are to the control plane, and where it is."""

    name: str
    control: Sequence[str]
    tls: Tls | None = None
    locality: str = ""


class Subscriber:
    """Keeps one stream alive for ever.

    `take` gets every update; `known` names the services held, which the control plane is asked about by name, so that
    it can say which of them are no more; `connected` hears of every change.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        take: Callable[[discovery_pb2.Update], Awaitable[None]],
        known: Callable[[], Iterable[str]],
        connected: Callable[[bool], None],
        rng: random.Random,
    ) -> None:
        self._upstream = upstream
        self._take = take
        self._known = known
        self._connected = connected
        self._rng = rng
        self.address = ""  # of the replica that feeds us now
        self.reconnects = 0

    async def run(self) -> None:
        """Never returns. Each failure moves on to the next address; the wait grows until a stream works."""
        addresses = list(self._upstream.control)
        self._rng.shuffle(addresses)  # frontends that start together spread over the replicas
        failures = turn = 0
        complained = False
        while True:
            address = addresses[turn % len(addresses)]
            turn += 1
            reason = await self._stream(address)
            failures = 0 if self.address else failures + 1
            if self.address:
                log.warning("lost the control plane at %s: %s; serving on", address, reason)
                self.address, complained = "", False
                self._connected(False)
            elif failures >= len(addresses) and not complained:
                complained = True
                log.warning("no control plane of %d answers, last %s: %s; trying on", len(addresses), address, reason)
            self.reconnects += 1
            await asyncio.sleep(self._pause_s(failures))

    def _pause_s(self, failures: int) -> float:
        longest = min(RECONNECT_MAX_S, RECONNECT_MIN_S * 2.0 ** min(failures, 10))
        return longest * self._rng.uniform(0.5, 1.0)

    async def _stream(self, address: str) -> str:
        """Reads one stream to its end; why it ended."""
        try:
            async with aio_channel(address, self._upstream.tls) as channel:
                stub = discovery_pb2_grpc.DiscoveryStub(channel)
                # Written to, not given an iterator: grpc.aio leaves the task that waits for an iterator behind.
                call = stub.Subscribe()  # type: ignore[call-arg]
                # The first update shows that the replica is warm; later there may be nothing to say for hours.
                async with asyncio.timeout(FIRST_UPDATE_S):
                    await call.write(self._request())
                    update = await call.read()
                while isinstance(update, discovery_pb2.Update):
                    await self._take(update)
                    if update.synced and not self.address:
                        self.address = address
                        self._connected(True)
                        log.info("in step with the control plane at %s (%s)", address, update.replica[:100])
                    update = await call.read()
                return str(await call.details() or "the stream ended")
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {(error.details() or '')[:200]}"
        except (TimeoutError, asyncio.InvalidStateError) as error:
            return str(error) or f"nothing came for {FIRST_UPDATE_S:g} s"

    def _request(self) -> discovery_pb2.SubscribeRequest:
        return discovery_pb2.SubscribeRequest(
            subscriber=self._upstream.name,
            services=sorted(self._known())[: limits.SERVICES_MAX],
            all_services=True,
            catalog=True,
            locality=self._upstream.locality,
        )
