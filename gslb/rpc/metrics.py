"""Prometheus metrics gslb_rpc_*, read from the channels' and servers' own counters when they are scraped.

Nothing is counted twice for it, so the hot path pays nothing. Needs `prometheus_client`, which is no dependency of the
library: without it, `register` says so.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from gslb.model.criticality import Criticality
from gslb.rpc.client.connection import ControlConnection
from gslb.rpc.client.core import ServiceCore
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.client.link import Link
from gslb.rpc.client.shared import connections
from gslb.rpc.client.tally import Counts
from gslb.rpc.server.gate import Gate, GateState
from gslb.rpc.server.load import Load

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import CollectorRegistry

    from gslb.rpc.server.quotas import Quotas, QuotaState

Cores = list[ServiceCore[Link]]

_COUNTS: tuple[tuple[str, str, Callable[[Counts], int]], ...] = (
    ("client_retries", "Attempts beyond the first.", lambda counts: counts.retries),
    ("client_retries_refused", "Retries that the budget refused.", lambda counts: counts.retries_refused),
    ("client_failures", "Calls that ended without a task's answer.", lambda counts: counts.failures),
    ("client_no_endpoint", "Calls that found nobody to ask.", lambda counts: counts.no_endpoint),
    ("client_load_reports", "Tasks' reports of their load that came with answers.", lambda counts: counts.reports),
    ("client_load_probes", "Questions to tasks for their load.", lambda counts: counts.probes),
    ("client_load_probes_failed", "Those that were not answered with it.", lambda counts: counts.probes_failed),
)


class RpcCollector:
    """All channels of this process, and the servers whose `Load`, gates and quotas were given."""

    def __init__(
        self,
        loads: Iterable[Load] = (),
        *,
        gates: Mapping[str, Gate] | None = None,
        quotas: Iterable["Quotas"] = (),
        control: Iterable[ControlConnection] | None = None,
    ) -> None:
        self._loads: weakref.WeakSet[Load] = weakref.WeakSet(loads)
        self._gates = weakref.WeakValueDictionary(gates or {})
        self._quotas: weakref.WeakSet[Quotas] = weakref.WeakSet(quotas)
        self._control = list(control) if control is not None else None

    def collect(self) -> "Iterator[Metric]":
        """Called by prometheus_client with each scrape."""
        found = self._control if self._control is not None else connections()
        cores = [core for connection in found for core in connection.cores()]
        yield from _requests(cores)
        yield from _held_back(cores)
        yield from _tasks(cores)
        yield from _control(found)
        yield from _server(list(self._loads))
        yield from _at_gates({name: gate.state() for name, gate in self._gates.items()})
        yield from _of_quotas({each.service: each.state() for each in self._quotas})


def _counter(name: str, text: str, labels: list[str]) -> "CounterMetricFamily":
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"gslb_rpc_{name}", text, labels=labels)


def _gauge(name: str, text: str, labels: list[str]) -> "GaugeMetricFamily":
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"gslb_rpc_{name}", text, labels=labels)


def _summed(rows: Iterable[tuple[tuple[str, ...], float]]) -> dict[tuple[str, ...], float]:
    """A process may have several channels to one service: their numbers are added up."""
    sums: dict[tuple[str, ...], float] = {}
    for labels, value in rows:
        sums[labels] = sums.get(labels, 0.0) + value
    return sums


def _requests(cores: Cores) -> "Iterator[Metric]":
    requests = _counter("client_requests", "Logical calls, by service and criticality.", ["service", "criticality"])
    for labels, value in _summed(
        ((core.settings.service, level.name), count)
        for core in cores
        for level, count in zip(Criticality, core.total_attempts(), strict=True)
    ).items():
        requests.add_metric(list(labels), value)
    yield requests
    for name, text, read in _COUNTS:
        family = _counter(name, text, ["service"])
        for labels, value in _summed(((core.settings.service,), read(core.counts)) for core in cores).items():
            family.add_metric(list(labels), value)
        yield family


def _held_back(cores: Cores) -> "Iterator[Metric]":
    held = _counter("client_held_back", "Calls that were not sent: they would be refused.", ["service", "criticality"])
    for labels, value in _summed(
        ((core.settings.service, level.name), core.protection().held_back(level))
        for core in cores
        for level in Criticality
    ).items():
        held.add_metric(list(labels), value)
    yield held
    hedges = _counter("client_hedges", "Second copies of calls that were late.", ["service"])
    for labels, value in _summed(((core.settings.service,), core.protection().hedges) for core in cores).items():
        hedges.add_metric(list(labels), value)
    yield hedges


def _state(link: Link) -> str:
    if link.down:
        return "down"
    if link.set_aside:
        return "stalled" if link.stalled else "ejected"
    return link.endpoint.health.name.lower()


def _tasks(cores: Cores) -> "Iterator[Metric]":
    links = [(core.settings.service, link) for core in cores for link in core.links()]
    policies = _gauge("client_policy", "Channels that choose tasks by this policy.", ["service", "policy"])
    for labels, value in _summed(((core.settings.service, core.policy()), 1.0) for core in cores).items():
        policies.add_metric(list(labels), value)
    yield policies
    tasks = _gauge("client_tasks", "Tasks known, by state as this client sees it.", ["service", "datacenter", "state"])
    for labels, value in _summed(
        ((service, link.endpoint.datacenter, _state(link)), 1.0) for service, link in links
    ).items():
        tasks.add_metric(list(labels), value)
    yield tasks
    flying = _gauge("client_in_flight", "Requests under way.", ["service", "datacenter"])
    for labels, value in _summed(
        ((service, link.endpoint.datacenter), link.in_flight) for service, link in links
    ).items():
        flying.add_metric(list(labels), value)
    yield flying
    shares = _gauge("client_share", "Share of new requests.", ["service", "locality", "datacenter"])
    seen: set[tuple[str, str]] = set()
    for core in cores:
        table, where = core.table, (core.settings.service, core.settings.locality)
        if table is None or where in seen:
            continue
        seen.add(where)
        for datacenter, share in table.shares.items():
            shares.add_metric([*where, datacenter], share)
    yield shares


def _control(found: Iterable[ControlConnection]) -> "Iterator[Metric]":
    age = _gauge("control_age_seconds", "Since the control plane last said something.", ["control"])
    problems = _counter("control_problems", "Parts of updates that were refused.", ["control"])
    for connection in found:
        name = ",".join(connection.addresses)
        age_s = connection.age_s()
        if age_s is not None:
            age.add_metric([name], age_s)
        problems.add_metric([name], connection.problems)
    yield age
    yield problems


def _server(loads: Iterable[Load]) -> "Iterator[Metric]":
    served = _counter("server_requests", "Requests served.", ["criticality", "outcome"])
    flying = _gauge("server_in_flight", "Requests being served.", [])
    counters = [load.counters() for load in loads]
    for level in Criticality:
        served.add_metric([level.name, "ok"], sum(counted.ok[level] for counted in counters))
        served.add_metric([level.name, "error"], sum(counted.error[level] for counted in counters))
    flying.add_metric([], sum(counted.in_flight for counted in counters))
    yield served
    yield flying


_GATE_GAUGES: tuple[tuple[str, str, Callable[[GateState], float]], ...] = (
    ("gate_slots", "Requests that are served at a time.", lambda state: state.slots),
    ("gate_in_flight", "Requests that passed the gate and are being served.", lambda state: state.in_flight),
    ("gate_waiting", "Requests that wait at the gate.", lambda state: state.waiting),
    (
        "gate_level",
        "Who is let in: 4 everybody, 2.5 half of SHEDDABLE_PLUS, 1 CRITICAL_PLUS.",
        lambda state: state.level,
    ),
    ("gate_overloaded", "Whether requests waited too long in the last window.", lambda state: state.overloaded),
)


def _at_gates(states: Mapping[str, GateState]) -> "Iterator[Metric]":
    if not states:
        return
    for name, text, read in _GATE_GAUGES:
        gauge = _gauge(name, text, ["gate"])
        for gate, state in states.items():
            gauge.add_metric([gate], float(read(state)))
        yield gauge
    refused = _counter("gate_refused", "Requests refused for overload.", ["gate", "criticality"])
    expired = _counter("gate_expired", "Requests whose deadline passed before they were begun.", ["gate"])
    for gate, state in states.items():
        expired.add_metric([gate], state.expired)
        for level, count in zip(Criticality, state.refused, strict=True):
            refused.add_metric([gate, level.name], count)
    yield refused
    yield expired


def _of_quotas(states: "Mapping[str, Mapping[str, QuotaState]]") -> "Iterator[Metric]":
    if not states:
        return
    labels = ["service", "caller", "unit"]
    share = _gauge("quota_share", "What this server may let in of a client, per second.", labels)
    limit = _gauge("quota_limit", "What all servers may let in of it, per second.", labels)
    requests = _counter("quota_requests", "Requests of clients that have a quota.", labels)
    refused = _counter("quota_refused", "Those that were refused for it.", labels)
    used = _counter("quota_used", "What was let in: requests, or CPU seconds.", labels)
    for service, clients in states.items():
        for caller, state in clients.items():
            who = [service, caller, state.unit.value]
            share.add_metric(who, state.share)
            limit.add_metric(who, state.quota)
            requests.add_metric(who, state.requests)
            refused.add_metric(who, state.refused)
            used.add_metric(who, state.used)
    yield from (share, limit, requests, refused, used)


def register(
    registry: "CollectorRegistry | None" = None,
    *,
    loads: Iterable[Load] = (),
    gates: Mapping[str, Gate] | None = None,
    quotas: Iterable["Quotas"] = (),
) -> RpcCollector:
    """Adds the metrics to a registry; the default one if none is given. `gates` by a name of the caller's choice.

    Raises ConfigurationError.
    """
    try:
        from prometheus_client.registry import REGISTRY
    except ModuleNotFoundError as error:
        raise ConfigurationError("metrics need prometheus_client: pip install prometheus-client") from error
    collector = RpcCollector(loads, gates=gates, quotas=quotas)
    (registry or REGISTRY).register(collector)
    return collector
