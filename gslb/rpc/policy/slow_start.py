"""A new task gets its share little by little: caches are cold, code is not yet compiled, pools are empty. PURE.

Clients weigh it less than others for a while, servers admit less (`gslb.rpc.policy.guard`). Where more than half of a
datacenter's tasks are new, clients weigh them all as usual: there is nobody who could take what they do not get.
"""

from collections.abc import Iterable

from gslb.model import limits
from gslb.rpc.policy.p2c import M


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


def weigh(members: Iterable[M], now_s: float, wall_s: float) -> bool:
    """Sets the weights of a service's tasks by their age. Whether some are new, so that it must be done again.

    `now_s` is monotonic, `wall_s` in Unix seconds: a task is as old as its clock and ours say, and no younger than the
    time that it is known here. So a clock that is wrong makes nobody new for longer than SLOW_START_S.
    """
    by_datacenter: dict[str, list[M]] = {}
    warming = False
    for member in members:
        by_datacenter.setdefault(member.endpoint.datacenter, []).append(member)
    for here in by_datacenter.values():
        factors = [_factor(member, now_s, wall_s) for member in here]
        new = sum(factor < 1.0 for factor in factors)
        warming = warming or new > 0
        for member, factor in zip(here, factors, strict=True):
            member.weight = member.endpoint.weight * (factor if 2 * new <= len(here) else 1.0)
    return warming


def _factor(member: M, now_s: float, wall_s: float) -> float:
    """Of a task that did not say when it started: 1."""
    started_s = member.endpoint.started_s
    if not started_s:
        return 1.0
    age_s = max(now_s - member.known_s, wall_s - started_s)
    return slow_start_factor(age_s // limits.SLOW_START_STEP_S * limits.SLOW_START_STEP_S)
