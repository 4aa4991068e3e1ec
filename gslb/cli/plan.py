"""`gslb plan`: what to build before it is needed. Nothing is asked of a control plane."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click

from gslb.balancer.planning import (
    REGIONS_MAX,
    SPARE_DEFAULT,
    TASKS_MAX,
    CapacityPlan,
    Demand,
    RegionDemand,
    plan_capacity,
    with_growth,
)
from gslb.cli.output import Column, say, show, with_format
from gslb.config.errors import ConfigError
from gslb.config.load import load_values
from gslb.model import grammar, limits
from gslb.model.errors import InvalidValueError
from gslb.model.fields import Field, Form

_SPARE = Field(
    "spare", Form.INTEGER, "the tasks to spare, k of N+k", default=SPARE_DEFAULT, minimum=0, maximum=TASKS_MAX
)
_REGION = (
    Field("name", Form.TEXT, "the region's name", required=True, grammar=grammar.LABEL),
    Field("peak_rps", Form.NUMBER, "the peak in rps", required=True, minimum=0, maximum=limits.RATE_MAX_RPS),
    _SPARE,
)
FIELDS = (
    Field(
        "task_capacity_rps",
        Form.NUMBER,
        "what one task serves, in rps",
        required=True,
        minimum=0,
        above=True,
        maximum=limits.TASK_CAPACITY_MAX_RPS,
    ),
    _SPARE,
    Field("headroom", Form.NUMBER, "the fraction of capacity to leave free", default=0.0, minimum=0, maximum=0.95),
    Field("survive_region_loss", Form.BOOLEAN, "whether any one region may be lost at the peak", default=False),
    Field(
        "regions",
        Form.LIST,
        "the regions",
        required=True,
        minimum=1,
        maximum=REGIONS_MAX,
        items=Field("region", Form.OBJECT, "a region with its peak", fields=_REGION),
    ),
)
COLUMNS = (
    Column("region", "region"), Column("peak rps", "peak_rps"), Column("needed", "needed"), Column("spare", "spare"),
    Column("added", "added"), Column("tasks", "tasks"), Column("capacity", "capacity_rps"), Column("if lost", "if_lost"),
)  # fmt: skip


@click.group(short_help="Say what to build before it is needed.")
def plan() -> None:
    """Say what to build before it is needed."""


@plan.command()
@click.option("-f", "--file", "file", required=True, metavar="FILE", help="YAML with the peaks; - is stdin.")
@click.option("--growth", type=float, default=1.0, show_default=True, metavar="FACTOR", help="Multiply every peak.")
@with_format
def capacity(file: str, growth: float, output: str) -> None:
    """Tasks by region for a peak: N for the region's own, k to spare, and what happens when each region is lost.

    \b
    task_capacity_rps: 100      # what one task serves
    spare: 2                    # k of N+k; a region may have its own
    headroom: 0                 # fraction of capacity that the peak leaves free
    survive_region_loss: false  # true: add the fewest tasks so that any one region may be lost
    regions:
      - {name: na, peak_rps: 1430}
      - {name: sa, peak_rps: 290, spare: 1}

    No control plane is asked, nothing is changed.
    """
    try:
        made = plan_capacity(with_growth(_read(file), growth))
    except (InvalidValueError, ConfigError) as error:
        raise click.ClickException(str(error)) from error
    show(output, _rows(made), COLUMNS)
    say(
        f"{made.tasks} tasks in {len(made.regions)} regions for {made.demand_rps:.6g} rps; "
        f"{made.one_place} if all stood in one place"
    )
    worst = made.largest
    say(f"loss of the largest region, {worst.name}: {_loss(made, worst.name)}")


def _read(file: str) -> Demand:
    try:
        text = sys.stdin.buffer.read(limits.CONFIG_MAX_BYTES + 1) if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}: name a file, or - for stdin") from error
    values = load_values(text, "stdin" if file == "-" else file, FIELDS)
    spare = cast(int, values.get("spare", SPARE_DEFAULT))
    regions = tuple(
        RegionDemand(str(one["name"]), float(cast(float, one["peak_rps"])), cast(int, one.get("spare", spare)))
        for one in cast(list[Mapping[str, object]], values["regions"])
    )
    return Demand(
        float(cast(float, values["task_capacity_rps"])),
        regions,
        spare,
        float(cast(float, values.get("headroom", 0.0))),
        bool(values.get("survive_region_loss", False)),
    )


def _rows(made: CapacityPlan) -> list[dict[str, object]]:
    return [
        {"region": one.name, "peak_rps": one.peak_rps, "needed": one.needed, "spare": one.spare, "added": one.added,
         "tasks": one.tasks, "capacity_rps": one.capacity_rps, "if_lost": _loss(made, one.name),
         "remaining_rps_if_lost": one.if_lost.remaining_rps, "short_rps_if_lost": one.if_lost.short_rps,
         "absorbed_if_lost": one.if_lost.absorbed, "one_place_tasks": made.one_place}
        for one in made.regions
    ]  # fmt: skip


def _loss(made: CapacityPlan, region: str) -> str:
    loss = next(one.if_lost for one in made.regions if one.name == region)
    remain = f"{loss.remaining_rps:.6g} rps remain for {made.demand_rps:.6g}"
    if loss.absorbed:
        return f"absorbed: {remain}, {made.demand_rps / loss.remaining_rps:.0%} used"
    return f"{loss.short_rps / made.demand_rps:.0%} must be shed: {remain}"
