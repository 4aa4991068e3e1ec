"""Four panels of a story as SVG: demand, load by datacenter, utilization, what was moved. No plotting package needed."""

from collections.abc import Sequence
from html import escape
from typing import Final

from gslb.sim.world import World

WIDTH: Final = 900
HEIGHT: Final = 190
LEFT: Final = 70
LEGEND: Final = 200
FONT: Final = 'font-family="sans-serif" font-size="12"'
POINTS_MAX: Final = 600
COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#7f7f7f")

Line = tuple[str, Sequence[float], bool]  # name, values, dashed


def draw(world: World, title: str) -> str:
    """An SVG document."""
    panels = list(_panels(world))
    whole = 40 + len(panels) * (HEIGHT + 50)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEGEND}" height="{whole}" {FONT}>',
        f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="24" font-size="16">{escape(title)}</text>',
    ]
    for number, (name, lines) in enumerate(panels):
        parts += _panel(name, lines, world.meters.times, 40 + number * (HEIGHT + 50))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panels(world: World) -> list[tuple[str, list[Line]]]:
    meters = world.meters
    flows: list[Line] = []
    for name, series in meters.services.items():
        flows.append((f"{name}: demand", [tick.demand for tick in series], True))
        flows.append((f"{name}: served", [tick.ok for tick in series], False))
    capacity: list[Line] = []
    busy: list[Line] = []
    share: list[Line] = []
    for (name, datacenter), sites in sorted(meters.sites.items()):
        label = f"{name} {datacenter}"
        totals = [max(tick.demand, 1e-9) for tick in meters.services[name]]
        capacity.append((label, [site.capacity for site in sites], False))
        busy.append((label, [100 * site.utilization for site in sites], False))
        share.append((label, [100 * site.offered / total for site, total in zip(sites, totals, strict=True)], False))
    return [
        ("rps", flows),
        ("capacity planned with, rps", capacity),
        ("share of the service's load, %", share),
        ("utilization, %", busy),
    ]


def _panel(name: str, lines: list[Line], times: Sequence[float], top: int) -> list[str]:
    most = max((max(values, default=0.0) for _, values, _ in lines), default=0.0) or 1.0
    last_s = times[-1] if times else 1.0
    bottom = top + 20 + HEIGHT
    parts = [
        f'<text x="{LEFT}" y="{top + 12}" font-weight="bold">{escape(name)}</text>',
        f'<rect x="{LEFT}" y="{top + 20}" width="{WIDTH - LEFT}" height="{HEIGHT}" fill="none" stroke="#999"/>',
        f'<text x="{LEFT - 6}" y="{top + 30}" text-anchor="end">{most:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{WIDTH}" y="{bottom + 16}" text-anchor="end">{last_s:g} s</text>',
    ]
    for number, (label, values, dashed) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        every = max(1, len(values) // POINTS_MAX)
        points = " ".join(
            f"{LEFT + (WIDTH - LEFT) * times[i] / last_s:.1f},{bottom - HEIGHT * values[i] / most:.1f}"
            for i in range(0, len(values), every)
        )
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>')
        if number * 15 < HEIGHT:
            parts.append(f'<text x="{WIDTH + 8}" y="{top + 32 + 15 * number}" fill="{colour}">{escape(label)}</text>')
    return parts
