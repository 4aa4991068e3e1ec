"""The optimum of a service's program, with as few columns of it as will do. PURE.

All columns start at zero, at the best answer to a guess of the prices (`gslb.balancer.transport`): they are changes to
it. What is kept whole may be given up, the next segments of a datacenter may be filled, the last ones emptied, and a
locality may send elsewhere. Only what would nearly pay at the guessed prices is there at first; whatever else would
pay at the prices that the engine finds is added, and the engine goes on from where it was. When nothing would pay, the
optimum is that of the whole program.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gslb.balancer.prices import first_steps
from gslb.balancer.solver import Columns, Program, Solution, SolverError, Vector
from gslb.balancer.transport import Flags, Matrix, Pairs, Response, Transport, respond

# The columns to begin with: pairs within so much of paying, and so many segments on both sides of each price.
NEARLY_MS: Final = 30.0
WINDOW: Final = 8
TOLERANCE_MS: Final = 1e-6
ROUNDS_MAX: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """`price_ms` (D,): what one more request costs a datacenter, beside its way there."""

    flow: Matrix  # (L, D)
    price_ms: Vector


def optimum(transport: Transport) -> Optimum:
    """Raises SolverError if the engine fails."""
    response = respond(transport, first_steps(transport))
    if response.fits:
        return Optimum(response.flow(transport), transport.curve.price_ms[response.steps])
    restricted = _Restricted(transport, response)
    for _ in range(ROUNDS_MAX):
        solution = restricted.solve()
        if not restricted.grow(solution):
            return Optimum(restricted.flow(solution), restricted.prices(solution))
    raise SolverError(f"pricing did not end in {ROUNDS_MAX} rounds")


class _Restricted:
    """The program with some of its columns, around a response."""

    def __init__(self, transport: Transport, response: Response) -> None:
        self._transport = transport
        self._steps = response.steps
        self._localities = len(transport.demand)
        self._start = np.zeros_like(transport.cost)  # what the flow is with all columns at zero
        rows, columns = transport.kept
        given_up = np.where(response.full, transport.held[rows, columns], 0.0)
        self._start[rows, columns] = given_up
        self._pairs = _near_pairs(transport, response)
        self._segments = _near_segments(transport, response)
        # Of each pair column: where it is, and what it does to the flow there.
        free = _where(self._pairs)
        self._rows = np.concatenate([rows, free[0]])
        self._columns = np.concatenate([columns, free[1]])
        self._sign = np.concatenate([np.where(response.full, -1.0, 1.0), np.ones(len(free[0]))])
        segment = _where(self._segments)
        at_pairs = len(segment[0])
        self._at = np.arange(at_pairs, at_pairs + len(self._rows))  # their number in the program
        basis = np.concatenate(
            [
                np.flatnonzero(segment[1] == response.steps[segment[0]]),
                at_pairs + np.flatnonzero(response.kept_decides),
                at_pairs
                + len(rows)
                + np.flatnonzero(response.sent_decides[free[0]] & (response.nearest[free[0]] == free[1])),
            ]
        )
        right = np.concatenate(
            [
                transport.demand - self._start.sum(axis=1),
                transport.capacity * transport.filled[response.steps] - self._start.sum(axis=0),
            ]
        )
        kept = pair_columns(
            transport.cost[rows, columns], transport.held[rows, columns], (rows, columns), self._localities
        )
        kept = _signed(kept, self._sign[: len(rows)])
        self._count = at_pairs + len(self._rows)
        self._program = Program(right, joined(self._segment_columns(segment), kept, self._free_columns(free)), basis)

    def solve(self) -> Solution:
        return self._program.solve()

    def prices(self, solution: Solution) -> Vector:
        prices: Vector = -solution.row_price[self._localities :]
        return prices

    def flow(self, solution: Solution) -> Matrix:
        flow = self._start.copy()
        np.add.at(flow, (self._rows, self._columns), self._sign * solution.value[self._at])
        return np.maximum(flow, 0.0)

    def grow(self, solution: Solution) -> bool:
        """Adds the columns that would pay; whether there are any.

        A datacenter that ran out of segments has a price that is none: while segments are missing, other columns are
        judged by the price of the last segment that it had.
        """
        transport, prices = self._transport, self.prices(solution)
        segments = self._missing_segments(prices)
        if segments.any():
            known = np.where(self._segments[:, :-1], transport.curve.price_ms[:-1], np.nan)
            prices = np.clip(prices, np.nanmin(known, axis=1), np.nanmax(known, axis=1))
        limit = solution.row_price[: self._localities, None] - (transport.mu + TOLERANCE_MS)
        pairs = (transport.cost + prices < limit) & ~self._pairs
        found = False
        if segments.any():
            self._segments |= segments
            self._extend(self._segment_columns(_where(segments)))
            found = True
        if pairs.any():
            self._pairs |= pairs
            more = _where(pairs)
            self._rows = np.concatenate([self._rows, more[0]])
            self._columns = np.concatenate([self._columns, more[1]])
            self._sign = np.concatenate([self._sign, np.ones(len(more[0]))])
            self._at = np.concatenate([self._at, np.arange(self._count, self._count + len(more[0]))])
            self._extend(self._free_columns(more))
            found = True
        return found

    def _extend(self, columns: Columns) -> None:
        self._program.add(columns)
        self._count += len(columns.cost)

    def _missing_segments(self, prices: Vector) -> Flags:
        price, step = self._transport.curve.price_ms, np.arange(len(self._transport.curve.price_ms))
        above = step >= self._steps[:, None]
        pays = np.where(above, price < prices[:, None] - TOLERANCE_MS, price > prices[:, None] + TOLERANCE_MS)
        missing: Flags = pays & ~self._segments
        return missing

    def _segment_columns(self, segments: tuple[Pairs, Pairs]) -> Columns:
        """From the datacenter's step on: filling it takes load; before: emptying it gives some back."""
        at, step = segments
        transport = self._transport
        sign = np.where(step >= self._steps[at], 1.0, -1.0)
        # The first one may be emptied without end: no load is below zero, and so the program has an answer always.
        upper = np.where((step == 0) & (sign < 0), np.inf, transport.capacity[at] * transport.curve.width[step])
        index = (self._localities + at).astype(np.int32)
        start = np.arange(len(index), dtype=np.int32)
        return Columns(sign * transport.curve.price_ms[step], upper, start, index, -sign)

    def _free_columns(self, pairs: tuple[Pairs, Pairs]) -> Columns:
        cost = self._transport.cost[pairs] + self._transport.mu
        return pair_columns(cost, np.full(len(cost), np.inf), pairs, self._localities)


def _where(flags: Flags) -> tuple[Pairs, Pairs]:
    rows, columns = np.nonzero(flags)
    return rows, columns


def _near_pairs(transport: Transport, response: Response) -> Flags:
    """Which pairs get a column from the start: near in price, and where what is not kept is sent."""
    reduced = transport.cost + transport.curve.price_ms[response.steps]
    reduced += transport.mu - response.price[:, None]
    near = reduced < NEARLY_MS
    near[np.arange(len(near)), response.nearest] |= response.sent_decides
    return near


def _near_segments(transport: Transport, response: Response) -> Flags:
    """Which segments get a column from the start: those about the price, and the outermost."""
    away = np.arange(len(transport.curve.price_ms)) - response.steps[:, None]
    near: Flags = np.abs(away) <= WINDOW
    near[:, 0] = True
    near[:, -1] = True
    return near


def pair_columns(cost: Vector, upper: Vector, pairs: tuple[Pairs, Pairs], localities: int) -> Columns:
    """Columns of (locality, datacenter) pairs: 1 in the locality's row, 1 in the datacenter's."""
    index = np.stack([pairs[0], localities + pairs[1]], axis=1).ravel().astype(np.int32)
    return Columns(cost, upper, np.arange(0, len(index), 2, dtype=np.int32), index, np.ones(len(index)))


def _signed(columns: Columns, sign: Vector) -> Columns:
    """With what is negative turned round: such a column takes away."""
    return Columns(columns.cost * sign, columns.upper, columns.start, columns.index, np.repeat(sign, 2))


def joined(*parts: Columns) -> Columns:
    """One after the other."""
    offsets = np.cumsum([0] + [len(part.index) for part in parts[:-1]])
    return Columns(
        np.concatenate([part.cost for part in parts]),
        np.concatenate([part.upper for part in parts]),
        np.concatenate([part.start + np.int32(offset) for part, offset in zip(parts, offsets, strict=True)]),
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.value for part in parts]),
    )
