"""Round-trip times between datacenters, as observers measured them."""

from collections.abc import Mapping

from gslb.model import limits

_RTT_SMOOTHING = 0.3


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
