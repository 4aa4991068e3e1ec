"""Distance on the earth and what it costs in time."""

import math
from dataclasses import dataclass

from gslb.model.limits import KM_PER_MS

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A place on the earth, in degrees; north and east are positive."""

    latitude: float
    longitude: float


def distance_km(a: Coordinates, b: Coordinates) -> float:
    """Great-circle distance by the haversine formula, in km."""
    lat_a, lat_b = math.radians(a.latitude), math.radians(b.latitude)
    half_lat = (lat_b - lat_a) / 2
    half_lon = math.radians(b.longitude - a.longitude) / 2
    h = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(h)))


def floor_rtt_ms(a: Coordinates, b: Coordinates) -> float:
    """The least round-trip time, in ms, between two places: light in fibre, there and back, makes 100 km per ms."""
    return distance_km(a, b) / KM_PER_MS
