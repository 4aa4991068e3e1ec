"""CPU of a task as a line over its load: cpu = idle + cost * load, from a few minutes of noisy samples. PURE.

Two numbers, learned in two ways. `cost` follows from where the samples lie: the line passes through their middle, so
noise in the rates, which would flatten a slope, cancels. `idle` follows from how they spread, and a spread no wider
than noise says nothing: then what was known of it before stands. Single samples far from the line count for
little or nothing.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SAMPLES_MIN: Final = 3
PASSES: Final = 2
# A sample counts half after this, and fully while it is this near to the line; not at all from so far on.
SAMPLE_HALF_LIFE_S: Final = 60.0
NEAR_FRACTION: Final = 0.15
FAR_FRACTION: Final = 0.35
# Noise of one sample relative to its CPU: taken at first, and what is measured is believed within these bounds.
NOISE_FRACTION: Final = 0.1
NOISE_FRACTION_MIN: Final = 0.03
# CPU below this is a clock's grain.
NOISE_CPU: Final = 0.005
# Loads that vary by less than this fraction tell nothing of the idle CPU.
SPREAD_FRACTION: Final = 0.08
# Nor do loads of which more than this part of the spread comes and goes from sample to sample.
SLOW_PART: Final = 0.5
# How well idle CPU is known before anything was seen, and at best (standard deviations, in cores used over declared).
IDLE_UNKNOWN: Final = 0.05
IDLE_KNOWN: Final = 0.01
IDLE_SEEN: Final = 0.03  # by one look at a task without load
# Idle CPU takes at most these parts of the target, and of the CPU seen.
IDLE_OF_TARGET_MAX: Final = 0.5
IDLE_OF_SEEN_MAX: Final = 0.9
# Loaded tasks that use less than this part of what is taken for their idle CPU show that it is none.
IDLE_REFUTED_FRACTION: Final = 0.95
# So many samples of the same error in the same direction are another regime: what was before is forgotten.
SHIFT_SAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """Reports of one moment, mean of a job's tasks: CPU used over declared cores, and load in rps a task."""

    at_s: float
    load_rps: float
    cpu: float
    tasks: int


@dataclass(frozen=True, slots=True)
class Idle:
    """What is known of the CPU without load: a value and how much it weighs (1 / variance)."""

    cpu: float = 0.0
    precision: float = IDLE_UNKNOWN**-2

    @property
    def is_known(self) -> bool:
        """Whether something was seen of it; what was seen long ago is known no more."""
        return self.precision >= IDLE_SEEN**-2


UNKNOWN_IDLE: Final = Idle()


@dataclass(frozen=True, slots=True)
class Line:
    """The fit. `cost` is CPU per rps. `spread` is how much the samples say of `idle`, as a precision."""

    idle: float
    cost: float
    cpu: float = 0.0  # of the samples' middle
    samples: float = 1.0  # how many whole samples they amount to
    noise: float = NOISE_FRACTION  # of a sample, relative
    spread: float = 0.0
    spread_idle: float = 0.0  # idle by the samples alone

    def cpu_at(self, load_rps: float) -> float:
        """Expected CPU under this load."""
        return self.idle + self.cost * load_rps

    def load_at(self, target: float) -> float:
        """rps a task at which CPU reaches `target`."""
        return (target - self.idle) / self.cost

    def relative_error(self, target: float, idle: Idle) -> float:
        """One standard deviation of `load_at`, as a fraction of it.

        An idle CPU taken too high makes the cost too low: near the target the two cancel, far below they do not.
        """
        idle_sd = (idle.precision + self.spread) ** -0.5
        lever = abs(1 / (self.cpu - self.idle) - 1 / (target - self.idle))
        return math.hypot(self.noise / math.sqrt(self.samples), idle_sd * lever)


def fit(samples: Sequence[Sample], idle: Idle, target: float) -> Line | None:
    """The line through `samples` (oldest first, each with load), None when they are too few or say nothing."""
    if len(samples) < SAMPLES_MIN:
        return None
    cost = statistics.median((sample.cpu - idle.cpu) / sample.load_rps for sample in samples)
    if not 0 < cost < math.inf:
        return None
    newest_s = samples[-1].at_s
    tasks = max(sample.tasks for sample in samples)
    weights = [0.5 ** ((newest_s - sample.at_s) / SAMPLE_HALF_LIFE_S) * sample.tasks / tasks for sample in samples]
    line: Line | None = Line(idle.cpu, cost)
    for _ in range(PASSES):
        if line is not None:
            line = _closer(samples, weights, line, idle, target)
    return line


def shifted(samples: Sequence[Sample], line: Line) -> bool:
    """Whether the newest samples all lie on the same side of `line`, far off: another cost, not noise."""
    newest = [sample.cpu / max(line.cpu_at(sample.load_rps), NOISE_CPU) - 1 for sample in samples[-SHIFT_SAMPLES:]]
    if len(samples) <= SHIFT_SAMPLES:
        return False
    return min(newest) > NEAR_FRACTION or max(newest) < -NEAR_FRACTION


@dataclass(slots=True)
class _Sums:
    """Weighted sums of points."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, weight: float, x: float, y: float) -> None:
        self.weight += weight
        self.x += weight * x
        self.y += weight * y
        self.xx += weight * x * x
        self.xy += weight * x * y


def _slow_spread(sums: _Sums, steps: _Sums, x: float, y: float) -> tuple[float, float]:
    """How far loads spread around their middle (x, y) without what comes and goes from sample to sample, and the slope.

    Rates and CPU are measured over moments that do not quite match. That looks like load without CPU, and a slope
    through it is too flat. Half the mean square of the steps between samples is what such noise adds to the spread.
    """
    if not steps.weight:
        return 0.0, 0.0
    fast = sums.weight / (2 * steps.weight)
    all_spread = sums.xx - sums.x * x
    spread = all_spread - fast * steps.xx
    if spread <= max(SLOW_PART * all_spread, sums.weight * (SPREAD_FRACTION * x) ** 2):
        return 0.0, 0.0
    return spread - sums.weight * (SPREAD_FRACTION * x) ** 2, (sums.xy - sums.x * y - fast * steps.xy) / spread


def _closer(samples: Sequence[Sample], weights: Sequence[float], line: Line, idle: Idle, target: float) -> Line | None:
    """The line after weighing every sample by its distance from `line`."""
    count = squares = 0.0
    sums, steps = _Sums(), _Sums()
    before: tuple[float, float, float] | None = None
    for sample, trust in zip(samples, weights, strict=True):
        x, y = sample.load_rps, sample.cpu
        expected = max(line.idle + line.cost * x, NOISE_CPU)
        off = abs(y / expected - 1)
        if off >= FAR_FRACTION:
            continue
        near = trust if off <= NEAR_FRACTION else trust * (FAR_FRACTION - off) / (FAR_FRACTION - NEAR_FRACTION)
        count += near
        squares += near * off * off
        weight = near / (expected * expected)
        sums.add(weight, x, y)
        if before is not None:
            steps.add(min(weight, before[0]), x - before[1], y - before[2])
        before = (weight, x, y)
    if count < 1.0:
        return None
    # Two of the samples' errors were spent on the line itself.
    noise = math.sqrt((squares + 2 * NOISE_FRACTION**2) / count)
    noise = min(max(noise, NOISE_FRACTION_MIN), NOISE_FRACTION)
    x, y = sums.x / sums.weight, sums.y / sums.weight
    spread, slope = _slow_spread(sums, steps, x, y)
    spread /= (x * noise) ** 2
    spread_idle = y - slope * x
    known = (idle.precision * idle.cpu + spread * spread_idle) / (idle.precision + spread)
    known = min(max(known, 0.0), IDLE_OF_TARGET_MAX * target, IDLE_OF_SEEN_MAX * y)
    if y <= known:
        return None
    return Line(known, (y - known) / x, y, count, noise, spread, spread_idle)


def learned_idle(idle: Idle, line: Line, target: float, gain: float) -> Idle:
    """`idle` with part `gain` of what the samples say of it, so that it outlives them."""
    if line.spread <= 0:
        # What was once known is slowly taken less seriously.
        precision = idle.precision + gain / 10 * (UNKNOWN_IDLE.precision - idle.precision)
        return Idle(idle.cpu, precision)
    trust = line.spread / (line.spread + idle.precision)
    seen = min(max(line.spread_idle, 0.0), IDLE_OF_TARGET_MAX * target)
    most = IDLE_KNOWN**-2
    return Idle(
        idle.cpu + gain * trust * (seen - idle.cpu),
        min(idle.precision + gain * line.spread, most),
    )


def refuted(idle: Idle, samples: Sequence[Sample]) -> bool:
    """Whether the newest samples show less CPU under load than is taken for that without: something else ran then."""
    newest = samples[-SHIFT_SAMPLES:]
    return len(newest) == SHIFT_SAMPLES and (
        math.fsum(sample.cpu for sample in newest) < IDLE_REFUTED_FRACTION * SHIFT_SAMPLES * idle.cpu
    )


def suggested_idle(cpu: float | None) -> Idle:
    """What others of its kind suggest for a job of which nothing else is known."""
    return UNKNOWN_IDLE if cpu is None else Idle(cpu, IDLE_SEEN**-2)


def seen_idle(idle: Idle, cpu: float) -> Idle:
    """`idle` after a look at a task with next to no load."""
    weight = IDLE_SEEN**-2
    return Idle(
        idle.cpu + weight / (weight + idle.precision) * (cpu - idle.cpu), min(idle.precision + weight, IDLE_KNOWN**-2)
    )
