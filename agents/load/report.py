"""Packs what the agent knows into one gslb.v1.LoadReport: columns, however many tasks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.load.cpu import MachineLoad
from agents.load.rates import NO_LOAD, Rates
from bns.codec import encode_health
from bns.model import HealthStatus
from gslb.v1 import report_pb2


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task's line; `cpu_utilization` is NaN while it is unknown."""

    name: str
    health: HealthStatus
    cpu_utilization: float = math.nan
    rates: Rates = NO_LOAD


@dataclass(frozen=True, slots=True)
class RemoteRow:
    """What a probe of another datacenter's task saw."""

    name: str
    ok: bool
    rtt_ms: float


@dataclass(frozen=True, slots=True)
class Sender:
    """Who reports: the same in every report of this process."""

    agent: str
    datacenter: str
    boot_id: str
    period_s: float


def pack(
    sender: Sender,
    seq: int,
    rows: Sequence[TaskRow],
    remote: Iterable[RemoteRow],
    machine: MachineLoad,
    *,
    partial: bool,
) -> report_pb2.LoadReport:
    """The message. Column i of each kind belongs to task[i]."""
    report = report_pb2.LoadReport(
        agent=sender.agent,
        datacenter=sender.datacenter,
        boot_id=sender.boot_id,
        seq=seq,
        period_s=sender.period_s,
        partial=partial,
        machine_utilization=machine.utilization,
        machine_cores=machine.cores,
        task=[row.name for row in rows],
        health=[encode_health(row.health) for row in rows],
        cpu_utilization=[row.cpu_utilization for row in rows],
        in_flight=[row.rates.in_flight for row in rows],
    )
    ok_columns = (
        report.ok_critical_plus_rps,
        report.ok_critical_rps,
        report.ok_sheddable_plus_rps,
        report.ok_sheddable_rps,
    )
    error_columns = (
        report.error_critical_plus_rps,
        report.error_critical_rps,
        report.error_sheddable_plus_rps,
        report.error_sheddable_rps,
    )
    for index in range(4):
        ok_columns[index].extend(row.rates.ok[index] for row in rows)
        error_columns[index].extend(row.rates.error[index] for row in rows)
    for seen in remote:
        report.remote.add(task=seen.name, ok=seen.ok, rtt_ms=seen.rtt_ms)
    return report
