"""From a plan to one datacenter: the same choice for DNS, RPC clients and simulation. PURE.

Order of what is asked:
1. the plan's shares of the locality; for a locality that the plan does not know, those of the nearest datacenter; for
   one that nobody knows, those of all demand together; without any plan, the nearest datacenter that serves;
2. a datacenter that cannot serve now (no endpoint, or none healthy while others are) gives its share to the others, by
   the plan's contingency for its loss if there is one, else in proportion, else to the next nearest;
3. a draw: by a random number (each request by itself), or by a stable hash of a key (one client stays where it is).
"""

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache

from gslb.model.geography import Coordinates, distance_km
from gslb.model.plan import Plan, Shares
from gslb.model.resources import Catalog
from gslb.steer.table import table_of
from gslb.steer.view import Endpoints, ServiceView

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_NOWHERE = Catalog()


def pick_datacenter(shares: Shares, u: float) -> str | None:
    """The datacenter that a number drawn uniformly from [0, 1) falls on; None when no share is above zero."""
    table = table_of(shares)
    return table.pick(u) if table else None


@lru_cache(maxsize=8192)
def salt_of(datacenter: str) -> int:
    """The number that stands for a datacenter in `stable_choice`: BLAKE2b-64 of its name, big-endian."""
    return int.from_bytes(hashlib.blake2b(datacenter.encode(), digest_size=8).digest(), "big")


def _mix(x: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): 64 bits in, 64 well-mixed bits out."""
    x = ((x ^ (x >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
    return x ^ (x >> 31)


def stable_choice(shares: Shares, key: bytes) -> str | None:
    """The datacenter of `key` by weighted rendezvous hashing; None when no share is above zero.

    Over many keys each datacenter gets its share. When a datacenter goes, only its keys move. When shares change from x to y
    so that a fraction f of the demand must move, the part of keys that do is 1 - sum_i 1 / sum_j max(x_j/x_i, y_j/y_i)
    (Moulton, Jiang 2018, "Maximally Consistent Sampling"): just f where two datacenters share a locality, which is most of
    them, and never more than 2 f / (1 + f). No scheme that knows nothing but the key and the shares of now does better
    for all changes (Bavarian et al. 2016, "Optimality of Correlated Sampling Strategies"). The shortest proof is three
    datacenters of which two have a half each: f = 1/2 between any two of the three rows. A key picks one datacenter a row,
    and no datacenter is in all three rows, so a key is at the same place in one pair of rows at most: on average two thirds
    of keys move, 2 f / (1 + f). Less would take a memory of who was where, which a restarted frontend does not have.

    Each datacenter draws u in (0, 1) from the key and its name; the least -ln(u) / share wins (exponential race). Any
    implementation that repeats these steps agrees: BLAKE2b-64 big-endian of key and of name, exclusive or, splitmix64
    finaliser, upper 53 bits plus a half.
    """
    hashed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    best: tuple[float, str] | None = None
    for datacenter, share in shares.items():
        if share <= 0:
            continue
        u = ((_mix(hashed ^ salt_of(datacenter)) >> 11) + 0.5) * 2.0**-53
        score = (-math.log(u) / share, datacenter)
        if best is None or score < best:
            best = score
    return best[1] if best else None


def _nearest(place: Coordinates, among: Mapping[str, Coordinates]) -> str | None:
    return min(among, key=lambda name: (distance_km(place, among[name]), name), default=None)


def _stand_in(plan: Plan, locality: str, catalog: Catalog) -> str | None:
    """The datacenter nearest to a locality that the plan does not know, whose shares it borrows."""
    place = catalog.coordinates_of(locality)
    if place is None:
        return None
    known = {name: dc.coordinates for name, dc in catalog.datacenters.items() if name in plan.shares}
    return _nearest(place, known)


def shares_for(view: ServiceView, locality: str, catalog: Catalog = _NOWHERE) -> Shares:
    """The shares of a locality (step 1 above), whatever its datacenters' health; empty only when nothing is known."""
    plan = view.plan
    if plan and (exact := plan.shares.get(locality)):
        return exact
    if plan and (stand_in := _stand_in(plan, locality, catalog)):
        return plan.shares[stand_in]
    return view.overall or _unplanned(view, locality, catalog)


def _unplanned(view: ServiceView, locality: str, catalog: Catalog) -> Shares:
    """Without a plan: the nearest datacenter that serves; without geography either: by number of endpoints."""
    place = catalog.coordinates_of(locality)
    known = {name: dc.coordinates for name, dc in catalog.datacenters.items() if name in view.serving}
    if place and (nearest := _nearest(place, known)):
        return {nearest: 1.0}
    total = sum(len(members) for members in view.serving.values())
    return {name: len(members) / total for name, members in view.serving.items()}


def datacenter_order(view: ServiceView, locality: str, catalog: Catalog = _NOWHERE) -> tuple[str, ...]:
    """Every datacenter that may serve, best first: by share, then by distance, then by name."""
    shares = shares_for(view, locality, catalog)
    place = catalog.coordinates_of(locality)

    def rank(name: str) -> tuple[float, float, str]:
        there = catalog.datacenters.get(name)
        far = distance_km(place, there.coordinates) if place and there else math.inf
        return (-shares.get(name, 0.0), far, name)

    return tuple(sorted(view.serving, key=rank))


def live_shares(view: ServiceView, locality: str, catalog: Catalog = _NOWHERE) -> Shares:
    """The shares of a locality over datacenters that may serve now (steps 1 and 2); they sum to 1.

    Empty only when the service has no endpoint at all.
    """
    shares = shares_for(view, locality, catalog)
    usable = view.serving
    if shares and all(name in usable for name in shares):
        return shares
    if not usable:
        return {}
    lost = {name: share for name, share in shares.items() if name not in usable and share > 0}
    kept = {name: share for name, share in shares.items() if name in usable and share > 0}
    moved = dict(kept)
    for name, share in lost.items():
        for heir, part in heirs(view, locality, name, catalog).items():
            moved[heir] = moved.get(heir, 0.0) + share * part
    whole = sum(moved.values())
    if whole > 0:
        return {name: share / whole for name, share in moved.items()}
    return {datacenter_order(view, locality, catalog)[0]: 1.0}


def heirs(view: ServiceView, locality: str, lost: str, catalog: Catalog = _NOWHERE) -> Shares:
    """Who gets what went to `lost`: by the contingency, else whoever else has a share, in proportion. They sum to 1.

    Empty when no other datacenter with a share can serve.
    """
    found = _contingency(view, locality, lost, catalog)
    if not found:
        shares = shares_for(view, locality, catalog)
        found = {name: share for name, share in shares.items() if share > 0 and name != lost and name in view.serving}
    whole = sum(found.values())
    return {name: share / whole for name, share in found.items()}


def ceded(
    view: ServiceView, locality: str, shares: Shares, kept: Mapping[str, float], catalog: Catalog = _NOWHERE
) -> Shares:
    """`shares` where some datacenters keep only a part of theirs (`kept`, 0..1) and cede the rest by the contingency.

    Heirs are whole datacenters; what has no heir stays where it is. The sum stays what it was.
    """
    if not any(name in kept for name in shares):
        return shares
    moved: dict[str, float] = {name: share for name, share in shares.items() if name not in kept}
    whole = dict(moved)
    for name, share in shares.items():
        if name not in kept:
            continue
        planned = {heir: part for heir, part in _contingency(view, locality, name, catalog).items() if heir not in kept}
        heirs = planned or whole or _next(view, locality, kept, catalog)
        given = share * (1.0 - kept[name]) if heirs else 0.0
        moved[name] = moved.get(name, 0.0) + share - given
        inherited = sum(heirs.values())
        for heir, part in heirs.items():
            moved[heir] = moved.get(heir, 0.0) + given * part / inherited
    return {name: share for name, share in moved.items() if share > 0}


def _next(view: ServiceView, locality: str, kept: Mapping[str, float], catalog: Catalog) -> Shares:
    """The next whole datacenter in order, with all that is ceded; empty: there is none."""
    name = next((name for name in datacenter_order(view, locality, catalog) if name not in kept), None)
    return {name: 1.0} if name else {}


def _contingency(view: ServiceView, locality: str, lost: str, catalog: Catalog = _NOWHERE) -> Shares:
    """What the plan says for the loss of one datacenter, as far as it can serve; empty when it says nothing usable."""
    by_locality = view.plan.contingencies.get(lost, {}) if view.plan else {}
    planned = by_locality.get(locality, {})
    if not planned and by_locality and view.plan and locality not in view.plan.shares:
        planned = by_locality.get(_stand_in(view.plan, locality, catalog) or "", {})
    return {name: share for name, share in planned.items() if share > 0 and name in view.serving}


def choose(view: ServiceView, locality: str, u: float, catalog: Catalog = _NOWHERE) -> tuple[str, Endpoints] | None:
    """One datacenter, by a number drawn uniformly from [0, 1), and who serves there; None without any endpoint.

    The usual case is two lookups and a bisection; with a lost datacenter or an unknown locality O(#datacenters).
    """
    heirs: Shares = {}
    if table := view.tables.get(locality):
        drawn = table.pick(u)
        if members := view.serving.get(drawn):
            # A lost datacenter elsewhere in the table is nothing to this draw: only the lost one's own draws move.
            return drawn, members
        heirs = _contingency(view, locality, drawn, catalog)
    chosen = pick_datacenter(heirs or live_shares(view, locality, catalog), _second(u))
    return (chosen, view.serving[chosen]) if chosen else None


def _second(u: float) -> float:
    """A second number in [0, 1) from the first, as good as independent: the first is known to lie in a lost share."""
    return (_mix(int(u * 2.0**53)) >> 11) * 2.0**-53
