"""What clients and remote probes saw of each task, in two windows that follow each other, and round-trip times.

Bounded: only tasks that BNS knows are counted (the caller sees to it), and what is older than two windows is gone.
"""

from collections.abc import Mapping

from gslb.control.ingest.verdict import Votes, Witness
from gslb.model import limits

_RTT_SMOOTHING = 0.3
_NO_VOTES = Votes()


class WitnessStand:
    """Votes per task: those of the running window and of the one before it."""

    def __init__(self, window_s: float = limits.WITNESS_WINDOW_S) -> None:
        self._window_s = window_s
        self._started_s = 0.0
        self._running: dict[str, Votes] = {}
        self._before: dict[str, Votes] = {}

    def add(self, task: str, ok: int, failed: int, now_s: float) -> None:
        """One report of one observer."""
        self._turn(now_s)
        self._running[task] = self._running.get(task, _NO_VOTES).add(ok, failed)

    def witness(self, task: str, now_s: float) -> Witness:
        """What the votes of the last one to two windows amount to."""
        self._turn(now_s)
        return (self._running.get(task, _NO_VOTES) + self._before.get(task, _NO_VOTES)).witness

    def _turn(self, now_s: float) -> None:
        past_s = now_s - self._started_s
        if past_s < self._window_s:
            return
        self._before = self._running if past_s < 2 * self._window_s else {}
        self._running = {}
        self._started_s = now_s


class RttTable:
    """Smoothed round-trip times between datacenters, in ms, bounded by datacenters squared."""

    def __init__(self) -> None:
        self._rtt_ms: dict[tuple[str, str], float] = {}

    def add(self, locality: str, datacenter: str, rtt_ms: float) -> None:
        """One measurement, already checked to be between 0 and RTT_MAX_MS; 0 is none."""
        if rtt_ms <= 0 or not locality or not datacenter:
            return
        key = (locality, datacenter)
        known = self._rtt_ms.get(key)
        if known is None and len(self._rtt_ms) >= limits.DATACENTERS_MAX**2:
            return
        self._rtt_ms[key] = rtt_ms if known is None else known + _RTT_SMOOTHING * (rtt_ms - known)

    def snapshot(self) -> Mapping[tuple[str, str], float]:
        return dict(self._rtt_ms)
