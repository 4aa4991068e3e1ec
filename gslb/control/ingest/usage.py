"""Servers' reports of what each client asked of them, decoded and checked."""

from collections.abc import Iterator
from typing import Final

from gslb.model import limits
from gslb.model.errors import InvalidValueError
from gslb.model.quota import Unit, Usage
from gslb.v1 import quota_pb2
from gslb.wire.scalars import count, line, number

_WHO_MAX_CHARS: Final = 200
_AMOUNT_MAX: Final = 1e12
_PERIOD_MAX_S: Final = 600.0
_UNITS: Final = {quota_pb2.QUOTA_UNIT_RPS: Unit.RPS, quota_pb2.QUOTA_UNIT_CPU: Unit.CPU}
UNIT_NUMBERS: Final = {unit: quota_pb2.QuotaUnit.ValueType(number) for number, unit in _UNITS.items()}


def check(report: quota_pb2.UsageReport) -> None:
    """Who reports, of what, and of how long a time. Raises InvalidValueError naming the value."""
    for what, text in (("reporter", report.reporter), ("boot_id", report.boot_id)):
        if not text:
            raise InvalidValueError(f"{what} is empty: give 1 to {_WHO_MAX_CHARS} printable characters")
        line(text, _WHO_MAX_CHARS, what)
    line(report.service, limits.NAME_MAX_CHARS, "service")
    number(report.period_s, "period_s", 0.0, _PERIOD_MAX_S)
    count(len(report.rows), limits.QUOTAS_PER_SERVICE_MAX, "rows of usage")


def usages(report: quota_pb2.UsageReport) -> Iterator[Usage]:
    """The rows of a report that was checked. Raises InvalidValueError naming the value."""
    for row in report.rows:
        caller = line(row.caller, limits.NAME_MAX_CHARS, "caller")
        unit = _UNITS.get(row.unit)
        if unit is None:
            raise InvalidValueError(f"caller {caller!r}: unit {row.unit} is not known: give RPS (1) or CPU (2)")
        asked = number(row.asked, f"caller {caller!r}: asked", 0.0, _AMOUNT_MAX)
        used = number(row.used, f"caller {caller!r}: used", 0.0, _AMOUNT_MAX)
        yield Usage(caller, unit, asked, used, min(row.requests, int(_AMOUNT_MAX)))
