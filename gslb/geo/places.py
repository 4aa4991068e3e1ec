"""From a geo database to localities: each network's place, and the datacenter nearest to it. PURE.

MaxMind's schema (`location.latitude`, `country.iso_code`) and the flat one of DB-IP's packages (`latitude`,
`country_code`) are read. Coordinates count; without them, where the people of the country are.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, NamedTuple

from typing_extensions import override

from gslb.geo.countries import COUNTRIES
from gslb.geo.mmdb import BadMmdbError, Intervals, Mmdb, Value
from gslb.model.geography import Coordinates, distance_km

VERSIONS: Final = (4, 6)
_COUNTRY_KEYS: Final = ("country", "registered_country")
NOWHERE: Final = ""


class Place(NamedTuple):
    """Where a network is, as a database says; `exact`: by coordinates, not by country."""

    country: str
    coordinates: Coordinates | None
    exact: bool = False

    @override
    def __str__(self) -> str:
        if self.coordinates is None:
            return self.country or "nowhere"
        where = f"{self.coordinates.latitude:g},{self.coordinates.longitude:g}"
        return f"{self.country or '?'} {where}" + ("" if self.exact else " (the country's)")


class Base(NamedTuple):
    """Localities of everybody, of one IP version: interval i covers starts[i] up to starts[i + 1] - 1."""

    starts: list[int]
    localities: list[str]


class Found(NamedTuple):
    """What a database has for one address."""

    prefix: IPv4Network | IPv6Network
    place: Place | None


@dataclass(frozen=True, slots=True, eq=False)
class GeoDatabase:
    """One loaded database: the places of all networks, whatever datacenters there are."""

    name: str  # of its file
    database: Mmdb
    intervals: Mapping[int, Intervals] = field(default_factory=dict)  # by IP version
    places: Mapping[int, Place] = field(default_factory=dict)  # by record

    @classmethod
    def read(cls, name: str, octets: bytes) -> "GeoDatabase":
        """Reads all of it. O(networks). Raises BadMmdbError."""
        database = Mmdb(octets)
        intervals = {version: database.intervals(version) for version in VERSIONS}
        used = {record for each in intervals.values() for record in each.records}
        places = {record: place_of(database.record(record)) for record in used if record >= 0}
        if not any(place.coordinates for place in places.values()):
            raise BadMmdbError("no network in it has coordinates or a country that is known")
        return cls(name, database, intervals, places)

    @property
    def networks(self) -> int:
        """Intervals with a place."""
        return sum(sum(1 for record in each.records if record >= 0) for each in self.intervals.values())

    def find(self, address: IPv4Address | IPv6Address) -> Found:
        """The entry that covers an address. Raises BadMmdbError."""
        record, length = self.database.find(address.version, int(address))
        prefix = ip_network((address, length), strict=False)
        return Found(prefix, self.places.get(record) if record >= 0 else None)

    def nearest(self, datacenters: Mapping[str, Coordinates]) -> Mapping[int, Base]:
        """The nearest datacenter of every network; NOWHERE where the database knows no place, or none is given."""
        nearest = Nearest(datacenters)
        names = {-1: NOWHERE, **{record: nearest.to(place.coordinates) for record, place in self.places.items()}}
        return {version: _merged(each, names) for version, each in self.intervals.items()}


def _merged(intervals: Intervals, names: Mapping[int, str]) -> Base:
    starts: list[int] = []
    localities: list[str] = []
    last = None
    for start, record in zip(intervals.starts, intervals.records, strict=True):
        name = names[record]
        if name != last:
            starts.append(start)
            localities.append(name)
            last = name
    return Base(starts, localities)


class Nearest:
    """Which of some places is nearest; the first by name of those at the same distance."""

    def __init__(self, datacenters: Mapping[str, Coordinates]) -> None:
        self._vectors = [(_vector(where), name) for name, where in sorted(datacenters.items())]
        self._known: dict[Coordinates | None, str] = {None: NOWHERE}

    def to(self, place: Coordinates | None) -> str:
        found = self._known.get(place)
        if found is None and place is not None:
            x, y, z = _vector(place)
            found, best = NOWHERE, -2.0
            for (a, b, c), name in self._vectors:
                closeness = x * a + y * b + z * c  # the cosine of the angle between them
                if closeness > best:
                    found, best = name, closeness
            self._known[place] = found
        return found or NOWHERE


def _vector(place: Coordinates) -> tuple[float, float, float]:
    latitude, longitude = math.radians(place.latitude), math.radians(place.longitude)
    return (
        math.cos(latitude) * math.cos(longitude),
        math.cos(latitude) * math.sin(longitude),
        math.sin(latitude),
    )


def place_of(record: Value) -> Place:
    """The place in a record; coordinates None when it says none that can be."""
    if not isinstance(record, Mapping):
        return Place("", None)
    country = _country(record)
    location = record.get("location")
    inner = location if isinstance(location, Mapping) else record
    latitude, longitude = _number(inner.get("latitude"), 90.0), _number(inner.get("longitude"), 180.0)
    if latitude is not None and longitude is not None:
        return Place(country, Coordinates(latitude, longitude), exact=True)
    return Place(country, COUNTRIES.get(country))


def _country(record: Mapping[str, Value]) -> str:
    for key in _COUNTRY_KEYS:
        inner = record.get(key)
        code = inner.get("iso_code") if isinstance(inner, Mapping) else inner
        if isinstance(code, str) and code.upper() in COUNTRIES:
            return code.upper()
    code = record.get("country_code")
    return code.upper() if isinstance(code, str) and code.upper() in COUNTRIES else ""


def _number(value: Value | None, most: float) -> float | None:
    """A number of degrees; some databases write it as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if -most <= number <= most else None


def described(found: Found, datacenters: Mapping[str, Coordinates]) -> str:
    """A place, and what is nearest to it, for people."""
    if found.place is None:
        return "nowhere that the database knows"
    coordinates = found.place.coordinates
    name = Nearest(datacenters).to(coordinates)
    if coordinates is None or not name:
        return str(found.place)
    return f"{found.place}, nearest {name} at {distance_km(coordinates, datacenters[name]):.0f} km"
