"""The machine, the table and the JSON file of a benchmark."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.rows import Json, Row, figure

COLUMNS = ("", "value", "unit", "range", "goal", "")


def machine() -> str:
    """CPU model, cores, Python: such as `Intel(R) Xeon(R) Processor, 2 cores, CPython 3.11.7`."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
            break
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores,"
        f" {platform.python_implementation()} {platform.python_version()}, Linux {platform.release()}"
    )


def header(name: str, *, quick: bool) -> Json:
    """The first row: where and when the others were measured, and how busy the machine was with other things."""
    load = os.getloadavg()[0]
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {
        "name": f"{name}{' (quick: sizes too small to quote)' if quick else ''} on {machine()}",
        "value": None,
        "unit": "",
        "spread": f"{when}, load average before {load:.1f}",
        "goal": None,
        "ok": None,
    }


def write(path: Path, head: Json, rows: Sequence[Row]) -> None:
    """bench/out/NAME.json: a list of rows, the machine first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([head, *(row.as_json() for row in rows)], indent=1) + "\n", encoding="utf-8")


def table(head: Json, rows: Sequence[Row]) -> str:
    """For people; and for docs/, as it is also Markdown."""
    lines = [[row.name, *_cells(row)] for row in rows]
    widths = [max(len(line[column]) for line in [list(COLUMNS), *lines]) for column in range(len(COLUMNS))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column == 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (width - 1) + ":") if column == 1 else "-" * width for column, width in enumerate(widths)]
    return "\n".join(
        [f"{head['name']}; {head['spread']}", "", line(COLUMNS), line(rule), *(line(cells) for cells in lines)]
    )


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    value = "-" if row.value is None else figure(row.value)
    verdict = {None: "", True: "ok", False: "MISSED"}[row.ok]
    return value, row.unit, row.spread, row.goal or "", verdict
