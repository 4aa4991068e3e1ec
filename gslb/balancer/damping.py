"""Which changes move load, and how fast. PURE.

Held: a plan stays while the load that it places stays within a band around the load that it was made for, and no
datacenter is beyond its capacity. Demand and learned capacity wobble by 10 % for ever; the band is wider than what
smoothing leaves of that, so noise moves nothing. Health and drains are no noise: they are compared for equality
(`signature`), and so they act at once.

Ramped: what a new plan moves is forced or voluntary. Forced is what leaves a place that cannot carry it: one without
capacity, or one beyond the owner's `max_utilization`; it moves at once, as far as there is capacity; from a place that
is merely beyond `max_utilization` only to others that are warm. The rest (load that returns after a drain, nearer
places, new datacenters) is voluntary: it is blended in so slowly that no datacenter grows by more than
`GROWTH_PER_PERIOD` of its capacity in a period, unless somebody else would be above 100 % without.
The blend of two plans is a plan, and the load of each datacenter is linear in the blend, so that its limits are
found without solving anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.assignment import SHARE_MIN
from gslb.balancer.capacity import ServiceCapacity
from gslb.model import limits

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Pairs = NDArray[np.intp]
Signature = tuple[object, ...]

# Load within this fraction of what was planned for is the same load; nor is a few hundredths of a capacity news.
HOLD_FRACTION: Final = 0.12
HOLD_CAPACITY_FRACTION: Final = 0.02
# Beyond its capacity by less than this is rounding.
FULL_TOLERANCE: Final = 1e-3
# With too little capacity everybody is beyond it: by how much more than the others one may be.
OVERLOAD_TOLERANCE: Final = 0.01
# Voluntary growth of a datacenter in one plan period, as a fraction of its capacity: an empty one is full in 50 s.
GROWTH_PER_PERIOD: Final = 0.10
# A datacenter that carries less than this part of what it is to carry is cold: it returns, or is new.
WARM_FRACTION: Final = 0.9
# Room for chance: so many standard deviations of what a window brings, at most this part of a capacity. Beyond what is
# left a plan is held by a little more than smoothing leaves of the noise.
CHANCE_WINDOW_S: Final = 5.0
CHANCE_DEVIATIONS: Final = 2.5
CHANCE_MAX: Final = 0.2
CHANCE_TOLERANCE: Final = 0.02
# A blend that is so near its end is ended.
ENDED: Final = 0.999


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Shares as (row, column, share) of those that are not zero: a tenth of the matrix, and load is one pass."""

    rows: Pairs
    columns: Pairs
    shares: Vector
    width: int

    @classmethod
    def of(cls, shares: Matrix) -> "Placement":
        """From a matrix (locality, datacenter)."""
        rows, columns = np.nonzero(shares)
        return cls(rows, columns, shares[rows, columns], shares.shape[1])

    def matrix(self, localities: int) -> Matrix:
        """The matrix that it was made of."""
        shares = np.zeros((localities, self.width))
        shares[self.rows, self.columns] = self.shares
        return shares

    def load_rps(self, demand_rps: Vector) -> Vector:
        """What these shares send to each datacenter."""
        return np.bincount(self.columns, demand_rps[self.rows] * self.shares, self.width).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A plan in force: what it places, and the load and capacity that it was made for."""

    placement: Placement
    load_rps: Vector  # by datacenter
    used_rps: Vector
    signature: Signature
    made_at_s: float
    ramping: bool = False  # more of the same move is to come


def signature(capacity: ServiceCapacity) -> Signature:
    """What is compared for equality: how many tasks serve, what drains cover, how far they got; in panic everything.

    Tasks in hold-down are left out: their health is what must not matter.
    """
    if capacity.panic:
        return (capacity.panic, capacity.used_rps())
    return tuple(
        (site.datacenter, site.healthy - site.held, site.drained, site.drains, site.easing)
        for site in capacity.datacenters
    )


def within_band(held: Held, demand_rps: Vector, used_rps: Vector, now: Signature, overload: float) -> bool:
    """Whether demand and capacity are those that the plan was made for. `overload`: demand over capacity, at least 1.

    They are as long as nobody can tell the difference from noise. If so, a plan that has to be made anew for another
    reason (stickiness that decayed, a ramp) is made from the old numbers again, or each would move with the noise.
    """
    if pressed(held, demand_rps, used_rps, now, overload):
        return False
    load = held.placement.load_rps(demand_rps)
    # Less capacity is like more load.
    alike = load * np.divide(held.used_rps, used_rps, out=np.ones_like(load), where=used_rps > 0)
    band = np.maximum(HOLD_FRACTION * held.load_rps, HOLD_CAPACITY_FRACTION * held.used_rps)
    return bool((np.abs(alike - held.load_rps) <= band).all())


def pressed(held: Held, demand_rps: Vector, used_rps: Vector, now: Signature, overload: float) -> bool:
    """Whether the plan cannot stay: health or drains changed, or somebody would be beyond what he may carry."""
    if now != held.signature or bool(((used_rps > 0) != (held.used_rps > 0)).any()):
        return True
    load = held.placement.load_rps(demand_rps)
    slack = FULL_TOLERANCE if overload <= 1 + FULL_TOLERANCE else OVERLOAD_TOLERANCE
    room = used_rps * overload * (1 + slack)
    if overload <= 1:
        room = np.minimum(room, plannable_rps(used_rps, float(demand_rps.sum())) * (1 + CHANCE_TOLERANCE))
    return bool((load > room).any())


def plannable_rps(used_rps: Vector, demand_rps: float) -> Vector:
    """Capacity less room for chance: as long as demand leaves any, a plan does not fill a place to the last request.

    Requests come at random: of 60 rps planned, five seconds bring 300 give or take 17. Large places need next to none.
    `used_rps` is (D,), or (N, D) for N cases of their own.
    """
    expected = np.maximum(used_rps * CHANCE_WINDOW_S, 1e-9)
    kept = used_rps * np.minimum(CHANCE_DEVIATIONS / np.sqrt(expected), CHANCE_MAX)
    spare = used_rps.sum(axis=-1, keepdims=True) - demand_rps * (1 + CHANCE_TOLERANCE)
    part = np.clip(spare / np.maximum(kept.sum(axis=-1, keepdims=True), 1e-9), 0.0, 1.0)
    plannable: Vector = used_rps - part * kept
    return plannable


def ramp_note(datacenters: Sequence[str], wanted_rps: Vector, placed_rps: Vector) -> str:
    """What is still to come, for people."""
    most = int(np.argmax(wanted_rps - placed_rps))
    return (
        f"ramp: {wanted_rps[most] - placed_rps[most]:.3g} rps more will move to {datacenters[most]}, "
        f"at most {100 * GROWTH_PER_PERIOD:.0f} % of its capacity in {limits.PLAN_PERIOD_S:g} s"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """From the shares in force to those wanted, at the demand of now. L localities, D datacenters."""

    previous: Matrix  # (L, D), rows sum to at most 1: what went to datacenters that are gone is missing
    target: Matrix  # (L, D), rows sum to 1
    demand_rps: Vector  # (L,)
    room_rps: Vector  # (D,) capacity, times the overload factor
    comfort_rps: Vector  # (D,) room times the owner's max_utilization
    growth_rps: Vector  # (D,) what each may grow by of its own will


@dataclass(frozen=True, slots=True, eq=False)
class Ramped:
    """Shares for this period. `done` in 0..1: the part of the voluntary move that they make."""

    shares: Matrix
    done: float


def growth_rps(used_rps: Vector, elapsed_s: float) -> Vector:
    """What each datacenter may grow by after `elapsed_s`; a long pause is no licence for a leap."""
    periods = min(max(elapsed_s, 0.0) / limits.PLAN_PERIOD_S, 1.0)
    growth: Vector = GROWTH_PER_PERIOD * periods * used_rps
    return growth


def ramp(move: Move) -> Ramped:
    """The forced part of the move at once, of the voluntary part as much as growth allows."""
    if not move.previous.any():
        # The first plan of all: everybody is homeless, and nothing is voluntary.
        return Ramped(move.target, 1.0)
    outs = np.maximum(move.previous - move.target, 0.0)
    ins = np.maximum(move.target - move.previous, 0.0)
    if not ins.any():
        return Ramped(move.target, 1.0)
    lost = np.where(move.room_rps <= 0, outs, 0.0)
    homeless = np.maximum(1.0 - move.previous.sum(axis=1), 0.0)
    start, ins = _placed(move.previous - lost, ins, lost.sum(axis=1) + homeless)
    warm = ins * _warm(move)
    spilled = (outs - lost) * _forced_fraction(move, outs)
    spilled *= _fraction(warm.sum(axis=1), spilled.sum(axis=1))[:, None]
    start, _ = _placed(start - spilled, warm, spilled.sum(axis=1))
    done = _blend(move, move.demand_rps @ start, move.demand_rps @ move.target)
    if done >= ENDED:
        return Ramped(move.target, 1.0)
    return Ramped(_rows(start + done * (move.target - start)), done)


def _placed(shares: Matrix, ins: Matrix, arriving: Vector) -> tuple[Matrix, Matrix]:
    """`shares` with what arrives at each row, where `ins` wants it; and what `ins` wants then."""
    part = _fraction(arriving, ins.sum(axis=1))[:, None]
    return shares + ins * part, ins * (1.0 - part)


def _warm(move: Move) -> NDArray[np.bool_]:
    """Which datacenters carry enough now that more of the same does not find them unprepared."""
    warm: NDArray[np.bool_] = move.demand_rps @ move.previous >= WARM_FRACTION * (move.demand_rps @ move.target)
    return warm


def _forced_fraction(move: Move, outs: Matrix) -> Vector:
    """Of what leaves each datacenter, the part that has to for its owner's comfort."""
    excess = np.maximum(move.demand_rps @ move.previous - move.comfort_rps, 0.0)
    return _fraction(excess, move.demand_rps @ outs)


def _fraction(part: Vector, whole: Vector) -> Vector:
    """part / whole, at most 1; 1 of nothing is nothing."""
    fraction: Vector = np.minimum(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0), 1.0)
    return fraction


def _blend(move: Move, start_rps: Vector, end_rps: Vector) -> float:
    """How far to go from the loads at the start to those at the end: as growth allows, and as capacity demands."""
    rise, fall = end_rps - start_rps, start_rps - end_rps
    allowed = np.divide(move.growth_rps, rise, out=np.ones_like(rise), where=rise > move.growth_rps)
    limit = np.maximum(move.room_rps, end_rps)
    beyond = start_rps > limit * (1 + FULL_TOLERANCE)
    needed = np.divide(start_rps - limit, fall, out=np.zeros_like(fall), where=beyond & (fall > 0))
    return float(min(max(allowed.min(initial=1.0), needed.max(initial=0.0)), 1.0))


def _rows(shares: Matrix) -> Matrix:
    """Crumbs that the blend left are dropped, rows sum to 1."""
    kept = np.where(shares < SHARE_MIN, 0.0, shares)
    rows: Matrix = kept / kept.sum(axis=1, keepdims=True)
    return rows
