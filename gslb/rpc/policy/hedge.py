"""When to ask a second task before the first has answered, and how often. PURE.

A call that takes longer than nearly all others is more often stuck than slow work. A second attempt after the 95th
percentile of the usual time cuts the tail at the cost of a twentieth more requests (Dean and Barroso, "The Tail at
Scale", 2013). When everything is slow, every call is late: a budget keeps hedges to a part of the requests, and after a
refusal for overload there are none for a while.
"""

from dataclasses import dataclass, field
from typing import Final

from gslb.model import limits
from gslb.rpc.policy.budget import RetryBudget

# How far one answer moves the estimate.
_GAIN: Final = 0.05
# Answers before the estimate is believed.
WARM_ANSWERS: Final = 100
# No hedges for so long after a refusal for overload.
CALM_S: Final = 5.0


@dataclass(slots=True)
class Hedging:
    """One channel's, for methods that may be executed twice. Guarded by its lock; times are monotonic seconds.

    The quantile is followed without a history: each answer above the estimate lifts it, each below lowers it, in the
    proportion in which they come when the estimate is right.
    """

    late_s: float = 0.0
    answers: int = 0
    refused_s: float | None = None
    budget: RetryBudget = field(default_factory=lambda: RetryBudget(limits.HEDGE_BUDGET_FRACTION, reserve=0.0))

    def request(self, now_s: float) -> None:
        """Counts one logical request."""
        self.budget.request(now_s)

    def answered(self, took_s: float) -> None:
        """An attempt that was not cancelled took so long."""
        self.answers += 1
        if self.answers == 1:
            self.late_s = took_s
        elif took_s > self.late_s:
            self.late_s *= 1.0 + _GAIN * limits.HEDGE_QUANTILE
        else:
            self.late_s *= 1.0 - _GAIN * (1.0 - limits.HEDGE_QUANTILE)
        self.late_s = max(self.late_s, limits.HEDGE_DELAY_MIN_S)

    def refused(self, now_s: float) -> None:
        """A server refused a call for overload: this is no time to ask twice."""
        self.refused_s = now_s

    def delay_s(self, left_s: float | None, now_s: float) -> float | None:
        """How long to wait for the first task; None: no hedge. `left_s`: until the deadline, None: there is none."""
        if self.answers < WARM_ANSWERS:
            return None
        if self.refused_s is not None and now_s - self.refused_s < CALM_S:
            return None
        return self.late_s if left_s is None or self.late_s < left_s else None

    def take(self, now_s: float) -> bool:
        """Takes a hedge from the budget; False: it is spent."""
        return self.budget.take(now_s, reserve=False)
