"""The parts of the benchmark `rpc`, in order. A part is a function from `quick` to its rows."""

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType

from bench import parts, rpc_pick
from bench.parts import Part
from bench.rows import Row
from bench.rpc import added, failures, overload, picks, ramp, spans, stale, subsets


def _thread(measure: Callable[[bool], list[Row]]) -> Part:
    """A part that computes: it takes `quick` and needs no event loop."""

    async def part(quick: bool) -> list[Row]:
        return await asyncio.to_thread(measure, quick)

    return part


PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "ramp": _thread(ramp.rows),
        "stale": _thread(stale.rows),
        "subsets": _thread(subsets.rows),
        "pick": _thread(lambda _quick: rpc_pick.measured()),
        "spans": _thread(spans.rows),
        "overload": _thread(lambda quick: overload.rows(quick=quick)),
        "rules": _thread(picks.rows),
        "added": lambda quick: added.rows(added.QUICK if quick else added.FULL),
        "failures": lambda quick: failures.rows(failures.QUICK if quick else failures.FULL),
    }
)


async def rows(only: frozenset[str], *, quick: bool) -> list[Row]:
    """All rows, or those of some parts."""
    return await parts.rows(PARTS, only, quick=quick)
