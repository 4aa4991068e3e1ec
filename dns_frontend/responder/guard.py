"""What stands between the answers and those who would abuse them: cookies, rate limits, and what else OPT says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from dns_frontend.limits import STALE_AFTER_S, TCP_IDLE_S
from dns_frontend.metrics import Counters, Transport
from dns_frontend.responder.cookies import Cookies, Shown
from dns_frontend.responder.edns import (
    OPTION_COOKIE,
    OPTION_KEEPALIVE,
    OPTION_NSID,
    Edns,
    extended_error,
    option,
)
from dns_frontend.responder.locate import Source
from dns_frontend.responder.resolve import Reply
from dns_frontend.responder.rrl import DEFAULT_RULE, AnswerClass, RateLimiter, Rule, Verdict
from dns_frontend.table.octets import Guarding
from dns_frontend.zone.rtype import Rcode

Network = IPv4Network | IPv6Network

# Nobody out there can send in the name of this machine's own addresses.
LOOPBACK: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
EDE_OTHER: Final = 0
EDE_STALE: Final = 3
PANIC_TEXT: Final = "no endpoint is healthy"
_PANIC: Final = extended_error(EDE_OTHER, PANIC_TEXT)
_KEEPALIVE_UNIT_S: Final = 0.1
_KEEPALIVE: Final = option(OPTION_KEEPALIVE, round(TCP_IDLE_S / _KEEPALIVE_UNIT_S).to_bytes(2, "big"))
_OCTETS_OF: Final = {4: 4, 6: 16}


class Clock(NamedTuple):
    """What the guard reads: seconds since the epoch, and nanoseconds of a clock that never goes back."""

    wall_s: Callable[[], float]
    monotonic_ns: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Hardening:
    """What the operator chose."""

    cookies: bool = True
    cookies_required: bool = False  # a client that sends cookies must show a good one over UDP (BADCOOKIE)
    rule: Rule = DEFAULT_RULE
    exempt: tuple[Network, ...] = LOOPBACK  # clients without rate limit
    nsid: bytes = b""  # b"": we say nothing of who we are
    stale_after_s: float = STALE_AFTER_S


# Of a client (IP version, number), a class, a zone and octets; None: no buckets there now.
SharedBuckets = Callable[[tuple[int, int], AnswerClass, bytes, int], Verdict | None]


class Guard:
    """The cookies, buckets and notes of one frontend. `cookies` may be replaced between any two messages."""

    def __init__(self, counters: Counters, chosen: Hardening, clock: Clock) -> None:
        self.cookies: Cookies | None = None
        self.stale = b""  # the option that says so, while what we know is old
        self.shared: SharedBuckets | None = None  # of the data plane: who asks both of us is counted once
        self._counters = counters
        self._required = chosen.cookies_required
        self._nsid = option(OPTION_NSID, chosen.nsid) if chosen.nsid else b""
        self._exempt = _ranges(chosen.exempt)
        self._rule = chosen.rule
        self._limiter = RateLimiter(chosen.rule) if chosen.rule.rate else None
        self._clock = clock

    def divide(self, by: int) -> None:
        """From now on this is one of `by` processes that answer the same clients."""
        self._rule = self._rule.divided(by)
        self._limiter = RateLimiter(self._rule) if self._rule.rate else None

    def guarding(self, seed: bytes) -> Guarding:
        """What the data plane needs to do the same, as things are now."""
        rule = self._rule
        return Guarding(
            required=self._required,
            secrets=self.cookies.secrets if self.cookies is not None else (),
            nsid=self._nsid,
            stale=self.stale,
            panic=_PANIC,
            slip=rule.slip,
            token_ns=rule.token_ns if rule.rate else 0,
            window_ns=rule.window_ns,
            exempt=self._exempt,
            seed=seed,
        )

    @property
    def limits(self) -> bool:
        """Whether there is a rate limit."""
        return self._limiter is not None

    @property
    def buckets(self) -> int:
        return len(self._limiter) if self._limiter is not None else 0

    def look(self, edns: Edns | None, source: Source) -> Shown:
        """What the query's cookie shows."""
        if edns is None or edns.cookie is None or self.cookies is None:
            return Shown.NOTHING
        return self.cookies.look(edns.cookie, _octets(source), int(self._clock.wall_s()))

    def refusal(self, shown: Shown, transport: Transport) -> int:
        """The code for a cookie that cannot pass; 0 for the others."""
        if shown is Shown.MALFORMED:
            return Rcode.FORMERR
        if self._required and transport is Transport.UDP and shown in {Shown.CLIENT, Shown.STALE}:
            return Rcode.BADCOOKIE
        return Rcode.NOERROR

    def cookie(self, edns: Edns | None, shown: Shown, source: Source) -> bytes:
        """The COOKIE option of the answer; nothing when the query has none that we could answer."""
        if edns is None or edns.cookie is None or self.cookies is None or shown in {Shown.NOTHING, Shown.MALFORMED}:
            return b""
        data = self.cookies.answer(edns.cookie, shown, _octets(source), int(self._clock.wall_s()))
        return option(OPTION_COOKIE, data)

    def notes(self, edns: Edns, reply: Reply, transport: Transport) -> bytes:
        """The options of the answer beside client subnet and cookie, in this order: NSID, keepalive, errors."""
        said = self._nsid if edns.nsid else b""
        if edns.keepalive and transport is Transport.TCP:
            said += _KEEPALIVE
        if reply.service:
            if self.stale:
                said += self.stale
            if reply.panic:
                said += _PANIC
        return said

    def judge(self, reply: Reply | None, octets: int, source: Source, shown: Shown) -> tuple[AnswerClass, Verdict]:
        """Whether an answer over UDP may go out. `reply` None: nothing but a header with an error."""
        kind = answer_class(reply) if reply is not None else AnswerClass.ERROR
        if self._limiter is None or shown is Shown.GOOD or self._is_exempt(source):
            return kind, Verdict.SEND
        zone = reply.zone if reply is not None and kind in {AnswerClass.NXDOMAIN, AnswerClass.ERROR} else b""
        verdict = self.shared(source, kind, zone, octets) if self.shared is not None else None
        if verdict is None:
            verdict = self._limiter.judge(source, kind, zone, octets, self._clock.monotonic_ns())
        if verdict is not Verdict.SEND:
            self._counters.limited(kind.name.lower(), verdict.value)
        return kind, verdict

    def _is_exempt(self, source: Source) -> bool:
        asked_version, value = source
        for version, first, last in self._exempt:  # noqa: SIM110  with each answer: a generator costs more than the rest
            if version == asked_version and first <= value <= last:
                return True
        return False


def answer_class(reply: Reply) -> AnswerClass:
    """The class that an answer is counted in."""
    if reply.rcode == Rcode.NXDOMAIN:
        return AnswerClass.NXDOMAIN
    if reply.rcode != Rcode.NOERROR:
        return AnswerClass.ERROR
    if reply.answer:
        return AnswerClass.ANSWER
    return AnswerClass.NODATA if reply.authoritative else AnswerClass.REFERRAL


def _octets(source: Source) -> bytes:
    return source.value.to_bytes(_OCTETS_OF[source.version], "big")


def _ranges(networks: Sequence[Network]) -> tuple[tuple[int, int, int], ...]:
    return tuple((each.version, int(each.network_address), int(each.broadcast_address)) for each in networks)
