"""Failures solved beforehand: where the load of each datacenter goes if it is lost. PURE.

For each datacenter d that carries load: the localities that use it, and for each of them how the part that goes to d is
shared among the others. Everything else stays where it is, so the least possible moves, and a reader that sees the loss
needs nobody's leave. It is the program of `gslb.balancer.assignment` with an endless stickiness:

    minimise  sum y[l,k] * (rtt[l,k] + tie[l,k]) + sum_k capacity_k * Phi((load_k + sum_l y[l,k]) / capacity_k)
    subject to  sum_k y[l,k] = demand[l] * share[l,d],  y[l,d] = 0

Demand is that of after the loss: whoever calls from the lost datacenter calls from elsewhere then
(`gslb.balancer.following`), and capacity no more than that of its callees (`gslb.balancer.backing`). What is lost can go to
any survivor that has room, less half as much again for chance as a plan leaves, as far as capacity suffices. So no survivor
passes 100 % while their capacity suffices, but by what is sent to it whoever is lost; when it does not suffice, every
capacity is multiplied so that the overload is equal (`level`).
All losses of a service are filled up at once (`gslb.balancer.filling`), near the optimum, in a millisecond or two, where as
many calls of an engine would take longer than the plan itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.assignment import FLOOR_FRACTION, Matrix, floored
from gslb.balancer.congestion import GENTLE_SEGMENTS, RISE_SEGMENTS, curve
from gslb.balancer.damping import plannable_rps
from gslb.balancer.filling import Lost, fill
from gslb.balancer.solver import Vector
from gslb.balancer.transport import Pairs
from gslb.model import limits
from gslb.model.plan import Plan, Shares

Flags = NDArray[np.bool_]
Contingencies = Mapping[str, Mapping[str, Shares]]  # lost datacenter -> locality -> where that part goes

SEGMENTS_TO_BRINK: Final = GENTLE_SEGMENTS + RISE_SEGMENTS
# The contingency in force is kept while no request would win more by another: what is published stays quiet.
HOLD_GAIN_MS: Final = 50.0
# And another one that differs by less than this in every part is no news.
HOLD_PART: Final = 0.05
# A heir with less of a locality's lost part is left out.
PART_MIN: Final = 1e-3
ROOM_TOLERANCE: Final = 1e-3
# How much more of the room for chance contingencies may use before they are made anew.
HOLD_ROOM: Final = 0.5
# What demand wobbles by does not renew contingencies, still less where none could leave room to spare.
WOBBLE_TOLERANCE: Final = 0.02
TIGHT_TOLERANCE: Final = 0.05
# Room for chance, as a multiple of what a plan leaves: what happens after a loss is known less well, and nobody mends it.
CARE: Final = 1.5
# What of the room for chance is used, where not all of it can be left.
ROOM_PARTS: Final = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Loss:
    """One service without one of its datacenters, by the capacity that is left."""

    datacenter: str
    load_rps: float  # that has to go elsewhere
    demand_rps: float
    remaining_rps: float  # capacity of the others

    @property
    def survivable(self) -> bool:
        return self.demand_rps <= self.remaining_rps * (1 + ROOM_TOLERANCE)

    @property
    def overload(self) -> float:
        """Demand over the capacity that remains; infinite when none does."""
        return self.demand_rps / self.remaining_rps if self.remaining_rps > 0 else float("inf")


def losses(plan: Plan) -> tuple[Loss, ...]:
    """Every loss of a single datacenter that carries load, by name; empty while no capacity is known (panic)."""
    total = sum(plan.capacity_rps.values())
    demand = sum(plan.demand_rps.values())
    if total <= 0 or demand <= 0:
        return ()
    return tuple(
        Loss(name, load, demand, max(0.0, total - plan.capacity_rps.get(name, 0.0)))
        for name, load in sorted(plan.load_rps.items())
        if load > PART_MIN * demand
    )


def peak_after(plan: Plan, lost: str, moves: Mapping[str, float] = MappingProxyType({})) -> tuple[str, float]:
    """The fullest survivor once `lost` is gone and its contingency is followed, and its utilization; ("", 0): none.

    `moves`: what the loss adds to the demand of localities, or takes from it, in rps.
    """
    loads = {name: rps for name, rps in plan.load_rps.items() if name != lost}
    for locality, more in moves.items():
        for name, share in plan.shares.get(locality, {}).items():
            loads[name] = loads.get(name, 0.0) + more * share
    for locality, heirs in plan.contingencies.get(lost, {}).items():
        asked = max(0.0, plan.demand_rps.get(locality, 0.0) + moves.get(locality, 0.0))
        for heir, part in heirs.items():
            loads[heir] = loads.get(heir, 0.0) + asked * plan.shares.get(locality, {}).get(lost, 0.0) * part
    capacity = {name: rps for name, rps in plan.capacity_rps.items() if name != lost and rps > 0}
    used = {name: loads.get(name, 0.0) / rps for name, rps in capacity.items() if name in loads}
    return max(used.items(), key=lambda item: (item[1], item[0]), default=("", 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """One service as its plan places it; L localities, D datacenters, in the order of their names here."""

    localities: Sequence[str]
    datacenters: Sequence[str]
    demand_rps: Vector  # (L,) >= 0
    shares: Matrix  # (L, D) of the plan
    cost_ms: Matrix  # (L, D) round-trip time and tie-break
    capacity_rps: Vector  # (D,) >= 0
    max_utilization: float
    moves: Matrix | None = None  # (D, L): what the loss of each adds to the demand of each locality, or takes; None: 0


@dataclass(frozen=True, slots=True, eq=False)
class _Losses:
    """All losses of a service at once. R pairs (locality, its lost datacenter), sorted by the latter; D datacenters."""

    row: NDArray[np.intp]  # (R,) locality
    column: NDArray[np.intp]  # (R,) lost datacenter
    lost_rps: Vector  # (R,) > 0
    cost_ms: Matrix  # (R, D)
    load_rps: Matrix  # (D, D): [lost, survivor], what stays with each, and what of the lost has to go
    capacity_rps: Matrix  # (D, D): [lost, survivor], scaled to what has to fit; 0: no survivor
    limit_rps: Matrix  # (D, D): what each may get by a contingency that is in force, before it is made anew


def level(load_rps: Vector, capacity_rps: Vector, extra_rps: float) -> float:
    """What capacities are multiplied by so that `extra_rps` more fit: 1 while they do; else all end equally full."""
    if float(np.maximum(capacity_rps - load_rps, 0.0).sum()) >= extra_rps:
        return 1.0
    filling = capacity_rps > 0
    while True:
        height = (extra_rps + float(load_rps[filling].sum())) / float(capacity_rps[filling].sum())
        above = filling & (load_rps > height * capacity_rps)
        if not above.any():
            return height
        filling &= ~above


def solve(placed: Placed, published: Plan | None) -> dict[str, dict[str, dict[str, float]]]:
    """The contingencies of a plan; those of the published one stay while they are good.

    A datacenter without which no capacity is left has none.
    """
    losses_ = _losses(placed)
    if losses_ is None:
        return {}
    parts = _published(losses_, placed, published.contingencies if published else {})
    if parts.any():
        fitting, good = _judged(losses_, parts, placed.max_utilization)
    else:
        fitting = good = np.zeros(len(parts), dtype=np.bool_)
    rows = np.flatnonzero(~_all_of(losses_, good))
    if len(rows):
        fresh = _parts(losses_, rows, placed.max_utilization)
        other = np.zeros(len(fitting), dtype=np.bool_)
        other[rows] = np.abs(fresh - parts[rows]).max(axis=1) > HOLD_PART
        renewed = ~_all_of(losses_, fitting & ~other)[rows]
        parts[rows[renewed]] = fresh[renewed]
    demand = dict(zip(placed.localities, floored(placed.demand_rps).tolist(), strict=True))
    return _bounded(_rows(parts, losses_, placed), demand)


def fits(placed: Placed, published: Plan) -> bool:
    """Whether nobody is overfull after a loss, by the contingencies of `published` and the demand of `placed`."""
    losses_ = _losses(placed)
    if losses_ is None:
        return True
    parts = _published(losses_, placed, published.contingencies)
    _, _, moved = _inherited(losses_, parts)
    return not bool((_overfull(losses_, moved)[losses_.column] & parts.any(axis=1)).any())


def _losses(placed: Placed) -> _Losses | None:
    """None when nobody's loss can be made up for."""
    demand = floored(placed.demand_rps)
    count = len(placed.capacity_rps)
    if placed.moves is None:
        then: Matrix = np.broadcast_to(demand, (count, len(demand)))
        load: Matrix = np.tile(demand @ placed.shares, (count, 1))
    else:
        # However much of its demand leaves a locality, it takes part.
        then = np.maximum(demand + placed.moves, FLOOR_FRACTION * demand)
        load = then @ placed.shares
    whole = np.tile(placed.capacity_rps, (count, 1))
    np.fill_diagonal(whole, 0.0)
    hopeful = (np.diagonal(load) > 0) & whole.any(axis=1)
    if not hopeful.any():
        return None
    careful = whole - CARE * (whole - plannable_rps(whole, float(demand.sum())))
    capacity = careful.copy()
    # All of the room for chance is used, or hardly less.
    tight = hopeful & _lacking(careful + ROOM_PARTS[-2] * (whole - careful), load)
    for lost in np.flatnonzero(hopeful & _lacking(careful, load)).tolist():
        capacity[lost] = _widened(careful[lost], whole[lost], load[lost], lost)
    # What is in force may use some of the room for chance up: to hold that to the last request would never be quiet. Where
    # there is next to none, nobody can do much better, and demand wobbles.
    limit = np.maximum(capacity, np.minimum(whole, capacity + HOLD_ROOM * (whole - careful)))
    limit *= (1 + np.where(tight, TIGHT_TOLERANCE, WOBBLE_TOLERANCE))[:, None]
    column, row = np.nonzero((placed.shares * hopeful).T)
    lost_rps = then[column, row] * placed.shares[row, column]
    return _Losses(row, column, lost_rps, placed.cost_ms[row], load, capacity, limit)


def _lacking(capacity: Matrix, load_rps: Matrix) -> Flags:
    """For which losses (rows) what is lost finds no room."""
    lacking: Flags = np.less(np.maximum(capacity - load_rps, 0.0).sum(axis=-1), np.diagonal(load_rps))
    return lacking


def _widened(careful: Vector, whole: Vector, load_rps: Vector, lost: int) -> Vector:
    """The survivors' capacity with as little of the room for chance as need be; beyond the whole, scaled."""
    for part in ROOM_PARTS:
        capacity: Vector = careful + part * (whole - careful)
        if float(np.maximum(capacity - load_rps, 0.0).sum()) >= load_rps[lost]:
            return capacity
    scaled: Vector = whole * level(load_rps * (whole > 0), whole, float(load_rps[lost]))
    return scaled


def _published(losses_: _Losses, placed: Placed, held: Contingencies) -> Matrix:
    """What is published, as (R, D); rows of zeros where there is nothing, or where an heir is none any more."""
    parts = np.zeros(losses_.cost_ms.shape)
    if not held:
        return parts
    position = {name: k for k, name in enumerate(placed.datacenters)}
    for i, (row, column) in enumerate(zip(losses_.row.tolist(), losses_.column.tolist(), strict=True)):
        for heir, part in held.get(placed.datacenters[column], {}).get(placed.localities[row], {}).items():
            if (k := position.get(heir)) is not None:
                parts[i, k] = part
    alive = (parts * (losses_.capacity_rps[losses_.column] > 0)).sum(axis=1)
    parts[np.abs(alive - 1) > limits.SHARE_SUM_TOLERANCE] = 0.0
    return parts


def _all_of(losses_: _Losses, flags: Flags) -> Flags:
    """(R,): whether the flag holds of all pairs of the same loss."""
    not_all = np.bincount(losses_.column, ~flags, len(losses_.load_rps)) > 0
    found: Flags = ~not_all[losses_.column]
    return found


def _judged(losses_: _Losses, parts: Matrix, max_utilization: float) -> tuple[Flags, Flags]:
    """Of each pair (R,): whether nobody is overfull under `parts`; and whether no request would win much elsewhere."""
    row, heir, moved = _inherited(losses_, parts)
    count = len(moved)
    pair = losses_.column[row] * count + heir
    then: Matrix = losses_.load_rps + moved
    used: Matrix = np.full((count, count), np.inf)
    np.divide(then, losses_.capacity_rps, out=used, where=losses_.capacity_rps > 0)
    phi = curve(max_utilization)
    # On the brink there is hardly room for more: nobody would win by going there, and who is there was there first.
    price = phi.price_ms[:SEGMENTS_TO_BRINK]
    step = np.searchsorted(np.cumsum(phi.width[:SEGMENTS_TO_BRINK]), used, side="right")
    cheapest = (losses_.cost_ms + np.append(price, np.inf)[step][losses_.column]).min(axis=1)
    paid = losses_.cost_ms[row, heir] + price[np.minimum(step.ravel()[pair], SEGMENTS_TO_BRINK - 1)]
    dearest = np.full(len(parts), -np.inf)
    np.maximum.at(dearest, row, paid)
    fitting: Flags = np.any(parts, axis=1) & ~_overfull(losses_, moved)[losses_.column]
    good: Flags = fitting & np.less_equal(dearest - cheapest, HOLD_GAIN_MS)
    return fitting, good


def _inherited(losses_: _Losses, parts: Matrix) -> tuple[Pairs, Pairs, Matrix]:
    """Who inherits (pair, heir), and what each survivor gets by each loss (D, D)."""
    count = len(losses_.load_rps)
    row, heir = np.nonzero(parts)
    gets = np.bincount(losses_.column[row] * count + heir, losses_.lost_rps[row] * parts[row, heir], count**2)
    return row, heir, gets.reshape(count, count).astype(np.float64)


def _overfull(losses_: _Losses, moved: Matrix) -> Flags:
    """(D,): for which losses an heir would be beyond its limit; `moved` (D, D) as in `_inherited`."""
    beyond = np.greater(losses_.load_rps + moved, losses_.limit_rps * (1 + ROOM_TOLERANCE))
    overfull: Flags = np.any(beyond & np.greater(moved, 0), axis=1)
    return overfull


def _parts(losses_: _Losses, rows: Pairs, max_utilization: float) -> Matrix:
    """How the lost part of each of these pairs is shared among the survivors; rows sum to 1."""
    lost_rps = losses_.lost_rps[rows]
    parts = fill(
        Lost(
            losses_.column[rows],
            lost_rps,
            losses_.cost_ms[rows],
            losses_.load_rps,
            losses_.capacity_rps,
            max_utilization,
        )
    )
    parts /= lost_rps[:, None]
    parts[parts < PART_MIN] = 0.0
    parts /= parts.sum(axis=1, keepdims=True)
    return parts


def _rows(parts: Matrix, losses_: _Losses, placed: Placed) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    pairs = [
        found.setdefault(placed.datacenters[column], {}).setdefault(placed.localities[row], {})
        for row, column in zip(losses_.row.tolist(), losses_.column.tolist(), strict=True)
    ]
    at, heir = np.nonzero(parts)
    for i, k, part in zip(at.tolist(), heir.tolist(), parts[at, heir].tolist(), strict=True):
        pairs[i][placed.datacenters[k]] = part
    return found


def _bounded(
    found: dict[str, dict[str, dict[str, float]]], demand: Mapping[str, float]
) -> dict[str, dict[str, dict[str, float]]]:
    """At most CONTINGENCY_ROWS_MAX rows, those of the largest demand: the others' clients share a loss in proportion."""
    count = sum(len(rows) for rows in found.values())
    if count <= limits.CONTINGENCY_ROWS_MAX:
        return found
    ranked = sorted(
        ((lost, locality) for lost, rows in found.items() for locality in rows),
        key=lambda pair: (-demand[pair[1]], pair),
    )
    kept: dict[str, dict[str, dict[str, float]]] = {}
    for lost, locality in ranked[: limits.CONTINGENCY_ROWS_MAX]:
        kept.setdefault(lost, {})[locality] = found[lost][locality]
    return kept
