"""From what the reference serves to what the data plane serves, all of it or only what changed. PURE.

The numbers in a table (slots of services, localities, datacenters) stay what they are from one table to the next as long
as they can, so that a change of one service costs the octets of one service. A change of the localities or
many services gone make a whole table of new numbers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from dns_frontend.table.octets import (
    PATCH,
    WHOLE,
    Guarding,
    Layout,
    gone_section,
    guard_section,
    layout_section,
    map_section,
    names_section,
    service_section,
    table_octets,
)
from dns_frontend.table.serving import Serving
from dns_frontend.table.steering import SteeredService

# A service that goes leaves its slot empty. More empty ones than this, and more than served ones, are not dragged on.
_EMPTY_SLOTS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the data plane serves after it was given `octets`, and what it needs for the next change."""

    serving: Serving
    default_locality: str
    layout: Layout
    octets: bytes
    is_patch: bool
    guard: Guarding | None = None

    def kept(self) -> "Compiled":
        """What the next change needs of it: not the octets, which may be many."""
        return replace(self, octets=b"")


def compiled(
    serving: Serving, default_locality: str, before: Compiled | None = None, guard: Guarding | None = None
) -> Compiled:
    """The table of `serving`; a patch of `before` where that says all. Without a `guard` answers are plain."""
    guarding = () if guard is None or (before is not None and before.guard == guard) else (guard_section(guard),)
    layout = _grown(serving, default_locality, before) if before is not None else None
    if before is None or layout is None:
        layout = _fresh(serving, default_locality)
        guarding = (guard_section(guard),) if guard is not None else ()
        octets = table_octets(WHOLE, (*_sections(serving, default_locality, layout, None), *guarding))
        return Compiled(serving, default_locality, layout, octets, is_patch=False, guard=guard)
    octets = table_octets(PATCH, (*_sections(serving, default_locality, layout, before.serving), *guarding))
    return Compiled(serving, default_locality, layout, octets, is_patch=True, guard=guard)


def _sections(serving: Serving, default_locality: str, layout: Layout, before: Serving | None) -> Iterator[bytes]:
    """The sections that differ from those of `before`."""
    yield layout_section(layout)
    if before is None or serving.cidrs is not before.cidrs:
        yield map_section(serving.cidrs, layout.localities, default_locality)
    if before is None or serving.table is not before.table:
        yield names_section(serving.table, layout.slots)
    known: Mapping[str, SteeredService] = before.services if before else {}
    for name, service in serving.services.items():
        if known.get(name) is not service:
            yield service_section(layout.slots[name], service, layout)
    for name in known:
        if name not in serving.services:
            yield gone_section(layout.slots[name])


def _localities(serving: Serving, default_locality: str) -> dict[str, int]:
    """Every locality that a client can be in, numbered."""
    found = {name or default_locality for family in serving.cidrs.families.values() for name in family.localities}
    return {name: number for number, name in enumerate(sorted(found | {default_locality}))}


def _datacenters(serving: Serving) -> Iterator[str]:
    yield from serving.catalog.datacenters
    for service in serving.services.values():
        for family in service.families.values():
            yield from family.rdatas


def _fresh(serving: Serving, default_locality: str) -> Layout:
    slots = {name: slot for slot, name in enumerate(serving.services)}
    datacenters = {name: number for number, name in enumerate(dict.fromkeys(_datacenters(serving)))}
    return Layout(slots, len(slots), _localities(serving, default_locality), datacenters)


def _grown(serving: Serving, default_locality: str, before: Compiled) -> Layout | None:
    """The layout before with room for what is new; None when that cannot be, or is not worth it."""
    old = before.layout
    if default_locality != before.default_locality:
        return None
    if serving.cidrs is not before.serving.cidrs and _localities(serving, default_locality) != old.localities:
        return None
    slots, slot_count = old.slots, old.slot_count
    if serving.services.keys() != before.serving.services.keys():
        slots = {
            name: slot
            for name, slot in old.slots.items()
            if name in serving.services or name in before.serving.services
        }
        for name in serving.services:
            if name not in slots:
                slots[name] = slot_count
                slot_count += 1
        if slot_count - len(serving.services) > max(_EMPTY_SLOTS_MAX, len(serving.services)):
            return None
    changed = (
        name
        for service_name, service in serving.services.items()
        if before.serving.services.get(service_name) is not service
        for family in service.families.values()
        for name in family.rdatas
    )
    fresh = [name for name in dict.fromkeys(changed) if name not in old.datacenters]
    datacenters = old.datacenters
    if fresh:
        datacenters = {**datacenters, **{name: len(datacenters) + n for n, name in enumerate(fresh)}}
    return Layout(slots, slot_count, old.localities, datacenters)
