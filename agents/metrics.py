"""The agent's metrics, gslb_agent_*. Per-task values are taken from the table when Prometheus asks."""

import math
from collections import Counter as Tally
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from agents.keeper import Kept
from bns.model import HealthStatus


class Metrics:
    """Counts what the agent does; `kept` gives the tasks, from any thread."""

    def __init__(self, kept: Callable[[], list[Kept]]) -> None:
        self.registry = CollectorRegistry()
        self.reports = Counter("gslb_agent_reports", "Load reports sent.", ["replica", "kind"], registry=self.registry)
        self.reports_refused = Counter(
            "gslb_agent_reports_refused", "Load reports that a replica refused.", ["replica"], registry=self.registry
        )
        self.health_changes = Counter(
            "gslb_agent_health_changes", "Changes of a task's health.", ["to"], registry=self.registry
        )
        self.probes = Counter(
            "gslb_agent_probes", "Probes of this machine's tasks.", ["kind", "result"], registry=self.registry
        )
        self.probe_seconds = Histogram(
            "gslb_agent_probe_seconds",
            "How long probes of this machine's tasks take.",
            ["kind"],
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
            registry=self.registry,
        )
        self.config_reloads = Counter(
            "gslb_agent_config_reloads", "Reloads of the tasks file.", ["result"], registry=self.registry
        )
        self.registered = Gauge(
            "gslb_agent_registered", "1 while a replica holds this agent's session.", registry=self.registry
        )
        self.sample_seconds = Histogram(
            "gslb_agent_sample_seconds",
            "How long one look at all processes takes.",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
            registry=self.registry,
        )
        self.machine_utilization = Gauge(
            "gslb_agent_machine_utilization", "Share of this machine's CPU in use.", registry=self.registry
        )
        self.registry.register(_Tasks(kept))

    def sent(self, replica: str, kind: str) -> None:
        """A report was handed to gRPC."""
        self.reports.labels(replica, kind).inc()

    def refused(self, replica: str) -> None:
        """A replica would not take a report."""
        self.reports_refused.labels(replica).inc()


class _Tasks(Collector):
    def __init__(self, kept: Callable[[], list[Kept]]) -> None:
        self._kept = kept

    @override
    def collect(self) -> Iterator[Metric]:
        """The tasks as they are now."""
        kept = self._kept()
        tally = Tally(item.health.status for item in kept)
        tasks = GaugeMetricFamily("gslb_agent_tasks", "Tasks looked after, by health.", labels=["health"])
        for status in HealthStatus:
            tasks.add_metric([status.name], tally[status])
        yield tasks
        cpu = GaugeMetricFamily("gslb_agent_task_cpu_utilization", "CPU over declared cores.", labels=["task"])
        rps = GaugeMetricFamily("gslb_agent_task_rps", "Requests per second.", labels=["task", "result"])
        for item in kept:
            if not math.isnan(item.cpu_utilization):
                cpu.add_metric([item.task.name], item.cpu_utilization)
            rps.add_metric([item.task.name, "ok"], sum(item.rates.ok))
            rps.add_metric([item.task.name, "error"], sum(item.rates.error))
        yield cpu
        yield rps
