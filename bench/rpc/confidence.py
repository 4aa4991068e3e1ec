"""Means over seeds with their 95 % confidence intervals (Student's t). PURE."""

import math
import statistics
from collections.abc import Sequence

from bench.rows import figure

# Quantiles of t at 0.975 by degrees of freedom; beyond them, that of the normal distribution is near enough.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def half_width(values: Sequence[float]) -> float:
    """Of the mean's confidence interval; infinite for a single value."""
    if len(values) < 2:
        return math.inf
    freedom = len(values) - 1
    t = _T[freedom - 1] if freedom <= len(_T) else 1.96
    return t * statistics.stdev(values) / math.sqrt(len(values))


def interval(values: Sequence[float]) -> str:
    """Such as "325-349 (95 %), n=10"."""
    mean, half = statistics.fmean(values), half_width(values)
    return f"{figure(mean - half)}-{figure(mean + half)} (95 %), n={len(values)}"
