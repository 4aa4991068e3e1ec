"""Whom of those that a rule wants probed a channel may ask now: bounded in number and rate, and the silent ones seldom. PURE.

A rule draws its probes with each request and knows neither how many are under way nor who answered the last one. A task
that is asked while an earlier question is out would tell nothing new; one that did not answer is asked again after a
while, and one that knows no such question (a server without `add_load_report`) ever more rarely, for it may be replaced by
one that does. Not for several threads at once; times are monotonic seconds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic

from gslb.model import limits
from gslb.rpc.policy.backoff import backoff_s
from gslb.rpc.policy.p2c import M

# How many may be asked at once after a pause.
_BURST = float(limits.LOAD_PROBES_MAX)


@dataclass(slots=True)
class _Silent:
    failures: int  # in a row
    until_s: float  # not asked before


class Probing(Generic[M]):
    """One channel's."""

    def __init__(self) -> None:
        self._under_way: dict[M, float] = {}  # until when an answer may come
        self._silent: dict[M, _Silent] = {}
        self._allowed = _BURST
        self._looked_s = 0.0

    def admit(self, wanted: Sequence[M], now_s: float) -> list[M]:
        """Those of `wanted` that are asked now; `ended` has to follow for each."""
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        self._allowed = min(_BURST, self._allowed + max(0.0, passed_s) * limits.LOAD_PROBES_PER_S)
        if len(self._under_way) >= limits.LOAD_PROBES_MAX:
            # Those that never ended (their event loop is gone) must not hold their places for ever.
            self._under_way = {member: until_s for member, until_s in self._under_way.items() if until_s > now_s}
        admitted: list[M] = []
        for member in wanted:
            if self._allowed < 1.0 or len(self._under_way) >= limits.LOAD_PROBES_MAX:
                break
            silent = self._silent.get(member)
            if self._under_way.get(member, now_s) > now_s or (silent is not None and now_s < silent.until_s):
                continue
            self._under_way[member] = now_s + 2.0 * limits.LOAD_PROBE_TIMEOUT_S
            self._allowed -= 1.0
            admitted.append(member)
        return admitted

    def ended(self, member: M) -> None:
        """It answered with its load."""
        self._under_way.pop(member, None)
        self._silent.pop(member, None)

    def failed(self, member: M, now_s: float, u: float, *, unknown: bool) -> None:
        """It did not; `unknown`: it said that it knows no such question. `u` is drawn uniformly from [0, 1)."""
        if self._under_way.pop(member, None) is None:
            return
        before = self._silent.get(member)
        failures = before.failures + 1 if before is not None else 1
        least_s, most_s = (
            (limits.LOAD_PROBE_UNKNOWN_MIN_S, limits.LOAD_PROBE_UNKNOWN_MAX_S)
            if unknown
            else (limits.LOAD_PROBE_BACKOFF_MIN_S, limits.LOAD_PROBE_BACKOFF_MAX_S)
        )
        self._silent[member] = _Silent(failures, now_s + backoff_s(failures, least_s, most_s, u))

    def keep(self, known: Collection[M]) -> None:
        """Forgets all others."""
        self._under_way = {member: until_s for member, until_s in self._under_way.items() if member in known}
        self._silent = {member: silent for member, silent in self._silent.items() if member in known}
