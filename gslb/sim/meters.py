"""What is measured while the planet turns, and what a window of it amounts to."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

# Survivors' utilization is judged over this long [facts/balancing.md].
WINDOW_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ServiceTick:
    """One service in one tick, rps of first attempts."""

    demand: float = 0.0
    ok: float = 0.0
    shed: float = 0.0
    failed: float = 0.0  # on the way, by errors, too late
    critical_demand: float = 0.0
    critical_ok: float = 0.0


@dataclass(frozen=True, slots=True)
class SiteTick:
    """One service in one datacenter in one tick. `utilization`: work asked for over CPU there is."""

    offered: float = 0.0
    utilization: float = 0.0
    capacity: float = 0.0  # as planned with
    up: int = 0


@dataclass(slots=True)
class Meters:
    """Series since the beginning; a window begins at `mark_s`."""

    times: list[float] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)  # what was done to the planet, and when
    services: dict[str, list[ServiceTick]] = field(default_factory=dict)
    sites: dict[tuple[str, str], list[SiteTick]] = field(default_factory=dict)
    # What is asked of what is shared, over what there is: (`cpu`, `uplink` or `path`, locality of a path, datacenter).
    uses: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def add(
        self,
        now_s: float,
        services: dict[str, ServiceTick],
        sites: dict[tuple[str, str], SiteTick],
        uses: dict[tuple[str, str, str], float],
    ) -> None:
        """The tick that ends at `now_s`."""
        self.times.append(now_s)
        for name, tick in services.items():
            self.services.setdefault(name, []).append(tick)
        for key, site in sites.items():
            self.sites.setdefault(key, []).append(site)
        for what, part in uses.items():
            self.uses.setdefault(what, []).append(part)

    def first(self, since_s: float) -> int:
        """Index of the first tick that ended after `since_s`."""
        index = len(self.times)
        while index > 0 and self.times[index - 1] > since_s + 1e-9:
            index -= 1
        return index

    def ticks(self, since_s: float, service: str = "") -> Iterable[ServiceTick]:
        """All ticks of one service, or of all."""
        first = self.first(since_s)
        for name, series in self.services.items():
            if not service or name == service:
                yield from series[first:]

    def worst_utilization(self, since_s: float, service: str = "", datacenter: str = "") -> float:
        """The highest mean over WINDOW_S of any site with running tasks."""
        first = self.first(since_s)
        worst = 0.0
        for (name, place), series in self.sites.items():
            if (service and name != service) or (datacenter and place != datacenter):
                continue
            worst = max(worst, self._worst(series, first))
        return worst

    def worst_use(self, since_s: float, what: str, locality: str = "", datacenter: str = "") -> float:
        """The highest mean over WINDOW_S of anything shared of that kind."""
        first = self.first(since_s)
        return max(
            (
                self._window(series[first:])
                for (kind, here, there), series in self.uses.items()
                if kind == what and locality in {"", here} and datacenter in {"", there}
            ),
            default=math.nan,
        )

    def _worst(self, series: list[SiteTick], first: int) -> float:
        """A datacenter without a running task is not overloaded: it is gone."""
        return self._window([site.utilization for site in series[first:] if site.up])

    def _window(self, values: Sequence[float]) -> float:
        """The highest mean over WINDOW_S; 0 of nothing."""
        if not values:
            return 0.0
        tick_s = self.times[-1] - self.times[-2] if len(self.times) > 1 else WINDOW_S
        size = min(len(values), max(1, round(WINDOW_S / tick_s)))
        total = worst = sum(values[:size])
        for old, new in zip(values, values[size:], strict=False):
            total += new - old
            worst = max(worst, total)
        return worst / size


def fraction(part: float, whole: float) -> float:
    """0 of nothing is 0."""
    return part / whole if whole > 0 else 0.0
