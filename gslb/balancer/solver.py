"""The linear-programming engine (HiGHS through highspy), behind one small typed door. PURE: no state survives a call.

One thread, simplex, presolve off: for programs of this size presolve costs more than it saves, and one thread
gives the same answer for the same program on every replica. Arrays are handed over whole, never element by element:
of the first version's time for a program of 60 x 60 a fifth went into copying.
"""

from dataclasses import dataclass
from typing import Final

import highspy
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Indices = NDArray[np.int32]

# Far above what any program here needs; a bound on a loop that must never hang a control plane.
ITERATIONS_MAX: Final = 2_000_000
# HiGHS's numbers for what it calls column-wise, minimise, Devex pricing and primal simplex.
COLUMN_WISE: Final = 1
MINIMISE: Final = 1
# Exact steepest-edge weights of a basis that is not the trivial one take longer to find than the program to solve.
DEVEX: Final = 1
PRIMAL: Final = 4

BASIC: Final = highspy.HighsBasisStatus.kBasic
AT_LOWER: Final = highspy.HighsBasisStatus.kLower


class SolverError(RuntimeError):
    """The program had no optimum, which our programs always have: the message has the solver's verdict."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Variables 0 <= x <= upper with a cost, and their coefficients, column after column (CSC)."""

    cost: Vector
    upper: Vector
    start: Indices  # one a column
    index: Indices
    value: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The optimum: value of each column, and the price (dual) of each row."""

    value: Vector
    row_price: Vector


class Program:
    """minimise cost.x subject to A x = right_side; columns may be added after a solve, which then starts from there."""

    def __init__(self, right_side: Vector, columns: Columns, basis: NDArray[np.intp] | None = None) -> None:
        """`basis`: the columns to start from, as many as rows and independent; None: the engine's own choice."""
        self._highs = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("presolve", "off"),
            ("solver", "simplex"),
            ("simplex_iteration_limit", ITERATIONS_MAX),
        ):
            self._highs.setOptionValue(option, value)
        count = len(columns.cost)
        taken = self._highs.passModel(
            count,
            len(right_side),
            len(columns.index),
            COLUMN_WISE,
            MINIMISE,
            0.0,
            columns.cost,
            np.zeros(count),
            columns.upper,
            right_side,
            right_side,
            np.append(columns.start, np.int32(len(columns.index))),
            columns.index,
            columns.value,
            np.zeros(count, dtype=np.int32),  # all of them continuous
        )
        if taken == highspy.HighsStatus.kError:
            raise SolverError(f"HiGHS did not take a program of {len(right_side)} rows, {count} columns")
        if basis is not None:
            self._begin(basis, count, len(right_side))

    def _begin(self, basis: NDArray[np.intp], columns: int, rows: int) -> None:
        status = [AT_LOWER] * columns
        for column in basis.tolist():
            status[column] = BASIC
        start = highspy.HighsBasis()
        start.col_status, start.row_status = status, [AT_LOWER] * rows
        start.valid, start.alien = True, False
        self._highs.setBasis(start)
        self._highs.setOptionValue("simplex_dual_edge_weight_strategy", DEVEX)

    def add(self, columns: Columns) -> None:
        """Adds variables, at zero: what was optimal stays feasible, so it goes on as primal simplex."""
        count = len(columns.cost)
        self._highs.addCols(
            count,
            columns.cost,
            np.zeros(count),
            columns.upper,
            len(columns.index),
            columns.start,
            columns.index,
            columns.value,
        )
        self._highs.setOptionValue("simplex_strategy", PRIMAL)

    def solve(self) -> Solution:
        """The optimum. Raises SolverError."""
        self._highs.run()
        verdict = self._highs.getModelStatus()
        if verdict != highspy.HighsModelStatus.kOptimal:
            raise SolverError(f"HiGHS found no optimum: {self._highs.modelStatusToString(verdict)}")
        solution = self._highs.getSolution()
        return Solution(np.array(solution.col_value, dtype=np.float64), np.array(solution.row_dual, dtype=np.float64))
