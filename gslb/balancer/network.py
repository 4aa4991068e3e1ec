"""How far every locality is from every datacenter, and how ties are broken. PURE.

Kept from step to step: a measured time that wobbles by less than the tolerance leaves the matrix, and with it every
plan, as it was.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gslb.model import limits
from gslb.model.geography import EARTH_RADIUS_KM, Coordinates
from gslb.model.resources import Catalog, ClientArea, Datacenter

Matrix = NDArray[np.float64]

RTT_TOLERANCE_MS: Final = 1.0
RTT_TOLERANCE_FRACTION: Final = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Distances at one moment. Rows are localities, columns datacenters, both in order of name."""

    localities: tuple[str, ...] = ()
    datacenters: tuple[str, ...] = ()
    # What it was made from, compared by identity.
    sources: tuple[Mapping[str, Datacenter], Mapping[str, ClientArea], Mapping[tuple[str, str], float]] | None = None
    row: Mapping[str, int] = field(default_factory=dict)
    column: Mapping[str, int] = field(default_factory=dict)
    floor_ms: Matrix = field(default_factory=lambda: np.zeros((0, 0)))  # what geography allows
    rtt_ms: Matrix = field(default_factory=lambda: np.zeros((0, 0)))  # max(measured, floor)
    tie_ms: Matrix = field(default_factory=lambda: np.zeros((0, 0)))  # in [0, TIE_BREAK_MS)


def network_of(catalog: Catalog, rtt_ms: Mapping[tuple[str, str], float], previous: Network) -> Network:
    """The distances now; `previous` itself when nothing moved beyond the tolerance."""
    sources = (catalog.datacenters, catalog.areas, rtt_ms)
    if previous.sources and all(a is b for a, b in zip(sources, previous.sources, strict=True)):
        return previous
    localities = tuple(sorted({*catalog.datacenters, *catalog.areas}))
    datacenters = tuple(sorted(catalog.datacenters))
    floor = _floors(catalog, localities, datacenters)
    same_places = localities == previous.localities and datacenters == previous.datacenters
    if same_places:
        rtt = _held(_measured(floor, rtt_ms, previous.row, previous.column), previous.rtt_ms)
        if np.array_equal(floor, previous.floor_ms) and np.array_equal(rtt, previous.rtt_ms):
            return previous
        return Network(localities, datacenters, sources, previous.row, previous.column, floor, rtt, previous.tie_ms)
    row = {name: i for i, name in enumerate(localities)}
    column = {name: j for j, name in enumerate(datacenters)}
    rtt = _measured(floor, rtt_ms, row, column)
    return Network(localities, datacenters, sources, row, column, floor, rtt, _ties(localities, datacenters))


def _floors(catalog: Catalog, localities: tuple[str, ...], datacenters: tuple[str, ...]) -> Matrix:
    """Great-circle distance (haversine) over KM_PER_MS, in ms, for all pairs at once."""
    here = _radians([catalog.coordinates_of(name) for name in localities])
    there = _radians([catalog.datacenters[name].coordinates for name in datacenters])
    lat_a, lat_b = here[:, None, 0], there[None, :, 0]
    half_lat, half_lon = (lat_b - lat_a) / 2, (there[None, :, 1] - here[:, None, 1]) / 2
    h = np.sin(half_lat) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin(half_lon) ** 2
    floor: Matrix = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))) / limits.KM_PER_MS
    return np.nan_to_num(floor, nan=limits.RTT_MAX_MS)


def _radians(places: list[Coordinates | None]) -> Matrix:
    rows = [(place.latitude, place.longitude) if place else (math.nan, math.nan) for place in places]
    return np.radians(np.array(rows, dtype=np.float64).reshape(len(rows), 2))


def _measured(
    floor: Matrix, rtt_ms: Mapping[tuple[str, str], float], row: Mapping[str, int], column: Mapping[str, int]
) -> Matrix:
    """Measured times where there are any and they make sense, never below the floor."""
    rtt = floor.copy()
    for (locality, datacenter), value in rtt_ms.items():
        i, j = row.get(locality), column.get(datacenter)
        if i is not None and j is not None and 0 <= value <= limits.RTT_MAX_MS:
            rtt[i, j] = max(value, floor[i, j])
    return rtt


def _held(new: Matrix, old: Matrix) -> Matrix:
    """The old times wherever the new ones differ by less than the tolerance."""
    near: NDArray[np.bool_] = np.abs(new - old) <= np.maximum(RTT_TOLERANCE_MS, RTT_TOLERANCE_FRACTION * old)
    return np.where(near, old, new)


@lru_cache(maxsize=limits.LOCALITIES_MAX)
def _name_hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def _ties(localities: tuple[str, ...], datacenters: tuple[str, ...]) -> Matrix:
    """The same tiny price for the same pair everywhere: BLAKE2b of both names, mixed (splitmix64's finaliser)."""
    here = np.array([_name_hash(name) for name in localities], dtype=np.uint64).reshape(-1, 1)
    there = np.array([_name_hash("@" + name) for name in datacenters], dtype=np.uint64).reshape(1, -1)
    mixed = here ^ there
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    ties: Matrix = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53 * limits.TIE_BREAK_MS
    return ties
