"""A LoadReport as checked columns: one pass of numpy over each column, no object per task.

An agent of a big machine sends thousands of rows each period; what is kept of them are arrays, and the names and their
index are shared with the report before when the tasks are the same.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bns.model import HealthStatus
from bns.names import InvalidNameError, check_label
from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.v1 import report_pb2

Column = NDArray[np.float32]

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TASK = re.compile(rf"/bns/{_LABEL}/{_LABEL}/{_LABEL}/{_LABEL}")
_STATUSES = frozenset(HealthStatus)
_UTILIZATION_MAX = 1e4
_OK = ("ok_critical_plus_rps", "ok_critical_rps", "ok_sheddable_plus_rps", "ok_sheddable_rps")
_ERROR = ("error_critical_plus_rps", "error_critical_rps", "error_sheddable_plus_rps", "error_sheddable_rps")


@dataclass(frozen=True, slots=True)
class Columns:
    """What one agent last said; row i of each column is about tasks[i]. Rates in rps; CPU of cpu_cores, NaN unknown."""

    tasks: tuple[str, ...]
    index: Mapping[str, int]
    health: tuple[int, ...]
    ok_rps: Column
    error_rps: Column
    cpu_utilization: Column
    in_flight: Column
    machine_utilization: float
    machine_cores: float
    period_s: float
    received_s: float  # monotonic
    complete: bool  # a report of all the agent's tasks is in it
    load_seq: int = 0  # of the last whole report: a partial one repeats the load of the period before

    def health_of(self, task: str) -> HealthStatus | None:
        row = self.index.get(task)
        return None if row is None else HealthStatus(self.health[row])


def check_identity(report: report_pb2.LoadReport) -> None:
    """Who reports, and how often. Raises InvalidValueError."""
    try:
        check_label(report.agent, "the agent")
        check_label(report.datacenter, "the datacenter")
    except InvalidNameError as error:
        raise InvalidValueError(str(error)) from error
    if not 1 <= len(report.boot_id) <= 64:
        raise InvalidValueError(f"boot_id of {report.agent} has {len(report.boot_id)} characters: give 1 to 64")
    _check_number("period_s", report.period_s, 0.1, 60.0)
    _check_number("machine_utilization", report.machine_utilization, 0.0, _UTILIZATION_MAX)
    _check_number("machine_cores", report.machine_cores, 0.0, 1e6)
    if len(report.task) > limits.TASKS_PER_REPORT_MAX:
        raise InvalidValueError(f"{len(report.task)} tasks in one report: at most {limits.TASKS_PER_REPORT_MAX}")
    if len(report.remote) > limits.REMOTE_PROBES_MAX:
        raise InvalidValueError(f"{len(report.remote)} remote probes in one report: at most {limits.REMOTE_PROBES_MAX}")


def parse(report: report_pb2.LoadReport, previous: Columns | None, now_s: float) -> Columns:
    """The report's columns, checked; a partial report is laid over `previous`. Raises InvalidValueError."""
    tasks = tuple(report.task)
    same = previous is not None and previous.tasks == tasks
    if same and previous is not None:
        tasks, index = previous.tasks, previous.index
    else:
        _check_tasks(tasks, report.datacenter)
        index = {task: row for row, task in enumerate(tasks)}
        if len(index) != len(tasks):
            raise InvalidValueError(f"{report.agent} reports a task twice: {_first_repeated(tasks)!r}")
    fresh = Columns(
        tasks=tasks,
        index=index,
        health=_health(report, len(tasks)),
        ok_rps=_total(report, _OK, len(tasks)),
        error_rps=_total(report, _ERROR, len(tasks)),
        cpu_utilization=_cpu(report, len(tasks)),
        in_flight=_numbers("in_flight", report.in_flight, len(tasks), limits.RATE_MAX_RPS),
        machine_utilization=report.machine_utilization,
        machine_cores=report.machine_cores,
        period_s=report.period_s,
        received_s=now_s,
        complete=not report.partial,
        load_seq=0 if report.partial else report.seq,
    )
    return _overlay(previous, fresh) if report.partial and previous is not None else fresh


def _overlay(base: Columns, partial: Columns) -> Columns:
    """`base` with the rows of `partial` in place of its own, new rows at the end."""
    added = tuple(task for task in partial.tasks if task not in base.index)
    tasks = base.tasks + added
    index = {**base.index, **{task: len(base.tasks) + i for i, task in enumerate(added)}} if added else base.index
    rows = np.fromiter((index[task] for task in partial.tasks), dtype=np.int64, count=len(partial.tasks))
    health = list(base.health) + [0] * len(added)
    for row, status in zip(rows.tolist(), partial.health, strict=True):
        health[row] = status

    def laid(old: Column, new: Column) -> Column:
        column = np.concatenate([old, np.zeros(len(added), dtype=np.float32)])
        column[rows] = new
        return column

    return Columns(
        tasks=tasks,
        index=index,
        health=tuple(health),
        ok_rps=laid(base.ok_rps, partial.ok_rps),
        error_rps=laid(base.error_rps, partial.error_rps),
        cpu_utilization=laid(base.cpu_utilization, partial.cpu_utilization),
        in_flight=laid(base.in_flight, partial.in_flight),
        machine_utilization=partial.machine_utilization,
        machine_cores=partial.machine_cores,
        period_s=partial.period_s,
        received_s=partial.received_s,
        complete=base.complete,
        load_seq=base.load_seq,
    )


def _check_tasks(tasks: Sequence[str], datacenter: str) -> None:
    prefix = f"/bns/{datacenter}/"
    for task in tasks:
        if not task.startswith(prefix) or _TASK.fullmatch(task) is None:
            raise InvalidValueError(f"task {task[:200]!r} is not of the form {prefix}USER/JOB/TASK")


def _first_repeated(tasks: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(task for task in tasks if task in seen or seen.add(task))  # type: ignore[func-returns-value]


def _health(report: report_pb2.LoadReport, count: int) -> tuple[int, ...]:
    health: tuple[int, ...] = tuple(report.health)
    if len(health) != count:
        raise InvalidValueError(f"column health has {len(health)} rows for {count} tasks")
    strange = set(health) - _STATUSES
    if strange:
        raise InvalidValueError(f"health {min(strange)} is no health status: use 0 to {max(_STATUSES)}")
    return health


def _total(report: report_pb2.LoadReport, names: Sequence[str], count: int) -> Column:
    total = np.zeros(count, dtype=np.float32)
    for name in names:
        values = getattr(report, name)
        if values:
            total += _numbers(name, values, count, limits.RATE_MAX_RPS)
    return total


def _cpu(report: report_pb2.LoadReport, count: int) -> Column:
    values = report.cpu_utilization
    if not values:
        return np.full(count, np.nan, dtype=np.float32)
    column = np.fromiter(values, dtype=np.float32, count=len(values))
    known = column[~np.isnan(column)]
    _check_column("cpu_utilization", column, known, count, _UTILIZATION_MAX)
    return column


def _numbers(name: str, values: Sequence[float], count: int, most: float) -> Column:
    if not values:
        return np.zeros(count, dtype=np.float32)
    column = np.fromiter(values, dtype=np.float32, count=len(values))
    _check_column(name, column, column, count, most)
    return column


def _check_column(name: str, column: Column, known: Column, count: int, most: float) -> None:
    if len(column) != count:
        raise InvalidValueError(f"column {name} has {len(column)} rows for {count} tasks")
    # A NaN fails both comparisons, so this one test also refuses what is not a number.
    good = (known >= 0) & (known <= most)
    if not good.all():
        raise InvalidValueError(f"{name} {float(known[~good][0])} is not between 0 and {most:g}")


def _check_number(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidValueError(f"{name} {value} is not between {least:g} and {most:g}")
