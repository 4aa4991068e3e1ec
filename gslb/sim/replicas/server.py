"""One simulated server: processor sharing on as many cores as its machine leaves it.

Requests under way share the cores evenly and none uses more than one core, so a server slows down when it has more
requests than cores. Progress is kept in virtual time: each request ends when the server's virtual time passes the mark
that it was given on arrival, so that an arrival or a change of cores costs O(log n) whatever is under way.
"""

import heapq
from dataclasses import dataclass, field

from gslb.rpc.policy.choice import Report
from gslb.rpc.policy.room import Room
from gslb.rpc.policy.selfload import SelfLoad

# How much of a period's CPU and rate the smoothed figures take in.
SMOOTHING = 0.2


@dataclass(slots=True)
class Server:
    """Times in seconds of the virtual clock; `cores` is what the machine leaves at the moment."""

    cores: float
    allotted: float
    virtual_s: float = 0.0
    at_s: float = 0.0
    version: int = 0  # of the departure that was announced last
    cpu_s: float = 0.0
    debt_s: float = 0.0  # work for probes that were answered, done with the next request
    ended: int = 0
    queue: list[tuple[float, int, float, int, int]] = field(default_factory=list)  # mark, number, arrived, seen, client
    load: SelfLoad = field(default_factory=SelfLoad)
    room: Room = field(default_factory=Room)
    utilization: float = 0.0
    rps: float = 0.0
    _cpu_before_s: float = 0.0
    _ended_before: int = 0

    def advance(self, now_s: float) -> None:
        """Works until `now_s`."""
        under_way = len(self.queue)
        span_s = now_s - self.at_s
        rate = 1.0 if under_way <= self.cores else self.cores / under_way
        self.virtual_s += span_s * rate
        cpu_s = span_s * rate * under_way
        self.cpu_s += cpu_s
        self.room.passed(span_s, span_s * under_way, cpu_s)
        self.at_s = now_s

    def arrive(self, number: int, work_s: float, client: int) -> None:
        """A request that needs `work_s` of a core; after `advance`."""
        seen = len(self.queue)
        heapq.heappush(self.queue, (self.virtual_s + work_s + self.debt_s, number, self.at_s, seen, client))
        self.debt_s = 0.0
        self.load.began(self.at_s)

    def depart(self) -> tuple[float, int]:
        """The request that is done first ends: when it came and its client; after `advance`."""
        _, _, arrived_s, seen, client = heapq.heappop(self.queue)
        self.load.ended(seen, self.at_s - arrived_s, self.at_s)
        self.ended += 1
        return arrived_s, client

    def next_departure_s(self) -> float:
        """When the next request ends if nothing else happens; somebody must be under way."""
        under_way = len(self.queue)
        left_s = max(0.0, self.queue[0][0] - self.virtual_s)
        return self.at_s + (left_s if under_way <= self.cores else left_s * under_way / self.cores)

    def measure(self, period_s: float) -> None:
        """Once a period: CPU over what is allotted, and requests ended per second, smoothed."""
        utilization = (self.cpu_s - self._cpu_before_s) / self.allotted / period_s
        rps = (self.ended - self._ended_before) / period_s
        self._cpu_before_s, self._ended_before = self.cpu_s, self.ended
        if self.rps:
            self.utilization += SMOOTHING * (utilization - self.utilization)
            self.rps += SMOOTHING * (rps - self.rps)
        else:
            self.utilization, self.rps = utilization, rps

    def report(self, *, latency: bool) -> Report:
        """What it says of itself now."""
        return Report(
            len(self.queue),
            self.load.latency_s() if latency else 0.0,
            self.utilization,
            self.rps,
            room=self.room.requests,
        )
