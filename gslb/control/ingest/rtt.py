"""Round-trip times between datacenters, as observers measured them."""

from collections.abc import Container, Mapping

from gslb.model import limits

_RTT_SMOOTHING = 0.3
# What nobody has measured for so long says nothing of today.
FORGET_S = 3600.0


class RttTable:
    """Smoothed round-trip times between datacenters, in ms, bounded by datacenters squared."""

    def __init__(self) -> None:
        self._rtt_ms: dict[tuple[str, str], float] = {}
        self._measured_s: dict[tuple[str, str], float] = {}

    def add(self, locality: str, datacenter: str, rtt_ms: float, now_s: float) -> None:
        """One measurement, already checked to be between 0 and RTT_MAX_MS; 0 is none. `now_s`: monotonic."""
        if rtt_ms <= 0 or not locality or not datacenter:
            return
        key = (locality, datacenter)
        known = self._rtt_ms.get(key)
        if known is None and len(self._rtt_ms) >= limits.DATACENTERS_MAX**2:
            return
        self._rtt_ms[key] = rtt_ms if known is None else known + _RTT_SMOOTHING * (rtt_ms - known)
        self._measured_s[key] = now_s

    def tidy(self, datacenters: Container[str], now_s: float) -> None:
        """Forgets places that are not configured (they would fill the table), and what is old."""
        for key in [
            key
            for key, at_s in self._measured_s.items()
            if now_s - at_s > FORGET_S or key[0] not in datacenters or key[1] not in datacenters
        ]:
            del self._rtt_ms[key], self._measured_s[key]

    def snapshot(self) -> Mapping[tuple[str, str], float]:
        return dict(self._rtt_ms)
