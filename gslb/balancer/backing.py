"""What stands behind a caller: how much it may carry at each datacenter until whom it calls from there is full. PURE.

Contingencies are followed with nobody left to plan anew. A front door has room for a lost datacenter's browsers, the house
behind it perhaps not: its tasks ask where their plan says, which knows of no loss that they could see, and so they fill a
place that their callers should have passed by. So in a contingency a datacenter counts for no more than its callees,
and theirs, can take from there:

    backing[k] = load[k] + min over callees c and places j that c serves k from of
                 max(limit_c[j] - load_c[j], 0) / (ratio_c * share_c[k, j])

`ratio`: what the caller asks of c for each of its own requests, everywhere together (`gslb.balancer.callees` says why).
All loads are those of today, before the loss. Places whose callees share a neighbour count its room once each.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gslb.balancer.following import SAME_RPS, Matrix, Vector, asked_of
from gslb.balancer.inputs import Callers
from gslb.balancer.network import Network
from gslb.balancer.state import ServiceMemory
from gslb.model import limits
from gslb.model.plan import Plan

# Places that get less of what is asked from somewhere do not limit it.
SHARE_MIN: Final = 0.05
# Backing that shrank by less than the first, or grew by less than the second, is that which contingencies were made for.
HOLD_SHRUNK: Final = 0.05
HOLD_GROWN: Final = 0.12


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """A service as it stands: L localities, N datacenters of the network."""

    load_rps: Vector  # (N,) of today's demand by its plan
    limit_rps: Vector  # (N,) capacity, or less where its own callees have less
    from_rps: Matrix  # (N, N): [caller's place, place that serves it], shares


def backings(
    order: Sequence[str],
    callers: Callers,
    demand: Mapping[str, Mapping[str, float]],
    memories: Mapping[str, ServiceMemory],
    network: Network,
) -> dict[str, Vector]:
    """(N,) for every service that calls others and is limited by them: its own capacity where it is not, or nobody knows.

    `order`: callers before callees. `memories`: of the step before; a backing in them that says the same is given back itself.
    Never raises on rates and parts that make no sense: they are nothing.
    """
    callees = _callees(callers)
    found: dict[str, Vector] = {}
    standing: dict[str, Standing] = {}
    for name in reversed(order):
        memory = memories.get(name)
        plan = memory.decision.plan if memory else None
        if memory is None or plan is None or not (name in callees or name in callers):
            continue
        here = _standing(plan, memory, demand.get(name, {}), network)
        behind = [
            _room_rps(standing[callee], _ratio(name, callee, here, callers, demand.get(callee, {}), network))
            for callee in callees.get(name, ())
            if callee in standing
        ]
        if behind:
            backing = np.minimum(here.load_rps + np.minimum.reduce(behind), here.limit_rps)
            if bool((backing < here.limit_rps).any()):
                found[name] = backing = _held(memory.backing_rps, backing)
                here = Standing(here.load_rps, backing, here.from_rps)
        standing[name] = here
    return found


def _callees(callers: Callers) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for callee in sorted(callers):
        for _, caller in callers[callee]:
            found.setdefault(caller, {})[callee] = None
    return {name: tuple(names) for name, names in found.items()}


def _standing(plan: Plan, memory: ServiceMemory, demand: Mapping[str, float], network: Network) -> Standing:
    count = len(network.datacenters)
    load, limit, served = np.zeros(count), np.zeros(count), np.zeros((count, count))
    for locality, shares in plan.shares.items():
        rps, place = demand.get(locality, 0.0), network.column.get(locality)
        rps = rps if 0 < rps <= limits.RATE_MAX_RPS else 0.0
        for name, share in _known(shares, network):
            load[name] += rps * share
            if place is not None:
                served[place, name] = share
    capacity = memory.decision.capacity
    for site, rps in zip(capacity.datacenters, capacity.used_rps(), strict=True):
        column = network.column.get(site.datacenter)
        if column is not None:
            limit[column] = min(rps, memory.budgets.get((memory.service.name, site.datacenter), math.inf))
    return Standing(load, limit, served)


def _known(shares: Mapping[str, float], network: Network) -> Iterable[tuple[int, float]]:
    return ((network.column[name], share) for name, share in shares.items() if name in network.column)


def _ratio(
    caller: str, callee: str, here: Standing, callers: Callers, demand: Mapping[str, float], network: Network
) -> float:
    """What the caller asks of the callee for each of its own requests; 0: nothing that anybody knows of."""
    asked = asked_of(callee, demand, callers, {caller: network}).get(caller)
    own_rps = float(here.load_rps.sum())
    return 0.0 if asked is None or own_rps <= SAME_RPS else float(asked.sum()) / own_rps


def _room_rps(callee: Standing, ratio: float) -> Vector:
    """(N,): what the caller may carry more at each place until the callee is full somewhere; infinite: never."""
    room = np.maximum(callee.limit_rps - callee.load_rps, 0.0)
    weight = ratio * callee.from_rps
    most = np.full_like(weight, np.inf)
    np.divide(room[None, :], weight, out=most, where=(callee.from_rps >= SHARE_MIN) & (weight > 0))
    least: Vector = most.min(axis=1, initial=np.inf)
    return least


def _held(held: Vector | None, backing: Vector) -> Vector:
    """`held` itself while it says the same."""
    if held is None or held.shape != backing.shape:
        return backing
    same = (backing >= held * (1 - HOLD_SHRUNK)) & (backing <= held * (1 + HOLD_GROWN))
    return held if bool(same.all()) else backing


def backing_notes(memory: ServiceMemory, network: Network) -> tuple[str, ...]:
    """Where callees have less room than the service itself, for people."""
    backing = memory.backing_rps
    if backing is None or len(backing) != len(network.datacenters):
        return ()
    short = [
        f"{site.datacenter} for {backing[network.column[site.datacenter]]:.4g} of {rps:.4g} rps"
        for site, rps in zip(memory.decision.capacity.datacenters, memory.decision.capacity.used_rps(), strict=True)
        if site.datacenter in network.column and backing[network.column[site.datacenter]] < rps
    ]
    if not short:
        return ()
    return (f"after a loss places count for what those they call can take from there: {', '.join(short)}",)
