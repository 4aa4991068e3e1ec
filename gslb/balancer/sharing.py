"""What several services share in a datacenter, CPU and uplink, split into a budget for each before any plan is made. PURE.

Each service has a program of its own, and programs that each take what the others left overshoot together (97-123 %
after a loss, measured). So whatever is shared is split first: a service may place at most its budget in a datacenter,
the budgets of a resource never add up to more than there is, and so nobody has to look at anybody else's plan.

The split: what is guaranteed first; then one small linear program that covers as much as possible of what each service
needs, the worst off first, and as near to where it is asked for as that allows; what is left over is spread by need.
A budget that shrinks does so at once, one that grows does so by 10 % a period, so that what one service gives up has
left before another one comes; only need that nothing else covers is given more. Small changes of need and of capacity
leave the split as it was.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from gslb.balancer.solver import Columns, Program, SolverError
from gslb.model import limits
from gslb.model.resources import Backend, Datacenter

Pair = tuple[str, str]  # (service, datacenter)

RISE_PER_PERIOD: Final = 0.10
# Need and capacity that differ by less are those that the split was made for.
SAME_FRACTION: Final = 0.10
# A service wants room for this much more than is asked of it, so that it need not run at 100 %.
NEED_FACTOR: Final = 1.25
# Nothing is cut to zero: a plan needs somebody with capacity.
LEAST_FRACTION: Final = 1e-4
# Beyond this many pairs the program is left out, and what is not guaranteed is spread by need alone.
PAIRS_MAX: Final = 5_000
WORST_OFF_WEIGHT: Final = 1_000.0
NEAR_WEIGHT: Final = 0.01
# Each round fills up a service or a resource; what is left after so many is left.
SPREAD_ROUNDS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Shared:
    """Something of a datacenter that services share."""

    datacenter: str
    what: str  # `CPU` or `uplink`
    limit: float
    unit: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One service in one datacenter where something is shared."""

    service: str
    datacenter: str
    own_rps: float  # what its tasks there can serve
    near_rps: float  # demand whose nearest datacenter this is
    guaranteed_rps: float
    costs: tuple[tuple[Shared, float], ...]  # per rps

    @property
    def pair(self) -> Pair:
        return (self.service, self.datacenter)


@dataclass(frozen=True, slots=True)
class Sharing:
    """The split in force, and what it was made from."""

    budgets: Mapping[Pair, float] = field(default_factory=dict)
    aims: Mapping[Pair, float] = field(default_factory=dict)  # where budgets that still grow will get to
    claims: Mapping[Pair, Claim] = field(default_factory=dict)
    needs: Mapping[str, float] = field(default_factory=dict)
    changed_at_s: float = 0.0


NOTHING_SHARED = Sharing()


def costs_of(datacenter: Datacenter, backend: Backend) -> tuple[tuple[Shared, float], ...]:
    """What one rps of `backend` takes of what is limited in its datacenter; empty: nothing."""
    shared = (
        (Shared(datacenter.name, "CPU", datacenter.cpu_cores, "cores"), backend.request_cpu_s),
        (Shared(datacenter.name, "uplink", datacenter.uplink_mbps, "Mbit/s"), backend.request_mbit),
    )
    return tuple((resource, cost) for resource, cost in shared if resource.limit > 0 and cost > 0)


def split(before: Sharing, claims: Sequence[Claim], demand_rps: Mapping[str, float], now_s: float) -> Sharing:
    """The budgets of now. `demand_rps` by service; needs no claim but those where something is shared.

    Services that also have backends where nothing is shared bring those as claims without costs.
    """
    if not any(claim.costs for claim in claims):
        return NOTHING_SHARED
    if before.changed_at_s > now_s:
        # The clock was put back: or no budget would grow until it has caught up.
        before = replace(before, changed_at_s=now_s)
    needs = _needs(claims, demand_rps)
    table = {claim.pair: claim for claim in claims}
    aims = before.aims if _alike(before, table, needs) else _aims(claims, needs)
    budgets = _stepped(before, table, aims, needs, now_s)
    if budgets == before.budgets and aims is before.aims:
        return before
    if aims is before.aims:
        return Sharing(budgets, aims, before.claims, before.needs, now_s)
    return Sharing(budgets, aims, table, needs, now_s)


def _needs(claims: Iterable[Claim], demand_rps: Mapping[str, float]) -> dict[str, float]:
    """What each service wants room for, as far as its own tasks could use it."""
    own: dict[str, float] = {}
    for claim in claims:
        own[claim.service] = own.get(claim.service, 0.0) + claim.own_rps
    return {name: NEED_FACTOR * min(demand_rps.get(name, 0.0), most) for name, most in own.items()}


def _alike(before: Sharing, table: Mapping[Pair, Claim], needs: Mapping[str, float]) -> bool:
    """Whether the split was made for numbers like these."""
    if before.claims.keys() != table.keys():
        return False
    if any(not _near(before.needs.get(name, 0.0), need) for name, need in needs.items()):
        return False
    for pair, claim in table.items():
        old = before.claims[pair]
        if claim.costs != old.costs or claim.guaranteed_rps != old.guaranteed_rps:
            return False
        if not _near(old.own_rps, claim.own_rps):
            return False
        if abs(claim.near_rps - old.near_rps) > SAME_FRACTION * max(needs[claim.service], old.near_rps):
            return False
    return True


def _near(old: float, new: float) -> bool:
    return abs(new - old) <= SAME_FRACTION * old


def _aims(claims: Sequence[Claim], needs: Mapping[str, float]) -> dict[Pair, float]:
    """The split that would be made if budgets could grow at once."""
    granted = _guaranteed(claims)
    left = _left(claims, granted)
    if len(claims) <= PAIRS_MAX:
        try:
            for pair, more in _covered(claims, needs, granted, left).items():
                granted[pair] += more
        except SolverError:
            # What follows spreads by need alone: less well, and within every limit all the same.
            pass
    _spread(claims, needs, granted, _left(claims, granted))
    return {claim.pair: max(granted[claim.pair], LEAST_FRACTION * claim.own_rps) for claim in claims}


def _guaranteed(claims: Sequence[Claim]) -> dict[Pair, float]:
    """What is guaranteed; where more was promised than there is, the same part of each promise."""
    promised: dict[Shared, float] = {}
    for claim in claims:
        for resource, cost in claim.costs:
            promised[resource] = promised.get(resource, 0.0) + cost * min(claim.guaranteed_rps, claim.own_rps)
    return {
        claim.pair: min(claim.guaranteed_rps, claim.own_rps)
        * min((min(1.0, resource.limit / max(promised[resource], 1e-12)) for resource, _ in claim.costs), default=1.0)
        for claim in claims
    }


def _left(claims: Iterable[Claim], granted: Mapping[Pair, float]) -> dict[Shared, float]:
    left: dict[Shared, float] = {}
    for claim in claims:
        for resource, cost in claim.costs:
            left[resource] = left.get(resource, resource.limit) - cost * granted[claim.pair]
    return {resource: max(rest, 0.0) for resource, rest in left.items()}


class _Matrix:
    """Collects the columns of a program."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.upper: list[float] = []
        self.start: list[int] = []
        self.index: list[int] = []
        self.value: list[float] = []

    def add(self, cost: float, upper: float, entries: Iterable[tuple[int, float]]) -> None:
        self.cost.append(cost)
        self.upper.append(upper)
        self.start.append(len(self.index))
        for row, value in entries:
            self.index.append(row)
            self.value.append(value)

    def columns(self) -> Columns:
        return Columns(
            np.array(self.cost),
            np.array(self.upper),
            np.array(self.start, dtype=np.int32),
            np.array(self.index, dtype=np.int32),
            np.array(self.value),
        )


def _covered(
    claims: Sequence[Claim], needs: Mapping[str, float], granted: Mapping[Pair, float], left: Mapping[Shared, float]
) -> dict[Pair, float]:
    """How much more each may place, so that the least covered service is covered best, then all together.

    In parts of each service's need: rows are `sum over datacenters of more - cover - surplus = -granted`,
    `cover - least - slack = 0` and `sum of cost * more + rest = left`. Raises SolverError.
    """
    services = [name for name in sorted(needs) if needs[name] > 0]
    row = {name: i for i, name in enumerate(services)}
    resources = {resource: 2 * len(services) + i for i, resource in enumerate(left)}
    right = np.zeros(2 * len(services) + len(resources))
    for claim in claims:
        if claim.service in row:
            right[row[claim.service]] -= granted[claim.pair] / needs[claim.service]
    for resource, i in resources.items():
        right[i] = left[resource] / resource.limit
    matrix = _Matrix()
    used = [claim for claim in claims if claim.service in row]
    for claim in used:
        need = needs[claim.service]
        room = max(claim.own_rps - granted[claim.pair], 0.0) / need
        near = min(room, claim.near_rps * NEED_FACTOR / need)
        entries = [(row[claim.service], 1.0)]
        entries += [(resources[resource], cost * need / resource.limit) for resource, cost in claim.costs]
        matrix.add(-NEAR_WEIGHT, near, entries)
        matrix.add(0.0, room - near, entries)
    for i in row.values():
        matrix.add(-1.0, 1.0, [(i, -1.0), (len(services) + i, 1.0)])  # cover
        matrix.add(0.0, math.inf, [(i, -1.0)])  # surplus
        matrix.add(0.0, math.inf, [(len(services) + i, -1.0)])  # slack
    matrix.add(-WORST_OFF_WEIGHT, 1.0, [(len(services) + i, -1.0) for i in row.values()])  # least
    for i in resources.values():
        matrix.add(0.0, math.inf, [(i, 1.0)])
    value = Program(right, matrix.columns()).solve().value
    # A hair less than all, so that rounding never makes the parts more than the whole.
    return {
        claim.pair: max(0.0, value[2 * i] + value[2 * i + 1]) * needs[claim.service] * (1 - 1e-9)
        for i, claim in enumerate(used)
    }


def _spread(
    claims: Sequence[Claim], needs: Mapping[str, float], granted: dict[Pair, float], left: dict[Shared, float]
) -> None:
    """What is left goes to all who can use it, in proportion to their needs, until something is used up for each."""
    floor = max(needs.values(), default=0.0) * 1e-3 or 1.0
    weight = {claim.pair: max(needs.get(claim.service, 0.0), floor) for claim in claims}
    by_datacenter: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.own_rps > granted[claim.pair]:
            by_datacenter.setdefault(claim.datacenter, []).append(claim)
    for members in by_datacenter.values():
        _spread_here(members, weight, granted, left)


def _spread_here(
    open_claims: list[Claim], weight: Mapping[Pair, float], granted: dict[Pair, float], left: dict[Shared, float]
) -> None:
    for _ in range(SPREAD_ROUNDS_MAX):
        if not open_claims:
            return
        drawn: dict[Shared, float] = {}
        for claim in open_claims:
            for resource, cost in claim.costs:
                drawn[resource] = drawn.get(resource, 0.0) + cost * weight[claim.pair]
        pace = min(
            [left[resource] / rate for resource, rate in drawn.items()]
            + [(claim.own_rps - granted[claim.pair]) / weight[claim.pair] for claim in open_claims]
        )
        for claim in open_claims:
            granted[claim.pair] += pace * weight[claim.pair] * (1 - 1e-12)
        for resource, rate in drawn.items():
            left[resource] = max(0.0, left[resource] - pace * rate)
        open_claims = [
            claim
            for claim in open_claims
            if claim.own_rps - granted[claim.pair] > 1e-9 * claim.own_rps
            and all(left[resource] > 1e-9 * resource.limit for resource, _ in claim.costs)
        ]


def _stepped(
    before: Sharing, table: Mapping[Pair, Claim], aims: Mapping[Pair, float], needs: Mapping[str, float], now_s: float
) -> dict[Pair, float]:
    """Budgets on their way: down at once, up by 10 % a period, further only for need that nothing else covers."""
    periods = min(max(now_s - before.changed_at_s, 0.0) / limits.PLAN_PERIOD_S, 1.0)
    budgets: dict[Pair, float] = {}
    short: dict[str, float] = dict(needs)
    wanting: dict[str, float] = {}
    for pair, claim in table.items():
        service, own = claim.service, claim.own_rps
        if not claim.costs:
            short[service] -= own
            continue
        aim, old = aims[pair], before.budgets.get(pair)
        budgets[pair] = aim if old is None else min(aim, old * (1 + RISE_PER_PERIOD * periods))
        usable = min(budgets[pair], own)
        short[service] -= usable
        wanting[service] = wanting.get(service, 0.0) + min(aim, own) - usable
    for pair, slow in budgets.items():
        missing, more = short[pair[0]], wanting[pair[0]]
        if missing > 0 and more > 0:
            budgets[pair] = slow + (aims[pair] - slow) * min(1.0, missing / more)
    return budgets


@dataclass(frozen=True, slots=True)
class Use:
    """How much of something shared the plans take."""

    shared: Shared
    used: float

    @property
    def fraction(self) -> float:
        return self.used / self.shared.limit


def uses_of(sharing: Sharing, load_rps: Mapping[Pair, float]) -> tuple[Use, ...]:
    """What the loads (by service and datacenter) take of everything shared, in order of datacenter."""
    used: dict[Shared, float] = {}
    for pair, claim in sharing.claims.items():
        for resource, cost in claim.costs:
            used[resource] = used.get(resource, 0.0) + cost * load_rps.get(pair, 0.0)
    return tuple(Use(shared, used[shared]) for shared in sorted(used, key=lambda one: (one.datacenter, one.what)))
