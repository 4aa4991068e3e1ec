"""How many retries a channel may make: a fraction of its requests, with a small floor. PURE.

Without a budget, clients that retry three times triple the load of a service that is already failing (SRE book,
chapter 22). A bucket of tokens holds them to `RETRY_BUDGET_FRACTION` of the requests; a trickle by time lets the one
failure of a channel that is nearly idle be retried too.
"""

from dataclasses import dataclass

from gslb.model import limits


@dataclass(slots=True)
class RetryBudget:
    """A bucket of tokens: each request puts in a fraction of one, each retry takes a whole one."""

    fraction: float = limits.RETRY_BUDGET_FRACTION
    per_second: float = limits.RETRY_TOKENS_PER_S
    most: float = limits.RETRY_TOKENS_MAX
    tokens: float = limits.RETRY_TOKENS_START
    updated_s: float = 0.0

    def request(self) -> None:
        """Counts one logical request."""
        self.tokens = min(self.most, self.tokens + self.fraction)

    def take(self, now_s: float) -> bool:
        """Takes the token of one retry at `now_s` (monotonic); False: the budget is spent, do not retry."""
        if self.updated_s:
            elapsed_s = max(0.0, now_s - self.updated_s)
            # The trickle only fills up to where the bucket started: it is a floor, not a second income.
            floor = limits.RETRY_TOKENS_START
            if self.tokens < floor:
                self.tokens = min(floor, self.tokens + self.per_second * elapsed_s)
        self.updated_s = now_s
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
