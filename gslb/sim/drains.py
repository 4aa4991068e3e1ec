"""Drains as a story orders them."""

from datetime import datetime, timedelta

from gslb.model.meta import Meta
from gslb.model.resources import Drain, DrainScope


def drain_of(scope: DrainScope, target: str, start: datetime, for_s: float) -> Drain:
    """From `start` (UTC) for `for_s` seconds."""
    return Drain(
        Meta(f"{scope.value}-{target}"), scope, target, "story", "story", start, start + timedelta(seconds=for_s)
    )


def drained(datacenter: str, start: datetime, for_s: float) -> dict[str, Drain]:
    """One datacenter's drain, by name, as a catalog has it."""
    one = drain_of(DrainScope.DATACENTER, datacenter, start, for_s)
    return {one.name: one}
