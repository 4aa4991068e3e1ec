"""A benchmark in parts: one that fails costs its own rows and no others."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from bench.rows import Row

log = logging.getLogger(__name__)

Part = Callable[[bool], Awaitable[list[Row]]]  # takes `quick`: small sizes, to see that it works


async def rows(parts: Mapping[str, Part], only: frozenset[str], *, quick: bool) -> list[Row]:
    """All rows, or those of the parts in `only`."""
    found: list[Row] = []
    for name, part in parts.items():
        if only and name not in only:
            continue
        try:
            found += await part(quick)
        except Exception as error:  # what went wrong is part of the result, and the others are measured all the same
            log.exception("the part %s failed", name)
            found.append(Row(name, None, "", f"failed: {type(error).__name__}: {str(error)[:200]}"))
    return found
