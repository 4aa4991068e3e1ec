"""How much of the machine's CPU its host withheld: on a shared host a check may fail because there was no machine.

Linux counts it as steal time (proc(5), /proc/stat): a virtual CPU had work, and the host ran somebody else.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import islice

import psutil

WINDOW_S = 5.0
READ_S = 1.0
# From here on it is no slow machine any more, but one that stands still in between.
STALLED = 0.30


def worst_part(readings: Sequence[tuple[float, float]], cpus: int, window_s: float = WINDOW_S) -> float:
    """The largest part of all CPU time withheld in any window; `readings`: (moment, seconds withheld so far). PURE."""
    worst, later = 0.0, 0
    for first, (from_s, before) in enumerate(readings):
        later = max(later, first)
        while later < len(readings) and readings[later][0] - from_s < window_s:
            later += 1
        if later == len(readings):
            break
        to_s, after = readings[later]
        worst = max(worst, (after - before) / ((to_s - from_s) * cpus))
    return worst


class StolenTime:
    """Reads the machine's steal time until it is closed; nothing where there is no such thing."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, float]] = []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            self._readings.append((time.monotonic(), float(getattr(psutil.cpu_times(), "steal", 0.0))))
            await asyncio.sleep(READ_S)

    def worst_since(self, since_s: float) -> float:
        """The largest part withheld in a window that began after `since_s` (time.monotonic), 0..1."""
        first = next((i for i, (at_s, _) in enumerate(self._readings) if at_s >= since_s), len(self._readings))
        return worst_part(list(islice(self._readings, first, None)), psutil.cpu_count() or 1)

    def close(self) -> None:
        """No more readings."""
        self._task.cancel()
