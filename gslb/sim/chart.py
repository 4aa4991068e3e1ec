"""What happened in a story, as a picture: demand and load, capacity, share and utilization over time, and what was done when.

This module lays the picture out in lines and words; `gslb.sim.canvas` paints them, as SVG (nothing needed) or PNG (Pillow).
A colour is a datacenter in every panel, a dash pattern a service; what was done to the planet (faults, drains, demand) is
numbered at the top and listed below.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gslb.sim.canvas import Canvas, Point
from gslb.sim.world import World

WIDTH: Final = 1180
PLOT_LEFT: Final = 80
PLOT_RIGHT: Final = 930
PANEL_HEIGHT: Final = 180
PANEL_GAP: Final = 70
TOP: Final = 96
ROW: Final = 17
POINTS_MAX: Final = 700
TICKS: Final = 4
TIME_TICKS: Final = 8
EVENTS_MAX: Final = 60
EVENT_CHARS_MAX: Final = 90
EVENT_ROOM: Final = 15  # pixels between two numbers at the top
LEGEND_MAX: Final = 14
GREY: Final = "#8a8a8a"
FAINT: Final = "#e4e4e4"
FAULT: Final = "#b00020"
COLOURS: Final = (
    "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#003f5c",
)  # fmt: skip
DASHES: Final[tuple[tuple[float, ...], ...]] = ((), (7, 4), (2, 3), (9, 3, 2, 3))
At = Callable[[float, float], Point]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a panel."""

    label: str
    values: Sequence[float]
    colour: str
    dash: tuple[float, ...] = ()
    width: float = 1.6


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over the same axes. `bound`: a value with a line of its own, such as 100 %."""

    title: str
    unit: str
    series: tuple[Series, ...]
    bound: float | None = None

    @property
    def top(self) -> float:
        """The end of the axis: a round number at or above everything."""
        most = max((max(one.values, default=0.0) for one in self.series), default=0.0)
        most = max(most, (self.bound or 0.0) * 1.02) or 1.0
        step = round_step(most / TICKS)
        return step * math.ceil(most / step - 1e-9)


def round_step(least: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least * (1 - 1e-9))


def draw(world: World, title: str, canvas: type[Canvas]) -> bytes:
    """The whole picture, as the canvas saves it."""
    panels = _panels(world)
    events = _listed(world)
    bottom = TOP + len(panels) * (PANEL_HEIGHT + PANEL_GAP)
    rows = math.ceil(len(events) / 2)
    paper = canvas(WIDTH, bottom + (30 + rows * ROW if events else 0))
    paper.text((PLOT_LEFT, 30), title, size=19, bold=True)
    paper.text((PLOT_LEFT, 50), _subtitle(world), size=12, colour=GREY)
    for number, panel in enumerate(panels):
        _paint(paper, panel, world, TOP + number * (PANEL_HEIGHT + PANEL_GAP), first=number == 0)
    if events:
        paper.text((PLOT_LEFT, bottom + 8), "what was done", size=13, bold=True)
    for i, event in enumerate(events):
        column, row = divmod(i, max(rows, 1))
        paper.text((PLOT_LEFT + column * (WIDTH - PLOT_LEFT) // 2, bottom + 28 + row * ROW), event, size=11)
    return paper.save()


def _subtitle(world: World) -> str:
    catalog = world.catalog
    return (
        f"{len(catalog.services)} services, {len(catalog.datacenters)} datacenters, "
        f"{_clock(world.now_s, world.now_s)} of story time, seed {world.knobs.seed}"
    )


def _listed(world: World) -> list[str]:
    end_s = world.now_s
    lines = [
        f"{number}  {_clock(at_s, end_s)}: {text[:EVENT_CHARS_MAX]}"
        for number, (at_s, text) in enumerate(world.meters.events, 1)
    ]
    left = len(lines) - EVENTS_MAX
    return [*lines[:EVENTS_MAX], f"and {left} more"] if left > 0 else lines


def _panels(world: World) -> list[Panel]:
    meters = world.meters
    places = sorted({datacenter for _, datacenter in meters.sites})
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(places)}
    dash = {name: DASHES[i % len(DASHES)] for i, name in enumerate(sorted(meters.services))}
    several = len(dash) > 1
    flows, room, loads, shares, busy = [], [], [], [], []
    for i, (name, ticks) in enumerate(sorted(meters.services.items())):
        before = f"{name} " if several else ""
        first, second = COLOURS[(2 * i) % len(COLOURS)], COLOURS[(2 * i + 1) % len(COLOURS)]
        flows.append(Series(f"{before}demand", [tick.demand for tick in ticks], first, width=2.2))
        flows.append(Series(f"{before}served", [tick.ok for tick in ticks], second, (7, 4)))
    for (name, place), sites in sorted(meters.sites.items()):
        label = f"{name} {place}" if several else place
        totals = [max(tick.demand, 1e-9) for tick in meters.services[name]]
        style = (colour[place], dash[name])
        room.append(Series(label, [site.capacity for site in sites], *style))
        loads.append(Series(label, [site.offered for site in sites], *style))
        part = [100 * site.offered / total for site, total in zip(sites, totals, strict=True)]
        shares.append(Series(label, part, *style))
        busy.append(Series(label, [100 * site.utilization for site in sites], *style))
    return [
        Panel("demand and what is served", "requests/s", tuple(flows)),
        Panel("load of each datacenter", "requests/s", tuple(loads)),
        Panel("capacity that the plan counts on", "requests/s", tuple(room)),
        Panel("share of the service's load", "%", tuple(shares)),
        Panel("utilization (work asked for over CPU there is)", "%", tuple(busy), 100.0),
        *_shared(world, colour),
    ]


def _shared(world: World, colour: dict[str, str]) -> list[Panel]:
    """What services share, where anything is limited."""
    kinds = sorted({kind for kind, _, _ in world.meters.uses})
    series = [
        Series(
            " ".join(part for part in (kind, locality, datacenter) if part),
            [100 * part for part in parts],
            colour.get(datacenter, GREY),
            DASHES[kinds.index(kind) % len(DASHES)],
        )
        for (kind, locality, datacenter), parts in sorted(world.meters.uses.items())
    ]
    return [Panel("use of cores, uplinks and paths that are shared", "%", tuple(series), 100.0)] if series else []


def _paint(paper: Canvas, panel: Panel, world: World, top: float, *, first: bool) -> None:
    times = world.meters.times
    end_s = times[-1] if times else 1.0
    bottom, highest = top + PANEL_HEIGHT, panel.top

    def at(time_s: float, value: float) -> Point:
        return (
            PLOT_LEFT + (PLOT_RIGHT - PLOT_LEFT) * time_s / end_s,
            bottom - PANEL_HEIGHT * min(value / highest, 1.0),
        )

    paper.text((PLOT_LEFT, top - 20), f"{panel.title}, {panel.unit}", size=13, bold=True)
    _axes(paper, panel, end_s, at, bottom)
    _events(paper, world, end_s, top, bottom, numbered=first)
    if panel.bound is not None:
        paper.line((at(0, panel.bound), at(end_s, panel.bound)), FAULT, 1.0, (4, 3))
    every = max(1, len(times) // POINTS_MAX)
    for one in panel.series:
        points = [at(times[i], one.values[i]) for i in range(0, len(one.values), every)]
        if points:
            paper.line(points, one.colour, one.width, one.dash)
    _legend(paper, panel, top)


def _axes(paper: Canvas, panel: Panel, end_s: float, at: At, bottom: float) -> None:
    """Grid, numbers and units."""
    step = round_step(panel.top / TICKS)
    for i in range(round(panel.top / step) + 1):
        x, y = at(0, i * step)
        paper.line(((x, y), (PLOT_RIGHT, y)), GREY if i == 0 else FAINT, 1.0)
        paper.text((x - 7, y + 4), f"{i * step:,.6g}", size=11, anchor="end")
    step_s = _time_step(end_s / TIME_TICKS)
    for i in range(int(end_s / step_s) + 1):
        x, _ = at(i * step_s, 0)
        paper.line(((x, bottom), (x, bottom + 4)), GREY, 1.0)
        paper.text((x, bottom + 17), _clock(i * step_s, end_s), size=11, anchor="middle")
    paper.line(((PLOT_LEFT, bottom), at(0, panel.top)), GREY, 1.0)
    paper.text((PLOT_RIGHT, bottom + 32), "story time, " + _clock_unit(end_s), size=11, anchor="end", colour=GREY)


def _events(paper: Canvas, world: World, end_s: float, top: float, bottom: float, *, numbered: bool) -> None:
    """A line for each thing that was done; in the first panel with its number, as far as there is room."""
    last_x = -math.inf
    for number, (at_s, _) in enumerate(world.meters.events, 1):
        x = PLOT_LEFT + (PLOT_RIGHT - PLOT_LEFT) * at_s / end_s
        paper.line(((x, top), (x, bottom)), FAULT, 0.8, (2, 3))
        if numbered and x - last_x >= EVENT_ROOM:
            paper.text((x, top - 4), str(number), size=10, anchor="middle", colour=FAULT, bold=True)
            last_x = x


def _legend(paper: Canvas, panel: Panel, top: float) -> None:
    shown = panel.series if len(panel.series) <= LEGEND_MAX else panel.series[: LEGEND_MAX - 1]
    x = PLOT_RIGHT + 16
    for i, one in enumerate(shown):
        y = top + 10 + i * min(ROW, PANEL_HEIGHT / LEGEND_MAX * 1.2)
        paper.line(((x, y - 4), (x + 26, y - 4)), one.colour, 2.2, one.dash)
        paper.text((x + 33, y), one.label, size=11)
    if len(shown) < len(panel.series):
        paper.text((x, top + PANEL_HEIGHT), f"and {len(panel.series) - len(shown)} more", size=11, colour=GREY)


def _time_step(least_s: float) -> float:
    """A round step of a clock."""
    for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400):
        if step >= least_s:
            return float(step)
    return 86400.0 * math.ceil(least_s / 86400)


def _clock_unit(end_s: float) -> str:
    return "s" if end_s < 600 else "min:s" if end_s < 4 * 3600 else "h:min"


def _clock(time_s: float, end_s: float) -> str:
    """A time, in the unit that fits a story of that length."""
    whole = round(time_s)
    if end_s < 600:
        return f"{whole} s"
    if end_s < 4 * 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole % 3600 // 60:02}"
