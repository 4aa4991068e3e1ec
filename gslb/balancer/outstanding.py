"""DNS as the slow actuator that it is: where the answers given so far lead. PURE.

Whoever is steered by DNS (sources `edge` and `dns`) goes where an answer says that was given up to a TTL ago; some
resolvers keep answers much longer. So what the plan says now and where load is now differ, and three things follow:

- The shares move at most once in a TTL, unless health, a drain or lack of capacity forces them: before that nobody could
  see what the last move did. What a move may make a datacenter grow by is what it may grow by in a TTL.
- The program places what can be moved within a TTL, beside what late resolvers keep where it is.
- Load that still aims at a dead datacenter is not seen by anybody who counts. It comes back within a TTL: a locality whose
  demand falls in the meantime is planned for as before.

The model: on a change of the shares the part of the load that is where it was falls linearly, over one TTL for resolvers
that keep it, over LATE_FACTOR TTLs for the late ones. What part of the load is behind late ones is learned from where load
is seen while the two differ.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.damping import GROWTH_PER_PERIOD
from gslb.model import limits
from gslb.model.resources import DemandSource, Service

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Flags = NDArray[np.bool_]

# A tenth of the resolvers keep answers about ten times too long, before anything was learned.
TAIL_DEFAULT: Final = 0.1
TAIL_MAX: Final = 0.5
LATE_FACTOR: Final = 10.0
TAIL_SMOOTHING: Final = 0.1
# Prompt and late resolvers must differ by this part of the load for their mixture to be told from noise.
TELLING_FRACTION: Final = 0.05
# Demand is mended while more than this part of a locality's load aims at the dead, and by at most the inverse of the second.
BLIND_MIN: Final = 0.02
SEEN_MIN: Final = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Outstanding:
    """One service's answers; L localities, D datacenters."""

    columns: tuple[int, ...]  # of the network: what the D are
    given: Matrix  # (L, D) the shares by which answers are given now
    prompt: Matrix  # (L, D) where the load of resolvers that keep the TTL was when they changed
    late: Matrix  # (L, D) the same of the late ones
    since_s: float  # when the shares last changed
    tail: float = TAIL_DEFAULT  # part of the load behind late resolvers

    def fits(self, columns: tuple[int, ...], localities: int) -> bool:
        return self.columns == columns and len(self.given) == localities

    def prompt_at(self, ttl_s: float, now_s: float) -> Matrix:
        return _between(self.prompt, self.given, (now_s - self.since_s) / ttl_s)

    def late_at(self, ttl_s: float, now_s: float) -> Matrix:
        return _between(self.late, self.given, (now_s - self.since_s) / (LATE_FACTOR * ttl_s))

    def placement(self, ttl_s: float, now_s: float) -> Matrix:
        """Where the load of each locality is, rows sum to 1."""
        placed: Matrix = (1 - self.tail) * self.prompt_at(ttl_s, now_s) + self.tail * self.late_at(ttl_s, now_s)
        return placed


def not_ahead(out: Outstanding, now_s: float) -> Outstanding:
    """The same under a clock that was put back: or nothing could change until it has caught up."""
    return replace(out, since_s=now_s) if out.since_s > now_s else out


def _between(old: Matrix, new: Matrix, done: float) -> Matrix:
    part = min(max(done, 0.0), 1.0)
    return new if part >= 1.0 or old is new else old + part * (new - old)


def by_dns(service: Service) -> bool:
    """Whether load is steered by DNS answers rather than request by request."""
    return service.source is not DemandSource.RPC


def answered(
    before: Outstanding | None, columns: tuple[int, ...], shares: Matrix, ttl_s: float, now_s: float
) -> Outstanding:
    """From now on answers are given by `shares`. Without a past all load is taken to be where they say."""
    if before is None or not before.fits(columns, len(shares)):
        tail = before.tail if before else TAIL_DEFAULT
        return Outstanding(columns, shares, shares, shares, now_s - LATE_FACTOR * ttl_s, tail)
    if float(np.abs(shares - before.given).max(initial=0.0)) <= limits.PUBLISH_SHARE_CHANGE:
        return before
    prompt, late = before.prompt_at(ttl_s, now_s), before.late_at(ttl_s, now_s)
    return Outstanding(columns, shares, prompt, late, now_s, before.tail)


def learned(out: Outstanding, demand_rps: Vector, seen_rps: Vector, ttl_s: float, now_s: float) -> Outstanding:
    """`seen_rps`: the load that datacenters report; NaN: somebody there does not. A better tail, if it can be told."""
    total = float(demand_rps.sum())
    if not np.isfinite(seen_rps).all() or total <= 0 or float(seen_rps.sum()) <= 0:
        return out
    prompt, late = demand_rps @ out.prompt_at(ttl_s, now_s), demand_rps @ out.late_at(ttl_s, now_s)
    apart = late - prompt
    if float(np.abs(apart).sum()) < TELLING_FRACTION * total:
        return out
    seen = seen_rps * (total / float(seen_rps.sum()))
    tail = float(apart @ (seen - prompt)) / float(apart @ apart)
    mixed = out.tail + TAIL_SMOOTHING * (min(max(tail, 0.0), TAIL_MAX) - out.tail)
    return replace(out, tail=mixed)


def committed(out: Outstanding, usable: Flags, ttl_s: float, now_s: float) -> Matrix:
    """The part of each locality's load that no answer of this TTL moves, by datacenter; what aims at unusable ones will."""
    late = out.tail * out.late_at(ttl_s, now_s)
    kept: Matrix = late * usable[None, :]
    return kept


def mended(
    out: Outstanding, demand_rps: Vector, planned_rps: Vector, dead: Flags, ttl_s: float, now_s: float
) -> Vector:
    """Demand as it would be counted if those who aim at the dead were, but never more than was planned for before."""
    blind = out.placement(ttl_s, now_s)[:, dead].sum(axis=1)
    if not bool((blind > BLIND_MIN).any()):
        return demand_rps
    whole = np.minimum(planned_rps, demand_rps / np.maximum(1 - blind, SEEN_MIN))
    # Where all of it aims at the dead nothing is counted at all.
    whole = np.where(blind >= 1 - SEEN_MIN, planned_rps, whole)
    demand: Vector = np.where(blind > BLIND_MIN, np.maximum(demand_rps, whole), demand_rps)
    return demand


def growth_rps(out: Outstanding | None, used_rps: Vector, ttl_s: float, now_s: float) -> Vector:
    """What each datacenter may grow by of its own will when answers change now: it takes a TTL to come."""
    waited_s = ttl_s if out is None else min(ttl_s, max(now_s - out.since_s, 0.0))
    growth: Vector = GROWTH_PER_PERIOD * max(1.0, waited_s / limits.PLAN_PERIOD_S) * used_rps
    return growth
