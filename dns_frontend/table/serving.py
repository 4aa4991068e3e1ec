"""All that answering needs, in one immutable value that is swapped whole. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dns_frontend.table.bns import BnsIndex
from dns_frontend.table.build import Named, build_table
from dns_frontend.table.model import Table
from dns_frontend.table.steering import SteeredService, prepare
from dns_frontend.zone.master import BadZoneError, parse_zone
from dns_frontend.zone.records import ZoneData
from gslb.geo.cidr import CidrMap
from gslb.geo.places import Base, GeoDatabase
from gslb.model.geography import Coordinates
from gslb.model.resources import Catalog
from gslb.model.resources import Zone as ZoneResource
from gslb.steer.view import ServiceView


class KeptZone(NamedTuple):
    """A zone's text as it was last seen, what was made of it, and what is wrong with it."""

    text: str
    data: ZoneData | None  # the last good one
    refusal: str = ""  # of the text, when `data` is not that text's
    hidden: str = ""  # why the zone is not served whatever it says

    @property
    def problem(self) -> str:
        return self.hidden or self.refusal


@dataclass(frozen=True, slots=True)
class Serving:
    """Table, services and map of one moment. `ready`: something was learned; before, every answer is SERVFAIL."""

    ready: bool = False
    table: Table = field(default_factory=Table)
    services: Mapping[str, SteeredService] = field(default_factory=dict)
    cidrs: CidrMap = field(default_factory=CidrMap)
    catalog: Catalog = field(default_factory=Catalog)
    zones: Mapping[str, KeptZone] = field(default_factory=dict)  # by name in the catalog
    names: Mapping[str, Named] = field(default_factory=dict)  # in DNS, by service
    local: Mapping[bytes, ZoneData] = field(default_factory=dict)  # zones of this machine's own files, by origin
    geo: GeoDatabase | None = None  # where clients are that no area has
    base: Mapping[int, Base] = field(default_factory=dict)  # the localities that it makes of the datacenters
    bns_origins: tuple[bytes, ...] = ()  # zones below which tasks have names
    bns: BnsIndex = field(default_factory=BnsIndex)

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the catalog is not served as written, one line each."""
        bad = tuple(kept.problem for kept in self.zones.values() if kept.problem)
        return bad + self.table.problems + self.cidrs.problems

    def advance(
        self,
        catalog: Catalog,
        services: Mapping[str, ServiceView],
        local: Mapping[bytes, ZoneData] | None = None,
        geo: GeoDatabase | None = None,
    ) -> "Serving":
        """What to serve next; only what changed is built anew. None leaves the zones of local files, and the geo database.

        A zone whose text has become bad is served as it was, and `problems` says why (invariant 8).
        """
        local = self.local if local is None else local
        zones = _zones(self.zones, catalog.zones, local)
        names = self._names(services)
        data = [*local.values(), *_data(zones)]
        same_table = self.ready and names == self.names and data == [*self.local.values(), *_data(self.zones)]
        geo = geo or self.geo
        base = self._base(catalog, geo)
        same_map = self.ready and catalog.areas == self.catalog.areas and base is self.base
        same_places = catalog.datacenters == self.catalog.datacenters and catalog.areas == self.catalog.areas
        prepared = _prepared(self.services if same_places else {}, services, catalog, with_bns=bool(self.bns_origins))
        return Serving(
            ready=True,
            table=self.table if same_table else build_table(data, names, self.bns_origins),
            services=prepared,
            cidrs=self.cidrs if same_map else CidrMap.build(catalog.areas.values(), base),
            catalog=catalog,
            geo=geo,
            base=base,
            zones=zones,
            names=names,
            local=local,
            bns_origins=self.bns_origins,
            bns=self.bns.advance({name: service.jobs for name, service in prepared.items() if service.jobs}),
        )

    def _names(self, services: Mapping[str, ServiceView]) -> dict[str, Named]:
        """Of each service that has some; what is known of an unchanged one is kept, so that nothing is made anew."""
        names: dict[str, Named] = {}
        for name, view in services.items():
            if view.service is None or not view.service.dns_names:
                continue
            old, known = self.services.get(name), self.names.get(name)
            if known is None or old is None or old.view is not view:
                known = Named(view.service.dns_names, bool(view.service.alpn))
            names[name] = known
        return names

    def _base(self, catalog: Catalog, geo: GeoDatabase | None) -> Mapping[int, Base]:
        """The same object as before when nothing changed that it comes from."""
        places = coordinates_of(catalog)
        if geo is None or (geo is self.geo and places == coordinates_of(self.catalog)):
            return self.base
        return geo.nearest(places)


def coordinates_of(catalog: Catalog) -> Mapping[str, Coordinates]:
    """Where the datacenters are."""
    return {name: datacenter.coordinates for name, datacenter in catalog.datacenters.items()}


def _data(zones: Mapping[str, KeptZone]) -> list[ZoneData]:
    return [kept.data for kept in zones.values() if kept.data is not None and not kept.hidden]


def _prepared(
    known: Mapping[str, SteeredService], services: Mapping[str, ServiceView], catalog: Catalog, *, with_bns: bool
) -> dict[str, SteeredService]:
    """Every service that is served by name, laid out; those whose view is the same object are kept."""
    prepared: dict[str, SteeredService] = {}
    for name, view in services.items():
        if view.service is None or not (view.service.dns_names or with_bns):
            continue
        old = known.get(name)
        prepared[name] = old if old is not None and old.view is view else prepare(view, catalog, with_bns=with_bns)
    return prepared


def _zones(
    known: Mapping[str, KeptZone], resources: Mapping[str, ZoneResource], local: Mapping[bytes, ZoneData]
) -> dict[str, KeptZone]:
    kept: dict[str, KeptZone] = {}
    origins: dict[bytes, str] = {}
    for name in sorted(resources):
        zone = _parsed(known.get(name), name, resources[name].records)
        origin = zone.data.origin if zone.data is not None else None
        if origin in local:
            zone = zone._replace(hidden=f"zone {name!r} is served from this machine's file, not from the catalog")
        elif origin is not None and (other := origins.setdefault(origin, name)) != name:
            zone = zone._replace(hidden=f"zone {name!r} is the same as zone {other!r}: delete one of them")
        kept[name] = zone
    return kept


def _parsed(old: KeptZone | None, name: str, text: str) -> KeptZone:
    if old is not None and old.text == text:
        return old._replace(hidden="")
    try:
        return KeptZone(text, parse_zone(name, text))
    except BadZoneError as error:
        served = "; the zone is served as it was" if old is not None and old.data is not None else ""
        return KeptZone(text, old.data if old else None, f"zone {name!r} is refused: {error}{served}")
