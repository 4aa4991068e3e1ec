"""What the flight recorder costs the planner: time of a step with it, and CPU of its own thread.

In one process, as in a replica: the balancer's step on one thread, the recorder's on another. Steps with and without
it alternate, so that whatever else the machine does hits both. `alone`: the recorder is done with the step before, as
it is when steps are a period apart. `side by side`: the next step begins at once, the worst that can be.
"""

import random
import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench.load.planning import NOW_S, planet
from bench.rows import Row, median_row
from bench.stage import progress
from gslb.balancer.inputs import Inputs
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.control.recorder import Recorder
from gslb.recorder.frames import Step
from gslb.recorder.ring import Bounds

GOAL_PERCENT: Final = 2.0
WAIT_S: Final = 60.0


@dataclass(slots=True)
class _Run:
    """One planet from step to step; `inputs` moves a little each time: every service's demand, by noise in the band."""

    inputs: Inputs
    recorder: Recorder
    rng: random.Random
    state: BalancerState = field(default_factory=BalancerState)
    number: int = 0

    def advance(self, *, recorded: bool) -> float:
        """Seconds that the planner spends on one step, handing it to the recorder included."""
        self.number += 1
        now_s = NOW_S + 5.0 * self.number
        demand = {
            name: {locality: rps * self.rng.uniform(0.99, 1.01) for locality, rps in rates.items()}
            for name, rates in self.inputs.demand.items()
        }
        inputs = replace(self.inputs, demand=demand, changed=frozenset())
        before, started_s = self.state, time.perf_counter()
        self.state, decision = step(before, inputs, now_s=now_s)
        if recorded:
            self.recorder.offer(Step(self.number, now_s, before, inputs, decision))
        took_s = time.perf_counter() - started_s
        plans = {name: one.plan for name, one in decision.services.items() if one.changed and one.plan is not None}
        self.inputs = replace(self.inputs, previous={**self.inputs.previous, **plans})
        return took_s

    def written(self) -> None:
        """Waits until the recorder has nothing left to do."""
        deadline_s = time.monotonic() + WAIT_S
        while not self.recorder.idle and time.monotonic() < deadline_s:
            time.sleep(0.005)


def rows(*, quick: bool) -> list[Row]:
    """All of them."""
    services, places, rounds = (50, 10, 3) if quick else (1000, 60, 12)
    progress(f"recorder: {services} services")
    directory = Path(tempfile.mkdtemp(prefix="gslb-recorder-"))
    recorder = Recorder(directory, Bounds(max_bytes=2**30), "bench")
    run = _Run(planet(1, services, places, places), recorder, random.Random(1))
    try:
        for _ in range(3):
            run.advance(recorded=True)
        run.written()
        return _measured(run, f"recorder, {services} services {places}x{places}", rounds)
    finally:
        recorder.close()
        shutil.rmtree(directory)


def _measured(run: _Run, what: str, rounds: int) -> list[Row]:
    without, alone, beside, cpu_ms, kept = [], [], [], [], []
    for _ in range(rounds):
        without.append(run.advance(recorded=False))
        # After a gap the recorder takes down everything; that is measured, and its successor is the rule.
        run.advance(recorded=True)
        run.written()
        size, used_s = run.recorder.size, _cpu_s()
        alone.append(run.advance(recorded=True))
        stepped_s = _cpu_s() - used_s
        run.written()
        cpu_ms.append(1000 * max(0.0, _cpu_s() - used_s - stepped_s))
        kept.append((run.recorder.size - size) / 1e3)
        run.advance(recorded=True)
        beside.append(run.advance(recorded=True))
        run.written()
    base_s = statistics.median(without)
    return [
        median_row(f"{what}: a step, every demand moved, without", [1000 * s for s in without], "ms"),
        median_row(f"{what}: the same with it", [1000 * s for s in alone], "ms"),
        Row(
            f"{what}: planning time added",
            100 * (statistics.median(alone) / base_s - 1),
            "%",
            "of the medians",
            GOAL_PERCENT,
        ),
        Row(
            f"{what}: added when steps follow without a pause",
            100 * (statistics.median(beside) / base_s - 1),
            "%",
            "of the medians",
        ),
        median_row(f"{what}: CPU of its thread a step", cpu_ms, "ms"),
        median_row(f"{what}: disk a step", kept, "kB"),
    ]


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
