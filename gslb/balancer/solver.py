"""The linear-programming engine (HiGHS through highspy), behind one small typed door. PURE: no state survives a call.

One thread, dual simplex, presolve off: for programs of this size presolve costs more than it saves, and one thread
gives the same answer for the same program on every replica.
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

    def __init__(self, right_side: Vector, columns: Columns) -> None:
        self._highs = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("presolve", "off"),
            ("solver", "simplex"),
            ("simplex_iteration_limit", ITERATIONS_MAX),
        ):
            self._highs.setOptionValue(option, value)
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(columns.cost), len(right_side)
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = columns.cost, np.zeros(len(columns.cost)), columns.upper
        lp.row_lower_ = lp.row_upper_ = right_side
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.append(columns.start, np.int32(len(columns.index)))
        lp.a_matrix_.index_, lp.a_matrix_.value_ = columns.index, columns.value
        if self._highs.passModel(lp) == highspy.HighsStatus.kError:
            raise SolverError(f"HiGHS did not take a program of {len(right_side)} rows, {len(columns.cost)} columns")

    def add(self, columns: Columns) -> None:
        """Adds variables, at zero."""
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

    def solve(self) -> Solution:
        """The optimum. Raises SolverError."""
        self._highs.run()
        verdict = self._highs.getModelStatus()
        if verdict != highspy.HighsModelStatus.kOptimal:
            raise SolverError(f"HiGHS found no optimum: {self._highs.modelStatusToString(verdict)}")
        solution = self._highs.getSolution()
        return Solution(np.array(solution.col_value, dtype=np.float64), np.array(solution.row_dual, dtype=np.float64))
