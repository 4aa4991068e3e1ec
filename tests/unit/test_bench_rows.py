"""Rows, tables and files of the benchmarks."""

import json
from pathlib import Path

import pytest

from bench import output
from bench.rows import Row, figure, median_row, quantile, quantile_row, rounded, spread


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([3.0], 0.5, 3.0),
        ([3.0], 0.99, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 1.0, 4.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 1001)], 0.999, 999.0),
        ([float(n) for n in range(1, 101)], 0.0, 1.0),
    ],
)
def test_a_quantile_is_the_nearest_rank(values, q, expected):
    assert quantile(values, q) == expected


@pytest.mark.parametrize(
    ("value", "people", "file"),
    [
        (0.0, "0", 0.0),
        (0.0123456, "0.0123", 0.01235),
        (1.0, "1", 1.0),
        (123.456, "123", 123.5),
        (20_000.0, "20000", 20_000.0),
    ],
)
def test_figures_say_no_more_than_they_know(value, people, file):
    assert figure(value) == people
    assert rounded(value) == file


def test_a_spread_is_the_range_and_the_count():
    assert spread([1.4, 0.9, 1.0]) == "0.9-1.4, n=3"


@pytest.mark.parametrize(
    ("row", "goal", "ok"),
    [
        (Row("a", 1.0, "s"), None, None),
        (Row("a", 1.0, "s", at_most=1.0), "<= 1", True),
        (Row("a", 1.01, "s", at_most=1.0), "<= 1", False),
        (Row("a", 0.0, "RPCs", at_most=0.0), "<= 0", True),
        (Row("a", None, "", "failed: no etcd"), None, False),
    ],
)
def test_a_goal_is_met_or_not_or_absent(row, goal, ok):
    assert (row.goal, row.ok) == (goal, ok)
    assert row.as_json() == {
        "name": "a",
        "value": row.value,
        "unit": row.unit,
        "spread": row.spread,
        "goal": goal,
        "ok": ok,
    }


def test_rows_of_populations():
    values = [float(n) for n in range(1, 101)]
    assert median_row("m", [3.0, 1.0, 2.0], "s") == Row("m", 2.0, "s", "1-3, n=3")
    assert quantile_row("q", values, 0.99, "ms", 5.0) == Row("q, p99", 99.0, "ms", "1-100, n=100", 5.0)
    assert quantile_row("q", values, 1.0, "ms").name == "q, max"


def test_the_file_has_the_machine_first_and_then_every_row(tmp_path: Path):
    rows = [Row("kept", 1.5, "s", "1-2, n=3", 2.0), Row("missed", 3.0, "s", at_most=2.0), Row("broken", None, "")]
    head = output.header("planet", quick=False)
    path = tmp_path / "deeper" / "planet.json"
    output.write(path, head, rows)
    read = json.loads(path.read_text())
    assert [row["name"] for row in read[1:]] == ["kept", "missed", "broken"]
    assert [row["ok"] for row in read] == [None, True, False, False]
    assert "cores" in read[0]["name"]
    assert "Python" in read[0]["name"]
    assert {frozenset(row) for row in read} == {frozenset({"name", "value", "unit", "spread", "goal", "ok"})}


def test_the_table_is_markdown_that_names_what_was_missed():
    rows = [Row("kept", 1.5, "s", "1-2, n=3", 2.0), Row("missed", 3.0, "s", at_most=2.0), Row("broken", None, "")]
    lines = output.table(output.header("planet", quick=True), rows).splitlines()
    assert "too small to quote" in lines[0]
    assert len({len(line) for line in lines[2:]}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert cells == [
        ["kept", "1.5", "s", "1-2, n=3", "<= 2", "ok"],
        ["missed", "3", "s", "", "<= 2", "MISSED"],
        ["broken", "-", "", "", "", "MISSED"],
    ]
