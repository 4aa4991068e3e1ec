"""What one server lets in of one client: a bucket that fills at the share which the control plane hands back. PURE.

    account = Account(share, now_s)
    bill = account.admit(now_s)       # None: refuse
    account.charge(bill, cpu_s, now_s)  # as often as is of use
    account.close(bill, now_s)

While a client asks for less than its quota, every server may let in the whole of it: nobody is refused for where he
asks. When it asks for more, the shares of all servers sum up to the quota, and the bucket is emptied first: what was
saved up while nobody counted is not spent beyond the quota. A request counts as one, or as the CPU time that it takes:
that is known only afterwards, so each one takes a deposit first, of what requests have taken lately, and what it takes
beyond what is there is owed.

What is saved up is little (DEPTH_S): enough that requests which come by chance find the share whole, too little for
a client to go over its quota afterwards. Shares hold until there are others: with the control plane gone, for ever.
"""

from dataclasses import dataclass, field
from typing import Final

from gslb.model.quota import Share, Unit, Usage

# What a bucket holds, in seconds of its share: of a client over its quota, and of one within it.
DEPTH_S: Final = 0.25
DEPTH_WITHIN_S: Final = 1.0
# Debts older than this many seconds of the share are forgotten: one huge request must not lock a client out for a day.
DEBT_MOST_S: Final = 300.0
# Weight of the last request in what a request takes.
_SMOOTHING: Final = 0.1
# Sums of floats: a whole request may be a hair less.
_HAIR: Final = 1e-9


@dataclass(slots=True)
class Bill:
    """One request that was let in: what it has taken so far."""

    deposit: float
    cpu_s: float = 0.0


@dataclass(slots=True)
class Account:
    """One client at one server. Guarded by its owner; times are monotonic seconds, amounts in the share's unit."""

    share: Share
    at_s: float
    tokens: float = field(init=False)
    request_cpu_s: float = 0.0  # smoothed: what a request takes
    # Since the start.
    requests: int = 0
    refused: int = 0
    used: float = 0.0
    # Since the last `take`.
    _requests: int = 0
    _refused: int = 0
    _used: float = 0.0
    _measured: bool = False

    def __post_init__(self) -> None:
        self.tokens = 0.0 if self.share.over else self._depth

    def admit(self, now_s: float) -> Bill | None:
        """One request came; None: it is refused."""
        self._fill(now_s)
        self.requests += 1
        self._requests += 1
        counts = self.share.unit is Unit.RPS
        if self.tokens < 1.0 - _HAIR if counts else self.tokens <= 0.0:
            self.refused += 1
            self._refused += 1
            return None
        bill = Bill(0.0 if counts else self.request_cpu_s)
        self._spend(1.0 if counts else 0.0)
        self.tokens -= bill.deposit
        return bill

    def charge(self, bill: Bill, cpu_s: float, now_s: float) -> None:
        """A request that was let in took so much CPU time, on top of what was charged before."""
        self._fill(now_s)
        bill.cpu_s += cpu_s
        if self.share.unit is Unit.CPU:
            self._spend(cpu_s)

    def close(self, bill: Bill, now_s: float) -> None:
        """The request is over: it gets its deposit back."""
        self._fill(now_s)
        self.tokens += bill.deposit
        if self._measured:
            self.request_cpu_s += _SMOOTHING * (bill.cpu_s - self.request_cpu_s)
        else:
            self._measured, self.request_cpu_s = True, bill.cpu_s

    def grant(self, share: Share, now_s: float) -> None:
        """A new share."""
        self._fill(now_s)
        before, self.share = self.share, share
        if share.unit is not before.unit:
            self.tokens = 0.0 if share.over else self._depth
            self._requests, self._refused, self._used = 0, 0, 0.0
        elif share.over and not before.over:
            self.tokens = min(self.tokens, 0.0)
        elif share.shared and not before.shared:
            self.tokens = min(self.tokens, DEPTH_S * share.rate)

    def take(self, caller: str) -> Usage:
        """What was asked since the last call, in amounts."""
        counts = self.share.unit is Unit.RPS
        refused = float(self._refused) if counts else self._refused * self.request_cpu_s
        usage = Usage(caller, self.share.unit, self._used + refused, self._used, self._requests)
        self._requests, self._refused, self._used = 0, 0, 0.0
        return usage

    @property
    def _depth(self) -> float:
        deep = (DEPTH_S if self.share.over else DEPTH_WITHIN_S) * self.share.rate
        # A request that counts as one needs room for one, however small the share.
        return max(1.0, deep) if self.share.unit is Unit.RPS else deep

    def _spend(self, amount: float) -> None:
        self.tokens -= amount
        self.used += amount
        self._used += amount

    def _fill(self, now_s: float) -> None:
        """Time passes."""
        rate = self.share.rate
        filled = self.tokens + rate * max(0.0, now_s - self.at_s)
        self.tokens = max(min(filled, self._depth), -DEBT_MOST_S * rate)
        self.at_s = max(self.at_s, now_s)
