"""Clients' and frontends' reports, decoded and checked: what they ask for, and what they saw of the tasks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from gslb.balancer.demand import DemandReport, DemandRow
from gslb.control.ingest.board import Probe
from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.model.errors import InvalidValueError
from gslb.v1 import report_pb2
from gslb.wire.codec import decode_source

_REPORTER_MAX_CHARS = 200
_OBSERVATIONS_MAX = 50_000
_COUNT_MAX = 10**12


def decode(report: report_pb2.DemandReport) -> tuple[DemandReport, tuple[Probe, ...]]:
    """The report's demand and what it saw of tasks. Raises InvalidValueError naming the value."""
    for what, text in (("reporter", report.reporter), ("boot_id", report.boot_id)):
        if not 1 <= len(text) <= _REPORTER_MAX_CHARS or not text.isprintable():
            raise InvalidValueError(f"{what} {text[:80]!r} has to have 1 to {_REPORTER_MAX_CHARS} printable characters")
    if len(report.datacenter) > limits.NAME_MAX_CHARS:
        raise InvalidValueError(f"datacenter {report.datacenter[:80]!r} is longer than a name may be")
    if len(report.rows) > limits.DEMAND_ROWS_MAX or len(report.observations) > _OBSERVATIONS_MAX:
        raise InvalidValueError(
            f"{len(report.rows)} rows and {len(report.observations)} observations in one report:"
            f" at most {limits.DEMAND_ROWS_MAX} and {_OBSERVATIONS_MAX}"
        )
    demand = DemandReport(
        reporter=report.reporter,
        boot_id=report.boot_id,
        seq=report.seq,
        period_s=report.period_s,
        source=decode_source(report.source),
        rows=tuple(_rows(report.rows)),
    )
    return demand, tuple(_probes(report.observations))


def _rows(rows: Iterable[report_pb2.DemandRow]) -> Iterator[DemandRow]:
    for row in rows:
        for what, text in (("service", row.service), ("locality", row.locality), ("caller", row.caller)):
            if len(text) > limits.NAME_MAX_CHARS:
                raise InvalidValueError(f"{what} {text[:80]!r} is longer than a name may be")
        yield DemandRow(row.service, row.locality, row.attempts, row.caller, _criticality(row.criticality))


def _criticality(number: int) -> Criticality:
    """Unspecified, and what a newer client may send, is CRITICAL."""
    return Criticality(number - 1) if 1 <= number <= len(Criticality) else Criticality.CRITICAL


def _probes(observations: Sequence[report_pb2.TaskObservation]) -> Iterator[Probe]:
    for seen in observations:
        if seen.ok > _COUNT_MAX or seen.failed > _COUNT_MAX:
            raise InvalidValueError(f"task {seen.task[:200]!r} was seen {max(seen.ok, seen.failed)} times: no count")
        if not 0.0 <= seen.rtt_ms <= limits.RTT_MAX_MS:
            raise InvalidValueError(
                f"task {seen.task[:200]!r}: rtt_ms {seen.rtt_ms} is not between 0 and {limits.RTT_MAX_MS:g}"
            )
        yield Probe(seen.task, seen.ok, seen.failed, seen.rtt_ms)


def only(report: DemandReport, rows: tuple[DemandRow, ...]) -> DemandReport:
    """The report with these of its rows."""
    return report if len(rows) == len(report.rows) else replace(report, rows=rows)
