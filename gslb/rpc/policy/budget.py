"""How many retries a channel may make: a fraction of its recent requests, with a small floor. PURE.

Without a budget, clients that retry three times triple the load of a service that is already failing (SRE book,
chapter 22). Each request pays in a fraction of a token, which fades away within a window: so the budget follows the rate
of requests, a busy client can retry all that breaks at once, and a quiet one cannot save up for an outage.

A retry that fails as well costs a second token: then it is the service that fails and not a task, and retries are of no
use. So in a total outage they stay below the fraction, with all that was saved up before it.
"""

import math
from dataclasses import dataclass

from gslb.model import limits


@dataclass(slots=True)
class RetryBudget:
    """Times are monotonic seconds; each retry takes a whole token, of the earned ones or of the reserve."""

    fraction: float = limits.RETRY_BUDGET_FRACTION
    window_s: float = limits.RETRY_BUDGET_WINDOW_S
    earned: float = 0.0
    reserve: float = limits.RETRY_RESERVE
    updated_s: float | None = None

    def request(self, now_s: float, count: int = 1) -> None:
        """Counts logical requests; 0: only time passes."""
        elapsed_s = 0.0 if self.updated_s is None else now_s - self.updated_s
        if elapsed_s > 0.0:
            self.earned *= math.exp(-elapsed_s / self.window_s)
            self.reserve = min(limits.RETRY_RESERVE, self.reserve + limits.RETRY_RESERVE_PER_S * elapsed_s)
        if elapsed_s >= 0.0:
            self.updated_s = now_s
        self.earned += self.fraction * count

    def take(self, now_s: float, *, reserve: bool = True) -> bool:
        """Takes the token of one retry; False: the budget is spent, do not retry. `reserve`: that may be used, too."""
        self.request(now_s, 0)
        if self.earned >= 1.0:
            self.earned -= 1.0
            return True
        if reserve and self.reserve >= 1.0:
            self.reserve -= 1.0
            return True
        return False

    def in_vain(self, now_s: float) -> None:
        """A retry that the budget paid for failed like the attempt before it."""
        self.request(now_s, 0)
        # Perhaps below zero: that debt is paid by the next requests, or fades.
        self.earned -= 1.0
