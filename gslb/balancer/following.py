"""Demand after each loss: whoever calls from a lost datacenter calls from its heirs. PURE.

A loss moves demand before anything is planned: the callers' load goes where their contingencies say, and what they ask of
others is asked from there. So each contingency is made for the demand that its own loss leaves, callers before callees.
Services that call each other in a circle are made for what the others said in the step before.

Of a caller are known, by datacenter, its load now and after each loss. From one caller's part of a locality's demand goes
along what part of its load there goes, to where the caller gains load, in proportion to the gains; totals stay.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.balancer.inputs import Callers
from gslb.balancer.network import Network
from gslb.model import limits
from gslb.model.plan import Plan

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Load that differs by less is the same.
SAME_RPS: Final = 1e-3
# Moves that differ by less than both, of themselves and of all demand, are those that contingencies were made for.
HOLD_FRACTION: Final = 0.12
HOLD_DEMAND_FRACTION: Final = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Rerouted:
    """A caller's load by datacenter of the network (N), now and after the loss of each, by its plan."""

    plan: Plan  # what it was made from, with the moves below: compared by identity
    moves: Matrix | None
    network: Network
    now_rps: Vector  # (N,)
    then_rps: Matrix  # (N, N): [lost, place]


def shift(asked_rps: Vector, old_rps: Vector, new_rps: Matrix) -> Matrix:
    """What a caller's move adds to the demand of each of N places, or takes from it; rows sum to nothing.

    `asked_rps` (N,): what it asks for from there now. `old_rps` (N,), `new_rps` (M, N): its load now and in M cases.
    """
    gains = np.maximum(new_rps - old_rps, 0.0)
    gained = gains.sum(axis=1, keepdims=True)
    gone = np.divide(old_rps - new_rps, old_rps, out=np.zeros_like(new_rps), where=old_rps > SAME_RPS)
    leaving = asked_rps * np.clip(gone, 0.0, 1.0)
    arriving = gains * np.divide(
        leaving.sum(axis=1, keepdims=True), gained, out=np.zeros_like(gained), where=gained > 0
    )
    change: Matrix = np.where(gained > SAME_RPS, arriving - leaving, 0.0)
    return change


def callers_first(callers: Callers, services: Iterable[str]) -> list[str]:
    """The services so that whoever calls comes before whom it calls; in a circle by name."""
    calling = {callee: {caller for _, caller in parts} for callee, parts in callers.items()}
    order: dict[str, None] = {}
    known = set(services)
    for name in sorted(known):
        # Depth first, without recursion: chains may be long.
        path = [(name, iter(sorted(calling.get(name, ()))))]
        under_way = {name}
        while path:
            here, rest = path[-1]
            before = next((one for one in rest if one in known and one not in order and one not in under_way), None)
            if before is None:
                order[here] = None
                path.pop()
            else:
                under_way.add(before)
                path.append((before, iter(sorted(calling.get(before, ())))))
    return list(order)


def moves_of(
    callee: str, demand: Mapping[str, float], callers: Callers, rerouted: Mapping[str, Rerouted], held: Matrix | None
) -> Matrix | None:
    """(N, N) [lost, place]: what each loss adds to `callee`'s demand from each datacenter, in rps; None: nothing.

    `held` itself while it says the same. Never raises on parts and rates that make no sense: they are nothing.
    """
    asked = asked_of(callee, demand, callers, {name: known.network for name, known in rerouted.items()})
    if not asked:
        return None
    moves = sum(shift(rps, rerouted[name].now_rps, rerouted[name].then_rps) for name, rps in asked.items())
    assert not isinstance(moves, int)
    if not moves.any():
        return None
    if held is not None and held.shape == moves.shape:
        whole = sum(rps for rps in demand.values() if 0 < rps <= limits.RATE_MAX_RPS)
        band = np.maximum(HOLD_FRACTION * np.abs(held), HOLD_DEMAND_FRACTION * whole)
        if bool((np.abs(moves - held) <= band).all()):
            return held
    return moves


def asked_of(
    callee: str, demand: Mapping[str, float], callers: Callers, networks: Mapping[str, Network]
) -> dict[str, Vector]:
    """What each caller asks for, by datacenter of its network (N,): parts of the demand there, never more than it."""
    parts = {key: part for key, part in callers.get(callee, {}).items() if 0 < part < math.inf}
    sums: dict[str, float] = {}
    for (locality, _), part in parts.items():
        sums[locality] = sums.get(locality, 0.0) + part
    asked: dict[str, Vector] = {}
    for (locality, caller), part in parts.items():
        network = networks.get(caller)
        column = network.column.get(locality) if network else None
        rps = demand.get(locality, 0.0)
        if network is None or column is None or not 0 < rps <= limits.RATE_MAX_RPS:
            continue
        vector = asked.setdefault(caller, np.zeros(len(network.datacenters)))
        vector[column] = rps * part / max(1.0, sums[locality])
    return asked


def moved_by(moves: Matrix | None, lost: str, network: Network) -> dict[str, float]:
    """What the loss of `lost` adds to the demand of each datacenter, or takes, in rps."""
    column = network.column.get(lost)
    if moves is None or column is None:
        return {}
    return {name: rps for name, rps in zip(network.datacenters, moves[column].tolist(), strict=True) if rps}


def rerouted(plan: Plan, moves: Matrix | None, network: Network) -> Rerouted:
    """What a service's datacenters carry by `plan`, and after each loss, with the `moves` of those who call it."""
    count = len(network.datacenters)
    demand, shares = _matrix(plan, network)
    now = demand @ shares
    asked = np.tile(demand, (count, 1))
    if moves is not None:
        rows = [network.row[name] for name in network.datacenters]
        asked[:, rows] = np.maximum(asked[:, rows] + moves, 0.0)
    then = asked @ shares
    lost = np.arange(count)
    then[lost, lost] = 0.0
    for name in plan.load_rps:
        if (column := network.column.get(name)) is not None:
            then[column] += _inherited(plan, column, asked[column], shares, network)
    return Rerouted(plan, moves, network, now, then)


def _matrix(plan: Plan, network: Network) -> tuple[Vector, Matrix]:
    """Demand (L,) and shares (L, N) of a plan, as far as the network knows the names."""
    demand = np.zeros(len(network.localities))
    shares = np.zeros((len(network.localities), len(network.datacenters)))
    for locality, parts in plan.shares.items():
        row = network.row.get(locality)
        if row is None:
            continue
        demand[row] = plan.demand_rps.get(locality, 0.0)
        for name, share in parts.items():
            if (column := network.column.get(name)) is not None:
                shares[row, column] = share
    return demand, shares


def _inherited(plan: Plan, lost: int, asked_rps: Vector, shares: Matrix, network: Network) -> Vector:
    """What goes to each datacenter in place of the lost one: by the contingency, failing that in proportion."""
    gone = asked_rps * shares[:, lost]
    found = np.zeros(len(network.datacenters))
    heirs_of = plan.contingencies.get(network.datacenters[lost], {})
    for row in np.flatnonzero(gone).tolist():
        heirs = heirs_of.get(network.localities[row])
        if heirs:
            for name, part in heirs.items():
                if (column := network.column.get(name)) is not None:
                    found[column] += gone[row] * part
        elif shares[row, lost] < 1:
            kept = shares[row].copy()
            kept[lost] = 0.0
            found += gone[row] * kept / kept.sum()
    return found
