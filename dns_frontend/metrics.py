"""What the frontend counts: plain numbers on the hot path, Prometheus families when somebody asks.

Labels are bounded: codes and transports are few, localities and datacenters come from the catalog. Demand is counted by
service and locality, for the control plane, and is not a metric: 10,000 services x 200 localities are 2 million series.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Final, TypedDict

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from dns_frontend.zone.rtype import Rcode
from gslb.model import limits

NO_LOCALITY: Final = "(none)"
NO_DATACENTER: Final = "(none)"
DESTINATIONS_MAX: Final = 100_000


class Transport(Enum):
    """How a message came."""

    UDP = "udp"
    TCP = "tcp"

    # Members are compared by identity: hashing them by it, too, costs a tenth of what Enum does, twice a query.
    __hash__ = object.__hash__


class Counters:
    """Counts since the start. Written by the event loop only; read from any thread, a number at a time."""

    def __init__(self) -> None:
        self.answers: dict[tuple[Transport, int], int] = {}
        self.ignored_messages: dict[Transport, int] = dict.fromkeys(Transport, 0)
        self.destinations: dict[tuple[str, str], int] = {}  # (locality, datacenter)
        self.demand: dict[tuple[str, str], int] = {}  # (service, locality), since `take_demand`
        self.held_back: dict[tuple[str, str], int] = {}  # by class of answer and what became of it
        self.truncated = 0
        self.transfers = 0
        self.bugs = 0
        self.send_failures = 0
        self.tcp_refused = 0
        self.tcp_evicted = 0
        self.bad_updates = 0
        self.reconnects = 0
        self.zone_problems = 0

    def answered(self, transport: Transport, rcode: int, count: int = 1) -> None:
        key = (transport, rcode)
        self.answers[key] = self.answers.get(key, 0) + count

    def ignored(self, transport: Transport, count: int = 1) -> None:
        self.ignored_messages[transport] += count

    def limited(self, kind: str, action: str, count: int = 1) -> None:
        """Answers that the rate limit held back."""
        self.held_back[kind, action] = self.held_back.get((kind, action), 0) + count

    def steered(self, service: str, locality: str, datacenter: str) -> None:
        """One question for a service's address; `datacenter` "": there was none to give."""
        self.sent_to(locality, datacenter, 1)
        self.demanded(service, locality, 1)

    def sent_to(self, locality: str, datacenter: str, count: int) -> None:
        """Answers by where the clients were and where they were sent."""
        to = (locality, datacenter)
        if to in self.destinations or len(self.destinations) < DESTINATIONS_MAX:
            self.destinations[to] = self.destinations.get(to, 0) + count

    def demanded(self, service: str, locality: str, count: int) -> None:
        """Questions for a service's addresses."""
        pair = (service, locality)
        if pair in self.demand or len(self.demand) < limits.DEMAND_ROWS_MAX:
            self.demand[pair] = self.demand.get(pair, 0) + count

    def take(self) -> "Told":
        """What was counted since the last call, for another process."""
        told = Told(
            answers=[(transport.value, rcode, count) for (transport, rcode), count in self.answers.items()],
            ignored=[(transport.value, count) for transport, count in self.ignored_messages.items()],
            destinations=[(*to, count) for to, count in self.destinations.items()],
            demand=[(*pair, count) for pair, count in self.demand.items()],
            held_back=[(*what, count) for what, count in self.held_back.items()],
            plain={name: int(getattr(self, name)) for name in _PLAIN},
        )
        vars(self).update(vars(Counters()))
        return told

    def absorb(self, told: "Told") -> None:
        """Adds what another process counted."""
        for transport, rcode, count in told["answers"]:
            self.answered(Transport(transport), rcode, count)
        for transport, count in told["ignored"]:
            self.ignored(Transport(transport), count)
        for locality, datacenter, count in told["destinations"]:
            self.sent_to(locality, datacenter, count)
        for service, locality, count in told["demand"]:
            self.demanded(service, locality, count)
        for kind, action, count in told["held_back"]:
            self.limited(kind, action, count)
        for name in _PLAIN:
            setattr(self, name, getattr(self, name) + told["plain"][name])

    def take_demand(self) -> Mapping[tuple[str, str], int]:
        """What was asked since the last call, by (service, locality)."""
        taken, self.demand = self.demand, {}
        return taken


# Numbers of `Counters` without labels. What each process learns for itself is counted by the first alone.
_PLAIN: Final = ("truncated", "transfers", "bugs", "send_failures", "tcp_refused", "tcp_evicted")


class Told(TypedDict):
    """Counts on their way from one process to another, as JSON can say them."""

    answers: list[tuple[str, int, int]]
    ignored: list[tuple[str, int]]
    destinations: list[tuple[str, str, int]]
    demand: list[tuple[str, str, int]]
    held_back: list[tuple[str, str, int]]
    plain: dict[str, int]


class FrontendCollector(Collector):
    """The counters, and what the rest of the process knows of itself, as metrics."""

    def __init__(
        self,
        counters: Counters,
        gauges: Callable[[], Mapping[str, tuple[str, float]]],
        serials: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        """`gauges` gives name -> (help, value) of what is measured when it is asked for; `serials` (zone, serial)."""
        self._counters = counters
        self._gauges = gauges
        self._serials = serials

    @override
    def collect(self) -> Iterator[Metric]:
        counters = self._counters
        answers = CounterMetricFamily("gslb_dns_answers", "Answers sent.", labels=["transport", "rcode"])
        for (transport, rcode), count in dict(counters.answers).items():
            answers.add_metric([transport.value, Rcode(rcode).name], count)
        yield answers
        ignored = CounterMetricFamily("gslb_dns_ignored", "Messages that got no answer.", labels=["transport"])
        for transport, count in counters.ignored_messages.items():
            ignored.add_metric([transport.value], count)
        yield ignored
        steered = CounterMetricFamily(
            "gslb_dns_steered", "Questions for a service's addresses.", labels=["locality", "datacenter"]
        )
        for (locality, datacenter), count in dict(counters.destinations).items():
            steered.add_metric([locality or NO_LOCALITY, datacenter or NO_DATACENTER], count)
        yield steered
        limited = CounterMetricFamily(
            "gslb_dns_rate_limited", "Answers that the rate limit held back.", labels=["class", "action"]
        )
        for (kind, action), count in dict(counters.held_back).items():
            limited.add_metric([kind, action], count)
        yield limited
        yield from self._plain()
        zones = GaugeMetricFamily(
            "gslb_dns_zone_serial", "Serial number of a zone that is served: equal on all frontends.", labels=["zone"]
        )
        for zone, serial in self._serials():
            zones.add_metric([zone], serial)
        yield zones
        for name, (text, value) in self._gauges().items():
            yield GaugeMetricFamily(name, text, value=value)

    def _plain(self) -> Iterator[Metric]:
        counters = self._counters
        for name, text, value in (
            ("truncated", "Answers that did not fit and had TC set.", counters.truncated),
            ("transfers", "Whole zones that were sent.", counters.transfers),
            ("bugs", "Messages answered SERVFAIL because of an error in this program.", counters.bugs),
            ("send_failures", "Answers that the kernel did not take.", counters.send_failures),
            ("tcp_refused", "TCP connections closed at once because one prefix has too many.", counters.tcp_refused),
            ("tcp_evicted", "Idle TCP connections closed to make room.", counters.tcp_evicted),
            ("bad_updates", "Parts of updates from the control plane that were refused.", counters.bad_updates),
            ("reconnects", "Times that the stream from the control plane was made anew.", counters.reconnects),
            ("zone_problems", "Zones and names of the catalog that could not be served.", counters.zone_problems),
        ):
            yield CounterMetricFamily(f"gslb_dns_{name}", text, value=value)
