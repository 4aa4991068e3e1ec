"""A new task gets its share little by little: caches are cold, code is not yet compiled, pools are empty. PURE."""

from gslb.model import limits


def slow_start_factor(age_s: float, window_s: float = limits.SLOW_START_S) -> float:
    """What the weight of a task is multiplied by that has served for `age_s`: from SLOW_START_LEAST to 1, a straight line.

    >>> [slow_start_factor(age_s, 30.0) for age_s in (-1.0, 0.0, 15.0, 30.0, 99.0)]
    [0.1, 0.1, 0.5, 1.0, 1.0]
    """
    if window_s <= 0.0:
        return 1.0
    return min(1.0, max(limits.SLOW_START_LEAST, age_s / window_s))


def admits_at_most(age_s: float, whole: int, window_s: float = limits.SLOW_START_S) -> int:
    """Of `whole` requests at a time, how many a server takes that started `age_s` ago; at least one."""
    return max(1, int(whole * slow_start_factor(age_s, window_s)))
