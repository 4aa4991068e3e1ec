"""What Prometheus scrapes from a replica, read at the moment of the scrape: no counters to keep in step."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from gslb.control.ingest.servicer import ReportsServicer
    from gslb.control.quotas import QuotaDesk
    from gslb.control.recorder import Recorder
    from gslb.control.replica import Replica


class _ReplicaCollector(Collector):
    def __init__(self, replica: "Replica", reports: "ReportsServicer") -> None:
        self._replica = replica
        self._reports = reports

    @override
    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counters()
        yield from self._by_service()
        yield from _quota_metrics(self._replica.quotas)

    def _gauges(self) -> Iterator[Metric]:
        replica = self._replica
        view, config = replica.store.view, replica.mirror.config
        silent_s = replica.etcd_silent_s
        leader = replica.elector.leadership
        for name, text, value in (
            ("warm", "1 once this replica answers readers.", replica.warm),
            ("leading", "1 while this replica leads.", leader is not None),
            (
                "leader_epoch",
                "Fencing token of this replica's leadership, 0 when it does not lead.",
                leader.revision if leader else 0,
            ),
            (
                "etcd_silence_seconds",
                "Since etcd last answered; NaN before the first answer.",
                float("nan") if silent_s is None else silent_s,
            ),
            ("etcd_revision", "Revision of /gslb/ that this replica has seen.", replica.mirror.revision),
            ("incarnation", "Incarnation of the plans, as in etcd.", replica.mirror.incarnation),
            ("tasks", "Tasks registered in BNS.", len(view.tasks)),
            ("agents", "Agents whose liveness lease holds.", len(view.agents)),
            ("agents_silent", "Agents that hold tasks and do not report.", len(list(replica.stale_agents()))),
            (
                "records_quarantined",
                "Bad records in etcd.",
                len(config.quarantined) + len(view.quarantined) + len(replica.mirror.plans.quarantined),
            ),
            ("streams", "Open discovery streams.", len(replica.hub.streams)),
            ("demand_reporters", "Processes whose demand reports are remembered.", replica.demand.reporters),
            ("plan_seconds", "How long the last round of the balancer took.", replica.planner.step_s),
        ):
            yield GaugeMetricFamily(f"gslb_control_{name}", text, value=float(value))

    def _counters(self) -> Iterator[Metric]:
        replica = self._replica
        yield from _recorder_metrics(replica.recorder)
        yield CounterMetricFamily("gslb_control_plan_rounds", "Rounds of the balancer.", value=replica.planner.steps)
        yield CounterMetricFamily(
            "gslb_control_plans_published", "Plans written to etcd.", value=replica.publisher.total
        )
        yield CounterMetricFamily(
            "gslb_control_leader_terms", "Times this replica began to lead.", value=replica.elector.terms
        )
        yield CounterMetricFamily(
            "gslb_control_demand_rows_unknown",
            "Rows of demand of unknown services or localities.",
            value=replica.strange_rows,
        )
        reports = CounterMetricFamily("gslb_control_reports", "Reports taken in.", labels=["kind", "result"])
        for result, counts in (("accepted", self._reports.accepted), ("refused", self._reports.refused)):
            for kind in ("load", "demand"):
                reports.add_metric([kind, result], counts[kind])
        yield reports

    def _by_service(self) -> Iterator[Metric]:
        replica = self._replica
        overload = GaugeMetricFamily(
            "gslb_control_service_overload_ratio", "Demand over capacity, at least 1.", labels=["service"]
        )
        held = GaugeMetricFamily("gslb_control_service_plan_held", "1 while an older plan is held.", labels=["service"])
        demand = GaugeMetricFamily("gslb_control_service_demand_rps", "Smoothed demand.", labels=["service"])
        version = GaugeMetricFamily(
            "gslb_control_service_plan_version", "Version of the published plan.", labels=["service"]
        )
        for name, decision in dict(replica.planner.decision.services).items():
            overload.add_metric([name], decision.overload)
            held.add_metric([name], float(bool(decision.held)))
            demand.add_metric([name], sum(replica.planner.demand.get(name, {}).values()))
            published = replica.mirror.plans.plans.get(name)
            version.add_metric([name], published.plan.stamp.version if published else 0)
        yield from (overload, held, demand, version)


def _quota_metrics(desk: "QuotaDesk") -> Iterator[Metric]:
    labels = ["service", "caller", "unit"]
    limit = GaugeMetricFamily("gslb_control_quota_limit", "A client's quota, per second.", labels=labels)
    asked = GaugeMetricFamily("gslb_control_quota_asked", "What it asks of all servers, per second.", labels=labels)
    used = GaugeMetricFamily("gslb_control_quota_used", "What it is let use, per second.", labels=labels)
    standing = GaugeMetricFamily("gslb_control_quota_standing", "0 within, 1 near, 2 over its quota.", labels=labels)
    for row in desk.rows():
        who = [row.service, row.caller, row.unit.value]
        for family, value in ((limit, row.quota), (asked, row.asked), (used, row.used), (standing, row.standing)):
            family.add_metric(who, float(value))
    yield from (limit, asked, used, standing)
    yield GaugeMetricFamily("gslb_control_quota_servers", "Servers that report their usage.", value=desk.servers)
    reports = CounterMetricFamily("gslb_control_quota_reports", "Reports of usage.", labels=["result"])
    reports.add_metric(["accepted"], desk.reports)
    reports.add_metric(["refused"], desk.refused)
    yield reports


def _recorder_metrics(recorder: "Recorder | None") -> Iterator[Metric]:
    if recorder is None:
        return
    yield GaugeMetricFamily("gslb_control_recorder_bytes", "Size of the recording on disk.", value=recorder.size)
    steps = CounterMetricFamily("gslb_control_recorder_steps", "Steps of the balancer, by fate.", labels=["result"])
    for result, count in (
        ("recorded", recorder.recorded),
        ("dropped", recorder.dropped),
        ("failed", recorder.failed),
    ):
        steps.add_metric([result], count)
    yield steps


def registry_of(replica: "Replica", reports: "ReportsServicer") -> CollectorRegistry:
    """A registry with this replica's metrics."""
    registry = CollectorRegistry()
    registry.register(_ReplicaCollector(replica, reports))
    return registry
