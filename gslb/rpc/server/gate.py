"""The guard of a server (`gslb.rpc.policy.guard`) for threads and event loops: a clock, a lock, and who waits for what.

One `Gate` serves all interceptors and middleware of a process, so that gRPC and HTTP requests are judged together.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from gslb.model import limits
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.context import Request
from gslb.rpc.policy.guard import Decision, Fate, Guard
from gslb.rpc.policy.line import Ticket
from gslb.rpc.policy.rank import rank_of

Wake = Callable[[Fate], None]

CODES: Final = {
    Fate.REFUSED: grpc.StatusCode.UNAVAILABLE,
    Fate.REFUSED_EVERYWHERE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Fate.EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_SLOTS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class GateState:
    """What a gate does now, for metrics and /statusz. `level`: 4 lets everybody in, 2.5 half of SHEDDABLE_PLUS."""

    slots: int
    in_flight: int
    waiting: int
    level: float
    overloaded: bool
    refused: tuple[int, ...]  # by criticality, since the start
    expired: int


class Gate:
    """`slots`: requests that are served at a time, the others wait; as many as the executor has threads, or for asyncio
    as many as are of use. `ramp_s`: after its start a server takes a tenth of them, and all after this time; 0: at once.

    Safe from any thread. Raises ConfigurationError.
    """

    def __init__(self, slots: int, *, ramp_s: float = 0.0) -> None:
        if not 1 <= slots <= _SLOTS_MAX:
            raise ConfigurationError(f"gate: slots={slots}: give 1 to {_SLOTS_MAX}, the requests served at a time")
        if not 0.0 <= ramp_s <= limits.EJECT_MAX_S:
            raise ConfigurationError(f"gate: ramp_s={ramp_s}: give 0 to {limits.EJECT_MAX_S:g} seconds")
        self._lock = threading.Lock()
        self._guard = Guard(slots, started_s=time.monotonic(), ramp_s=ramp_s)
        self._wakes: dict[Ticket, Wake] = {}

    def ticket(self, request: Request, arrived_s: float) -> Ticket:
        """The ticket of a request that came in at `arrived_s`, on the monotonic clock."""
        return Ticket(request.criticality, rank_of(request.trace_id), arrived_s, request.deadline_s, request.attempt)

    def arrive(self, ticket: Ticket, wake: Wake) -> Fate:
        """What becomes of it; after Fate.WAIT, `wake` is called once, from any thread, unless it leaves before."""
        with self._lock:
            decisions = self._guard.arrive(ticket, time.monotonic())
            own = next((decision.fate for decision in decisions if decision.ticket is ticket), Fate.WAIT)
            if own is Fate.WAIT:
                self._wakes[ticket] = wake
            calls = self._calls([decision for decision in decisions if decision.ticket is not ticket])
        for call, fate in calls:
            call(fate)
        return own

    def finish(self, ticket: Ticket) -> None:
        """A request that was begun is over."""
        with self._lock:
            calls = self._calls(self._guard.finish(ticket, time.monotonic()))
        for call, fate in calls:
            call(fate)

    def leave(self, ticket: Ticket) -> bool:
        """A waiting request's client went away; False: its fate was decided before, and is or will be told to `wake`."""
        with self._lock:
            if self._wakes.pop(ticket, None) is None:
                return False
            self._guard.leave(ticket, time.monotonic())
            return True

    def enter(self, ticket: Ticket) -> Fate:
        """Blocks this thread until the fate is known, at most until the deadline."""
        known = threading.Event()
        found: list[Fate] = []

        def wake(fate: Fate) -> None:
            found.append(fate)
            known.set()

        fate = self.arrive(ticket, wake)
        if fate is not Fate.WAIT:
            return fate
        left_s = None if ticket.deadline_s is None else max(0.0, ticket.deadline_s - time.monotonic())
        if not known.wait(left_s) and self.leave(ticket):
            return Fate.EXPIRED
        known.wait()
        return found[0]

    async def aio_enter(self, ticket: Ticket) -> Fate:
        """As `enter`, without blocking the event loop. Cancelled, it leaves the line or gives its slot back."""
        loop = asyncio.get_running_loop()
        known: asyncio.Future[Fate] = loop.create_future()

        def tell(fate: Fate) -> None:
            if not known.done():
                known.set_result(fate)
            elif fate is Fate.BEGIN:
                self.finish(ticket)

        def wake(fate: Fate) -> None:
            loop.call_soon_threadsafe(tell, fate)

        fate = self.arrive(ticket, wake)
        if fate is not Fate.WAIT:
            return fate
        left_s = None if ticket.deadline_s is None else max(0.0, ticket.deadline_s - time.monotonic())
        try:
            done, _ = await asyncio.wait({known}, timeout=left_s)
            if not done and self.leave(ticket):
                return Fate.EXPIRED
            return await known
        except asyncio.CancelledError:
            if known.done() and not known.cancelled() and known.result() is Fate.BEGIN:
                self.finish(ticket)
            else:
                self.leave(ticket)
                known.cancel()
            raise

    def state(self) -> GateState:
        """What it does now."""
        with self._lock:
            guard = self._guard
            return GateState(
                guard.slots,
                guard.in_flight,
                len(guard.line),
                guard.admission.level,
                guard.admission.overloaded,
                tuple(guard.refused),
                guard.expired,
            )

    def _calls(self, decisions: Sequence[Decision]) -> list[tuple[Wake, Fate]]:
        """Whom to wake, without the lock."""
        return [(self._wakes.pop(ticket), fate) for ticket, fate in decisions if ticket in self._wakes]
