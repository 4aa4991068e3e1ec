"""One row of a benchmark's table: a figure, how it scattered, and what was aimed at. PURE."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """`value` None: it could not be measured, and `spread` says why. `at_most` or `at_least`: the goal, in the same unit."""

    name: str
    value: float | None
    unit: str
    spread: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str | None:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return None if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def ok(self) -> bool | None:
        """Whether the goal is met; None when there is none."""
        if self.value is None:
            return False
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    def as_json(self) -> Json:
        """The row as it is written to bench/out/NAME.json."""
        value = None if self.value is None else rounded(self.value)
        return {
            "name": self.name,
            "value": value,
            "unit": self.unit,
            "spread": self.spread,
            "goal": self.goal,
            "ok": self.ok,
        }


def rounded(value: float) -> float:
    """Four significant digits: more is noise."""
    return value if value == 0 or not math.isfinite(value) else round(value, 3 - math.floor(math.log10(abs(value))))


def figure(value: float) -> str:
    """Three significant digits for people, whole numbers in full.

    >>> [figure(value) for value in (0, 0.01234, 1.5, 123.4, 20000)]
    ['0', '0.0123', '1.5', '123', '20000']
    """
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def quantile(values: Sequence[float], q: float) -> float:
    """The least of `values` that is not below the fraction `q` of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> str:
    """Range and count, such as "0.9-1.4, n=5"."""
    return f"{figure(min(values))}-{figure(max(values))}, n={len(values)}"


def median_row(name: str, values: Sequence[float], unit: str, at_most: float | None = None) -> Row:
    """The median of repeated runs, and their range."""
    return Row(name, statistics.median(values), unit, spread(values), at_most)


def quantile_row(name: str, values: Sequence[float], q: float, unit: str, at_most: float | None = None) -> Row:
    """A quantile of one population, and the population's range."""
    return Row(f"{name}, {quantile_name(q)}", quantile(values, q), unit, spread(values), at_most)


def quantile_name(q: float) -> str:
    """p50, p99, p99.9; the last one is `max`."""
    return "max" if q >= 1.0 else f"p{100 * q:g}"
