"""Response rate limiting: how many answers of a kind one network gets over UDP. PURE.

Whoever sends queries in another's name makes us send the answers there. So each client prefix has, for each class of
answer, a bucket that fills at a steady rate; answers beyond that are dropped, and every second one is replaced by an
empty answer with TC, which is no larger than the query: a client that is really there asks again over TCP, or comes
with a cookie, and neither is limited. An answer takes a token for each 256 octets begun, so that few large ones are no
better for an attacker than many small ones. docs/reference/dns-protocol.md has the rules as the data plane follows them.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from dns_frontend.limits import RRL_BUCKETS_MAX, RRL_RATE_DEFAULT, RRL_SLIP_DEFAULT, RRL_TOKEN_OCTETS, RRL_WINDOW_S
from dns_frontend.table.steering import KEY_BITS

_BITS: Final = {4: 32, 6: 128}
_SECOND_NS: Final = 1_000_000_000
_KEPT_AFTER_SWEEP: Final = RRL_BUCKETS_MAX // 2


class AnswerClass(IntEnum):
    """What kind of answer, by what a flood of it would look like."""

    ANSWER = 0
    REFERRAL = 1
    NODATA = 2
    NXDOMAIN = 3
    ERROR = 4


class Verdict(Enum):
    """What is to be done with an answer."""

    SEND = "sent"
    SLIP = "slipped"  # send something small in its place
    DROP = "dropped"


@dataclass(frozen=True, slots=True)
class Rule:
    """`rate`: tokens a second for each bucket, 0: no limit; a bucket holds `window_s` of them. `slip` N: every Nth; 0: none."""

    rate: int = RRL_RATE_DEFAULT
    slip: int = RRL_SLIP_DEFAULT
    window_s: float = RRL_WINDOW_S

    @property
    def token_ns(self) -> int:
        """How long a token takes to come; `rate` must not be 0."""
        return _SECOND_NS // self.rate

    @property
    def window_ns(self) -> int:
        """How long a bucket takes to fill."""
        return int(self.window_s * _SECOND_NS)

    def divided(self, by: int) -> "Rule":
        """That of one of `by` processes over which the kernel spreads the queries of a network."""
        return Rule(max(1, self.rate // by), self.slip, self.window_s) if self.rate else self


DEFAULT_RULE: Final = Rule()


class _Bucket:
    """`full_ns`: when it will be full again if nothing more is taken; `limited`: answers held back since it was made."""

    __slots__ = ("full_ns", "limited")

    def __init__(self, full_ns: int) -> None:
        self.full_ns = full_ns
        self.limited = 0


_Key = tuple[int, int, int, bytes]


class RateLimiter:
    """The buckets of all clients that were heard lately; at most RRL_BUCKETS_MAX of them."""

    def __init__(self, rule: Rule) -> None:
        assert rule.rate > 0
        self._slip = rule.slip
        self._token_ns = rule.token_ns
        self._window_ns = rule.window_ns
        self._buckets: dict[_Key, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def judge(self, client: tuple[int, int], kind: AnswerClass, zone: bytes, octets: int, now_ns: int) -> Verdict:
        """Whether an answer of `octets` may go to `client` (IP version, number) at `now_ns` of a monotonic clock.

        `zone`: whose it is, for the classes that are counted by zone; b"" for the others.
        """
        version, value = client
        key = (version, value >> _BITS[version] - KEY_BITS[version], kind, zone)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= RRL_BUCKETS_MAX:
                self._sweep(now_ns)
            bucket = self._buckets[key] = _Bucket(now_ns)
        cost_ns = min(self._token_ns * (1 + octets // RRL_TOKEN_OCTETS), self._window_ns)
        full_ns = max(bucket.full_ns, now_ns) + cost_ns
        if full_ns - now_ns <= self._window_ns:
            bucket.full_ns = full_ns
            return Verdict.SEND
        bucket.limited += 1
        return Verdict.SLIP if self._slip and bucket.limited % self._slip == 0 else Verdict.DROP

    def _sweep(self, now_ns: int) -> None:
        """Forgets the buckets that are full, which is no loss; then those nearest to it, until half of the room is free.

        O(all buckets), but only once in RRL_BUCKETS_MAX / 2 new ones.
        """
        kept = {key: bucket for key, bucket in self._buckets.items() if bucket.full_ns > now_ns}
        if len(kept) > _KEPT_AFTER_SWEEP:
            emptiest = sorted(kept.items(), key=lambda item: item[1].full_ns, reverse=True)
            kept = dict(emptiest[:_KEPT_AFTER_SWEEP])
        self._buckets = kept
