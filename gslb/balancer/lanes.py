"""Paths that carry only so much, as lanes: the first part of what a path carries at one price, the next at a higher one. PURE.

In the program of `gslb.balancer.assignment` a path is a pair (locality, datacenter) and costs no row: lanes are columns
with an upper bound, cheapest first, and the last one is the wall, endless and dearer than any way round. A path that is
not limited has one lane, endless and free.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Pairs = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Expanded:
    """Pairs, one entry a lane: where the lane begins in the pair's flow, how wide it is, and what it adds to the price."""

    row: Pairs
    column: Pairs
    start: Vector
    width: Vector
    price_ms: Vector

    def within(self, flow: Vector) -> Vector:
        """How much of `flow` (of the pair, one entry a lane) is in each lane."""
        part: Vector = np.minimum(np.maximum(flow - self.start, 0.0), self.width)
        return part

    def joined(self, more: "Expanded") -> "Expanded":
        return Expanded(
            np.concatenate([self.row, more.row]),
            np.concatenate([self.column, more.column]),
            np.concatenate([self.start, more.start]),
            np.concatenate([self.width, more.width]),
            np.concatenate([self.price_ms, more.price_ms]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """The limited paths, P of them with K lanes each; all others are free."""

    row: Pairs  # (P,)
    column: Pairs  # (P,)
    start: Matrix  # (P, K), the first 0
    width: Matrix  # (P, K), the last endless
    price_ms: Matrix  # (P, K), growing

    @property
    def any(self) -> bool:
        return len(self.row) > 0

    def full_rps(self) -> Vector:
        """What each path carries: where its wall begins."""
        ends: Vector = self.start[:, -1]
        return ends

    def flows(self, shares: Matrix, demand_rps: Vector) -> Vector:
        """What `shares` (locality, datacenter) put on each limited path."""
        on_paths: Vector = demand_rps[self.row] * shares[self.row, self.column]
        return on_paths

    def among(self, columns: Pairs, count: int, scale: float) -> "Lanes":
        """The same for a program over `columns` of `count`, with flows times `scale`."""
        if not self.any:
            return self
        position = np.full(count, -1)
        position[columns] = np.arange(len(columns))
        here = position[self.column] >= 0
        return Lanes(
            self.row[here],
            position[self.column[here]],
            self.start[here] * scale,
            self.width[here] * scale,
            self.price_ms[here],
        )

    def expand(self, row: Pairs, column: Pairs) -> Expanded:
        """The lanes of these pairs."""
        zero, endless = np.zeros(len(row)), np.full(len(row), np.inf)
        if not self.any:
            return Expanded(row, column, zero, endless, zero)
        at = {pair: i for i, pair in enumerate(zip(self.row.tolist(), self.column.tolist(), strict=True))}
        found = np.array([at.get(pair, -1) for pair in zip(row.tolist(), column.tolist(), strict=True)], dtype=np.intp)
        free, limited = found < 0, found[found >= 0]
        lanes = self.start.shape[1]
        plain = Expanded(row[free], column[free], zero[free], endless[free], zero[free])
        return plain.joined(
            Expanded(
                np.repeat(row[~free], lanes),
                np.repeat(column[~free], lanes),
                self.start[limited].ravel(),
                self.width[limited].ravel(),
                self.price_ms[limited].ravel(),
            )
        )

    def priced(self, marginal: Matrix, flow: Matrix) -> tuple[Matrix, Matrix]:
        """`marginal` with the price of the lane that a request of each pair is in, and of the one that another would be in."""
        if not self.any:
            return marginal, marginal
        used = flow[self.row, self.column][:, None]
        hair = 1e-9 * np.maximum(used, 1e-9)
        lanes = np.arange(len(self.row))
        paid, offered = marginal.copy(), marginal.copy()
        last = np.maximum((self.start < used - hair).sum(axis=1) - 1, 0)
        following = np.maximum((self.start <= used + hair).sum(axis=1) - 1, 0)
        paid[self.row, self.column] += self.price_ms[lanes, last]
        offered[self.row, self.column] += self.price_ms[lanes, following]
        return paid, offered


_NONE: Final = np.zeros(0, dtype=np.intp)
_EMPTY: Final = np.zeros((0, 1))
NO_LANES: Final = Lanes(_NONE, _NONE, _EMPTY, _EMPTY, _EMPTY)
