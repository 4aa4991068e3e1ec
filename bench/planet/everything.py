"""The parts of the benchmark `planet`, in order."""

from collections.abc import Mapping
from types import MappingProxyType

from bench import parts
from bench.parts import Part
from bench.planet import clients, death, drain, fanout, ingest, planning, registration
from bench.rows import Row

# What a full run takes is in docs/reference/benchmarks.md; the quick sizes only show that everything works.
PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "registration": lambda quick: registration.rows(registration.QUICK if quick else registration.FULL),
        "death": lambda quick: death.rows(death.QUICK if quick else death.FULL),
        "drain": lambda quick: drain.rows(drain.QUICK if quick else drain.FULL),
        "planning": lambda quick: planning.rows(planning.QUICK if quick else planning.FULL),
        "ingest": lambda quick: ingest.rows(ingest.QUICK if quick else ingest.FULL),
        "fan-out": lambda quick: fanout.rows(fanout.QUICK if quick else fanout.FULL),
        "clients": lambda quick: clients.rows(clients.QUICK if quick else clients.FULL),
    }
)


async def rows(only: frozenset[str], *, quick: bool) -> list[Row]:
    """All rows, or those of some parts."""
    return await parts.rows(PARTS, only, quick=quick)
