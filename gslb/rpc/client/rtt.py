"""How far the datacenters are that this process sends to: the round trip of a TCP handshake, one datacenter at a time.

How long a request takes is mostly the server's doing, so it says nothing of the way. A handshake is answered by the other
side's kernel, and our own kernel has measured it (TCP_INFO): however busy both processes are, it is one round trip. Agents
measure between the datacenters that they probe; clients measure the pairs that matter, where requests go or could go.
"""

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Final

from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.client.timers import Timers
from gslb.steer.view import ServiceView

# One handshake of the whole process in this time, give or take half of it: nobody's servers feel that.
PERIOD_S: Final = 10.0
# Beyond this nobody is near; less than what `Timers.close` waits for.
TIMEOUT_S: Final = 0.9
# struct tcp_info of linux/tcp.h: 8 bytes of flags, then numbers of 32 bits, of which the sixteenth is tcpi_rtt in us.
_RTT_AT: Final = 8 + 15 * 4

Views = Callable[[], Iterable[ServiceView]]
Connect = Callable[[tuple[str, int], float], socket.socket]


class RttMeter:
    """Measures in a thread of its own from `start` on; `take` gives what came of it. Safe from any thread."""

    def __init__(self, views: Views, period_s: float, connect: Connect = socket.create_connection) -> None:
        self._views = views
        self._period_s = period_s
        self._connect = connect
        self._timers = Timers("gslb-rpc-rtt")
        self._lock = threading.Lock()
        self._started = False
        self._turn = 0
        self._measured: dict[str, float] = {}  # ms by task, since the last `take`

    def start(self) -> None:
        """Begins, if it has not begun before."""
        with self._lock:
            started, self._started = self._started, True
        if not started:
            self._later()

    def take(self) -> dict[str, float]:
        """Round-trip times in ms by task, measured since the last call."""
        with self._lock:
            taken, self._measured = self._measured, {}
            return taken

    def close(self) -> None:
        """Ends the thread, in a second at most."""
        self._timers.close()

    def _later(self) -> None:
        self._timers.after(self._period_s * (0.5 + random.random()), self._measure)

    def _measure(self) -> None:
        try:
            endpoint = next_endpoint(self._views(), self._turn)
            self._turn += 1
            if endpoint is not None and (rtt_ms := self._handshake_ms(endpoint)) is not None:
                with self._lock:
                    self._measured[endpoint.task] = rtt_ms
        finally:
            self._later()

    def _handshake_ms(self, endpoint: ServiceEndpoint) -> float | None:
        """None: there was no handshake in time, which is for others to judge, or this kernel does not tell."""
        try:
            with self._connect((endpoint.address, endpoint.port), TIMEOUT_S) as connection:
                return kernel_rtt_ms(connection)
        except OSError:
            return None


def kernel_rtt_ms(connection: socket.socket) -> float | None:
    """The round-trip time that the kernel knows of a TCP connection; None where it does not tell (Linux does)."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_AT + 4)
    (rtt_us,) = struct.unpack_from("=I", told, _RTT_AT)
    return rtt_us / 1000.0 or None


def next_endpoint(views: Iterable[ServiceView], turn: int) -> ServiceEndpoint | None:
    """Somebody in the next datacenter of all that serve, by name; another task each time round. None: nobody serves."""
    serving: dict[str, list[ServiceEndpoint]] = {}
    for view in views:
        for datacenter, members in view.serving.items():
            serving.setdefault(datacenter, []).extend(members)
    if not serving:
        return None
    names = sorted(serving)
    here = serving[names[turn % len(names)]]
    return here[turn // len(names) % len(here)]
