"""Counters that only grow -> rates by criticality. PURE.

A task sends its counters about once a second, at moments of its own; the agent reports at others. A rate is taken
between the counters that were newest at the last two reports, over the time between *their* arrivals. When a counter
falls, the task was restarted: it counts from zero.
"""

from dataclasses import dataclass, replace

from agents import limits
from gslb.model.limits import RATE_MAX_RPS

CLASSES = 4  # criticalities
Row = tuple[float, float, float, float]
NO_RATES: Row = (0.0, 0.0, 0.0, 0.0)
IN_FLIGHT_MAX = int(RATE_MAX_RPS)  # what a replica takes; one task must not spoil the report of all


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests since the task started, by criticality, and how many it works on now."""

    ok: tuple[int, ...] = (0,) * CLASSES
    error: tuple[int, ...] = (0,) * CLASSES
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests per second, by criticality."""

    ok: Row = NO_RATES
    error: Row = NO_RATES
    in_flight: int = 0


NO_LOAD = Rates()


@dataclass(frozen=True, slots=True)
class RateMeter:
    """One task's counters. `base` is where the next rate begins, `newest` what came in last; times in seconds."""

    base: Counters | None = None
    base_s: float = 0.0
    newest: Counters | None = None
    newest_s: float = 0.0
    held: Rates = NO_LOAD


def to_counters(ok: list[int], error: list[int], in_flight: int) -> Counters:
    """What a task sent, with missing columns as 0. Extra columns are of a newer version and left out."""

    def four(values: list[int]) -> tuple[int, ...]:
        return tuple((values[index] if index < len(values) else 0) for index in range(CLASSES))

    return Counters(four(ok), four(error), min(in_flight, IN_FLIGHT_MAX))


def count(meter: RateMeter, counters: Counters, now: float) -> RateMeter:
    """Counters came in. The first ones of a stream are where counting begins."""
    if meter.base is None:
        return replace(meter, base=counters, base_s=now, newest=counters, newest_s=now)
    return replace(meter, newest=counters, newest_s=now)


def sample(meter: RateMeter, now: float) -> tuple[RateMeter, Rates]:
    """The rates to report now. Without new counters the last ones hold for a while, then they are 0."""
    if meter.base is None or meter.newest is None:
        return meter, NO_LOAD
    elapsed_s = meter.newest_s - meter.base_s
    if elapsed_s <= 0.0:
        held = meter.held if now - meter.newest_s <= limits.COUNTERS_STALE_S else NO_LOAD
        return replace(meter, held=held), held
    rates = Rates(
        _rates(meter.base.ok, meter.newest.ok, elapsed_s),
        _rates(meter.base.error, meter.newest.error, elapsed_s),
        meter.newest.in_flight,
    )
    return RateMeter(meter.newest, meter.newest_s, meter.newest, meter.newest_s, rates), rates


def restart(meter: RateMeter) -> RateMeter:
    """A new process took the task over: it counts from its own beginning, the rate of the old one is over."""
    return RateMeter()


def _rates(before: tuple[int, ...], after: tuple[int, ...], elapsed_s: float) -> Row:
    reset = any(new < old for old, new in zip(before, after, strict=True))
    grown = [new - (0 if reset else old) for old, new in zip(before, after, strict=True)]
    values = [min(amount / elapsed_s, RATE_MAX_RPS) for amount in grown]
    return values[0], values[1], values[2], values[3]
