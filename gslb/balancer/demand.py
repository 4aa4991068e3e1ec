"""How much each locality asks of each service, folded from the reports of everybody who sees requests. PURE.

Demand is logical first attempts (design section 4). A reporter's rate holds until its next report; when it falls
silent the rate halves each half-life, so a crowd whose reporters died with a network does not vanish from the plan.
Of each service only reporters of its one source count. The sums are smoothed: slowly within the band of noise and on
the way down, quickly when demand rises out of the band, because too little room hurts and too much does not. A rise is
told from noise by one report far above, or by several that are each a little above: Page's test (E. S. Page, "Continuous
inspection schemes", Biometrika 41, 1954).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gslb.balancer.inputs import Callers
from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.model.resources import DemandSource

REPORTERS_MAX: Final = 50_000
ROWS_TOTAL_MAX: Final = 1_000_000
# A very short period would turn one request into a high rate.
PERIOD_MIN_S: Final = 0.5
PERIOD_MAX_S: Final = 600.0
# A reporter that misses this many of its periods is silent.
SILENT_PERIODS: Final = 3
FORGET_HALF_LIVES: Final = 10
BOOTS_REMEMBERED: Final = 8
# A rise beyond this, and beyond this many standard deviations of a Poisson count, is no noise.
RISE_FRACTION: Final = 0.25
RISE_DEVIATIONS: Final = 4.0
RISE_SMOOTHING: Final = 0.6
# Reports above the smoothed rate add up: a rise that lasts is seen within some reports.
SURPLUS_SLACK: Final = 0.5
SURPLUS_MAX: Final = 4.0
# A rise that was seen is followed quickly until what is left of it is within one deviation of noise.
RISEN_FRACTION: Final = 0.02
RISEN_DEVIATIONS: Final = 0.7
# What was known before a rise says nothing after it: with each report after its end smoothing returns by this factor.
SETTLING: Final = 2 / 3
VANISHED_RPS: Final = 1e-4


@dataclass(frozen=True, slots=True)
class DemandRow:
    """First attempts from one locality to one service since the reporter's last report."""

    service: str
    locality: str
    attempts: int
    caller: str = ""  # the caller's own service; empty: none
    criticality: Criticality = Criticality.CRITICAL


@dataclass(frozen=True, slots=True)
class DemandReport:
    """What one process saw in `period_s`. (reporter, boot_id, seq) is counted once."""

    reporter: str
    boot_id: str
    seq: int
    period_s: float
    source: DemandSource
    rows: tuple[DemandRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Trend:
    """What is known of a rate beside its value: what speaks for a rise, in deviations, and how much a report counts."""

    surplus: float = 0.0
    gain: float = limits.DEMAND_SMOOTHING

    @property
    def rises(self) -> bool:
        return self.gain >= RISE_SMOOTHING


STEADY: Final = Trend()
RISING: Final = Trend(gain=RISE_SMOOTHING)


@dataclass(slots=True)
class _Rates:
    """A reporter's last report of one source."""

    rows: Mapping[tuple[str, str], float]  # rps by (service, locality)
    period_s: float
    heard_s: float
    calls: Mapping[tuple[str, str, str], float] = field(default_factory=dict)  # rps by (service, locality, caller)

    @property
    def size(self) -> int:
        """Rows in memory."""
        return len(self.rows) + len(self.calls)

    def weight(self, now_s: float) -> float:
        """1 while the reporter reports, then half each half-life."""
        silent_s = now_s - self.heard_s - SILENT_PERIODS * self.period_s
        return 1.0 if silent_s <= 0 else float(0.5 ** (silent_s / limits.DEMAND_HALF_LIFE_S))


@dataclass(slots=True)
class _Reporter:
    """One process: which boot it is in, how far it got, and what it said."""

    boot_id: str
    seq: int
    heard_s: float
    boots: tuple[str, ...] = ()  # earlier ones, whose late reports are refused
    rates: dict[DemandSource, _Rates] = field(default_factory=dict)


class DemandFold:
    """Takes reports, gives smoothed demand. `now_s` of every call is of one monotonic clock; memory is bounded."""

    def __init__(self) -> None:
        self._reporters: dict[str, _Reporter] = {}
        self._rows = 0
        self._unsmoothed: dict[str, dict[str, float]] = {}  # as of the last call of `demand`
        self._smoothed: dict[str, dict[str, float]] = {}
        self._trends: dict[str, dict[str, Trend]] = {}
        self._smoothed_at_s: float | None = None

    @property
    def reporters(self) -> int:
        """How many processes are remembered."""
        return len(self._reporters)

    def accept(self, report: DemandReport, *, now_s: float) -> str:
        """Counts `report`. Returns why it is refused; empty: it is counted. A refused report changes nothing."""
        known = self._reporters.get(report.reporter)
        reason = _malformed(report) or _replayed(known, report) or self._no_room(known, report)
        if reason:
            return reason
        reporter = known or _Reporter(report.boot_id, report.seq, now_s)
        if reporter.boot_id != report.boot_id:
            reporter.boots = (*reporter.boots, reporter.boot_id)[-BOOTS_REMEMBERED:]
            self._drop(reporter)
        reporter.boot_id, reporter.seq, reporter.heard_s = report.boot_id, report.seq, now_s
        period_s = max(report.period_s, PERIOD_MIN_S)
        rates = _rates(report, period_s, now_s)
        old = reporter.rates.get(report.source)
        self._rows += rates.size - (old.size if old else 0)
        reporter.rates[report.source] = rates
        self._reporters[report.reporter] = reporter
        return ""

    def demand(self, sources: Mapping[str, DemandSource], *, now_s: float) -> Mapping[str, Mapping[str, float]]:
        """Smoothed rps by service and locality. `sources`: the one source of each service there is."""
        self._forget(now_s)
        self._unsmoothed = raw = self._raw(sources, now_s)
        last_s = self._smoothed_at_s
        elapsed_s = max(0.0, now_s - last_s) if last_s is not None else 0.0
        self._smoothed_at_s = now_s
        smoothed: dict[str, dict[str, float]] = {}
        trends: dict[str, dict[str, Trend]] = {}
        for service in sources:
            old, new = self._smoothed.get(service, {}), raw.get(service, {})
            if old or new:
                after, trends[service] = _smooth_all(old, new, self._trends.get(service, {}), elapsed_s)
                smoothed[service] = old if after == old else after
        self._smoothed, self._trends = smoothed, trends
        return dict(smoothed)

    def callers(self, sources: Mapping[str, DemandSource], *, now_s: float) -> Callers:
        """Which part of each service's demand, by locality, other services make; to be called right after `demand`."""
        calls: dict[str, dict[tuple[str, str], float]] = {}
        for reporter in self._reporters.values():
            for source, rates in reporter.rates.items():
                weight = rates.weight(now_s)
                for (service, locality, caller), rps in rates.calls.items():
                    whole = self._unsmoothed.get(service, {}).get(locality, 0.0)
                    if sources.get(service) is source and whole > 0:
                        of_service = calls.setdefault(service, {})
                        key = (locality, caller)
                        of_service[key] = min(of_service.get(key, 0.0) + weight * rps / whole, 1.0)
        return calls

    def _raw(self, sources: Mapping[str, DemandSource], now_s: float) -> dict[str, dict[str, float]]:
        raw: dict[str, dict[str, float]] = {}
        for reporter in self._reporters.values():
            for source, rates in reporter.rates.items():
                weight = rates.weight(now_s)
                for (service, locality), rps in rates.rows.items():
                    if sources.get(service) is source:
                        localities = raw.setdefault(service, {})
                        localities[locality] = min(localities.get(locality, 0.0) + weight * rps, limits.RATE_MAX_RPS)
        return raw

    def _no_room(self, known: _Reporter | None, report: DemandReport) -> str:
        if known is None and len(self._reporters) >= REPORTERS_MAX:
            return f"more than {REPORTERS_MAX} reporters"
        rows = len(report.rows) + sum(1 for row in report.rows if row.caller)
        if self._rows - _replaced(known, report) + rows > ROWS_TOTAL_MAX:
            return f"more than {ROWS_TOTAL_MAX} rows of all reporters together"
        return ""

    def _drop(self, reporter: _Reporter) -> None:
        self._rows -= sum(rates.size for rates in reporter.rates.values())
        reporter.rates.clear()

    def _forget(self, now_s: float) -> None:
        """Reporters that are silent for so long that nothing is left of their rates."""
        limit_s = FORGET_HALF_LIVES * limits.DEMAND_HALF_LIFE_S
        for name in [name for name, reporter in self._reporters.items() if now_s - reporter.heard_s > limit_s]:
            self._drop(self._reporters.pop(name))


def _rates(report: DemandReport, period_s: float, now_s: float) -> _Rates:
    """The report's rows as rates: all of them, and again those that a service made, by caller."""
    rows: dict[tuple[str, str], float] = {}
    calls: dict[tuple[str, str, str], float] = {}
    for row in report.rows:
        key, rps = (row.service, row.locality), row.attempts / period_s
        rows[key] = rows.get(key, 0.0) + rps
        if row.caller:
            call = (row.service, row.locality, row.caller)
            calls[call] = calls.get(call, 0.0) + rps
    return _Rates(rows, period_s, now_s, calls)


def _replaced(known: _Reporter | None, report: DemandReport) -> int:
    """Rows in memory that the report takes the place of: of its source, or of the boot before all."""
    if known is None:
        return 0
    if known.boot_id != report.boot_id:
        return sum(rates.size for rates in known.rates.values())
    old = known.rates.get(report.source)
    return old.size if old else 0


def _malformed(report: DemandReport) -> str:
    """Why the report makes no sense; names are checked where they are decoded."""
    if not 0 < report.period_s <= PERIOD_MAX_S:
        return f"period_s is {report.period_s}: it must be in 0..{PERIOD_MAX_S:g}"
    if len(report.rows) > limits.DEMAND_ROWS_MAX:
        return f"{len(report.rows)} rows: at most {limits.DEMAND_ROWS_MAX} a report"
    most = limits.RATE_MAX_RPS * max(report.period_s, PERIOD_MIN_S)
    for row in report.rows:
        if not 0 <= row.attempts <= most:
            return f"attempts of service {row.service} is {row.attempts}: no count"
    return ""


def _replayed(known: _Reporter | None, report: DemandReport) -> str:
    if known is None:
        return ""
    if report.boot_id in known.boots:
        return f"replay: boot {report.boot_id} of {report.reporter} is over"
    if report.boot_id == known.boot_id and report.seq <= known.seq:
        return f"replay: seq {report.seq} of {report.reporter} after {known.seq}"
    return ""


def _smooth_all(
    old: Mapping[str, float], new: Mapping[str, float], trends: Mapping[str, Trend], elapsed_s: float
) -> tuple[dict[str, float], dict[str, Trend]]:
    """Smoothed rates of one service, and the trends of those that have one; a locality whose rate is nothing goes."""
    smoothed: dict[str, float] = {}
    after: dict[str, Trend] = {}
    for locality in {**old, **new}:
        before, rps = old.get(locality), new.get(locality, 0.0)
        trend = STEADY
        if before is not None:
            trend = trend_after(trends.get(locality, STEADY), before, rps, elapsed_s)
        value = smooth(before, rps, elapsed_s, trend.gain)
        if value > VANISHED_RPS:
            smoothed[locality] = value
            if trend is not STEADY:
                after[locality] = trend
    return smoothed, after


def trend_after(before: Trend, old: float, new: float, elapsed_s: float) -> Trend:
    """What a report of `new` says of a rate smoothed to `old`.

    With hysteresis: the end of a rise is followed as quickly as its start.
    """
    deviation = math.sqrt(old / limits.DEMAND_REPORT_PERIOD_S)
    if before.rises and new > old + max(RISEN_FRACTION * old, RISEN_DEVIATIONS * deviation):
        return RISING
    unit = max(RISE_FRACTION / RISE_DEVIATIONS * old, deviation)
    if new > old + RISE_DEVIATIONS * unit:
        return RISING
    periods = elapsed_s / limits.DEMAND_REPORT_PERIOD_S
    gain = max(limits.DEMAND_SMOOTHING, before.gain * SETTLING**periods)
    excess = ((new - old) / unit if unit else 0.0) - SURPLUS_SLACK
    surplus = max(0.0, before.surplus + excess * periods)
    if surplus > SURPLUS_MAX:
        return RISING
    return Trend(surplus, gain) if surplus or gain > limits.DEMAND_SMOOTHING else STEADY


def smooth(old: float | None, new: float, elapsed_s: float, gain: float) -> float:
    """The next smoothed rate after `elapsed_s`; the first one is taken as it is.

    `gain`: how much a report counts, of one demand report period.
    """
    if old is None:
        return new
    kept = math.pow(1 - gain, elapsed_s / limits.DEMAND_REPORT_PERIOD_S)
    return new + kept * (old - new)
